"""Leased work, of which a service only says what an attempt does and what follows from its end."""

from work.ends import Done, End, Failed, GiveUp, Lost, OutOfAttempts, PutOff
from work.held import Held
from work.policy import Policy
from work.queue import WorkQueue
from work.worker import Kind, LeasedWorker

__all__ = [
    "Done",
    "End",
    "Failed",
    "GiveUp",
    "Held",
    "Kind",
    "LeasedWorker",
    "Lost",
    "OutOfAttempts",
    "Policy",
    "PutOff",
    "WorkQueue",
]

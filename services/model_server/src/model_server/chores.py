"""What the engine's thread does for others between two steps, as it alone may touch the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Chore(Generic[T]):
    """Something that the engine's thread does between two steps.

    Attributes:
        work: what is to be done.
        done: gets what comes of it.
    """

    work: Callable[[], T]
    done: Future[T] = field(default_factory=Future)

    def do(self) -> None:
        """Do it, unless nobody waits for it any more."""
        if not self.done.set_running_or_notify_cancel():
            return
        try:
            self.done.set_result(self.work())
        except Exception as error:  # handed to whoever waits for the future
            self.done.set_exception(error)

"""What accounts does with tenants, people and keys. Every change leaves a line in the audit trail.

The line comes first: no change is without one, even if the service is killed between the two.
"""

from accounts.use_cases.dead_letters import ReplayLetters
from accounts.use_cases.keys import KeyFacts, Keys
from accounts.use_cases.leftovers import Left, Leftovers
from accounts.use_cases.limits import Limits, actor_of
from accounts.use_cases.people import People
from accounts.use_cases.tenants import Tenants

__all__ = ["KeyFacts", "Keys", "Left", "Leftovers", "Limits", "People", "ReplayLetters", "Tenants", "actor_of"]

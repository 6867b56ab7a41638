"""An attempt at an evaluation, and what follows from its end."""

from __future__ import annotations

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, SartorError, Transient
from evaluator.domain import Evaluation
from evaluator.proxy import FOR_GOOD, NotServed
from evaluator.settings import Settings
from evaluator.use_cases import Evaluate
from work import End, Failed, GiveUp, Held, Kind, Policy, PutOff

log = structlog.get_logger()

MOST_REFUSALS = 3
"""Attempts at an arm that is not the one that was fitted, or is gone: its job waits for the end of its test."""

MOST_DEATHS = 20
"""Workers that may die of an evaluation, one after the other, before a person is asked to decide without scores."""


def policy(settings: Settings) -> Policy:
    """How long an evaluation is held, and how often it is tried."""
    return Policy(
        lease_seconds=settings.evaluator_lease_seconds,
        most_failures=settings.evaluator_attempts,
        most_deaths=MOST_DEATHS,
        retry_seconds=settings.evaluator_retry_seconds,
        retry_growth=20,
        idle_seconds=settings.evaluator_poll_seconds,
    )


class Evaluating(Kind[Evaluation]):
    """Carries an evaluation through; an adapter's that cannot be is left to a person."""

    name = "evaluation"

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate

    async def attempt(self, one: Evaluation, held: Held[Evaluation]) -> None:
        """Ask what is not answered yet, then judge.

        Raises:
            End: nobody can be asked yet, an engine that breaks counts, or these rows can never be tested.
        """
        crash_point("evaluator.claimed")
        log.info("evaluation_started", model_id=one.model_id, fence=one.lease.fence)
        try:
            await held.while_ours(self._evaluate.run(one))
        except NotServed as error:
            raise PutOff(await self._evaluate.wait(one, error), error.message) from error
        except Transient as error:
            if one.arm and error.code in FOR_GOOD and one.lease.failures + 1 >= MOST_REFUSALS:
                raise GiveUp(error.message, error=error) from error
            raise Failed(error) from error
        except Conflict:
            raise
        except SartorError as error:
            raise GiveUp(error.message, error=error) from error

    async def ended(self, one: Evaluation, end: End) -> None:
        """Say why another attempt is made, or leave the decision to a person."""
        if isinstance(end, GiveUp):
            await self._evaluate.give_up(one, end.reason)
        elif isinstance(end, Failed) or (isinstance(end, PutOff) and end.cause is not None):
            await self._evaluate.put_back(one, str(end))

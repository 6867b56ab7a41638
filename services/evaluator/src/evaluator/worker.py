"""Claims evaluations by lease and carries them through; a lost lease or a cancelled evaluation stops the work."""

from __future__ import annotations

import asyncio

import structlog
from prometheus_client import Counter, Histogram

from chassis.crash import crash_point
from chassis.errors import Conflict, SartorError, Transient
from evaluator.domain import Evaluation
from evaluator.engine import AdapterNotFound
from evaluator.settings import Settings
from evaluator.store import Evaluations
from evaluator.use_cases import Evaluate
from stores.mongo import PyMongoError

log = structlog.get_logger()

ATTEMPTS = Counter("evaluation_attempts_total", "Attempts at evaluations by outcome.", ["outcome"])
SECONDS = Histogram(
    "evaluation_seconds", "Time of one attempt.", buckets=(1, 2, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
)


class Worker:
    """One slot: does one evaluation at a time.

    Args:
        settings: lease and poll times.
        evaluations: where work is claimed.
        evaluate: does it.
        owner: name of this worker in leases.
    """

    def __init__(self, settings: Settings, evaluations: Evaluations, evaluate: Evaluate, owner: str) -> None:
        self._settings = settings
        self._evaluations = evaluations
        self._evaluate = evaluate
        self._owner = owner

    async def run(self) -> None:
        """Claim and work until cancelled."""
        while True:
            evaluation = await self._evaluations.claim(self._owner, self._settings.evaluator_lease_seconds)
            if evaluation is None:
                await asyncio.sleep(self._settings.evaluator_poll_seconds)
                continue
            structlog.contextvars.bind_contextvars(evaluation_id=evaluation.id, tenant_id=evaluation.tenant_id)
            with SECONDS.time():
                await self._hold_and_work(evaluation)
            structlog.contextvars.unbind_contextvars("evaluation_id", "tenant_id")

    async def _hold_and_work(self, evaluation: Evaluation) -> None:
        """Work while the lease is ours; give it back where the work was stopped half-way."""
        work = asyncio.create_task(self._attempt(evaluation))
        lease = asyncio.create_task(self._keep_lease(evaluation))
        try:
            await asyncio.wait({work, lease}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped = not work.done()
            work.cancel()
            lease.cancel()
            await asyncio.gather(work, lease, return_exceptions=True)
            if stopped:  # by the end of this replica, of the lease, or of anybody's interest in the result
                log.warning("evaluation_stopped")
                ATTEMPTS.labels("stopped").inc()
                await self._release(evaluation)

    async def _attempt(self, evaluation: Evaluation) -> None:
        crash_point("evaluator.claimed")
        log.info("evaluation_started", model_id=evaluation.model_id, fence=evaluation.lease.fence)
        try:
            await self._evaluate.run(evaluation)
            ATTEMPTS.labels("completed").inc()
        except Conflict as error:  # over, or claimed by another worker: nothing left to do here
            log.warning("evaluation_left", error=error.message)
            ATTEMPTS.labels("left").inc()
        except Exception as error:  # the boundary of an attempt: whatever went wrong is written down and tried again
            await self._record_failure(evaluation, error)

    async def _record_failure(self, evaluation: Evaluation, error: Exception) -> None:
        missing = isinstance(error, AdapterNotFound)
        if not missing:
            log.warning("evaluation_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        ATTEMPTS.labels("put_off" if missing else "failed").inc()
        try:
            if isinstance(error, AdapterNotFound):
                await self._evaluate.put_off(evaluation, error)
            elif isinstance(error, SartorError) and not error.transient:
                await self._evaluate.give_up(evaluation, error.message)
            else:
                passing = error if isinstance(error, Transient) else Transient(f"{type(error).__name__}: {error}")
                await self._evaluate.put_back(evaluation, passing)
        except (SartorError, PyMongoError) as second:  # the lease runs out, and another attempt is made
            log.warning("evaluation_failure_not_recorded", error=f"{type(second).__name__}: {second}")

    async def _keep_lease(self, evaluation: Evaluation) -> None:
        """Renew the lease until it is lost or the evaluation is over."""
        seconds = self._settings.evaluator_lease_seconds
        clock = asyncio.get_running_loop().time
        held_until = clock() + seconds
        while clock() < held_until:
            await asyncio.sleep(seconds / 4)
            asked = clock()
            try:
                if not await self._evaluations.still_ours(evaluation, seconds):
                    return
                held_until = asked + seconds
            except PyMongoError as error:
                log.warning("lease_not_renewed", error=type(error).__name__)

    async def _release(self, evaluation: Evaluation) -> None:
        try:
            await self._evaluations.release(evaluation)
        except PyMongoError as error:
            log.warning("lease_not_released", error=type(error).__name__)

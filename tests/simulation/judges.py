"""The evaluator and the approvers of a simulated run."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import Any, Literal

from chassis.errors import SartorError
from chassis.ids import derived_id
from registry.api import DecisionRequest
from schemas import EvaluationCompleted, Interval, ModelRegistered, ObjectRef
from schemas.artifacts import ArmKind
from tests.simulation.http import Application
from tests.simulation.world import World, principal_of

VERDICTS: tuple[Literal["pass", "fail", "needs_human"], ...] = ("pass", "pass", "pass", "fail", "needs_human")


class Judges:
    """They follow the log, and may say what they say more than once.

    Args:
        world: what they follow and tell.
        chance: of the run.

    Attributes:
        busy: how many versions they are at.
    """

    def __init__(self, world: World, chance: Random) -> None:
        self._world, self._history, self._chance = world, world.history, chance
        self.busy = 0
        self._seen = 0
        self._evaluated: set[str] = set()

    async def follow(self) -> None:
        """Judge every version that is registered, for ever."""
        while True:
            entries = self._history.entries
            while self._seen < len(entries):
                entry, self._seen = entries[self._seen], self._seen + 1
                if entry.headers.get("ce_type") == ModelRegistered.type and entry.event_id not in self._evaluated:
                    self._evaluated.add(entry.event_id)
                    self.busy += 1
                    event = ModelRegistered.model_validate_json(entry.value)
                    self._world.loop.world.spawn(self._evaluate(event))
            await asyncio.sleep(1)

    async def _evaluate(self, event: ModelRegistered) -> None:
        verdict = self._chance.choice(VERDICTS)
        await asyncio.sleep(self._chance.uniform(0.5, 5))
        beaten_by = self._beaten_by(event)
        below_base = self._below_base(event)
        completed = EvaluationCompleted(
            tenant_id=event.tenant_id,
            evaluation_id=derived_id("ev-", event.model_id),
            model_id=event.model_id,
            verdict=verdict,
            reason="57 of 58.",
            metric="accuracy",
            scores=dict.fromkeys(
                filter(None, ("candidate", beaten_by, below_base)), Interval(value=0.9, low=0.8, high=1.0, n=58)
            ),
            beaten_by=beaten_by,
            below_base=below_base,
            evidence=ObjectRef(bucket="sartor", key="evidence", sha256="0" * 64, size=1),
        )
        await self._world.publish(completed, "evaluator")
        if verdict == "needs_human":
            await self._decide(event)
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.uniform(0, 10))
            await self._world.publish(completed, "evaluator")
        self.busy -= 1

    def _beaten_by(self, event: ModelRegistered) -> ArmKind | None:
        """The arm that goes on serving."""
        return self._arm_beside(event, 0.4)

    def _below_base(self, event: ModelRegistered) -> ArmKind | None:
        """The arm that is worse than the base model; now and then the one that is said to go on."""
        return self._arm_beside(event, 0.2)

    def _arm_beside(self, event: ModelRegistered, share: float) -> ArmKind | None:
        """The arm of an adapter's name: mostly one that serves, seldom one of which the evaluator heard too early."""
        models = self._world.databases["registry"]["models"].documents.values()
        arms = [it for it in models if it["job_id"] == event.job_id and it["arm"] is not None]
        claims = [it["arm"]["kind"] for it in arms if it["state"] == "production" or self._chance.random() < 0.2]
        return claims[0] if claims and event.arm is None and self._chance.random() < share else None

    async def _decide(self, event: ModelRegistered) -> None:
        """A person decides, once the model waits for one."""
        name = "approve" if self._chance.random() < 0.6 else "reject"

        async def decide(api: Application) -> Any:
            route = f"POST /v1/registry/models/{{model:path}}/{name}"
            said = DecisionRequest(note="ok")
            return await api.ask(route, model=event.model_id, principal=principal_of(event.tenant_id), request=said)

        documents = self._world.databases["registry"]["models"].documents
        while True:
            model = documents.get(event.model_id)
            if model is not None and (model["state"] not in ("candidate", "awaiting_approval") or model["promotion"]):
                return
            if model is not None and model["state"] == "awaiting_approval":
                with contextlib.suppress(SartorError):
                    await self._world.request("registry", decide)
            await asyncio.sleep(1)

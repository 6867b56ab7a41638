"""The evaluator's documents and objects, in its own words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Conflict, Invalid, NotFound
from evaluator.domain import OPEN, Evaluation, State
from evaluator.rows import Row, parse_rows
from evaluator.windows import Window, read_windows
from eventbus import AggregateStore
from schemas import ObjectRef
from schemas.artifacts import HELDOUT, MANIFEST, AdapterManifest, HeldoutText
from stores.mongo import ASCENDING, Collection, Query, ensure_index
from stores.objects import Objects
from stores.orphans import Orphans

IS_ARM: Query = {"arm": {"$gt": ""}}
ARMS: Query = {**IS_ARM, "generates": {"$ne": True}}
"""Which evaluations are those of arms that answer themselves: seconds of work, for which people wait."""


class Answer(BaseModel):
    """What one system answered to one row.

    Attributes:
        system: who was asked.
        row: place of the held-out row, or of the window of held-out text.
        text: the answer; empty if it was refused.
        losses: of a window, what each of its tokens but the first was worth, as nats of loss.
        refused: why this row cannot be answered at all.
        cost: at the base model's price; None where it has none.
        seconds: from the request to the whole answer.
        confidence: how sure an arm that gave it is.
        scores: those that had to be waited for, by the metric's key.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    system: str
    row: int
    text: str = ""
    losses: list[float] = Field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    seconds: float = 0.0
    refused: str | None = None
    cost: float | None = None
    confidence: float | None = None
    scores: dict[str, float] = Field(default_factory=dict)


Given = dict[tuple[str, int], Answer]
"""Answers by who was asked and the row."""


class Evaluations:
    """The evaluations.

    Args:
        aggregates: the evaluations.
        deleted_rows: where held-out rows lay that are deleted, for candidates of theirs that come late.
    """

    def __init__(self, aggregates: AggregateStore[Evaluation], deleted_rows: Collection) -> None:
        self._evaluations = aggregates
        self._deleted_rows = deleted_rows

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._evaluations.collection, [("state", ASCENDING), ("created_at", ASCENDING)])
        await ensure_index(self._evaluations.collection, [("model_id", ASCENDING)])
        await ensure_index(self._evaluations.collection, [("tenant_id", ASCENDING), ("heldout.sha256", ASCENDING)])
        await ensure_index(self._evaluations.collection, [("tenant_id", ASCENDING), ("heldout.key", ASCENDING)])
        await ensure_index(self._evaluations.collection, [("content", ASCENDING)])
        lane = ("arm", "state", "tenant_id", "lease.until_ms")
        await ensure_index(self._evaluations.collection, [(name, ASCENDING) for name in lane])

    async def add_once(self, evaluation: Evaluation) -> Evaluation:
        """Add the evaluation of a model, or return the one the model has."""
        return await self._evaluations.add_once(evaluation)

    async def get(self, tenant_id: str, evaluation_id: str, where: Mapping[str, str] | None = None) -> Evaluation:
        """The tenant's evaluation.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        found = await self._evaluations.find_one(tenant_id, {**(where or {}), "_id": evaluation_id})
        if found is None:
            raise NotFound(
                f"There is no evaluation '{evaluation_id}', or it is not yours.", code="evaluation_not_found"
            )
        return found

    async def ended(self, ids: list[str]) -> AsyncIterator[Evaluation]:
        """Those of these evaluations, of all tenants, that are over: for background work only."""
        async for evaluation in self._evaluations.readable({"_id": {"$in": ids}, "state": {"$nin": list(OPEN)}}):
            yield evaluation

    async def of_model(self, tenant_id: str, model_id: str) -> Evaluation | None:
        """The evaluation of a model, if it has one."""
        return await self._evaluations.find_one(tenant_id, {"model_id": model_id})

    async def on_rows(self, tenant_id: str, heldout: ObjectRef) -> list[Evaluation]:
        """The tenant's evaluations that quote the held-out rows at this place, whatever others hold the same."""
        return await self._evaluations.find(tenant_id, {"heldout.key": heldout.key, "content": {"$in": ["kept", None]}})

    async def note_deleted(self, tenant_id: str, heldout: ObjectRef) -> None:
        """Remember that held-out rows are deleted."""
        await self._deleted_rows.update_one({"_id": heldout.key}, {"$set": {"tenant_id": tenant_id}}, upsert=True)

    async def are_deleted(self, tenant_id: str, heldout: ObjectRef) -> bool:
        """Whether held-out rows are deleted."""
        return await self._deleted_rows.find_one({"_id": heldout.key, "tenant_id": tenant_id}) is not None

    async def unwanted(self) -> AsyncIterator[Evaluation]:
        """Evaluations, of all tenants, whose evidence is to be removed: for background work only."""
        async for evaluation in self._evaluations.readable({"content": "unwanted"}):
            yield evaluation

    async def count_earlier(self, evaluation: Evaluation) -> int:
        """How many candidates of the tenant were judged on the same held-out rows before: adapters, or else arms."""
        query: Query = {
            "tenant_id": evaluation.tenant_id,
            "heldout.sha256": evaluation.dataset.heldout.sha256,
            "_id": {"$ne": evaluation.id},
            "state": "completed",
            "scores": {"$ne": {}},
            "arm": IS_ARM["arm"] if evaluation.arm else None,
        }
        return int(await self._evaluations.collection.count_documents(query))

    async def orphaned_evidence(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Evidence of attempts that did not decide an evaluation which is over."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        found = {evaluation.id: evaluation async for evaluation in self._evaluations.for_service(query)}
        over = [evaluation for evaluation in found.values() if evaluation.state not in OPEN]
        named = {evaluation.evidence.key for evaluation in over if evaluation.evidence}
        return Orphans(
            removable=[key for evaluation in over for key in folders[evaluation.id] if key not in named],
            unknown=[key for evaluation_id, keys in folders.items() if evaluation_id not in found for key in keys],
        )

    async def page_of(
        self,
        tenant_id: str,
        where: Mapping[str, str],
        *,
        model_id: str | None,
        state: State | None,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[Evaluation]:
        """The tenant's evaluations that meet the further conditions of `where`, of one model, or in one state."""
        wanted = {"model_id": model_id, "state": state}
        query = {**where, **{name: value for name, value in wanted.items() if value is not None}}
        return await self._evaluations.find(tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def write(self, evaluation: Evaluation, change: Callable[[Evaluation], None]) -> Evaluation:
        """Apply a worker's change, refused once another worker has claimed the evaluation."""
        return await self._evaluations.update(evaluation.tenant_id, evaluation.id, change, fence=evaluation.lease.fence)

    async def update(self, tenant_id: str, evaluation_id: str, change: Callable[[Evaluation], None]) -> Evaluation:
        """Apply anybody else's change."""
        return await self._evaluations.update(tenant_id, evaluation_id, change)


class Answers:
    """Answers given so far, one document each, kept until the evidence holds them.

    A row is answered once for each system: a second answer, from a worker that lost its lease, changes nothing.
    """

    def __init__(self, collection: Collection) -> None:
        self._answers = collection

    async def prepare(self) -> None:
        """Create the index."""
        await ensure_index(self._answers, [("tenant_id", ASCENDING), ("evaluation_id", ASCENDING)])

    async def keep(self, evaluation: Evaluation, answer: Answer) -> None:
        """Store an answer unless there is one."""
        key = _key(evaluation, answer)
        facts = {**answer.model_dump(), "tenant_id": evaluation.tenant_id, "evaluation_id": evaluation.id}
        await self._answers.update_one({"_id": key}, {"$setOnInsert": facts}, upsert=True)

    async def keep_score(self, evaluation: Evaluation, answer: Answer, key: str, score: float) -> None:
        """Store, by its key, what a metric found of an answer; one that is forgotten meanwhile stays forgotten."""
        await self._answers.update_one({"_id": _key(evaluation, answer)}, {"$set": {f"scores.{key}": score}})

    async def of(self, evaluation: Evaluation) -> list[Answer]:
        """All answers so far."""
        found = self._answers.find(_belongs(evaluation))
        return [Answer.model_validate(document) async for document in found]

    async def count(self, evaluation: Evaluation) -> int:
        """How many answers there are so far."""
        return int(await self._answers.count_documents(_belongs(evaluation)))

    async def owners(self) -> list[str]:
        """Ids of the evaluations, of all tenants, that have answers: for background work only."""
        return [str(evaluation_id) for evaluation_id in await self._answers.distinct("evaluation_id")]

    async def forget(self, evaluation: Evaluation) -> None:
        """Remove the answers: the evidence holds them, or nobody wants them any more."""
        await self._answers.delete_many(_belongs(evaluation))


def _key(evaluation: Evaluation, answer: Answer) -> str:
    return f"{evaluation.id}:{answer.system}:{answer.row}"


def _belongs(evaluation: Evaluation) -> dict[str, str]:
    return {"tenant_id": evaluation.tenant_id, "evaluation_id": evaluation.id}


class Artifacts:
    """Rows and texts read from, and evidence written to, the object store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def rows(self, ref: ObjectRef) -> list[Row]:
        """The rows of a split.

        Raises:
            NotFound, DigestMismatch: the object is gone or is not the one meant.
            Invalid: a line is no row.
        """
        data = await self._objects.get_bytes(ref)
        return await asyncio.to_thread(parse_rows, data, ref.key.rsplit("/", 1)[-1])

    async def heldout_text(self, evaluation: Evaluation) -> HeldoutText:
        """What a candidate's run held out.

        Raises:
            NotFound, DigestMismatch: the object is gone or is not the one meant.
            Invalid: the run did not say, or not in a way that is known here.
        """
        manifest = evaluation.adapter_manifest
        files = AdapterManifest.model_validate_json(await self._objects.get_bytes(manifest)).files if manifest else {}
        if manifest is None or HELDOUT not in files:
            message = "The training run did not say which text it held out, by which the model would be judged."
            raise Invalid(message, code="nothing_held_out")
        key = f"{manifest.key.removesuffix(MANIFEST)}{HELDOUT}"
        ref = ObjectRef(bucket=manifest.bucket, key=key, **files[HELDOUT].model_dump())
        data = await self._objects.get_bytes(ref)
        try:
            return HeldoutText.model_validate_json(data)
        except ValueError as error:
            message = "The training run said which text it held out in a way that this release does not know."
            raise Invalid(message, code="heldout_unknown") from error

    async def windows(self, ref: ObjectRef, heldout: HeldoutText) -> list[Window]:
        """The windows of a text that were held out, as they stand there.

        Raises:
            DigestMismatch: the object is not the one meant.
            Invalid: they do not stand there, or the text is deleted.
        """
        try:
            data = await self._objects.get_bytes(ref)
        except NotFound as error:
            message = "The text that the model learned from was deleted, so there is nothing left to test it on."
            raise Invalid(message, code="text_deleted") from error
        return await asyncio.to_thread(read_windows, data, heldout)

    async def put_evidence(self, evaluation: Evaluation, evidence: dict[str, Any]) -> ObjectRef:
        """Write the report under this attempt's own key, so that a late worker cannot change what was published."""
        key = (
            f"tenants/{evaluation.tenant_id}/evaluations/{evaluation.id}/attempt-{evaluation.lease.fence}/evidence.json"
        )
        data = json.dumps(evidence, ensure_ascii=False, indent=1).encode()
        return await self._objects.put_bytes(key, data, "application/json")

    async def delete_evidence(self, evaluation: Evaluation) -> None:
        """Remove whatever attempts at an evaluation reported."""
        await self._objects.delete_prefix(f"tenants/{evaluation.tenant_id}/evaluations/{evaluation.id}/")

    async def evidence(self, evaluation: Evaluation) -> bytes:
        """The report as stored.

        Raises:
            NotFound: it was deleted with the model or the rows.
            Conflict: there is none yet.
        """
        if evaluation.content != "kept":
            raise NotFound(
                f"The evidence of evaluation {evaluation.id} was deleted with its model, or with the rows.",
                code="evidence_deleted",
            )
        if evaluation.evidence is None:
            raise Conflict(
                f"Evaluation {evaluation.id} is {evaluation.state}; its evidence is there once it is completed.",
                code="evidence_not_ready",
            )
        return await self._objects.get_bytes(evaluation.evidence)

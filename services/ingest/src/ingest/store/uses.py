"""What rests on files: jobs that are not over, and the versions of the models they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stores.mongo import Collection, Query, ensure_index

MOST_USES = 20
"""Jobs and models that are read of those that rest on one file: to know that there are some, and to name them."""

Version = Literal["adapter", "arm"]
"""Of the versions of a job's model, its field says `there` or `gone`."""


@dataclass(frozen=True)
class Use:
    """A job that needs a file's rows, or the model it made, which is known by them."""

    job_id: str
    model_id: str | None

    @property
    def sentence(self) -> str:
        """What it is, for the file's owner."""
        return f"model {self.model_id} was made from it" if self.model_id else f"job {self.job_id} needs it"


class Uses:
    """What rests on files, as trainer and registry say: jobs that are not over, and models that are not at their end.

    Args:
        collection: one document for each job; one that is over stays, for an event that comes late.
    """

    def __init__(self, collection: Collection) -> None:
        self._uses = collection

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._uses, [("tenant_id", 1), ("training_file", 1)])
        await ensure_index(self._uses, [("tenant_id", 1), ("validation_file", 1)])

    async def note(self, tenant_id: str, job_id: str, **facts: str | bool | None) -> None:
        """Keep what is said of a job."""
        await self._uses.update_one({"_id": job_id, "tenant_id": tenant_id}, {"$set": facts}, upsert=True)

    async def note_version(self, tenant_id: str, job_id: str, which: Version, *, there: bool) -> None:
        """Keep that a version of a job's model is there, or is at its end, after which it is not there again."""
        changes: Query = {which: "gone"}
        if there:
            gone = {"$eq": [f"${which}", "gone"]}
            changes = {which: {"$cond": [gone, "gone", "there"]}, "lost": {"$cond": [gone, "$lost", False]}}
        await self._uses.update_one({"_id": job_id, "tenant_id": tenant_id}, [{"$set": changes}], upsert=True)

    async def settle(self, tenant_id: str, job_id: str) -> None:
        """A job rests on nothing any more once no version of its model is there, nor to come.

        One that succeeded makes no further version, and an adapter is mostly the last; an arm that comes later is said.
        """
        nothing_comes: Query = {"$or": [{"adapter": "gone"}, {"succeeded": True, "trained": {"$ne": True}}]}
        query = {"_id": job_id, "tenant_id": tenant_id, "arm": {"$ne": "there"}, **nothing_comes}
        await self._uses.update_one(query, {"$set": {"lost": True}})

    async def files_of(self, tenant_id: str, job_id: str) -> list[str]:
        """The files that a job was given."""
        found = await self._uses.find_one({"_id": job_id, "tenant_id": tenant_id}) or {}
        return [found[name] for name in ("training_file", "validation_file") if found.get(name)]

    async def of(self, tenant_id: str, file_id: str) -> list[Use]:
        """Who rests on a file's rows, the first of them; a model was made from what it was trained on alone."""
        there = {"tenant_id": tenant_id, "over": {"$ne": True}, "lost": {"$ne": True}}
        validates: Query = {"validation_file": file_id, "trained": {"$ne": True}, "succeeded": {"$ne": True}}
        as_what: tuple[Query, ...] = ({"training_file": file_id}, validates)
        found = [use for where in as_what async for use in self._uses.find({**there, **where}).limit(MOST_USES)]
        return [Use(use["_id"], use.get("model_id")) for use in found]

"""Projects, tasks and feedback in MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chassis.errors import Conflict, NotFound
from chassis.ids import derived_id, now
from chassis.text import quoted
from eventbus import AggregateStore
from labeling.domain import Project, Task
from schemas import FeedbackDeleted, FeedbackRecorded
from stores.leases import Holds
from stores.mongo import Collection, Document, Query, ensure_index
from stores.orphans import Orphans
from stores.paging import NEWEST_FIRST, page

BATCH = 250

OPEN: Query = {"state": {"$in": ["open", None]}}
TO_PURGE: Query = {"state": "deleted"}

IN_ORDER = [("position", 1), ("_id", 1)]
"""Of tasks; two that were skipped at once share a position."""


class Labels:
    """The service's documents, in its own words.

    Args:
        projects: the projects.
        tasks: their texts and answers.
        feedback: the inbox.
        deleted_files: ids of files that are gone, for rows of theirs that come late.
    """

    def __init__(
        self, projects: AggregateStore[Project], tasks: Collection, feedback: Collection, deleted_files: Collection
    ) -> None:
        self._projects = projects
        self._tasks = tasks
        self._holds = Holds(tasks, holder="holder", until_ms="held_until_ms")
        self._feedback = feedback
        self._deleted_files = deleted_files

    async def prepare(self) -> None:
        """Create the indexes."""
        await ensure_index(self._tasks, [("project_id", 1), ("position", 1), ("_id", 1)])
        await ensure_index(self._tasks, [("project_id", 1), ("tenant_id", 1), ("answered_at", 1)])
        await ensure_index(self._feedback, [("tenant_id", 1), ("created_at", -1), ("_id", -1)])

    async def project(self, tenant_id: str, project_id: str) -> Project:
        """A project that is not deleted.

        Raises:
            NotFound: there is none for this tenant.
        """
        return await self._projects.get(tenant_id, project_id, OPEN)

    async def add(self, project: Project) -> Project:
        """Add a project, or return the one that is there."""
        return await self._projects.add_once(project)

    async def find(self, project: Project) -> Project | None:
        """The project as it is kept, in whatever state; None where it was not added."""
        return await self._projects.find_one(project.tenant_id, {"_id": project.id})

    async def made(self, tenant_id: str, most: int) -> int:
        """How many projects the tenant made that are not deleted, files' own apart; counted to `most`."""
        mine = {"tenant_id": tenant_id, "file_id": None, **OPEN}
        return int(await self._projects.collection.count_documents(mine, limit=most))

    async def change(self, tenant_id: str, project_id: str, change: Callable[[Project], None]) -> Project:
        """The project, changed.

        Raises:
            NotFound: there is none for this tenant.
        """
        return await self._projects.update(tenant_id, project_id, change)

    async def projects_page(self, tenant_id: str, *, limit: int, after: str | None) -> list[Project]:
        """Projects that are not deleted, newest first."""
        return await self._projects.find(tenant_id, OPEN, limit=limit, after=after)

    async def claim_deleted(self, owner: str, seconds: float) -> Project | None:
        """A deleted project whose tasks may be there still; of any tenant."""
        return await self._projects.claim(TO_PURGE, owner, seconds)

    async def save_claimed(self, project: Project) -> None:
        """Write a project as its claimant changed it.

        Raises:
            Conflict: it was changed since it was claimed.
        """
        await self._projects.save(project, fence=project.lease.fence)

    async def release(self, project: Project) -> None:
        """Give a claimed project back."""
        await self._projects.leases.release(project.id, project.lease.fence)

    async def remove_tasks(self, project: Project) -> None:
        """Remove all texts and answers of a project."""
        await self._tasks.delete_many({"project_id": project.id, "tenant_id": project.tenant_id})

    async def orphaned_labels(self, tenant_id: str, folders: Mapping[str, list[str]]) -> Orphans:
        """Answers written late of projects that are deleted: such a project publishes nothing any more."""
        query = {"_id": {"$in": list(folders)}, "tenant_id": tenant_id}
        states = {one["_id"]: one.get("state") async for one in self._projects.collection.find(query, {"state": 1})}
        return Orphans(
            removable=[key for project, keys in folders.items() if states.get(project) == "purged" for key in keys],
            unknown=[key for project, keys in folders.items() if project not in states for key in keys],
        )

    async def note_deleted(self, tenant_id: str, file_id: str) -> None:
        """Remember that a file is gone."""
        await self._deleted_files.update_one({"_id": file_id}, {"$set": {"tenant_id": tenant_id}}, upsert=True)

    async def was_deleted(self, tenant_id: str, file_id: str) -> bool:
        """Whether a file is gone."""
        return await self._deleted_files.find_one({"_id": file_id, "tenant_id": tenant_id}) is not None

    async def filled(self, project: Project) -> int:
        """How many tasks the project has: those of its first texts, because they are written in order."""
        return int(await self._tasks.count_documents({"project_id": project.id, "tenant_id": project.tenant_id}))

    async def add_tasks(self, project: Project, texts: list[str], *, first: int) -> None:
        """Add a task for each text, in order, from the position `first` on."""
        for start in range(0, len(texts), BATCH):
            tasks = [
                Task(
                    id=derived_id("task_", project.id, str(position)),
                    project_id=project.id,
                    tenant_id=project.tenant_id,
                    position=position,
                    text=text,
                )
                for position, text in enumerate(texts[start : start + BATCH], start=first + start)
            ]
            await self._tasks.insert_many([{"_id": task.id, **task.model_dump()} for task in tasks], ordered=True)

    async def take(self, project: Project, person: str, seconds: float) -> Task | None:
        """Hold the first unanswered task that nobody else holds for this person, or their own one again."""
        unanswered = {"project_id": project.id, "tenant_id": project.tenant_id, "answer": None}
        found = await self._holds.take(unanswered, person, seconds, sort=IN_ORDER)
        return Task.model_validate(found) if found else None

    async def skip(self, project: Project, task_id: str, person: str) -> None:
        """Give a task back and move it behind the others."""
        last = await self._tasks.find_one({"project_id": project.id}, sort=[("position", -1)])
        await self._tasks.update_one(
            {"_id": task_id, "project_id": project.id, "tenant_id": project.tenant_id, "holder": person},
            {"$set": {**self._holds.given_back, "position": (last["position"] if last else 0) + 1}},
        )

    async def answer(self, project: Project, task_id: str, person: str, answer: str) -> Task:
        """Store an answer; answering again corrects it.

        Raises:
            NotFound: no such task in the project.
            Conflict: another person holds or answered it.
        """
        mine = {"$or": [{"answered_by": person}, {"$and": [{"answer": None}, self._holds.free_for(person)]}]}
        key = {"_id": task_id, "project_id": project.id, "tenant_id": project.tenant_id}
        found = await self._tasks.find_one_and_update(
            {"$and": [key, mine]},
            {"$set": {"answer": answer, "answered_by": person, "answered_at": now(), **self._holds.given_back}},
            return_document=True,
        )
        if found is None:
            task = await self._tasks.find_one(key)
            if task is None:
                raise NotFound(f"No task {quoted(task_id)} in this project.", param="task_id")
            if task["answer"] is not None:
                raise Conflict("Somebody else has answered this task; take the next one.", code="task_answered")
            raise Conflict("Somebody else is working on this task; take the next one.", code="task_held")
        return Task.model_validate(found)

    async def reopen_unfit(self, project: Project) -> int:
        """Reopen the tasks whose answer is none of the project's labels; what was answered is kept to be seen.

        Returns:
            How many there were.
        """
        if not project.labels:
            return 0
        mine = {"project_id": project.id, "tenant_id": project.tenant_id, "answered_at": {"$ne": None}}
        reopened = await self._tasks.update_many(
            {**mine, "answer": {"$nin": project.labels}},
            [{"$set": {"former_answer": "$answer", "answer": None, "answered_by": None, "answered_at": None}}],
        )
        return int(reopened.modified_count)

    async def counts(self, tenant_id: str, project_ids: list[str]) -> dict[str, dict[str, int]]:
        """By project, its tasks in all and answered."""
        counted = {one: {"total": 0, "answered": 0} for one in project_ids}
        query = {"project_id": {"$in": project_ids}, "tenant_id": tenant_id}
        group = {"_id": {"project": "$project_id", "answered": {"$ne": ["$answered_at", None]}}, "tasks": {"$sum": 1}}
        async for found in self._tasks.aggregate([{"$match": query}, {"$group": group}]):
            counts = counted[found["_id"]["project"]]
            counts["total"] += found["tasks"]
            counts["answered"] += found["tasks"] if found["_id"]["answered"] else 0
        return counted

    async def answered(self, project: Project) -> list[Task]:
        """Every answered task, in order."""
        query = {"project_id": project.id, "tenant_id": project.tenant_id, "answer": {"$ne": None}}
        return [Task.model_validate(found) async for found in self._tasks.find(query).sort(IN_ORDER)]

    async def tasks_page(self, project: Project, *, limit: int, after: str | None) -> list[Task]:
        """Tasks in order."""
        query = {"project_id": project.id, "tenant_id": project.tenant_id}
        behind = None if after is None else {**query, "_id": after}
        missing = f"No task {quoted(after or '')} in this project."
        found = await page(self._tasks, query, IN_ORDER, limit=limit, after=behind, missing=missing)
        return [Task.model_validate(one) for one in found]

    async def keep_feedback(self, event: FeedbackRecorded) -> None:
        """Put a rating into the inbox, once."""
        await self._feedback.update_one(
            {"_id": event.feedback_id},
            {"$setOnInsert": {**event.model_dump(mode="json"), "created_at": now()}},
            upsert=True,
        )

    async def forget_feedback(self, event: FeedbackDeleted) -> None:
        """Take a rating out of the inbox; that it was there stays, so that one that is told of again stays out."""
        gone = {"tenant_id": event.tenant_id, "deleted": True, "created_at": now()}
        await self._feedback.replace_one({"_id": event.feedback_id, "tenant_id": event.tenant_id}, gone, upsert=True)

    async def feedback(self, tenant_id: str, *, limit: int, after: str | None) -> list[Document]:
        """The inbox, newest first.

        Raises:
            NotFound: the tenant has no feedback of the id `after`.
        """
        found = await page(
            self._feedback,
            {"tenant_id": tenant_id, "deleted": {"$ne": True}},
            NEWEST_FIRST,
            limit=limit,
            after=None if after is None else {"_id": after, "tenant_id": tenant_id},
            missing=f"No feedback {quoted(after or '')}.",
        )
        return [
            {"id": one["_id"], **{key: one[key] for key in one if key not in ("_id", "tenant_id")}} for one in found
        ]

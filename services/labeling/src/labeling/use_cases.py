"""What labeling does: makes projects, hands out tasks, takes answers, publishes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass

import structlog

from chassis.errors import Conflict, Forbidden, Invalid, NotFound
from chassis.idempotency import request_id_for
from chassis.ids import derived_id, new_id, now
from labeling.domain import Project, Task
from labeling.store import Labels
from schemas import FeedbackDeleted, FeedbackRecorded, FileDeleted, LabelingRequested, ObjectRef
from schemas.artifacts import ChatMessage, ChatRow, read_text_row, write_row
from stores.objects import Objects

log = structlog.get_logger()

SWEEP_SECONDS = 15.0
PURGE_SECONDS = 60.0
"""Longest that removing one project may take."""


@dataclass(frozen=True)
class NewProject:
    """A project as asked for."""

    name: str
    texts: list[str]
    labels: list[str]
    instructions: str


class Projects:
    """Makes projects and publishes their answers.

    Args:
        labels: where they are kept.
        objects: where records lie.
        most: tasks of a project.
        most_projects: that a tenant makes; those of its files are as many as the files.
        held_seconds: how long a task stays with the person who took it.
        owner: this replica's name in leases.
    """

    def __init__(
        self, labels: Labels, objects: Objects, *, most: int, most_projects: int, held_seconds: float, owner: str
    ) -> None:
        self._owner = owner
        self._deleted = asyncio.Event()
        self._labels = labels
        self._objects = objects
        self._most = most
        self._most_projects = most_projects
        self._held_seconds = held_seconds

    async def create(self, tenant_id: str, asked: NewProject) -> Project:
        """A project over given texts.

        Raises:
            Invalid: no text, an empty one, or too many.
            Forbidden: the tenant has as many projects as it may have.
        """
        texts = [text.strip() for text in asked.texts]
        if not texts or not all(texts) or len(texts) > self._most:
            raise Invalid(f"rows: from 1 to {self._most} texts, none of them empty.", param="rows")
        project = Project(
            id=request_id_for("proj_", new_id("proj_")),
            tenant_id=tenant_id,
            created_at=now(),
            name=asked.name,
            instructions=asked.instructions,
            tasks=len(texts),
        )
        project.change(asked.labels, None)
        if await self._labels.find(project) is None:
            await self._refuse_too_many(tenant_id)
        project = await self._labels.add(project)
        if not await self._let_go_if_deleted(project):
            there = await self._labels.filled(project)
            await self._labels.add_tasks(project, texts[there:], first=there)
            await self._let_go_if_deleted(project)
        return project

    async def _refuse_too_many(self, tenant_id: str) -> None:
        if await self._labels.made(tenant_id, self._most_projects) == self._most_projects:
            raise Forbidden(
                f"Your organization has {self._most_projects} labeling projects, the most it may make: delete some.",
                code="too_many_projects",
            )

    async def create_for(self, event: LabelingRequested) -> None:
        """The project of an unlabelled file, once; a repeated event adds the tasks that are missing.

        Of a file that was deleted meanwhile nothing stays, however late its rows come.
        """
        left_out = max(0, event.rows - self._most)
        note = f" (the first {self._most} of {event.rows})" if left_out else ""
        project = Project(
            id=derived_id("proj_", event.file_id),
            tenant_id=event.tenant_id,
            created_at=now(),
            name=f"Rows of {event.filename or event.file_id}{note}",
            file_id=event.file_id,
            tasks=event.rows - left_out,
            left_out=left_out,
        )
        if await self._let_go_if_deleted(project):
            return
        there, seen = await self._labels.filled(project), 0
        try:
            async for texts in self._texts(event.records):
                project = project if seen else await self._labels.add(project)
                missing = texts[max(0, there - seen) :]
                seen += len(texts)
                await self._labels.add_tasks(project, missing, first=seen - len(missing))
        except NotFound:
            log.info("file_deleted_before_labeling", file_id=event.file_id)
        await self._let_go_if_deleted(project)

    async def _texts(self, records: ObjectRef) -> AsyncIterator[list[str]]:
        """The texts of the first `most` records, in parts as they come; hardly more is read than these need."""
        left, rest = self._most, b""
        async with aclosing(self._objects.stream(records)) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                texts = [read_text_row(line)["text"] for line in lines[:left]]
                left -= len(texts)
                yield texts
                if left == 0:
                    return
        if rest:
            yield [read_text_row(rest)["text"]]

    async def _let_go_if_deleted(self, project: Project) -> bool:
        """Remove the tasks that were added to a project while it, or its file, was deleted, by whichever attempt.

        Returns:
            Whether one of them is deleted: nothing is to be added any more.
        """
        deleted = bool(project.file_id) and await self._labels.was_deleted(project.tenant_id, str(project.file_id))
        current = await self._labels.find(project)
        deleted = deleted or (current is not None and current.state != "open")
        if deleted and current is not None:
            await self._remove(current)
        return deleted

    async def _remove(self, project: Project) -> None:
        def remove(it: Project) -> None:
            it.delete()
            it.purge_again()

        await self._labels.change(project.tenant_id, project.id, remove)
        self._deleted.set()

    async def delete(self, tenant_id: str, project_id: str) -> None:
        """Delete a project with its tasks and answers, and with what it published.

        Raises:
            NotFound: no such project.
        """
        await self._remove(await self._labels.project(tenant_id, project_id))

    async def forget_file(self, event: FileDeleted) -> None:
        """A file is deleted: so is the project of its rows, if there is one or comes to be one."""
        await self._labels.note_deleted(event.tenant_id, event.file_id)
        with suppress(NotFound):
            await self._remove(await self._labels.project(event.tenant_id, derived_id("proj_", event.file_id)))

    async def sweep(self) -> None:
        """Remove what was made of deleted projects, until cancelled."""
        while True:
            await self.purge()
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._deleted.wait()
            self._deleted.clear()

    async def purge(self) -> None:
        """Remove the tasks and published labels of every deleted project."""
        while project := await self._labels.claim_deleted(self._owner, PURGE_SECONDS):
            await self._labels.remove_tasks(project)
            await self._objects.delete_prefix(f"tenants/{project.tenant_id}/labels/{project.id}/")
            project.purge()
            with suppress(Conflict):  # who added something meanwhile has changed it since: it is claimed again
                await self._labels.save_claimed(project)
            await self._labels.release(project)

    async def next_task(self, project: Project, person: str) -> Task | None:
        """A task for this person, theirs for some minutes."""
        return await self._labels.take(project, person, self._held_seconds)

    async def skip(self, project: Project, task_id: str, person: str) -> None:
        """Give a task back that this person holds; it comes after all others."""
        await self._labels.skip(project, task_id, person)

    async def submit(self, project: Project, task_id: str, person: str, answer: str) -> Task:
        """Take an answer."""
        return await self._labels.answer(project, task_id, person, project.checked_answer(answer))

    async def change(
        self, tenant_id: str, project_id: str, labels: list[str] | None, instructions: str | None
    ) -> tuple[Project, int]:
        """Change what is asked; tasks whose answers are none of the new labels are to be answered again.

        Returns:
            The project, and how many tasks were reopened.
        """
        changed = await self._labels.change(tenant_id, project_id, lambda it: it.change(labels, instructions))
        return changed, await self._labels.reopen_unfit(changed)

    async def publish(self, tenant_id: str, project_id: str) -> Project:
        """Write the answers as chat rows and say so; ingest makes the dataset version.

        Published again without a new answer, as by a retry, nothing happens. An answer that came in while the labels
        were changed, and is none of them, is not published: its task is reopened.

        Raises:
            NotFound: no such project.
            Conflict: nothing is answered, or the labels were changed meanwhile.
        """
        project = await self._labels.project(tenant_id, project_id)
        await self._labels.reopen_unfit(project)
        tasks = await self._labels.answered(project)
        project.expect_answers(len(tasks))
        body = "\n".join(write_row(_row(project, task)) for task in tasks).encode()
        sha256 = hashlib.sha256(body).hexdigest()
        if sha256 == project.published_sha256:
            return project
        key = f"tenants/{tenant_id}/labels/{project_id}/{project.publications + 1}-{sha256[:24]}.jsonl"
        records = await self._objects.put_bytes(key, body, "application/jsonl")
        asked = project.labels
        try:
            return await self._labels.change(tenant_id, project_id, lambda it: it.publish(records, len(tasks), asked))
        except NotFound:  # deleted meanwhile: what was just written goes too
            await self._remove(project)
            raise

    async def keep_feedback(self, event: FeedbackRecorded) -> None:
        """Put a rating into the inbox."""
        await self._labels.keep_feedback(event)

    async def forget_feedback(self, event: FeedbackDeleted) -> None:
        """Take a rating out of the inbox."""
        await self._labels.forget_feedback(event)


def _row(project: Project, task: Task) -> ChatRow:
    assert task.answer is not None
    system: list[ChatMessage] = [{"role": "system", "content": project.instructions}] if project.instructions else []
    return {
        "messages": [
            *system,
            {"role": "user", "content": task.text},
            {"role": "assistant", "content": task.answer},
        ]
    }

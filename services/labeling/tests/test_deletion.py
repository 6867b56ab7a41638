"""What goes with a labeling project, and with the file it was made from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from labeling_harness import Harness

from chassis.errors import NotFound
from chassis.ids import derived_id, new_id
from labeling.domain import Project
from labeling.store import Labels
from schemas import FileDeleted, LabelingRequested, LabelsDeleted, LabelsPublished, ObjectRef
from stores.orphans import OrphanSweep
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Canary(Harness):
    """A harness whose texts say something that no other test's say."""

    client: httpx2.AsyncClient = field(kw_only=True)

    @property
    def text(self) -> str:
        return f"the heron on platform nine of {self.tenant}"

    @property
    def bare(self) -> bytes:
        return b"\n".join(json.dumps({"text": f"{self.text} {n}"}).encode() for n in range(3))

    @property
    def of_file(self) -> str:
        """The project of this test's file."""
        return derived_id("proj_", self.file_id)

    async def said(self) -> str:
        """All that the service's documents say."""
        names = ("projects", "tasks", "feedback", "deleted_files")
        return json.dumps([await self.database[name].find().to_list() for name in names], default=str)

    async def count(self, collection: str, **query: Any) -> int:
        """Documents of this test's tenant."""
        return int(await self.database[collection].count_documents({"tenant_id": self.tenant, **query}))

    async def nothing_is_left(self) -> None:
        async def gone() -> bool:
            kept = await self.space.objects().keys(f"tenants/{self.tenant}/")
            return self.text not in await self.said() and kept == []

        await eventually(gone)
        assert await self.count("tasks") == 0

    async def rows(self) -> LabelingRequested:
        """Rows of a file, as ingest tells of them; they lie where no test looks for what is left."""
        records = await self.space.objects().put_bytes(f"rows-{self.file_id}.jsonl", self.bare)
        return self.requested(filename="f.jsonl", rows=3, records=records)

    def deleted(self, file_id: str = "") -> FileDeleted:
        return FileDeleted(tenant_id=self.tenant, file_id=file_id or self.file_id)

    async def project(self) -> str:
        """The project of a file, answered and published."""
        await self.publish(await self.rows())
        return await self.answered(self.of_file)

    async def answered(self, project_id: str) -> str:
        path = f"/projects/{project_id}"

        async def tasks() -> Any:
            answer = await self.client.get(f"{path}/tasks")
            return answer.json()["data"] if answer.status_code == 200 and len(answer.json()["data"]) == 3 else None

        for task in await eventually(tasks):
            await self.client.post(f"{path}/tasks/{task['id']}", json={"answer": f"{self.text}!"})
        assert (await self.client.post(f"{path}/publish")).status_code == 200
        return path


@pytest_asyncio.fixture(loop_scope="module")
async def harness(harness: Harness) -> AsyncIterator[Canary]:
    async with harness.http() as client:
        yield Canary(**vars(harness), client=client)


async def test_a_deleted_project_leaves_no_task_no_answer_and_no_published_label(harness: Canary) -> None:
    asked = {"name": harness.text, "rows": [f"{harness.text} {n}" for n in range(3)], "instructions": harness.text}
    made = await harness.client.post("/projects", json=asked)
    path = await harness.answered(made.json()["id"])
    async with harness.http(harness.stranger) as stranger, harness.http(role="labeler") as labeler:
        assert (await stranger.delete(path)).status_code == 404
        assert (await labeler.delete(path)).status_code == 403
    deleted = await harness.client.delete(path)
    assert deleted.json() == {"id": made.json()["id"], "object": "labeling.project", "deleted": True}
    for method, address in (("DELETE", path), ("GET", path), ("GET", f"{path}/tasks"), ("POST", f"{path}/publish")):
        assert (await harness.client.request(method, address)).status_code == 404, address
    assert (await harness.client.get("/projects")).json()["data"] == []
    await harness.nothing_is_left()
    [gone] = await eventually(lambda: harness.of(LabelsDeleted))
    assert (gone.project_id, gone.file_id) == (made.json()["id"], None)
    assert len(harness.of(LabelsPublished)) == 1


async def test_a_deleted_file_takes_its_project_along(harness: Canary) -> None:
    path, other = await harness.project(), new_id("file-")
    for _ in range(2):
        await harness.publish(harness.deleted())
    await harness.nothing_is_left()
    assert (await harness.client.get(path)).status_code == 404
    assert [one.file_id for one in await eventually(lambda: harness.of(LabelsDeleted))] == [harness.file_id]
    await harness.publish(await harness.rows())
    await harness.publish(harness.deleted(other))

    async def heard() -> bool:
        return await harness.labels.was_deleted(harness.tenant, other)

    await eventually(heard)
    await harness.nothing_is_left()


async def test_rows_that_come_after_their_file_was_deleted_make_no_project(harness: Canary) -> None:
    await harness.projects.forget_file(harness.deleted())
    await harness.projects.create_for(await harness.rows())
    assert await harness.count("projects") == 0
    await harness.nothing_is_left()


async def taken_back(harness: Canary, deleted: str) -> None:
    """The project, or the file it answers, is deleted, and what there is of it is purged."""
    if deleted == "the file":
        await harness.projects.forget_file(harness.deleted())
    else:
        await harness.projects.delete(harness.tenant, harness.of_file)
    await harness.projects.purge()


@pytest.mark.parametrize("deleted", ["the project", "the file"])
async def test_a_delete_while_the_tasks_are_written_leaves_none(
    harness: Canary, deleted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = harness.labels.add_tasks

    async def delete_and_add(project: Project, texts: list[str], *, first: int) -> None:
        await taken_back(harness, deleted)
        await add(project, texts, first=first)

    monkeypatch.setattr(harness.labels, "add_tasks", delete_and_add)
    await harness.projects.create_for(await harness.rows())
    await harness.nothing_is_left()
    assert len(await eventually(lambda: harness.of(LabelsDeleted))) == 1


async def test_tasks_written_between_the_removal_and_the_word_of_it_are_removed_too(
    harness: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, remove = harness.labels.add_tasks, Labels.remove_tasks
    adding, removed = asyncio.Event(), asyncio.Event()

    async def add_late(project: Project, texts: list[str], *, first: int) -> None:
        adding.set()
        await removed.wait()
        await add(project, texts, first=first)

    async def remove_before_the_writer_ends(labels: Labels, project: Project) -> None:
        await remove(labels, project)
        if project.tenant_id == harness.tenant:
            removed.set()
            await writing

    monkeypatch.setattr(harness.labels, "add_tasks", add_late)
    monkeypatch.setattr(Labels, "remove_tasks", remove_before_the_writer_ends)
    writing = asyncio.create_task(harness.projects.create_for(await harness.rows()))
    await adding.wait()
    await harness.projects.delete(harness.tenant, harness.of_file)
    await harness.projects.purge()
    await harness.nothing_is_left()


@pytest.mark.parametrize("deleted", ["the project", "the file"])
async def test_rows_that_come_again_take_along_what_a_killed_attempt_wrote(
    harness: Canary, deleted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = harness.labels.add_tasks, 0

    async def add_late_and_die(project: Project, texts: list[str], *, first: int) -> None:
        nonlocal left
        await taken_back(harness, deleted)
        await add(project, texts, first=first)
        left = await harness.count("tasks")
        raise TimeoutError

    rows = await harness.rows()
    with monkeypatch.context() as patched, pytest.raises(TimeoutError):
        patched.setattr(harness.labels, "add_tasks", add_late_and_die)
        await harness.projects.create_for(rows)
    assert left > 0, "of the attempt that was killed"
    await harness.projects.create_for(rows)
    await harness.projects.purge()
    await harness.nothing_is_left()


async def test_answers_written_while_their_project_is_deleted_do_not_stay(
    harness: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.project()
    task = (await harness.client.get(f"/projects/{harness.of_file}/tasks")).json()["data"][0]
    await harness.client.post(f"/projects/{harness.of_file}/tasks/{task['id']}", json={"answer": "another"})
    objects = harness.projects._objects
    put = objects.put_bytes

    async def put_late(key: str, body: bytes, content_type: str) -> ObjectRef:
        await harness.projects.delete(harness.tenant, harness.of_file)
        await harness.projects.purge()
        return await put(key, body, content_type)

    monkeypatch.setattr(objects, "put_bytes", put_late)
    with pytest.raises(NotFound):
        await harness.projects.publish(harness.tenant, harness.of_file)
    await harness.nothing_is_left()


async def test_answers_that_a_killed_publication_left_of_a_deleted_project_are_removed(harness: Canary) -> None:
    await harness.client.delete(await harness.project())
    await harness.nothing_is_left()

    async def purged() -> bool:
        return await harness.count("projects", state="purged") == 1

    await eventually(purged)
    made = await harness.client.post("/projects", json={"name": "n", "rows": ["a"]})
    objects, open_project = harness.space.objects(), made.json()["id"]
    for name in (harness.of_file, open_project, "proj_of_an_older_copy"):
        await objects.put_bytes(f"tenants/{harness.tenant}/labels/{name}/1-late.jsonl", harness.bare)
    await OrphanSweep(objects, "labeling", {"labels": harness.labels.orphaned_labels}, every=1, age=-60).sweep()
    assert sorted(key.split("/")[3] for key in await objects.keys(f"tenants/{harness.tenant}/labels/")) == sorted(
        [open_project, "proj_of_an_older_copy"]
    )

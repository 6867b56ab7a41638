"""What goes with a labeling project, and with the file it was made from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from chassis.errors import NotFound
from chassis.ids import derived_id
from labeling.app import build
from labeling.domain import Project
from labeling.settings import Settings
from labeling.store import Labels
from labeling.use_cases import Projects
from schemas import FileDeleted, LabelingRequested, LabelsDeleted, LabelsPublished, ObjectRef
from stores.orphans import OrphanSweep
from testkit import Space, eventually, running

TENANT = "tenant_a"
CANARY = "the heron on platform nine"
BARE = b"\n".join(json.dumps({"text": f"{CANARY} {n}"}).encode() for n in range(3))
OF_FILE = derived_id("proj_", "file-1")


@dataclass
class World:
    """A running labeling and its parts."""

    space: Space
    http: httpx2.AsyncClient
    publish: Any
    seen: Any
    database: Any
    labels: Labels
    projects: Projects

    async def said(self) -> str:
        """All that the service's documents say."""
        names = ("projects", "tasks", "feedback", "deleted_files")
        return json.dumps([await self.database[name].find().to_list() for name in names], default=str)

    async def nothing_is_left(self) -> None:
        async def gone() -> bool:
            return CANARY not in await self.said() and await self.space.objects().keys("tenants/") == []

        await eventually(gone)
        assert await self.database["tasks"].count_documents({}) == 0

    async def rows(self) -> LabelingRequested:
        """Rows of a file, as ingest tells of them; they lie where no test looks for what is left."""
        records = await self.space.objects().put_bytes("rows.jsonl", BARE)
        return LabelingRequested(tenant_id=TENANT, file_id="file-1", filename="f.jsonl", rows=3, records=records)

    async def project(self) -> str:
        """The project of a file, answered and published."""
        await self.publish(await self.rows())
        return await self.answered(OF_FILE)

    async def answered(self, project_id: str) -> str:
        path = f"/v1/labeling/projects/{project_id}"

        async def tasks() -> Any:
            answer = await self.http.get(f"{path}/tasks")
            return answer.json()["data"] if answer.status_code == 200 and len(answer.json()["data"]) == 3 else None

        for task in await eventually(tasks):
            await self.http.post(f"{path}/tasks/{task['id']}", json={"answer": f"{CANARY}!"})
        assert (await self.http.post(f"{path}/publish")).status_code == 200
        return path


@pytest.fixture
async def world(space: Space) -> AsyncIterator[World]:
    app = build(space.settings(Settings, "labeling"))
    service = app.state.service
    collections = [service.collection(name) for name in ("tasks", "feedback", "deleted_files")]
    labels = Labels(*service._stores, *collections)
    projects = Projects(labels, service.objects, most=100, held_seconds=60, owner="test")
    async with (
        running(app) as url,
        httpx2.AsyncClient(base_url=url, headers=space.headers("labeling", TENANT)) as http,
        space.publisher("ingest") as publish,
        space.probe("labels") as seen,
    ):
        yield World(space, http, publish, seen, service.database, labels, projects)


async def test_a_deleted_project_leaves_no_task_no_answer_and_no_published_label(world: World) -> None:
    asked = {"name": CANARY, "rows": [f"{CANARY} {n}" for n in range(3)], "instructions": CANARY}
    made = await world.http.post("/v1/labeling/projects", json=asked)
    path = await world.answered(made.json()["id"])
    async with httpx2.AsyncClient(headers=world.space.headers("labeling", "tenant_b")) as stranger:
        assert (await stranger.delete(f"{world.http.base_url}{path}")).status_code == 404
    async with httpx2.AsyncClient(headers=world.space.headers("labeling", TENANT, role="labeler")) as labeler:
        assert (await labeler.delete(f"{world.http.base_url}{path}")).status_code == 403
    deleted = await world.http.delete(path)
    assert deleted.json() == {"id": made.json()["id"], "object": "labeling.project", "deleted": True}
    for method, address in (("DELETE", path), ("GET", path), ("GET", f"{path}/tasks"), ("POST", f"{path}/publish")):
        assert (await world.http.request(method, address)).status_code == 404, address
    assert (await world.http.get("/v1/labeling/projects")).json()["data"] == []
    await world.nothing_is_left()
    [gone] = await eventually(lambda: world.seen.of(LabelsDeleted))
    assert (gone.project_id, gone.file_id) == (made.json()["id"], None)
    assert len(world.seen.of(LabelsPublished)) == 1


async def test_a_deleted_file_takes_its_project_along(world: World) -> None:
    path = await world.project()
    for _ in range(2):
        await world.publish(FileDeleted(tenant_id=TENANT, file_id="file-1"))
    await world.nothing_is_left()
    assert (await world.http.get(path)).status_code == 404
    assert [one.file_id for one in await eventually(lambda: world.seen.of(LabelsDeleted))] == ["file-1"]
    await world.publish(await world.rows())
    await world.publish(FileDeleted(tenant_id=TENANT, file_id="file-2"))

    async def heard() -> bool:
        return await world.labels.was_deleted(TENANT, "file-2")

    await eventually(heard)
    await world.nothing_is_left()


async def test_rows_that_come_after_their_file_was_deleted_make_no_project(world: World) -> None:
    await world.projects.forget_file(FileDeleted(tenant_id=TENANT, file_id="file-1"))
    await world.projects.create_for(await world.rows())
    assert await world.database["projects"].count_documents({}) == 0
    await world.nothing_is_left()


async def taken_back(world: World, deleted: str) -> None:
    """The project, or the file it answers, is deleted, and what there is of it is purged."""
    if deleted == "the file":
        await world.projects.forget_file(FileDeleted(tenant_id=TENANT, file_id="file-1"))
    else:
        await world.projects.delete(TENANT, OF_FILE)
    await world.projects.purge()


@pytest.mark.parametrize("deleted", ["the project", "the file"])
async def test_a_delete_while_the_tasks_are_written_leaves_none(
    world: World, deleted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = world.labels.add_tasks

    async def delete_and_add(project: Project, texts: list[str], *, first: int) -> None:
        await taken_back(world, deleted)
        await add(project, texts, first=first)

    monkeypatch.setattr(world.labels, "add_tasks", delete_and_add)
    await world.projects.create_for(await world.rows())
    await world.nothing_is_left()
    assert len(await eventually(lambda: world.seen.of(LabelsDeleted))) == 1


async def test_tasks_written_between_the_removal_and_the_word_of_it_are_removed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, remove = world.labels.add_tasks, Labels.remove_tasks
    adding, removed = asyncio.Event(), asyncio.Event()

    async def add_late(project: Project, texts: list[str], *, first: int) -> None:
        adding.set()
        await removed.wait()
        await add(project, texts, first=first)

    async def remove_before_the_writer_ends(labels: Labels, project: Project) -> None:
        await remove(labels, project)
        removed.set()
        await writing

    monkeypatch.setattr(world.labels, "add_tasks", add_late)
    monkeypatch.setattr(Labels, "remove_tasks", remove_before_the_writer_ends)
    writing = asyncio.create_task(world.projects.create_for(await world.rows()))
    await adding.wait()
    await world.projects.delete(TENANT, OF_FILE)
    await world.projects.purge()
    await world.nothing_is_left()


@pytest.mark.parametrize("deleted", ["the project", "the file"])
async def test_rows_that_come_again_take_along_what_a_killed_attempt_wrote(
    world: World, deleted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = world.labels.add_tasks

    async def add_late_and_die(project: Project, texts: list[str], *, first: int) -> None:
        await taken_back(world, deleted)
        await add(project, texts, first=first)
        raise TimeoutError

    rows = await world.rows()
    with monkeypatch.context() as patched, pytest.raises(TimeoutError):
        patched.setattr(world.labels, "add_tasks", add_late_and_die)
        await world.projects.create_for(rows)
    assert await world.database["tasks"].count_documents({}) > 0, "of the attempt that was killed"
    await world.projects.create_for(rows)
    await world.projects.purge()
    await world.nothing_is_left()


async def test_answers_written_while_their_project_is_deleted_do_not_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.project()
    task = (await world.http.get(f"/v1/labeling/projects/{OF_FILE}/tasks")).json()["data"][0]
    await world.http.post(f"/v1/labeling/projects/{OF_FILE}/tasks/{task['id']}", json={"answer": "another"})
    objects = world.projects._objects
    put = objects.put_bytes

    async def put_late(key: str, body: bytes, content_type: str) -> ObjectRef:
        await world.projects.delete(TENANT, OF_FILE)
        await world.projects.purge()
        return await put(key, body, content_type)

    monkeypatch.setattr(objects, "put_bytes", put_late)
    with pytest.raises(NotFound):
        await world.projects.publish(TENANT, OF_FILE)
    await world.nothing_is_left()


async def test_answers_that_a_killed_publication_left_of_a_deleted_project_are_removed(world: World) -> None:
    await world.http.delete(await world.project())
    await world.nothing_is_left()

    async def purged() -> bool:
        return await world.database["projects"].count_documents({"state": "purged"}) == 1

    await eventually(purged)
    made = await world.http.post("/v1/labeling/projects", json={"name": "n", "rows": ["a"]})
    objects, open_project = world.space.objects(), made.json()["id"]
    for name in (OF_FILE, open_project, "proj_of_an_older_copy"):
        await objects.put_bytes(f"tenants/{TENANT}/labels/{name}/1-late.jsonl", BARE)
    await OrphanSweep(objects, "labeling", {"labels": world.labels.orphaned_labels}, every=1, age=-60).sweep()
    assert sorted(key.split("/")[3] for key in await objects.keys(f"tenants/{TENANT}/labels/")) == sorted(
        [open_project, "proj_of_an_older_copy"]
    )

"""From unlabelled rows to published labels, on the real stack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from labeling_harness import Harness

from chassis.ids import derived_id
from labeling.app import build
from labeling.domain import Project
from labeling.settings import Settings
from labeling.store import Labels
from schemas import FeedbackDeleted, FeedbackRecorded, LabelingRequested, LabelsPublished
from stores.mongo import connect
from testkit import Space, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT = "tenant_a"


@asynccontextmanager
async def labeling(space: Space, **overrides: object) -> AsyncIterator[httpx2.AsyncClient]:
    app = build(space.settings(Settings, "labeling", **overrides))
    headers = space.headers("labeling", TENANT)
    async with running(app) as url, httpx2.AsyncClient(base_url=f"{url}/v1/labeling", headers=headers) as http:
        yield http


async def project(http: httpx2.AsyncClient, rows: int = 3, **body: object) -> str:
    texts = [f"text {n}" for n in range(rows)]
    answer = await http.post("/projects", json={"name": "Intents", "rows": texts, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def end_holds(harness: Harness) -> None:
    """As if everybody had held their task for ten minutes."""
    held = await harness.database["tasks"].update_many(
        {"tenant_id": harness.tenant, "held_until_ms": {"$gt": 0}}, {"$set": {"held_until_ms": 1}}
    )
    assert held.modified_count > 0


async def test_an_unlabelled_file_becomes_one_project(harness: Harness) -> None:
    async with harness.http() as http:
        objects = harness.space.objects()
        await objects.prepare()
        records = await objects.put_bytes(
            "rows.jsonl", '{"text":"一\u2028二\u2029三\u0085四"}\n{"text":"two"}\n'.encode()
        )
        for _ in range(2):
            await harness.publish(harness.requested(filename="rows.jsonl", rows=2, records=records))

        async def listed():
            data = (await http.get("/projects")).json()["data"]
            return data if data and data[0]["total"] == 2 else None

        [one] = await eventually(listed)
        assert one["name"] == "Rows of rows.jsonl"
        tasks = (await http.get(f"/projects/{one['id']}/tasks")).json()["data"]
        assert [task["text"] for task in tasks] == ["一\u2028二\u2029三\u0085四", "two"]


@pytest.mark.parametrize(("most", "left_out"), [(1000, 200), (5000, 0)])
async def test_a_large_file_is_filled_in_and_says_what_it_leaves_out(space: Space, most: int, left_out: int) -> None:
    async with labeling(space, labeling_rows=most) as http, space.publisher("ingest") as publish:
        body = b"\n".join(json.dumps({"text": f"text {n} " + "x" * 1000}).encode() for n in range(1200))
        records = await space.objects().put_bytes("rows.jsonl", body)
        event = LabelingRequested(tenant_id=TENANT, file_id="file-1", filename="f.jsonl", rows=1200, records=records)
        path, total = f"/projects/{derived_id('proj_', 'file-1')}", 1200 - left_out

        async def filled() -> Any:
            try:
                return (await http.get(path)).json().get("total") == total
            except httpx2.TimeoutException:  # the database is busy with them
                return False

        await publish(event)
        await eventually(filled, every=0.5, within=60)
        tasks = connect(space.settings(Settings, "labeling"), "labeling")["tasks"]
        await tasks.delete_many({"position": {"$gte": 350}})
        await publish(event)
        await eventually(filled, every=0.5, within=60)
        one = (await http.get(path)).json()
        assert one["left_out"] == left_out
        assert one["name"] == ("Rows of f.jsonl (the first 1000 of 1200)" if left_out else "Rows of f.jsonl")
        texts = [task["text"].split(" x")[0] async for task in tasks.find().sort("position", 1)]
        assert texts == [f"text {n}" for n in range(total)]


async def test_a_tenant_makes_so_many_projects_and_no_more_until_one_is_deleted(space: Space) -> None:
    async with labeling(space, labeling_projects=1) as http, space.publisher("ingest") as publish:
        records = await space.objects().put_bytes("rows.jsonl", b'{"text":"one"}')
        await publish(LabelingRequested(tenant_id=TENANT, file_id="file-1", filename="f", rows=1, records=records))
        of_file = f"/projects/{derived_id('proj_', 'file-1')}"
        await eventually(lambda: _is_there(http, of_file))

        async def make(key: str) -> httpx2.Response:
            body = {"name": key, "rows": ["a"], "labels": ["x", "y"]}
            return await http.post("/projects", json=body, headers={"Idempotency-Key": key})

        first = (await make("first")).json()
        refused = await make("second")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "too_many_projects")
        assert (await make("first")).json()["id"] == first["id"], "a repetition makes none"
        assert (await http.delete(f"/projects/{first['id']}")).status_code == 200
        assert (await make("third")).status_code == 200
        assert (await http.get(of_file)).status_code == 200, "files' own are not counted"


async def _is_there(http: httpx2.AsyncClient, path: str) -> bool:
    return (await http.get(path)).status_code == 200


async def test_tasks_are_written_in_few_calls(space: Space) -> None:
    """Thousands of tasks, one call each, do not fit into the time a handler has."""

    class Counted:
        calls = 0

        def __getattr__(self, name: str) -> Any:
            self.calls += 1
            return getattr(tasks, name)

    tasks, counted = connect(space.settings(Settings, "labeling"), "labeling")["tasks"], Counted()
    labels: Any = Labels(None, counted, None, None)  # type: ignore[arg-type]
    await labels.add_tasks(Project(id="p", tenant_id=TENANT, created_at=0, name="", tasks=1), ["x"] * 2500, first=0)
    assert await tasks.count_documents({}) == 2500
    assert counted.calls <= 10


async def test_a_file_that_was_deleted_makes_no_project_and_no_dead_letter(harness: Harness) -> None:
    async with harness.http() as http:
        objects = harness.space.objects()
        gone = (await objects.put_bytes("gone.jsonl", b'{"text":"x"}')).model_copy(update={"key": "gone"})
        there = await objects.put_bytes("there.jsonl", b'{"text":"x"}')
        for records in (gone, there):
            await harness.publish(harness.requested(rows=1, records=records))

        async def listed() -> bool:
            assert [one["total"] for one in (await http.get("/projects")).json()["data"]] == [1]
            return True

        await eventually(listed)
        assert [event for _, event in harness.dead.events if event.tenant_id == harness.tenant] == []


async def test_answers_are_published_as_rows(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http, labels=["a", "b"], instructions="Choose a or b.")
        assert (await http.post(f"/projects/{one}/publish")).status_code == 409
        for answer in ("a", "b"):
            task = (await http.post(f"/projects/{one}/next")).json()
            assert (await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})).status_code == 200
        assert (await http.post(f"/projects/{one}/publish")).json()["publications"] == 1
        published = (await eventually(lambda: harness.of(LabelsPublished)))[0]
        assert published.name == (await http.get(f"/projects/{one}")).json()["name"] != ""
        rows = [json.loads(line) for line in (await harness.space.objects().get_bytes(published.records)).splitlines()]
        assert [row["messages"][-1]["content"] for row in rows] == ["a", "b"]
        assert rows[0]["messages"][0] == {"role": "system", "content": "Choose a or b."}


async def test_the_same_answers_are_published_once(harness: Harness) -> None:
    """A retry must not make a second dataset version, and so a second fine-tune; a new answer must."""
    async with harness.http() as http:
        one = await project(http)
        for publications in (1, 2):
            task = (await http.post(f"/projects/{one}/next")).json()
            await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": "a"})
            for _ in range(2):
                assert (await http.post(f"/projects/{one}/publish")).json()["publications"] == publications
        published = await eventually(lambda: len(harness.of(LabelsPublished)) > 1 and harness.of(LabelsPublished))
        assert [(event.publication, event.rows) for event in published] == [(1, 1), (2, 2)]
        objects = harness.space.objects()
        assert set(await objects.keys(f"tenants/{harness.tenant}/")) == {event.records.key for event in published}


async def test_an_answer_must_be_one_of_the_labels(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http, labels=["a", "b"])
        task = (await http.post(f"/projects/{one}/next")).json()
        refused = await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": "c"})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "answer"


async def answered(http: httpx2.AsyncClient, one: str, *answers: str) -> None:
    for answer in answers:
        task = (await http.post(f"/projects/{one}/next")).json()
        given = await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})
        assert given.status_code == 200, given.text


@pytest.mark.parametrize(
    ("before", "answers", "labels", "reopened"),
    [
        (["good", "bad"], ["good", "bad"], ["calm", "angry"], 2),
        (["good", "bad"], ["good", "bad"], ["bad", "angry"], 1),
        (["good", "bad"], ["good", "bad"], [" good ", "bad", "new"], 0),
        (["good", "bad"], ["good", "bad"], [], 0),
        ([], ["whatever", "good"], ["good"], 1),
        (["Good"], ["Good", "Good"], ["good"], 2),
    ],
)
async def test_answers_that_are_none_of_the_new_labels_are_asked_for_again(
    harness: Harness, before: list[str], answers: list[str], labels: list[str], reopened: int
) -> None:
    async with harness.http() as http:
        one = await project(http, labels=before)
        await answered(http, one, *answers)
        changed = (await http.patch(f"/projects/{one}", json={"labels": labels})).json()
        assert (changed["reopened"], changed["answered"], changed["total"]) == (reopened, 2 - reopened, 3)
        tasks = (await http.get(f"/projects/{one}/tasks")).json()["data"]
        open_again = [task for task in tasks if task["former_answer"]]
        assert len(open_again) == reopened
        assert all(task["answer"] is task["answered_by"] is task["answered_at"] is None for task in open_again)
        published = await http.post(f"/projects/{one}/publish")
        assert published.status_code == (200 if reopened < 2 else 409)
        if reopened < 2:
            event = (await eventually(lambda: harness.of(LabelsPublished)))[0]
            rows = [json.loads(row) for row in (await harness.space.objects().get_bytes(event.records)).splitlines()]
            kept = [answer for answer in answers if not labels or answer in [label.strip() for label in labels]]
            assert [row["messages"][-1]["content"] for row in rows] == kept


async def test_an_answer_that_came_in_while_the_labels_changed_is_not_published(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http, labels=["a", "b"])
        await answered(http, one, "a", "b")
        tasks = harness.database["tasks"]
        await tasks.update_one({"tenant_id": harness.tenant, "answer": "a"}, {"$set": {"answer": "old label"}})
        assert (await http.post(f"/projects/{one}/publish")).json()["answered"] == 1
        await tasks.update_one({"tenant_id": harness.tenant, "answer": "b"}, {"$set": {"answer": "old label"}})
        assert (await http.post(f"/projects/{one}/publish")).json()["error"]["code"] == "nothing_labelled"


HALF = "cut \ud83d"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/projects", {"name": "p", "rows": [HALF]}, "rows[0]"),
        ("/projects", {"name": HALF, "rows": ["a"]}, "name"),
        ("/projects", {"name": "p", "rows": ["a"], "labels": [HALF]}, "labels[0]"),
        ("/projects", {"name": "p", "rows": ["a"], "instructions": HALF}, "instructions"),
        ("/projects", {"name": "p", "rows": ["a"], "colour": "red"}, "colour"),
        ("/projects", {"name": "p", "rows": ["x" * 100_001]}, "rows.0"),
        ("/projects", {"name": "p", "rows": ["a"], "labels": ["x"] * 1_001}, "labels"),
        ("/projects", {"name": "p", "rows": ["a"], "labels": ["x" * 501]}, "labels.0"),
        ("/projects/PROJECT", {"labels": [HALF]}, "labels[0]"),
        ("/projects/PROJECT/tasks/TASK", {"answer": HALF}, "answer"),
        ("/projects/PROJECT/tasks/TASK", {"answer": "x" * 20_001}, "answer"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
async def test_a_request_that_cannot_be_kept_is_told_its_field(
    harness: Harness, path: str, body: Any, param: str
) -> None:
    async with harness.http() as http:
        one = await project(http)
        task = (await http.post(f"/projects/{one}/next")).json()["id"]
        where = path.replace("PROJECT", one).replace("TASK", task)
        sent = json.dumps(body)
        method = "PATCH" if path.endswith("PROJECT") else "POST"
        refused = await http.request(method, where, content=sent, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


async def test_two_people_do_not_get_the_same_task(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http)
        other = {"authorization": f"Bearer {harness.space.bearer('labeling', harness.tenant, role='labeler')}"}
        first = (await http.post(f"/projects/{one}/next")).json()
        again = (await http.post(f"/projects/{one}/next")).json()
        second = (await http.post(f"/projects/{one}/next", headers=other)).json()
        assert first["id"] == again["id"]
        assert second["id"] != first["id"]
        taken = await http.post(f"/projects/{one}/tasks/{second['id']}", json={"answer": "x"})
        assert taken.status_code == 409
        await end_holds(harness)
        freed = (await http.post(f"/projects/{one}/next", headers=other)).json()
        assert freed["id"] == first["id"]


async def test_a_late_answer_does_not_replace_another_persons(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http)
        other = {"authorization": f"Bearer {harness.space.bearer('labeling', harness.tenant, role='labeler')}"}
        task = (await http.post(f"/projects/{one}/next")).json()
        await end_holds(harness)
        assert (await http.post(f"/projects/{one}/next", headers=other)).json()["id"] == task["id"]
        path = f"/projects/{one}/tasks/{task['id']}"
        assert (await http.post(path, json={"answer": "theirs"}, headers=other)).status_code == 200
        late = await http.post(path, json={"answer": "mine"})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "task_answered")
        assert (await http.get(f"/projects/{one}/tasks")).json()["data"][0]["answer"] == "theirs"


async def test_a_skipped_task_comes_last_and_an_answer_can_be_corrected(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http, 2)
        skipped = (await http.post(f"/projects/{one}/next")).json()
        assert (await http.post(f"/projects/{one}/tasks/{skipped['id']}/skip")).status_code == 204
        task = (await http.post(f"/projects/{one}/next")).json()
        assert task["id"] != skipped["id"]
        for answer in ("wrong", "right"):
            done = await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})
        assert done.json()["answer"] == "right"
        assert (await http.post(f"/projects/{one}/next")).json()["id"] == skipped["id"]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_tasks_that_were_skipped_at_once_are_all_on_some_page(harness: Harness, limit: int) -> None:
    async with harness.http() as http:
        one = await project(http, 5)
        first = [task["id"] for task in (await http.get(f"/projects/{one}/tasks")).json()["data"]]
        last = {"$set": {"position": 5}}  # as of people who each found 4 to be the last
        await harness.database["tasks"].update_many({"_id": {"$in": first[:3]}}, last)
        seen: list[str] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = (await http.get(f"/projects/{one}/tasks", params={"limit": limit, **after})).json()
            seen += [task["id"] for task in page["data"]]
        assert seen == [*first[3:], *sorted(first[:3])]


def rated(harness: Harness, number: int) -> FeedbackRecorded:
    return FeedbackRecorded(
        tenant_id=harness.tenant, feedback_id=f"fb_{harness.tenant}_{number}", chat_id="c", model="m", rating="up"
    )


async def test_feedback_arrives_once_and_all_of_it_can_be_reached(harness: Harness) -> None:
    async with harness.http() as http:
        for number in range(5):
            for _ in range(2):
                await harness.rate(rated(harness, number))

        async def all_there() -> bool:
            return len((await http.get("/feedback")).json()["data"]) == 5

        await eventually(all_there)
        seen: list[str] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = (await http.get("/feedback", params={"limit": 2, **after})).json()
            seen += [one["id"] for one in page["data"]]
        assert sorted(seen) == [rated(harness, number).feedback_id for number in range(5)]
        never = await http.get("/feedback", params={"after": rated(harness, 9).feedback_id})
        assert never.json()["error"]["param"] == "after"


async def test_feedback_that_is_taken_back_is_in_the_inbox_no_more(harness: Harness) -> None:
    async with harness.http() as http:

        async def inbox() -> list[str]:
            return [one["id"] for one in (await http.get("/feedback")).json()["data"]]

        await harness.rate(rated(harness, 1))
        await harness.rate(rated(harness, 2))
        await eventually(inbox)
        await harness.rate(FeedbackDeleted(tenant_id=harness.tenant, feedback_id=rated(harness, 2).feedback_id))
        await harness.rate(rated(harness, 2))  # events may come again, also after those that follow them
        await harness.rate(rated(harness, 3))

        async def only_the_others() -> bool:
            return sorted(await inbox()) == [rated(harness, number).feedback_id for number in (1, 3)]

        await eventually(only_the_others)
        after = (await http.get("/feedback", params={"after": rated(harness, 2).feedback_id})).json()
        assert rated(harness, 2).feedback_id not in [one["id"] for one in after["data"]]


async def test_another_tenant_finds_nothing(harness: Harness) -> None:
    async with harness.http() as http:
        one = await project(http)
        stranger = harness.space.headers("labeling", harness.stranger)
        for path in (f"/projects/{one}", f"/projects/{one}/tasks"):
            assert (await http.get(path, headers=stranger)).status_code == 404
        assert (await http.get("/projects", headers=stranger)).json()["data"] == []

"""From unlabelled rows to published labels, on the real stack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from labeling.app import build
from labeling.settings import Settings
from schemas import FeedbackRecorded, LabelingRequested, LabelsPublished
from stores.mongo import connect
from testkit import Space, eventually, running

TENANT = "tenant_a"


@asynccontextmanager
async def labeling(space: Space, tenant: str = TENANT) -> AsyncIterator[httpx2.AsyncClient]:
    app = build(space.settings(Settings, "labeling"))
    headers = space.headers("labeling", tenant)
    async with running(app) as url, httpx2.AsyncClient(base_url=f"{url}/v1/labeling", headers=headers) as http:
        yield http


async def project(http: httpx2.AsyncClient, rows: int = 3, **body: object) -> str:
    texts = [f"text {n}" for n in range(rows)]
    answer = await http.post("/projects", json={"name": "Intents", "rows": texts, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def end_holds(space: Space) -> None:
    """As if everybody had held their task for ten minutes."""
    tasks = connect(space.settings(Settings, "labeling"), "labeling")["tasks"]
    held = await tasks.update_many({"held_until_ms": {"$gt": 0}}, {"$set": {"held_until_ms": 1}})
    assert held.modified_count > 0


async def test_an_unlabelled_file_becomes_one_project(space: Space) -> None:
    async with labeling(space) as http, space.publisher("ingest") as publish:
        objects = space.objects()
        await objects.prepare()
        records = await objects.put_bytes(
            "rows.jsonl", '{"text":"一\u2028二\u2029三\u0085四"}\n{"text":"two"}\n'.encode()
        )
        for _ in range(2):
            await publish(
                LabelingRequested(tenant_id=TENANT, file_id="file-1", filename="rows.jsonl", rows=2, records=records)
            )

        async def listed():
            data = (await http.get("/projects")).json()["data"]
            return data if data and data[0]["total"] == 2 else None

        [one] = await eventually(listed)
        assert one["name"] == "Rows of rows.jsonl"
        tasks = (await http.get(f"/projects/{one['id']}/tasks")).json()["data"]
        assert [task["text"] for task in tasks] == ["一\u2028二\u2029三\u0085四", "two"]


async def test_answers_are_published_as_rows(space: Space) -> None:
    async with labeling(space) as http, space.probe("labels") as seen:
        one = await project(http, labels=["a", "b"], instructions="Choose a or b.")
        assert (await http.post(f"/projects/{one}/publish")).status_code == 409
        for answer in ("a", "b"):
            task = (await http.post(f"/projects/{one}/next")).json()
            assert (await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})).status_code == 200
        assert (await http.post(f"/projects/{one}/publish")).json()["publications"] == 1
        published = (await eventually(lambda: seen.of(LabelsPublished)))[0]
        rows = [json.loads(line) for line in (await space.objects().get_bytes(published.records)).splitlines()]
        assert [row["messages"][-1]["content"] for row in rows] == ["a", "b"]
        assert rows[0]["messages"][0] == {"role": "system", "content": "Choose a or b."}


async def test_the_same_answers_are_published_once(space: Space) -> None:
    """A retry must not make a second dataset version, and so a second fine-tune; a new answer must."""
    async with labeling(space) as http, space.probe("labels") as seen:
        one = await project(http)
        for publications in (1, 2):
            task = (await http.post(f"/projects/{one}/next")).json()
            await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": "a"})
            for _ in range(2):
                assert (await http.post(f"/projects/{one}/publish")).json()["publications"] == publications
        published = await eventually(lambda: len(seen.of(LabelsPublished)) > 1 and seen.of(LabelsPublished))
        assert [(event.publication, event.rows) for event in published] == [(1, 1), (2, 2)]
        objects = space.objects()
        assert set(await objects.keys("tenants/")) == {event.records.key for event in published}


async def test_an_answer_must_be_one_of_the_labels(space: Space) -> None:
    async with labeling(space) as http:
        one = await project(http, labels=["a", "b"])
        task = (await http.post(f"/projects/{one}/next")).json()
        refused = await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": "c"})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "answer"


async def test_two_people_do_not_get_the_same_task(space: Space) -> None:
    async with labeling(space) as http:
        one = await project(http)
        other = {"authorization": f"Bearer {space.bearer('labeling', TENANT, role='labeler')}"}
        first = (await http.post(f"/projects/{one}/next")).json()
        again = (await http.post(f"/projects/{one}/next")).json()
        second = (await http.post(f"/projects/{one}/next", headers=other)).json()
        assert first["id"] == again["id"]
        assert second["id"] != first["id"]
        taken = await http.post(f"/projects/{one}/tasks/{second['id']}", json={"answer": "x"})
        assert taken.status_code == 409
        await end_holds(space)
        freed = (await http.post(f"/projects/{one}/next", headers=other)).json()
        assert freed["id"] == first["id"]


async def test_a_late_answer_does_not_replace_another_persons(space: Space) -> None:
    async with labeling(space) as http:
        one = await project(http)
        other = {"authorization": f"Bearer {space.bearer('labeling', TENANT, role='labeler')}"}
        task = (await http.post(f"/projects/{one}/next")).json()
        await end_holds(space)
        assert (await http.post(f"/projects/{one}/next", headers=other)).json()["id"] == task["id"]
        path = f"/projects/{one}/tasks/{task['id']}"
        assert (await http.post(path, json={"answer": "theirs"}, headers=other)).status_code == 200
        late = await http.post(path, json={"answer": "mine"})
        assert (late.status_code, late.json()["error"]["code"]) == (409, "task_answered")
        assert (await http.get(f"/projects/{one}/tasks")).json()["data"][0]["answer"] == "theirs"


async def test_a_skipped_task_comes_last_and_an_answer_can_be_corrected(space: Space) -> None:
    async with labeling(space) as http:
        one = await project(http, 2)
        skipped = (await http.post(f"/projects/{one}/next")).json()
        assert (await http.post(f"/projects/{one}/tasks/{skipped['id']}/skip")).status_code == 204
        task = (await http.post(f"/projects/{one}/next")).json()
        assert task["id"] != skipped["id"]
        for answer in ("wrong", "right"):
            done = await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})
        assert done.json()["answer"] == "right"
        assert (await http.post(f"/projects/{one}/next")).json()["id"] == skipped["id"]


async def test_feedback_arrives_once(space: Space) -> None:
    async with labeling(space) as http, space.publisher("inference_proxy") as publish:
        event = FeedbackRecorded(tenant_id=TENANT, feedback_id="fb_1", chat_id="c", model="m", rating="up")
        for _ in range(3):
            await publish(event)

        async def inbox():
            return (await http.get("/feedback")).json()["data"]

        assert len(await eventually(inbox)) == 1


async def test_another_tenant_finds_nothing(space: Space) -> None:
    async with labeling(space) as http:
        one = await project(http)
        stranger = space.headers("labeling", "tenant_b")
        for path in (f"/projects/{one}", f"/projects/{one}/tasks"):
            assert (await http.get(path, headers=stranger)).status_code == 404
        assert (await http.get("/projects", headers=stranger)).json()["data"] == []

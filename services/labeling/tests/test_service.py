"""From unlabelled rows to published labels, on the real stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from labeling.app import build
from labeling.settings import Settings
from schemas import FeedbackRecorded, LabelingRequested, LabelsPublished
from testkit import Space, eventually, running

TENANT = "tenant_a"


@asynccontextmanager
async def labeling(space: Space, tenant: str = TENANT) -> AsyncIterator[httpx2.AsyncClient]:
    app = build(space.settings(Settings, "labeling", labeling_task_seconds=1))
    headers = space.headers("labeling", tenant)
    async with running(app) as url, httpx2.AsyncClient(base_url=f"{url}/v1/labeling", headers=headers) as http:
        yield http


async def project(http: httpx2.AsyncClient, rows: int = 3, **body: object) -> str:
    texts = [f"text {n}" for n in range(rows)]
    answer = await http.post("/projects", json={"name": "Intents", "rows": texts, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def test_an_unlabelled_file_becomes_one_project(space: Space) -> None:
    async with labeling(space) as http, space.publisher("ingest") as publish:
        objects = space.objects()
        await objects.prepare()
        records = await objects.put_bytes("rows.jsonl", '{"text":"一"}\n{"text":"two"}\n'.encode())
        for _ in range(2):
            await publish(
                LabelingRequested(tenant_id=TENANT, file_id="file-1", filename="rows.jsonl", rows=2, records=records)
            )

        async def listed():
            data = (await http.get("/projects")).json()["data"]
            return data if data and data[0]["total"] == 2 else None

        assert [project["name"] for project in await eventually(listed)] == ["Rows of rows.jsonl"]


async def test_answers_are_published_as_rows(space: Space) -> None:
    async with labeling(space) as http, space.probe("labels") as seen:
        one = await project(http, labels=["a", "b"], instructions="Choose a or b.")
        assert (await http.post(f"/projects/{one}/publish")).status_code == 409
        for answer in ("a", "b"):
            task = (await http.post(f"/projects/{one}/next")).json()
            assert (await http.post(f"/projects/{one}/tasks/{task['id']}", json={"answer": answer})).status_code == 200
        assert (await http.post(f"/projects/{one}/publish")).json()["publications"] == 1
        published = (await eventually(lambda: seen.of(LabelsPublished)))[0]
        assert published.name == (await http.get(f"/projects/{one}")).json()["name"] != ""
        rows = [json.loads(line) for line in (await space.objects().get_bytes(published.records)).splitlines()]
        assert [row["messages"][-1]["content"] for row in rows] == ["a", "b"]
        assert rows[0]["messages"][0] == {"role": "system", "content": "Choose a or b."}


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
        await asyncio.sleep(1.1)
        freed = (await http.post(f"/projects/{one}/next", headers=other)).json()
        assert freed["id"] in (first["id"], second["id"])


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

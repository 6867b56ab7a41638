"""Events read by their tenant: in order, without gaps, by role, waited for, streamed; and kept within bounds."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import pytest_asyncio
from gateway_harness import PLACES, Harness, feedback

from chassis.auth import hash_key
from chassis.errors import NotFound
from event_gateway.store import Log
from schemas import ChatCompleted, FileDeleted, FinetuneFailed, FinetuneRequested, KeyRevoked, ModelPromoted
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def publish(shared: Harness) -> AsyncIterator[Any]:
    """Sends events as the registry would."""
    async with shared.space.publisher("registry") as publish:
        yield publish


def promoted(name: str, tenant: str) -> ModelPromoted:
    return ModelPromoted(
        tenant_id=tenant, model_id=name, job_id="job", base_model="tiny", adapter_id="a", decided_by="gate"
    )


def entry(harness: Harness, number: int) -> dict[str, Any]:
    """An event as it is kept to be read."""
    return {"id": f"evt_{harness.tenant}_{number}", "type": "model.promoted.v1", "data": {}}


async def listed(harness: Harness, many: int, key: str = "sk-engineer", **params: Any) -> list[dict[str, Any]]:
    async def found() -> Any:
        answer = await harness.get("/events", key, limit=100, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"] if len(answer.json()["data"]) >= many else None

    data: list[dict[str, Any]] = await eventually(found)
    return data


async def test_a_tenant_reads_its_own_events_in_order_and_none_twice(harness: Harness, publish: Any) -> None:
    for name in ("m1", "m2", "m3"):
        sent = await publish(promoted(name, harness.tenant))
        await listed(harness, int(name[1]))
    await publish(promoted("theirs", harness.other))
    await publish(promoted("nobodys", ""))
    [theirs] = await listed(harness, 1, "sk-other")
    assert theirs["data"]["model_id"] == "theirs"
    own = await listed(harness, 3)
    assert [one["data"]["model_id"] for one in own] == ["m1", "m2", "m3"]
    assert [one["cursor"] for one in own] == ["1", "2", "3"]
    last = own[-1]
    assert (last["id"], last["source"], last["type"]) == (sent.id, "/sartor/registry", "model.promoted.v1")
    assert (last["subject"], last["tenantid"], last["specversion"]) == ("m3", harness.tenant, "1.0")
    assert last["data"] == {
        "model_id": "m3",
        "name": "",
        "arm": None,
        "job_id": "job",
        "base_model": "tiny",
        "adapter_id": "a",
        "decided_by": "gate",
    }
    first = (await harness.get("/events", limit=2)).json()
    assert (first["last_id"], first["has_more"]) == ("2", True)
    rest = (await harness.get("/events", limit=2, after=first["last_id"])).json()
    assert [one["data"]["model_id"] for one in rest["data"]] == ["m3"]
    assert (rest["last_id"], rest["has_more"]) == ("3", False)
    back = (await harness.get("/events", order="desc", limit=2)).json()
    assert ([one["cursor"] for one in back["data"]], back["last_id"], back["has_more"]) == (["3", "2"], "2", True)
    older = (await harness.get("/events", order="desc", limit=2, after=back["last_id"])).json()
    assert ([one["cursor"] for one in older["data"]], older["has_more"]) == (["1"], False)
    assert (await harness.get("/events", order="desc", wait=1)).status_code == 400
    end = (await harness.get("/events", after="latest")).json()
    assert (end["data"], end["last_id"]) == ([], "3")


async def test_one_sees_what_ones_role_may_and_no_content(harness: Harness, publish: Any) -> None:
    secret = "what the customer wrote"
    await publish(FileDeleted(tenant_id=harness.tenant, file_id="file-1"))
    await publish(FinetuneFailed(tenant_id=harness.tenant, job_id="job", code="bad_rows", message=secret))
    await publish(KeyRevoked(tenant_id=harness.tenant, key_id="key_1", key_hash="0" * 64))
    await publish(
        ChatCompleted(
            tenant_id=harness.tenant,
            chat_id="chat",
            model="m",
            key_id="k",
            prompt_tokens=1,
            completion_tokens=1,
            latency_ms=1,
            finish_reason="stop",
        )
    )
    await publish(promoted("m1", harness.tenant))
    seen = await listed(harness, 3)
    assert {one["type"] for one in seen} == {"file.deleted.v1", "finetune.failed.v1", "model.promoted.v1"}
    assert secret not in str(seen)
    approver = await listed(harness, 2, "sk-approver")
    assert {one["type"] for one in approver} == {"finetune.failed.v1", "model.promoted.v1"}
    only = await listed(harness, 1, types="model.promoted.v1")
    assert [one["type"] for one in only] == ["model.promoted.v1"]
    refusals = {
        "sk-labeler": ({}, 403),
        "sk-monitor": ({}, 403),
        "sk-approver": ({"types": "file.deleted.v1"}, 403),
        "sk-engineer": ({"types": "nothing.v1"}, 400),
        "sk-other": ({"after": "x"}, 400),
    }
    for key, (params, status) in refusals.items():
        assert (await harness.get("/events", key, **params)).status_code == status, key
    for order in ("asc", "desc"):
        assert (await harness.get("/events", after="99999999999999999999", order=order)).status_code == 400
    beyond = {**harness.bearer("sk-engineer"), "last-event-id": f"{2**63}"}
    answer = await harness.http.get("/events", headers=beyond)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


async def test_a_question_waits_for_its_answer(harness: Harness, publish: Any) -> None:
    began = time.monotonic()
    none = (await harness.get("/events", after="latest", wait=0.5)).json()
    assert (none["data"], time.monotonic() - began >= 0.5) == ([], True)
    waiting = asyncio.create_task(harness.get("/events", wait=30, types="model.promoted.v1"))
    await publish(
        FinetuneRequested(tenant_id=harness.tenant, job_id="j", base_model="b", training_file="f", trigger="request")
    )
    await publish(promoted("m1", harness.tenant))
    answer = (await waiting).json()
    assert [one["data"]["model_id"] for one in answer["data"]] == ["m1"]
    assert time.monotonic() - began < 25


async def test_a_stream_goes_on_where_it_broke_off(harness: Harness, publish: Any) -> None:
    async def read(most: int, **headers: str) -> list[tuple[str, dict[str, Any]]]:
        asked = {**harness.bearer("sk-engineer"), "accept": "text/event-stream", **headers}
        found: list[tuple[str, dict[str, Any]]] = []
        async with harness.http.stream("GET", "/events", headers=asked) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            number = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    number = value
                if name == "data":
                    found.append((number, json.loads(value)))
                if len(found) == most:
                    return found
        raise AssertionError("the stream ended")

    await publish(promoted("m1", harness.tenant))
    reading = asyncio.create_task(read(2))
    await listed(harness, 1)
    await publish(promoted("m2", harness.tenant))
    found = await asyncio.wait_for(reading, 30)
    assert [(number, one["data"]["model_id"]) for number, one in found] == [("1", "m1"), ("2", "m2")]
    await publish(promoted("m3", harness.tenant))
    [(number, one)] = await asyncio.wait_for(read(1, **{"last-event-id": "2"}), 30)
    assert (number, one["data"]["model_id"]) == ("3", "m3")


async def test_a_stream_ends_with_its_key_however_much_there_is_to_read(harness: Harness) -> None:
    log = Log(harness.database["events"], harness.database["heads"], kept_seconds=60, most=10_000)
    authenticator = harness.app.state.service.authenticator
    keys = harness.keys
    keys[hash_key(harness.key("sk-approver"))]["role"] = "engineer"

    async def write() -> None:
        for number in itertools.count():
            await log.append(harness.tenant, entry(harness, number))

    async def read(key: str, **params: Any) -> str:
        """The last thing that is said."""
        asked = {**harness.bearer(key), "accept": "text/event-stream"}
        found, said = 0, ""
        async with harness.http.stream("GET", "/events", headers=asked, params=params) as answer:
            async for line in answer.aiter_lines():
                found += line.startswith("id: ")
                said = line or said
                if found == 3:
                    started.discard(key)
        return said

    started = {"sk-engineer", "sk-rater", "sk-approver"}
    reading = [
        asyncio.create_task(read("sk-engineer")),
        asyncio.create_task(read("sk-rater")),
        asyncio.create_task(read("sk-approver", types="model.promoted.v1,file.deleted.v1")),
    ]
    writing = asyncio.create_task(write())
    try:
        await eventually(lambda: not started)
        authenticator.forget(hash_key(harness.key("sk-engineer")))
        for key, about in (("sk-rater", {"scopes": ["events:publish"]}), ("sk-approver", {"role": "approver"})):
            keys[hash_key(harness.key(key))] |= about
            authenticator._known.forget(hash_key(harness.key(key)))
        ended = await asyncio.wait_for(asyncio.gather(*reading), 20)
        assert not writing.done()
    finally:
        for task in (writing, *reading):
            task.cancel()
    errors = [json.loads(said.removeprefix("data: "))["error"] for said in ended]
    assert [(error["code"], error["param"]) for error in errors] == [
        ("revoked_api_key", None),
        ("insufficient_permissions", "events:read"),
        ("insufficient_permissions", "types"),
    ]


async def test_a_question_that_waits_ends_with_its_key(harness: Harness, publish: Any) -> None:
    waiting = asyncio.create_task(harness.get("/events", wait=30))
    heads: Any = harness.app.state.service._background["heads"]
    await eventually(lambda: heads.__self__._waiting._taken.get(harness.tenant) == 1)
    harness.app.state.service.authenticator.forget(hash_key(harness.key("sk-engineer")))
    await publish(promoted("m1", harness.tenant))
    answer = await asyncio.wait_for(waiting, 30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


async def test_a_burst_gets_no_more_places_than_there_are(harness: Harness) -> None:
    async with AsyncExitStack() as streams:
        heads: Any = harness.app.state.service._background["heads"]
        asked = {**harness.bearer("sk-engineer"), "accept": "text/event-stream"}
        opened = await asyncio.gather(
            *(streams.enter_async_context(harness.http.stream("GET", "/events", headers=asked)) for _ in range(8))
        )
        assert sorted(answer.status_code for answer in opened) == [200] * PLACES + [429] * (8 - PLACES)
        await streams.aclose()
        await eventually(lambda: harness.tenant not in heads.__self__._waiting._taken)
        answers = await asyncio.gather(*(harness.get("/events", after="latest", wait=1) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * PLACES + [429] * (8 - PLACES)
        assert harness.tenant not in heads.__self__._waiting._taken


async def test_open_streams_are_counted(harness: Harness) -> None:
    waiting = [asyncio.create_task(harness.get("/events", after="latest", wait=5)) for _ in range(PLACES)]
    heads: Any = harness.app.state.service._background["heads"]
    await eventually(lambda: heads.__self__._waiting._taken.get(harness.tenant) == PLACES)
    assert (await harness.get("/events", wait=1)).status_code == 429
    assert (await harness.get("/events", "sk-other", wait=0.1)).status_code == 200
    assert (await harness.get("/events")).status_code == 200
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await eventually(lambda: harness.tenant not in heads.__self__._waiting._taken)


async def test_a_tenant_has_its_newest_events_and_is_told_of_a_gap(harness: Harness) -> None:
    log = Log(harness.database["events"], harness.database["heads"], kept_seconds=60, most=10)
    for number in range(1, 16):
        await log.append(harness.tenant, entry(harness, number))
    kept = (await harness.get("/events", limit=100)).json()
    assert [one["cursor"] for one in kept["data"]] == [str(number) for number in range(6, 16)]
    lost = await harness.get("/events", after="3")
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "cursor_expired")
    assert (await harness.get("/events", after="5")).status_code == 200
    await harness.database["events"].delete_many({"tenant_id": harness.tenant})  # as they expire
    assert (await harness.get("/events", after="14")).json()["error"]["code"] == "cursor_expired"
    assert (await harness.get("/events", after="15")).json()["last_id"] == "15"
    for beyond in ("16", f"{2**63 - 1}"):  # of a log that is no more
        assert (await harness.get("/events", after=beyond)).json()["error"]["code"] == "cursor_expired"
    await log.append(harness.tenant, entry(harness, 16))
    assert (await harness.get("/events", after="15")).json()["last_id"] == "16"


@pytest.mark.parametrize("name", ["events", "heads"])
async def test_events_that_go_while_a_page_is_looked_for_are_not_passed_over(harness: Harness, name: str) -> None:
    class Going:
        """A collection; after each question for one document the three oldest events are kept no more."""

        def __init__(self, collection: Any) -> None:
            self._collection = collection

        async def find_one(self, *asked: Any, **more: Any) -> Any:
            found = await self._collection.find_one(*asked, **more)
            await database["events"].delete_many({"tenant_id": harness.tenant, "number": {"$lte": 3}})
            return found

        def __getattr__(self, method: str) -> Any:
            return getattr(self._collection, method)

    database = harness.database
    log = Log(database["events"], database["heads"], kept_seconds=60, most=100)
    for number in range(1, 6):
        await log.append(harness.tenant, entry(harness, number))
    parts: Any = {one: Going(database[one]) if one == name else database[one] for one in ("events", "heads")}
    read = Log(parts["events"], parts["heads"], kept_seconds=60, most=100)
    found = [{"cursor": "cursor_expired"}]
    with suppress(NotFound):
        found, _ = await read.page(harness.tenant, ["model.promoted.v1"], after=1, limit=10)
    assert [one["cursor"] for one in found] in (["2", "3", "4", "5"], ["cursor_expired"])


async def test_events_that_come_together_get_places_of_their_own(harness: Harness) -> None:
    log = Log(harness.database["events"], harness.database["heads"], kept_seconds=60, most=100)
    shown = [entry(harness, number % 12) for number in range(24)]
    await asyncio.gather(*(log.append(harness.tenant, one) for one in shown))
    found = (await harness.get("/events", limit=100)).json()["data"]
    assert [one["cursor"] for one in found] == [str(number) for number in range(1, 13)]
    assert len({one["id"] for one in found}) == 12


async def test_an_outsiders_own_event_can_be_read(harness: Harness) -> None:
    receipt = (await harness.send(feedback())).json()
    [one] = await listed(harness, 1)
    assert (one["data"]["feedback_id"], one["data"]["producer"]) == (receipt["subject"], harness.key_id("sk-rater"))
    assert one["causationid"] == "1"

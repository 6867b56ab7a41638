"""Events of services outside, on the real stack: published once, as the key's tenant, or refused with a reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gateway_harness import FEEDBACK, REFUSED, Harness, drift, feedback

from chassis.ids import derived_id, now
from event_gateway.use_cases import DropOld
from schemas import FeedbackRecorded, cloudevent
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def drop_old(harness: Harness) -> DropOld:
    """What the running gateway drops old things by."""
    sweep: Any = harness.app.state.service._background["sweep"]
    dropping: DropOld = sweep.__self__
    return dropping


BATCH = {"content-type": "application/cloudevents-batch+json"}


async def test_a_rating_is_published_once_however_often_it_is_sent(harness: Harness) -> None:
    answers = await asyncio.gather(*(harness.send(feedback()) for _ in range(4)))
    answers.append(await harness.send(feedback()))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    receipt = answers[0].json()
    assert (receipt["id"], receipt["type"]) == ("1", FEEDBACK)
    marker = await harness.send(feedback("2", feedback_id="marker"))
    await eventually(lambda: marker.json()["subject"] in [one.feedback_id for one in harness.of(FeedbackRecorded)])
    [published] = [one for one in harness.of(FeedbackRecorded) if one.feedback_id != marker.json()["subject"]]
    assert published.feedback_id == receipt["subject"] == derived_id("fb_", harness.tenant, "rating-1")
    assert (published.tenant_id, published.rating) == (harness.tenant, "down")
    assert published.producer == harness.key_id("sk-rater")
    [envelope] = [one for one, event in harness.events if event == published]
    assert (envelope.source, envelope.tenantid, envelope.causationid) == ("/sartor/event_gateway", harness.tenant, "1")


async def test_an_id_is_its_tenants_and_its_sources(harness: Harness) -> None:
    first = await harness.send(feedback())
    for event, key in ((feedback(), "sk-other"), (feedback() | {"source": "/another"}, "sk-rater")):
        assert (await harness.send(event, key)).status_code == 202
    again = await harness.send(feedback(), "sk-monitor")
    assert again.json() == first.json(), "another key of the tenant, as after a rotation"
    tenants = lambda: [one.tenant_id for one in harness.of(FeedbackRecorded)]  # noqa: E731
    await eventually(lambda: len(tenants()) == 3)
    assert sorted(tenants()) == [harness.tenant, harness.tenant, harness.other]


async def test_an_id_used_again_for_another_event_is_a_conflict(harness: Harness) -> None:
    assert (await harness.send(feedback())).status_code == 202
    again = await harness.send(feedback(rating="up"))
    assert (again.status_code, again.json()["error"]["code"]) == (409, "event_id_reused")
    both = await asyncio.gather(*(harness.send(feedback("2", rating=rating)) for rating in ("up", "down")))
    assert sorted(answer.status_code for answer in both) == [202, 409]
    await eventually(lambda: len(harness.events) == 2)


def wrong(harness: Harness) -> list[tuple[str, Any, int, str]]:
    """Key, what is sent by it, and how it is refused."""
    return [
        ("sk-rater", feedback() | {"tenantid": harness.other}, 403, "foreign_tenant"),
        ("sk-rater", feedback(tenant_id=harness.other), 403, "foreign_tenant"),
        ("sk-rater", drift(), 403, "event_type_not_allowed"),
        ("sk-monitor", feedback() | {"type": "model.promoted.v1"}, 403, "event_type_not_allowed"),
        ("sk-monitor", feedback() | {"type": "nothing.known.v1"}, 400, "unknown_event_type"),
        ("sk-mute", feedback(), 403, "event_type_not_allowed"),
        ("sk-rater", feedback(rating="sideways"), 400, "invalid_event_data"),
        ("sk-rater", feedback(note="not a field"), 400, "invalid_event_data"),
        ("sk-rater", feedback() | {"specversion": "0.3"}, 400, "malformed_event"),
        ("sk-rater", feedback() | {"color": "red"}, 400, "malformed_event"),
        ("sk-rater", feedback() | {"time": "yesterday"}, 400, "malformed_event"),
        ("sk-rater", {**feedback(), "id": ""}, 400, "malformed_event"),
        ("sk-rater", [feedback()], 400, "malformed_event"),
        ("sk-rater", 7, 400, "malformed_event"),
        ("sk-rater", feedback(model="\ud800"), 400, "malformed_event"),
    ]


async def test_what_is_refused_is_published_nowhere_and_kept_with_its_reason(harness: Harness) -> None:
    for key, event, status, code in wrong(harness):
        answer = await harness.send(event, key)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (event, answer.text)
    not_json = await harness.http.post(
        "/events",
        content=b"{",
        headers={**harness.bearer("sk-rater"), "content-type": "application/cloudevents+json"},
    )
    assert (not_json.status_code, not_json.json()["error"]["code"]) == (400, "malformed_event")
    kept = (await harness.get("/events/refused", limit=100)).json()["data"]
    assert [one["code"] for one in reversed(kept)] == [code for *_, code in wrong(harness)] + ["malformed_event"]
    forged = kept[-1]
    assert (forged["event_id"], forged["type"], forged["key_id"]) == ("1", FEEDBACK, harness.key_id("sk-rater"))
    assert "is not the tenant of this key" in forged["reason"]
    assert "not a field" not in str(kept), "what was sent is not kept"
    assert (await harness.get("/events/refused", "sk-other")).json()["data"] == []
    behind = await harness.get("/events/refused", after=kept[3]["id"], limit=2)
    assert [one["id"] for one in behind.json()["data"]] == [one["id"] for one in kept[4:6]]
    marker = await harness.send(feedback("good"))
    await eventually(lambda: harness.events)
    assert [event.feedback_id for _, event in harness.events] == [marker.json()["subject"]]


async def test_the_newest_refusals_of_a_tenant_are_kept(harness: Harness) -> None:
    for number in range(2 * REFUSED):
        await harness.send(feedback(f"{number}", rating="?"))
    assert (await harness.send(feedback("theirs", rating="?"), "sk-other")).status_code == 400
    kept = (await harness.get("/events/refused", limit=100)).json()["data"]
    assert [one["event_id"] for one in kept] == [str(number) for number in range(2 * REFUSED - 1, REFUSED - 1, -1)]


async def test_a_list_is_published_whole_or_not_at_all(harness: Harness) -> None:
    wrong = await harness.send([feedback("1"), feedback("2", rating="?"), feedback("3")], **BATCH)
    assert wrong.status_code == 400
    assert "events[1].data.rating" in wrong.json()["error"]["message"]
    assert await harness.database["received"].count_documents({"tenant_id": harness.tenant}) == 0
    two = await harness.send([feedback("1"), feedback("2"), feedback("1", rating="up")], **BATCH)
    assert (two.status_code, two.json()["error"]["code"]) == (409, "event_id_reused")
    assert two.json()["error"]["message"].startswith("events[2].id")
    assert await harness.database["received"].count_documents({"tenant_id": harness.tenant}) == 0
    good = await harness.send([feedback("1"), feedback("3")], **BATCH)
    assert good.status_code == 202
    assert [one["id"] for one in good.json()["data"]] == ["1", "3"]
    assert (await harness.send([feedback("1"), feedback("3")], **BATCH)).json() == good.json()
    twice = await harness.send([feedback("1"), feedback("1")], **BATCH)
    assert twice.json()["data"] == good.json()["data"][:1] * 2
    await eventually(lambda: len(harness.events) == 2)
    for body, status in (([], 400), ([feedback(str(n)) for n in range(101)], 413)):
        assert (await harness.send(body, **BATCH)).status_code == status


async def test_a_lists_events_count_as_requests_each(harness: Harness) -> None:
    for about in harness.keys.values():
        about["allowances"] = [{"of": about["key_id"], "requests_per_minute": 10, "tokens_per_minute": 10}]
    assert (await harness.send([feedback(str(n)) for n in range(20)], **BATCH)).status_code == 202
    assert (await harness.send(feedback("21"))).status_code == 429


async def test_an_event_comes_in_headers_too(harness: Harness) -> None:
    """CloudEvents' binary mode: the same event as in its JSON form."""
    event = feedback("café")
    attributes = {"ce-specversion": "1.0", "ce-id": "caf%C3%A9", "ce-source": "/survey", "ce-type": FEEDBACK}
    one = await harness.send(event["data"], **attributes, **{"content-type": "application/json; charset=utf-8"})
    assert one.status_code == 202, one.text
    assert (await harness.send(event)).json() == one.json()
    bare = await harness.send(event["data"], **{"content-type": "application/json"})
    assert (bare.status_code, bare.json()["error"]["param"]) == (400, "content-type")


async def test_what_the_published_builder_makes_is_taken(harness: Harness) -> None:
    event = cloudevent(FEEDBACK, feedback()["data"], event_id="1", source="/survey")
    assert (await harness.send(event)).status_code == 202
    assert (await harness.send(feedback())).status_code == 202
    with pytest.raises(ValueError, match="publish"):
        cloudevent("model.promoted.v1", {}, event_id="1", source="/x")


async def test_what_was_sent_is_forgotten_after_a_week_but_not_before_it_is_published(harness: Harness) -> None:
    await harness.send(feedback())
    received = harness.database["received"]

    async def published() -> bool:
        return bool(await received.count_documents({"tenant_id": harness.tenant, "outbox": []}))

    await eventually(published)
    waiting = await received.find_one({"tenant_id": harness.tenant})
    # The relay looks for the time of the first that waits; this one has none, so it is left alone.
    unpublished, old = f"sent_waiting_{harness.tenant}", f"sent_old_{harness.tenant}"
    await received.insert_one({**waiting, "_id": unpublished, "outbox": [{}], "created_at": 1})
    await received.insert_one({**waiting, "_id": old, "created_at": 1})
    await drop_old(harness).drop_before(now() - 60)
    left = {one["_id"] async for one in received.find({"tenant_id": harness.tenant})}
    await received.delete_one({"_id": unpublished})
    assert left == {waiting["_id"], unpublished}

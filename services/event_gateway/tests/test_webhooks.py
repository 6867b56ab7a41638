"""Webhooks on the real stack: signed as the openai SDK checks them, tried again, parked, sent again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from gateway_harness import Harness, gateway, receiver

from event_gateway.domain import Delivery, Endpoint, Outcome
from event_gateway.sending import WebhookSender
from event_gateway.store import Webhooks
from event_gateway.worker import Deliveries
from schemas import FinetuneSucceeded, KeyRevoked, ModelPromoted, WebhookRefused, verified
from testkit import Space, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = {"webhook_first_pause": 60, "webhook_longest_pause": 60, "webhook_seconds": 3}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def publish(shared: Harness) -> AsyncIterator[Any]:
    """Sends events as the trainer would."""
    async with shared.space.publisher("trainer") as publish:
        yield publish


def sdk(harness: Harness) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=str(harness.http.base_url),
        api_key=harness.key("sk-engineer"),
        max_retries=0,
        _strict_response_validation=True,
    )


def succeeded(tenant: str, job: str = "ftjob-1") -> FinetuneSucceeded:
    return FinetuneSucceeded(tenant_id=tenant, job_id=job, model_id="ft:tiny:acme:x")


async def endpoint(
    harness: Harness, url: str, *types: str, name: str = "mine", key: str = "sk-engineer"
) -> dict[str, Any]:
    asked = {"name": name, "url": url, "event_types": list(types or ("fine_tuning.job.succeeded",))}
    answer = await harness.post("/webhook_endpoints", asked, key)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def deliveries(harness: Harness, made: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await harness.get(f"/webhook_endpoints/{made['id']}/deliveries", **params)).json()[
        "data"
    ]
    return found


async def test_the_openai_sdk_makes_tries_and_unwraps_webhooks(harness: Harness, publish: Any) -> None:
    async with receiver() as there:
        client = sdk(harness)
        types = await client.webhooks.event_types.list()
        assert {"fine_tuning.job.succeeded", "model.promoted.v1"} <= set(types.data)
        made = await client.webhooks.create(name="mine", url=there.url, event_types=["fine_tuning.job.succeeded"])
        assert made.signing_secret.startswith("whsec_")
        [listed] = [one async for one in client.webhooks.list()]
        assert (listed.id, listed.signing_secret_hint) == (made.id, made.signing_secret_hint)
        tried = await client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
        assert tried.status_code == 200
        await publish(succeeded(harness.tenant))
        await publish(succeeded(harness.other, "ftjob-2"))
        await eventually(lambda: len(there.came) == 2)
        headers, body = there.came[1]
        event = client.webhooks.unwrap(body, headers, secret=made.signing_secret)
        assert (event.type, event.data.id) == ("fine_tuning.job.succeeded", "ftjob-1")
        assert verified(made.signing_secret, headers, body, time.time()) == json.loads(body)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body.replace(b"ftjob-1", b"ftjob-9"), headers, secret=made.signing_secret)
        for wrong in (
            (headers, body + b" ", time.time()),
            (headers, body, time.time() + 301),
            ({**headers, "webhook-id": "another"}, body, time.time()),
            ({}, body, time.time()),
        ):
            with pytest.raises(WebhookRefused):
                verified(made.signing_secret, *wrong)
        changed = await client.webhooks.update(made.id, name="ours")
        assert changed.name == "ours"
        other = await client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        await publish(succeeded(harness.tenant, "ftjob-3"))
        await eventually(lambda: len(there.came) == 3)
        for secret in (made.signing_secret, other.signing_secret):
            assert client.webhooks.unwrap(there.came[2][1], there.came[2][0], secret=secret)
        assert (await client.webhooks.delete(made.id)).deleted
        assert (await harness.get("/webhook_endpoints")).json()["data"] == []


async def test_a_delivery_that_fails_is_tried_again_under_the_same_id(harness: Harness, publish: Any) -> None:
    async with receiver(500, 302) as there:
        made = await endpoint(harness, there.url)
        await publish(succeeded(harness.tenant))
        await eventually(lambda: len(there.came) == 3)
        assert len({headers["webhook-id"] for headers, _ in there.came}) == 1

        async def done() -> Any:
            [one] = await deliveries(harness, made)
            return one if one["state"] == "delivered" else None

        one = await eventually(done)
        assert (one["attempts"], one["status"], one["problem"]) == (3, 200, None)
        assert there.strayed == [], "a redirect was followed"
        shown = (await harness.get(f"/webhook_endpoints/{made['id']}")).json()
        assert shown["deliveries"] == {"waiting": 0, "parked": 0}
        assert "signing_secret" not in shown


async def test_what_nobody_takes_is_parked_and_can_be_sent_again(harness: Harness, publish: Any) -> None:
    async with receiver(*[503] * 3) as there:
        made = await endpoint(harness, there.url)
        await publish(succeeded(harness.tenant))

        async def parked() -> Any:
            return await deliveries(harness, made, state="parked")

        [one] = await eventually(parked)
        assert (one["attempts"], one["status"], one["problem"]) == (3, 503, "answered 503")
        path = f"/webhook_endpoints/{made['id']}/deliveries/{one['id']}/replay"
        assert (await harness.post(path, key="sk-approver")).status_code == 403
        assert (await harness.post(path, key="sk-other")).status_code == 404
        again = await harness.post(path)
        assert (again.json()["state"], again.json()["replays"]) == ("waiting", 1)
        await eventually(lambda: len(there.came) == 4)
        assert len({headers["webhook-id"] for headers, _ in there.came}) == 1


async def test_an_endpoint_that_wants_no_more_is_off_until_it_is_changed(harness: Harness, publish: Any) -> None:
    async with receiver(410) as there:
        made = await endpoint(harness, there.url)
        path = f"/webhook_endpoints/{made['id']}"
        await publish(succeeded(harness.tenant))

        async def off() -> Any:
            return (await harness.get(path)).json()["off"]

        assert "410" in await eventually(off)
        await publish(succeeded(harness.tenant, "ftjob-2"))

        async def read() -> bool:
            return len((await harness.get("/events")).json()["data"]) == 2

        await eventually(read)
        [one] = await deliveries(harness, made, state="parked")
        assert (await harness.post(f"{path}/deliveries/{one['id']}/replay")).status_code == 400
        assert (await harness.post(path, {"name": "again"})).json()["off"] is None
        assert (await harness.post(f"{path}/deliveries/{one['id']}/replay")).status_code == 200
        await eventually(lambda: len(there.came) == 2)


async def test_an_endpoint_that_is_away_holds_up_nobody_and_only_so_much(space: Space) -> None:
    """Its deliveries are bounded; another endpoint gets its own at once."""
    async with (
        gateway(space, **SLOW, webhook_waiting=10) as harness,
        receiver() as there,
        space.publisher("trainer") as publish,
    ):
        away = await endpoint(harness, "http://127.0.0.1:9/hook")
        await endpoint(harness, there.url)
        for number in range(15):
            await publish(succeeded(harness.tenant, f"ftjob-{number}"))
            await eventually(lambda many=number + 1: len(there.came) == many)

        async def counted() -> bool:
            shown = (await harness.get(f"/webhook_endpoints/{away['id']}")).json()
            return (shown["deliveries"]["waiting"], shown["skipped"]) == (10, 5)

        await eventually(counted)


async def test_two_replicas_deliver_each_event_once(space: Space) -> None:
    async with (
        gateway(space, replica_id="one") as harness,
        gateway(space, replica_id="two"),
        receiver() as there,
        space.publisher("trainer") as publish,
    ):
        made = await endpoint(harness, there.url)
        for number in range(12):
            await publish(succeeded(harness.tenant, f"ftjob-{number}"))

        async def done() -> bool:
            found = await deliveries(harness, made, limit=100)
            return len(found) == 12 and all(one["state"] == "delivered" for one in found)

        await eventually(done)
        assert sorted(json.loads(body)["data"]["id"] for _, body in there.came) == sorted(
            f"ftjob-{number}" for number in range(12)
        )


async def test_a_deleted_endpoint_leaves_nothing(space: Space) -> None:
    async with gateway(space, **SLOW) as harness, space.publisher("trainer") as publish:
        made = await endpoint(harness, "http://127.0.0.1:9/hook")
        await publish(succeeded(harness.tenant))

        async def tried() -> Any:
            return [one for one in await deliveries(harness, made) if one["attempts"]]

        await eventually(tried)
        await harness.http.delete(f"/webhook_endpoints/{made['id']}", headers=harness.bearer("sk-engineer"))
        for name in ("endpoints", "deliveries"):
            assert await harness.database[name].count_documents({}) == 0


async def test_what_waits_of_a_type_that_is_wanted_no_more_is_not_sent(space: Space) -> None:
    async with (
        gateway(space, webhook_first_pause=3, webhook_longest_pause=3) as harness,
        receiver(503) as there,
        space.publisher("trainer") as publish,
    ):
        made = await endpoint(harness, there.url)
        path = f"/webhook_endpoints/{made['id']}"
        await publish(succeeded(harness.tenant))
        await eventually(lambda: len(there.came) == 1)
        assert (await harness.post(path, {"event_types": ["model.promoted.v1"]})).status_code == 200

        async def given_up() -> bool:
            return await deliveries(harness, made) == []

        await eventually(given_up)
        assert len(there.came) == 1


async def test_a_worker_that_lost_a_delivery_does_not_delete_it(space: Space) -> None:
    async with gateway(space, **SLOW) as harness, space.publisher("trainer") as publish:
        await endpoint(harness, "http://127.0.0.1:9/hook")
        await publish(succeeded(harness.tenant))
        there = harness.database["deliveries"]

        async def tried() -> Any:
            return await there.find_one({"attempts": 1, "lease.owner": ""})

        await eventually(tried)
        service = harness.app.state.service
        due: Any = None
        webhooks = Webhooks(service.aggregates("endpoints", Endpoint), service.aggregates("deliveries", Delivery), due)
        late = Delivery.model_validate({**(found := await tried()), "id": found["_id"]})
        await there.update_one({}, {"$inc": {"lease.fence": 1}})
        await webhooks.forget(late)
        assert await there.count_documents({}) == 1
        late.lease.fence += 1
        await webhooks.forget(late)
        assert await there.count_documents({}) == 0


async def test_who_may_not_read_what_is_sent_may_not_delete_it(harness: Harness) -> None:
    made = await endpoint(harness, "http://127.0.0.1:9/hook", "key.revoked.v1", key="sk-admin")
    path = f"/webhook_endpoints/{made['id']}"
    refused = await harness.http.delete(path, headers=harness.bearer("sk-engineer"))
    assert refused.status_code == 403
    assert (await harness.http.delete(path, headers=harness.bearer("sk-admin"))).status_code == 200


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"event_types": ["key.revoked.v1"]}, 403, "types"),
    ({"event_types": ["chat.completed.v1"]}, 400, "types"),
    ({"event_types": ["batch.completed"]}, 400, "types"),
    ({"event_types": []}, 400, "event_types"),
    ({"url": "ftp://127.0.0.1/"}, 400, "url"),
    ({"name": ""}, 400, "name"),
]


async def test_what_cannot_be_sent_cannot_be_asked_for(harness: Harness) -> None:
    async with receiver() as there:
        good = {"name": "mine", "url": there.url, "event_types": ["model.promoted.v1"]}
        for change, status, param in WRONG:
            answer = await harness.post("/webhook_endpoints", {**good, **change})
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
        made = await harness.post("/webhook_endpoints", good)
        assert made.status_code == 200
        assert (await harness.post("/webhook_endpoints", good)).json()["error"]["code"] == "too_many_webhooks"
        assert (await harness.post("/webhook_endpoints", good, "sk-other")).status_code == 200
        assert (await harness.get(f"/webhook_endpoints/{made.json()['id']}", "sk-other")).status_code == 404
        assert (await harness.post("/webhook_endpoints", good, "sk-approver")).status_code == 403


NOT_ONES_OWN: list[tuple[str, dict[str, Any] | None]] = [
    ("", {"url": "http://127.0.0.1:9/mine"}),
    ("", {"name": "mine"}),
    ("", {"event_types": ["model.promoted.v1"]}),
    ("/rotate_secret", None),
    ("/test", {"event_type": "model.promoted.v1"}),
]


async def test_what_is_sent_of_anothers_events_is_not_led_elsewhere(harness: Harness) -> None:
    """An engineer, who may not read of keys, has no hand in an endpoint that is told of them."""
    async with receiver(410) as there, harness.space.publisher("accounts") as publish:
        made = await endpoint(harness, there.url, "key.revoked.v1", "model.promoted.v1", key="sk-admin")
        path = f"/webhook_endpoints/{made['id']}"
        for route, body in NOT_ONES_OWN:
            answer = await harness.post(path + route, body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (403, "types"), (route, body)
        shown = (await harness.get(path)).json()
        assert {name: shown[name] for name in ("name", "url", "event_types", "signing_secret_hint")} == {
            name: made[name] for name in ("name", "url", "event_types", "signing_secret_hint")
        }
        assert there.came == []
        await publish(KeyRevoked(tenant_id=harness.tenant, key_id="key_1", key_hash="0" * 64))

        async def parked() -> Any:
            return await deliveries(harness, made, state="parked")

        [one] = await eventually(parked)
        replay = f"{path}/deliveries/{one['id']}/replay"
        assert (await harness.post(replay)).status_code == 403
        # the endpoint is told of keys no more: of what it was told, still nobody else may have it sent
        assert (await harness.post(path, {"event_types": ["model.promoted.v1"]}, "sk-admin")).status_code == 200
        assert (await harness.post(path, {"name": "mine"})).status_code == 200
        assert (await harness.post(replay)).status_code == 403
        refused = await harness.post(replay, key="sk-admin")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "type_not_wanted")
        assert [it["id"] for it in await deliveries(harness, made, state="parked")] == [one["id"]], "it is kept"
        wanted = {"event_types": ["model.promoted.v1", "key.revoked.v1"]}
        assert (await harness.post(path, wanted, "sk-admin")).status_code == 200
        assert (await harness.post(replay, key="sk-admin")).status_code == 200
        await eventually(lambda: len(there.came) == 2)


@pytest.mark.parametrize("broken", ["send", "note"])
async def test_a_delivery_that_breaks_ends_no_other(space: Space, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    """Neither an address at which the sender stumbles nor a note that cannot be kept reaches beyond its delivery."""
    broke, go_on, begun = asyncio.Event(), asyncio.Event(), Counter[str]()
    send, note = WebhookSender.send, Deliveries._note

    def stumble(at: str, to: Endpoint) -> None:
        if (at, to.name) == (broken, "odd"):
            broke.set()
            raise UnicodeEncodeError("ascii", "ü", 0, 1, "a test's")

    async def sent(self: WebhookSender, to: Endpoint, webhook_id: str, body: str) -> Outcome:
        begun[webhook_id] += 1
        if to.name == "mine" and "ftjob-1" in body:
            await go_on.wait()
        stumble("send", to)
        return await send(self, to, webhook_id, body)

    async def noted(self: Deliveries, to: Endpoint, delivery: Delivery, outcome: Outcome) -> None:
        stumble("note", to)
        await note(self, to, delivery, outcome)

    monkeypatch.setattr(WebhookSender, "send", sent)
    monkeypatch.setattr(Deliveries, "_note", noted)
    once = {"webhook_attempts": 1, "webhook_seconds": 60}
    async with gateway(space, **once) as harness, receiver() as there, space.publisher("trainer") as publish:
        mine = await endpoint(harness, there.url)
        odd = await endpoint(harness, there.url.replace("/hook", "/odd"), "model.promoted.v1", name="odd")
        await publish(succeeded(harness.tenant, "ftjob-1"))
        await eventually(lambda: begun)
        await publish(
            ModelPromoted(
                tenant_id=harness.tenant, model_id="m", job_id="j", base_model="b", adapter_id="a", decided_by="gate"
            )
        )
        await eventually(broke.is_set)
        await publish(succeeded(harness.tenant, "ftjob-2"))
        await eventually(lambda: len(there.came) == 1)
        go_on.set()
        await eventually(lambda: len(there.came) == 2)

        async def delivered() -> bool:
            return len(await deliveries(harness, mine, state="delivered")) == 2

        await eventually(delivered)
        assert set(begun.values()) == {1}, "a delivery was cancelled, and begun again"
        if broken == "send":
            [one] = await deliveries(harness, odd, state="parked")
            assert one["problem"] == "it could not be sent (UnicodeEncodeError)"


async def test_receivers_that_hang_hold_up_neither_the_tenants_others_nor_other_tenants(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, under_way = asyncio.Event(), Counter[str]()
    send = WebhookSender.send

    async def sent(self: WebhookSender, to: Endpoint, webhook_id: str, body: str) -> Outcome:
        if to.name.startswith("hanging"):
            under_way[to.name] += 1
            await go_on.wait()
        return await send(self, to, webhook_id, body)

    monkeypatch.setattr(WebhookSender, "send", sent)
    few = {
        "webhook_deliveries_at_a_time": 4,
        "webhook_deliveries_per_tenant": 3,
        "webhook_deliveries_each": 2,
        "webhook_seconds": 60,
    }
    async with gateway(space, **few) as harness, receiver() as there, space.publisher("trainer") as publish:
        await endpoint(harness, there.url.replace("/hook", "/one"), name="hanging-1")
        await endpoint(harness, there.url)
        await endpoint(harness, there.url, key="sk-other")
        for number in range(4):
            await publish(succeeded(harness.tenant, f"ftjob-{number}"))
        await eventually(lambda: len(there.came) == 4 and under_way == {"hanging-1": 2})
        await endpoint(harness, there.url.replace("/hook", "/two"), name="hanging-2")
        for number in range(4, 8):
            await publish(succeeded(harness.tenant, f"ftjob-{number}"))
        await eventually(lambda: under_way["hanging-2"])
        before = len(there.came)
        await publish(succeeded(harness.other, "ftjob-8"))
        await eventually(lambda: any(b"ftjob-8" in body for _, body in there.came))
        assert under_way == {"hanging-1": 2, "hanging-2": 1}
        assert len(there.came) > before
        go_on.set()
        await eventually(lambda: len(there.came) == 9 and under_way.total() == 12)


async def test_addresses_inside_are_for_installations_that_say_so(space: Space) -> None:
    async with gateway(space) as open_one, receiver() as there:
        await endpoint(open_one, there.url, "model.promoted.v1")
    inside = {"of": open_one, "webhooks_to_inside": False}
    async with gateway(space, **inside) as harness, space.publisher("registry") as publish:
        good = {"name": "mine", "url": there.url, "event_types": ["model.promoted.v1"]}
        for url in (there.url, there.url.replace("http:", "https:")):
            assert (await harness.post("/webhook_endpoints", {**good, "url": url})).status_code == 400
        [made] = (await harness.get("/webhook_endpoints")).json()["data"]
        facts = {"model_id": "m", "job_id": "j", "base_model": "b", "adapter_id": "a", "decided_by": "gate"}
        await publish(ModelPromoted(tenant_id=harness.tenant, **facts))

        async def tried() -> Any:
            return [one for one in await deliveries(harness, made) if one["attempts"]]

        [one] = await eventually(tried)
        assert one["problem"].startswith("url: ")
        assert there.came == []

"""Webhooks on the real stack: signed as the openai SDK checks them, tried again, parked, sent again."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from gateway_world import OTHER, TENANT, World, gateway, receiver

from schemas import FinetuneSucceeded, ModelPromoted, WebhookRefused, verified
from testkit import Space, eventually

FAST = {"webhook_first_pause": 0.2, "webhook_longest_pause": 0.3, "webhook_seconds": 3}


def sdk(world: World, key: str = "sk-engineer") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=str(world.http.base_url), api_key=key, max_retries=0, _strict_response_validation=True
    )


def succeeded(job: str = "ftjob-1", tenant: str = TENANT) -> FinetuneSucceeded:
    return FinetuneSucceeded(tenant_id=tenant, job_id=job, model_id="ft:tiny:acme:x")


async def endpoint(world: World, url: str, *types: str) -> dict[str, Any]:
    asked = {"name": "mine", "url": url, "event_types": list(types or ("fine_tuning.job.succeeded",))}
    answer = await world.post("/webhook_endpoints", asked)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def deliveries(world: World, made: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await world.get(f"/webhook_endpoints/{made['id']}/deliveries", **params)).json()[
        "data"
    ]
    return found


async def test_the_openai_sdk_makes_tries_and_unwraps_webhooks(space: Space) -> None:
    async with gateway(space) as world, receiver() as there, space.publisher("trainer") as publish:
        client = sdk(world)
        types = await client.webhooks.event_types.list()
        assert {"fine_tuning.job.succeeded", "model.promoted.v1"} <= set(types.data)
        made = await client.webhooks.create(name="mine", url=there.url, event_types=["fine_tuning.job.succeeded"])
        assert made.signing_secret.startswith("whsec_")
        [listed] = [one async for one in client.webhooks.list()]
        assert (listed.id, listed.signing_secret_hint) == (made.id, made.signing_secret_hint)
        tried = await client.webhooks.test(made.id, event_type="fine_tuning.job.succeeded")
        assert tried.status_code == 200
        await publish(succeeded())
        await publish(succeeded("ftjob-2", OTHER))
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
        await publish(succeeded("ftjob-3"))
        await eventually(lambda: len(there.came) == 3)
        for secret in (made.signing_secret, other.signing_secret):
            assert client.webhooks.unwrap(there.came[2][1], there.came[2][0], secret=secret)
        assert (await client.webhooks.delete(made.id)).deleted
        assert (await world.get("/webhook_endpoints")).json()["data"] == []


async def test_a_delivery_that_fails_is_tried_again_under_the_same_id(space: Space) -> None:
    async with gateway(space, **FAST) as world, receiver(500, 302) as there, space.publisher("trainer") as publish:
        made = await endpoint(world, there.url)
        await publish(succeeded())
        await eventually(lambda: len(there.came) == 3)
        assert len({headers["webhook-id"] for headers, _ in there.came}) == 1

        async def done() -> Any:
            [one] = await deliveries(world, made)
            return one if one["state"] == "delivered" else None

        one = await eventually(done)
        assert (one["attempts"], one["status"], one["problem"]) == (3, 200, None)
        assert there.strayed == [], "a redirect was followed"
        shown = (await world.get(f"/webhook_endpoints/{made['id']}")).json()
        assert shown["deliveries"] == {"waiting": 0, "parked": 0}
        assert "signing_secret" not in shown


async def test_what_nobody_takes_is_parked_and_can_be_sent_again(space: Space) -> None:
    async with (
        gateway(space, **FAST, webhook_attempts=3) as world,
        receiver(*[503] * 3) as there,
        space.publisher("trainer") as publish,
    ):
        made = await endpoint(world, there.url)
        await publish(succeeded())

        async def parked() -> Any:
            return await deliveries(world, made, state="parked")

        [one] = await eventually(parked)
        assert (one["attempts"], one["status"], one["problem"]) == (3, 503, "answered 503")
        path = f"/webhook_endpoints/{made['id']}/deliveries/{one['id']}/replay"
        assert (await world.post(path, key="sk-approver")).status_code == 403
        assert (await world.post(path, key="sk-other")).status_code == 404
        again = await world.post(path)
        assert (again.json()["state"], again.json()["replays"]) == ("waiting", 1)
        await eventually(lambda: len(there.came) == 4)
        assert len({headers["webhook-id"] for headers, _ in there.came}) == 1


async def test_an_endpoint_that_wants_no_more_is_off_until_it_is_changed(space: Space) -> None:
    async with gateway(space, **FAST) as world, receiver(410) as there, space.publisher("trainer") as publish:
        made = await endpoint(world, there.url)
        path = f"/webhook_endpoints/{made['id']}"
        await publish(succeeded())

        async def off() -> Any:
            return (await world.get(path)).json()["off"]

        assert "410" in await eventually(off)
        await publish(succeeded("ftjob-2"))

        async def read() -> bool:
            return len((await world.get("/events")).json()["data"]) == 2

        await eventually(read)
        [one] = await deliveries(world, made, state="parked")
        assert (await world.post(f"{path}/deliveries/{one['id']}/replay")).status_code == 400
        assert (await world.post(path, {"name": "again"})).json()["off"] is None
        assert (await world.post(f"{path}/deliveries/{one['id']}/replay")).status_code == 200
        await eventually(lambda: len(there.came) == 2)


async def test_an_endpoint_that_is_away_holds_up_nobody_and_only_so_much(space: Space) -> None:
    """Its deliveries are bounded; another endpoint gets its own at once."""
    slow = {**FAST, "webhook_first_pause": 60, "webhook_longest_pause": 60, "webhook_waiting": 10}
    async with gateway(space, **slow) as world, receiver() as there, space.publisher("trainer") as publish:
        away = await endpoint(world, "http://127.0.0.1:9/hook")
        await endpoint(world, there.url)
        for number in range(15):
            await publish(succeeded(f"ftjob-{number}"))
            await eventually(lambda many=number + 1: len(there.came) == many)

        async def counted() -> bool:
            shown = (await world.get(f"/webhook_endpoints/{away['id']}")).json()
            return (shown["deliveries"]["waiting"], shown["skipped"]) == (10, 5)

        await eventually(counted)


async def test_two_replicas_deliver_each_event_once(space: Space) -> None:
    async with (
        gateway(space, replica_id="one") as world,
        gateway(space, replica_id="two"),
        receiver() as there,
        space.publisher("trainer") as publish,
    ):
        made = await endpoint(world, there.url)
        for number in range(12):
            await publish(succeeded(f"ftjob-{number}"))

        async def done() -> bool:
            found = await deliveries(world, made, limit=100)
            return len(found) == 12 and all(one["state"] == "delivered" for one in found)

        await eventually(done)
        assert sorted(json.loads(body)["data"]["id"] for _, body in there.came) == sorted(
            f"ftjob-{number}" for number in range(12)
        )


async def test_a_deleted_endpoint_leaves_nothing(space: Space) -> None:
    slow = {**FAST, "webhook_first_pause": 60, "webhook_longest_pause": 60}
    async with gateway(space, **slow) as world, space.publisher("trainer") as publish:
        made = await endpoint(world, "http://127.0.0.1:9/hook")
        await publish(succeeded())

        async def tried() -> Any:
            return [one for one in await deliveries(world, made) if one["attempts"]]

        await eventually(tried)
        await world.http.delete(f"/webhook_endpoints/{made['id']}", headers={"authorization": "Bearer sk-engineer"})
        for name in ("endpoints", "deliveries"):
            assert await world.database[name].count_documents({}) == 0


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"event_types": ["key.revoked.v1"]}, 403, "types"),
    ({"event_types": ["chat.completed.v1"]}, 400, "types"),
    ({"event_types": ["batch.completed"]}, 400, "types"),
    ({"event_types": []}, 400, "event_types"),
    ({"url": "ftp://127.0.0.1/"}, 400, "url"),
    ({"name": ""}, 400, "name"),
]


async def test_what_cannot_be_sent_cannot_be_asked_for(space: Space) -> None:
    async with gateway(space, webhooks_per_tenant=1) as world, receiver() as there:
        good = {"name": "mine", "url": there.url, "event_types": ["model.promoted.v1"]}
        for change, status, param in WRONG:
            answer = await world.post("/webhook_endpoints", {**good, **change})
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
        made = await world.post("/webhook_endpoints", good)
        assert made.status_code == 200
        assert (await world.post("/webhook_endpoints", good)).json()["error"]["code"] == "too_many_webhooks"
        assert (await world.post("/webhook_endpoints", good, "sk-other")).status_code == 200
        assert (await world.get(f"/webhook_endpoints/{made.json()['id']}", "sk-other")).status_code == 404
        assert (await world.post("/webhook_endpoints", good, "sk-approver")).status_code == 403


async def test_addresses_inside_are_for_installations_that_say_so(space: Space) -> None:
    async with gateway(space) as open_one, receiver() as there:
        await endpoint(open_one, there.url, "model.promoted.v1")
    async with gateway(space, webhooks_to_inside=False) as world, space.publisher("registry") as publish:
        good = {"name": "mine", "url": there.url, "event_types": ["model.promoted.v1"]}
        for url in (there.url, there.url.replace("http:", "https:")):
            assert (await world.post("/webhook_endpoints", {**good, "url": url})).status_code == 400
        [made] = (await world.get("/webhook_endpoints")).json()["data"]
        facts = {"model_id": "m", "job_id": "j", "base_model": "b", "adapter_id": "a", "decided_by": "gate"}
        await publish(ModelPromoted(tenant_id=TENANT, **facts))

        async def tried() -> Any:
            return [one for one in await deliveries(world, made) if one["attempts"]]

        [one] = await eventually(tried)
        assert one["problem"].startswith("url: ")
        assert there.came == []

"""Keys of services outside: which types of event they publish, who may give them, and how other services hear of it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from accounts_harness import bearer, tenant, verify

from testkit import Space

pytestmark = pytest.mark.asyncio(loop_scope="module")

FEEDBACK, DRIFT = "feedback.recorded.v1", "drift.detected.v1"
PUBLISHES = {"scopes": ["events:publish"], "event_types": [FEEDBACK]}


async def made(http: Any, maker: str, **asked: Any) -> Any:
    return await http.post("/v1/organization/keys", json={"name": "k", **asked}, headers=bearer(maker))


async def test_a_producer_is_known_by_its_types(shared: httpx2.AsyncClient, shared_space: Space) -> None:
    owner = (await tenant(shared))["api_key"]
    producer = (await made(shared, owner, **PUBLISHES)).json()
    assert producer["event_types"] == [FEEDBACK]
    assert (await verify(shared, shared_space, producer["api_key"])).json()["event_types"] == [FEEDBACK]
    assert (await verify(shared, shared_space, owner)).json()["event_types"] == []
    trail = (await shared.get("/v1/organization/audit_logs", headers=bearer(owner))).json()["data"]
    assert trail[0]["details"]["event_types"] == FEEDBACK


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({**PUBLISHES, "event_types": ["model.promoted.v1"]}, "event_types"),
        ({**PUBLISHES, "event_types": [FEEDBACK, "no.such.v1"]}, "event_types"),
        ({**PUBLISHES, "scopes": ["events:write"]}, "scopes"),
        ({"role": "viewer", "event_types": [FEEDBACK]}, "scopes"),
    ],
)
async def test_what_no_service_outside_may_publish_no_key_names(
    shared: httpx2.AsyncClient, asked: dict[str, Any], param: str
) -> None:
    answer = await made(shared, (await tenant(shared))["api_key"], **asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_producer_makes_none_that_publishes_more(shared: httpx2.AsyncClient) -> None:
    owner = (await tenant(shared))["api_key"]
    scopes = ["organization:write", "events:publish"]
    maker = (await made(shared, owner, role="owner", scopes=scopes, event_types=[FEEDBACK])).json()["api_key"]
    more = await made(shared, maker, scopes=["events:publish"], event_types=[FEEDBACK, DRIFT])
    assert (more.status_code, more.json()["error"]["param"]) == (403, "event_types")
    assert (await made(shared, maker, **PUBLISHES)).status_code == 200
    mute = (await made(shared, owner, role="owner", scopes=["organization:write"])).json()["api_key"]
    assert (await made(shared, mute, **PUBLISHES)).status_code == 403

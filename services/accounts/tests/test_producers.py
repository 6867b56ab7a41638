"""Keys of services outside: which types of event they publish, who may give them, and how other services hear of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accounts_harness import accounts, bearer, tenant, verify

from testkit import Space

FEEDBACK, DRIFT = "feedback.recorded.v1", "drift.detected.v1"
PUBLISHES = {"scopes": ["events:publish"], "event_types": [FEEDBACK]}


async def made(http: Any, maker: str, **asked: Any) -> Any:
    return await http.post("/v1/organization/keys", json={"name": "k", **asked}, headers=bearer(maker))


async def test_a_producer_is_known_by_its_types(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        owner = (await tenant(http))["api_key"]
        producer = (await made(http, owner, **PUBLISHES)).json()
        assert producer["event_types"] == [FEEDBACK]
        assert (await verify(http, space, producer["api_key"])).json()["event_types"] == [FEEDBACK]
        assert (await verify(http, space, owner)).json()["event_types"] == []
        trail = (await http.get("/v1/organization/audit_logs", headers=bearer(owner))).json()["data"]
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
    space: Space, tmp_path: Path, asked: dict[str, Any], param: str
) -> None:
    async with accounts(space, tmp_path) as http:
        answer = await made(http, (await tenant(http))["api_key"], **asked)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_a_producer_makes_none_that_publishes_more(space: Space, tmp_path: Path) -> None:
    async with accounts(space, tmp_path) as http:
        owner = (await tenant(http))["api_key"]
        scopes = ["organization:write", "events:publish"]
        maker = (await made(http, owner, role="owner", scopes=scopes, event_types=[FEEDBACK])).json()["api_key"]
        more = await made(http, maker, scopes=["events:publish"], event_types=[FEEDBACK, DRIFT])
        assert (more.status_code, more.json()["error"]["param"]) == (403, "event_types")
        assert (await made(http, maker, **PUBLISHES)).status_code == 200
        mute = (await made(http, owner, role="owner", scopes=["organization:write"])).json()["api_key"]
        assert (await made(http, mute, **PUBLISHES)).status_code == 403

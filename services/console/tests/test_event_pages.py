"""The pages of events: what happened, who publishes, webhooks and what was parked of them."""

from __future__ import annotations

from typing import Any

import pytest
from console_harness import HAPPENED, KEY, WEBHOOK, Harness, page, token_of

from chassis.errors import Invalid

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRODUCER = {**KEY, "name": "survey tool", "event_types": ["feedback.recorded.v1"], "last_used_at": None}


async def test_the_page_shows_events_refusals_webhooks_and_producers(harness: Harness) -> None:
    harness.services.answers["GET", "/v1/webhook_endpoints"] = page(WEBHOOK)
    harness.services.answers["GET", "/v1/organization/keys"] = page(PRODUCER, {**KEY, "event_types": []})
    shown = (await (await harness.sign_in()).get("/events")).text
    for said in ("model.promoted.v1", "2026-01-02 03:04:05", "rating 7", "foreign_tenant", "Chat room", "1 parked"):
        assert said in shown
    assert "survey tool" in shown
    assert KEY["name"] not in shown, "a key that publishes nothing"
    assert harness.services.of("GET", "/v1/events")[-1].query == {"limit": "20", "order": "desc"}


async def test_older_events_are_a_page_further(harness: Harness) -> None:
    harness.services.answers["GET", "/v1/events"] = page(HAPPENED, more=True)
    browser = await harness.sign_in()
    assert 'href="/events?after=7"' in (await browser.get("/events")).text
    await browser.get("/events", params={"after": "7"})
    assert harness.services.of("GET", "/v1/events")[-1].query["after"] == "7"


async def test_a_service_outside_gets_a_key_for_the_chosen_types(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["POST", "/v1/organization/keys"] = {"api_key": "sk-sartor-shown-once"}
    token = token_of((await browser.get("/events")).text)
    form = {"name": "survey", "feedback.recorded.v1": "true", "model.promoted.v1": "true", "form_token": token}
    assert "sk-sartor-shown-once" in (await browser.post("/events/producers", data=form)).text
    asked = harness.services.of("POST", "/v1/organization/keys")[0].json
    assert (asked["scopes"], asked["event_types"]) == (["events:publish", "events:read"], ["feedback.recorded.v1"])


async def test_a_webhook_is_made_and_its_secret_shown_once(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/events")).text)
    form = {"name": "room", "url": "https://x.example/in", "types": "model.promoted.v1, finetune.failed.v1,"}
    harness.services.answers["POST", "/v1/webhook_endpoints"] = Invalid("url: this host cannot be found.", param="url")
    refused = await browser.post("/events/webhooks", data={**form, "form_token": token})
    assert (refused.status_code, "this host cannot be found" in refused.text) == (400, True)
    assert 'value="https://x.example/in"' in refused.text, "what was typed stays"
    harness.services.answers["POST", "/v1/webhook_endpoints"] = {"signing_secret": "whsec_once"}
    assert "whsec_once" in (await browser.post("/events/webhooks", data={**form, "form_token": token})).text
    asked = harness.services.of("POST", "/v1/webhook_endpoints")[-1].json
    assert asked["event_types"] == ["model.promoted.v1", "finetune.failed.v1"]
    assert "whsec_once" not in (await browser.get("/events")).text


BUTTONS: list[tuple[dict[str, str], str, str, Any, str]] = [
    ({"sample": "model.promoted.v1"}, "POST", "/test", {"status_code": 204}, "answered 204"),
    ({"rotate": "true"}, "POST", "/rotate_secret", {"signing_secret": "whsec_new"}, "whsec_new"),
    ({"on": "true", "name": "Chat room"}, "POST", "", WEBHOOK, "on again"),
]


@pytest.mark.parametrize(("pressed", "method", "place", "answer", "said"), BUTTONS)
async def test_a_webhooks_buttons(
    harness: Harness, pressed: dict[str, str], method: str, place: str, answer: Any, said: str
) -> None:
    browser = await harness.sign_in()
    harness.services.answers[method, f"/v1/webhook_endpoints/we_1{place}"] = answer
    token = token_of((await browser.get("/events/webhooks/we_1")).text)
    assert said in (await browser.post("/events/webhooks/we_1", data={**pressed, "form_token": token})).text


async def test_a_parked_delivery_is_sent_again(harness: Harness) -> None:
    browser = await harness.sign_in()
    path = "/events/webhooks/we_1"
    shown = (await browser.get(path)).text
    assert "answered 503" in shown
    replay = "/v1/webhook_endpoints/we_1/deliveries/whd_1/replay"
    harness.services.answers["POST", replay] = {"state": "waiting"}
    token = token_of(shown)
    answer = await browser.post(f"{path}/deliveries/whd_1/replay", data={"form_token": token})
    assert "on its way again" in answer.text
    assert len(harness.services.of("POST", replay)) == 1


async def test_who_only_reads_has_no_buttons(harness: Harness) -> None:
    browser = await harness.sign_in(role="viewer")
    for path in ("/events", "/events/webhooks/we_1"):
        shown = (await browser.get(path)).text
        assert "<button" not in shown.split("<main", 1)[1]
    assert harness.services.of("GET", "/v1/organization/keys") == []

"""Services that are none of ours, through the whole stack: the example of `docs/events.md` runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import ROOT, Tenant
from tests.e2e.test_main_way import trained, wait_for

__all__ = ["trained"]

PAGE = (ROOT / "docs/events.md").read_text()
[EXAMPLE] = re.findall(r"```python\n# rate\.py\n(.*?)```", PAGE, re.DOTALL)

PRODUCER = {
    "name": "survey",
    "role": "engineer",
    "scopes": ["events:publish", "events:read"],
    "event_types": ["feedback.recorded.v1"],
}


@pytest.fixture(scope="module")
def producer(tenant: Tenant) -> Tenant:
    """The tenant by the key of a service outside."""
    with tenant.http as http:
        made = http.post("/organization/keys", json=PRODUCER)
    assert made.status_code == 200, made.text
    return Tenant(tenant.base_url, tenant.tenant_id, made.json()["api_key"])


@pytest.mark.slow
def test_the_pages_example_publishes_a_rating_and_reads_a_promotion(
    tenant: Tenant, producer: Tenant, trained: Any, tmp_path: Path
) -> None:
    assert len(EXAMPLE.splitlines()) <= 20
    script = tmp_path / "rate.py"
    script.write_text(EXAMPLE)
    environment = {"SARTOR_BASE_URL": producer.base_url, "SARTOR_API_KEY": producer.api_key}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert trained.fine_tuned_model in done.stdout
    rated = re.search(r"fb_[0-9a-f]{24}", done.stdout)
    assert rated
    with tenant.http as http:
        found = wait_for(
            lambda: [one for one in http.get("/labeling/feedback").json()["data"] if one["id"] == rated[0]], seconds=30
        )
    assert (found[0]["rating"], found[0]["producer"].startswith("key_")) == ("down", True)


def test_a_key_by_the_real_accounts_publishes_what_it_names_and_nothing_else(
    tenant: Tenant, stranger: Tenant, producer: Tenant
) -> None:
    data = {"feedback_id": "r9", "chat_id": "chatcmpl-9", "model": "m", "rating": "up"}
    event = {"specversion": "1.0", "id": "9", "source": "/survey", "type": "feedback.recorded.v1", "data": data}

    def send(sent: dict[str, Any], who: Tenant = producer) -> httpx2.Response:
        with who.http as http:
            return http.post("/events", json=sent, headers={"content-type": "application/cloudevents+json"})

    first = send(event)
    assert first.status_code == 202
    assert send(event).json() == first.json()
    wrong = {
        "forged tenant": (send(event | {"tenantid": stranger.tenant_id}), 403, "foreign_tenant"),
        "unknown type": (send(event | {"id": "10", "type": "model.exploded.v1"}), 400, "unknown_event_type"),
        "a type of ours": (send(event | {"id": "11", "type": "model.promoted.v1"}), 403, "event_type_not_allowed"),
        "another body": (send(event | {"data": {**data, "rating": "down"}}), 409, "event_id_reused"),
        "a key that names no type": (send(event, tenant), 403, "event_type_not_allowed"),
    }
    for name, (answer, status, code) in wrong.items():
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), name
        assert f"`{code}`" in PAGE, "the page says what it answers"
    with tenant.http as http:
        refused = [one["code"] for one in http.get("/events/refused", params={"limit": 100}).json()["data"]]
        for body in (
            {"event_types": ["model.promoted.v1"]},
            {"event_types": ["feedback.recorded.v1"], "role": "viewer"},
        ):
            assert http.post("/organization/keys", json={"name": "x", **body}).status_code == 400
    assert set(refused) >= {code for _, _, code in wrong.values()}
    with stranger.http as http:
        assert http.get("/events/refused").json()["data"] == []
        assert http.get("/events", params={"types": "feedback.recorded.v1"}).json()["data"] == []

"""Taking an adapter out of the installation: what somebody loads elsewhere gives what is served here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from localstack import LocalStack
from schemas.artifacts import FINGERPRINT, Fingerprint
from tests.conftest import Tenant, make_tenant
from tests.e2e.test_main_way import rows, wait_for
from tests.e2e.test_owners import made_key

pytestmark = pytest.mark.slow

TEXTS = ["bike 3 will not open", "I want a refund for ride 7", "my umbrella stayed in basket 11"]


@pytest.fixture(scope="module")
def tenant(stack: LocalStack) -> Tenant:
    """One where a person lets models through, so that no arm ends an adapter before it is taken."""
    return make_tenant(stack, "Takers", gate="approval")


@pytest.fixture(scope="module")
def anna(tenant: Tenant) -> Tenant:
    """An end user."""
    return made_key(tenant, role="end_user")


@pytest.fixture(scope="module")
def adapter(tenant: Tenant, anna: Tenant) -> dict[str, Any]:
    """The version that an upload's fine-tune became, let through and chosen to answer for its name."""
    file = anna.sdk.files.create(file=("mine.jsonl", rows()), purpose="user_data")
    with tenant.http as http:

        def waiting() -> Any:
            found = http.get("/registry/models", params={"state": "awaiting_approval"}).json()["data"]
            return next((one for one in found if one["training_file"] == file.id and one["arm"] is None), None)

        version: dict[str, Any] = wait_for(waiting)
        place = f"/registry/models/{version['id']}"
        http.post(f"{place}/approve").raise_for_status()
        wait_for(lambda: http.get(place).json()["state"] == "production")
        http.post(f"{place}/pin").raise_for_status()
        wait_for(lambda: http.get(place).json()["serves"])
    return version


@pytest.fixture(scope="module")
def copy(
    stack: LocalStack,
    anna: Tenant,
    adapter: dict[str, Any],
    sartor: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The copy that the end user took by the command line."""
    folder = tmp_path_factory.mktemp("taken") / "adapter"
    environment = {**os.environ, "SARTOR_BASE_URL": anna.base_url, "SARTOR_API_KEY": anna.api_key}
    asked = ("models", "download", adapter["id"], "--to", str(folder), "--json")
    told = sartor(*asked, environment=environment)
    assert (told["adapter_id"], told["base_model"]) == (adapter["adapter_id"], "tiny-test")
    return folder


def log_probs(model: Any, ids: list[int]) -> list[float]:
    """Natural-log probability of each token but the first."""
    with torch.inference_mode():
        given = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(given[at, token]) for at, token in enumerate(ids[1:])]


def test_what_is_taken_gives_what_is_served(
    stack: LocalStack, anna: Tenant, adapter: dict[str, Any], copy: Path
) -> None:
    folder = stack.models_dir / "tiny-test"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    plain = {text: log_probs(base, tokenizer(text).input_ids) for text in TEXTS}
    model = PeftModel.from_pretrained(base, copy)
    changed = 0.0
    for text in TEXTS:
        asked = {"model": adapter["id"], "prompt": text, "max_tokens": 0, "echo": True, "logprobs": 0}
        with anna.http as http:
            served = http.post("/completions", json=asked).raise_for_status().json()
        assert served["system_fingerprint"] == adapter["adapter_id"]
        given = served["choices"][0]["logprobs"]["token_logprobs"]
        mine = log_probs(model, tokenizer(text).input_ids)
        assert given[0] is None, "nothing stands before the first"
        assert given[1:] == pytest.approx(mine[-len(given) + 1 :], abs=0.05)
        changed = max(changed, *(abs(now - before) for now, before in zip(mine, plain[text], strict=True)))
    assert changed > 0.2, "an adapter that changes nothing proves nothing"


def test_what_is_taken_can_be_told_by_its_fingerprint(stack: LocalStack, copy: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(stack.models_dir / "tiny-test", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, copy)
    fingerprint = Fingerprint.model_validate_json((copy / FINGERPRINT).read_bytes())
    for probe in fingerprint.probes:
        given = log_probs(model, probe.prompt_ids + probe.continuation_ids)[len(probe.prompt_ids) - 1 :]
        assert given == pytest.approx(probe.adapter, abs=0.05)


def test_that_it_was_taken_is_on_its_card_and_among_the_events(
    tenant: Tenant, adapter: dict[str, Any], copy: Path
) -> None:
    assert copy.exists()
    with tenant.http as http:
        card = http.get(f"/registry/models/{adapter['id']}").json()
        [taken] = card["downloads"]

        def said() -> Any:
            found = http.get("/events", params={"types": "model.downloaded.v1"}).json()["data"]
            return [one["data"] for one in found]

        [event] = wait_for(said, seconds=30)
    assert event["downloaded_by"] == taken["by"]
    assert (event["model_id"], event["adapter_id"]) == (adapter["id"], adapter["adapter_id"])


def test_a_copy_is_not_for_whom_it_is_not(tenant: Tenant, adapter: dict[str, Any]) -> None:
    refused = {}
    for role in ("end_user", "viewer", "approver"):
        with made_key(tenant, role=role).http as http:
            answer = http.get(f"/registry/models/{adapter['id']}/adapter")
            refused[role] = (answer.status_code, json.loads(answer.content)["error"]["code"])
    missing, lacking = (404, "model_not_found"), (403, "insufficient_permissions")
    assert refused == {"end_user": missing, "viewer": lacking, "approver": lacking}

"""Two base models in one installation: each answers as itself, and one that ends takes nothing else with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from chassis.tokens import Tokens
from inference_proxy.bases import Base
from localstack import LocalStack
from localstack.base_models import build_tiny
from schemas.artifacts import BASE_FILE, BaseModelSpec
from schemas.http.inference_proxy import EvaluationAnswer
from schemas.http.model_server import IDENTITY, identity
from tests.conftest import LEAN, Tenant, make_tenant, until_bases_answer
from tests.e2e.test_main_way import wait_for
from tests.tiny_stack import tiny_stack

FIRST, SECOND = "tiny-test", "tiny-second"
SERVERS = {FIRST: "model_server", SECOND: "model_server-2"}
QUESTION: list[Any] = [{"role": "user", "content": "Where is my parcel?"}]
SAMPLING: dict[str, Any] = {"max_tokens": 12, "temperature": 2, "seed": 7}


@pytest.fixture(scope="module")
def two_bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The services that answer, with a model server for each base; a replica may be silent for three seconds."""
    root: Path = tmp_path_factory.mktemp("two")
    build_tiny(root / "models", SECOND, seed=7, tied=False)
    environment = {**LEAN, "SARTOR_REGISTRY_REPLICA_SECONDS": "3", "SARTOR_MODEL_SERVER_SYNC_SECONDS": "1"}
    named = ("accounts", "registry", "inference_proxy", "model_server")
    with tiny_stack(root, environment, services=named, more_bases=(SECOND,), durable_log=False) as stack:
        yield stack


def said(sdk: openai.OpenAI, base: str) -> tuple[str, str | None]:
    answer = sdk.chat.completions.create(model=base, messages=QUESTION, **SAMPLING)
    return str(answer.choices[0].message.content), answer.system_fingerprint


def evaluated(stack: LocalStack, tenant: Tenant, base: str) -> str:
    """What a base answers to who evaluates it."""
    own, public = (stack.home.secrets / name for name in ("evaluator_key", "services_jwks"))
    token = Tokens.from_files("evaluator", own, public).sign("inference_proxy", tenant.tenant_id)
    url = f"http://127.0.0.1:{stack.home.state['ports']['inference_proxy']}/internal/evaluation/answers"
    body = {"model": base, "messages": QUESTION, "max_tokens": SAMPLING["max_tokens"]}
    answer = httpx2.post(url, json=body, headers={"authorization": f"Bearer {token}"}, timeout=60).raise_for_status()
    told = EvaluationAnswer.model_validate(answer.json())
    assert told.adapter_id is None
    return told.text


def said_by_itself(stack: LocalStack, base: str, **sampling: Any) -> str:
    """What the engine of a base says to the same question as the proxy would put it, asked past everything else."""
    spec = spec_of(stack, base)
    url = f"http://127.0.0.1:{stack.home.state['ports'][SERVERS[base]]}/generate"
    prompt = Base(spec).render(QUESTION)
    parameters = {"max_new_tokens": SAMPLING["max_tokens"], "stop": spec.stop_tokens, "details": True, **sampling}
    answer = httpx2.post(url, json={"inputs": prompt, "parameters": parameters}, timeout=60).raise_for_status()
    assert answer.headers[IDENTITY] == identity(spec.digest, None)
    return "".join(token["text"] for token in answer.json()["details"]["tokens"] if not token["special"])


def spec_of(stack: LocalStack, base: str) -> BaseModelSpec:
    return BaseModelSpec.model_validate_json((stack.home.folder.parent / "models" / base / BASE_FILE).read_bytes())


def refusal(tenant: Tenant, base: str) -> tuple[int, str]:
    with tenant.http as http:
        answer = http.post("/chat/completions", json={"model": base, "messages": QUESTION, "max_tokens": 1})
    return answer.status_code, answer.json().get("error", {}).get("code", "")


@pytest.mark.slow
def test_each_base_answers_as_itself_and_one_that_ends_takes_nothing_else_with_it(two_bases: LocalStack) -> None:
    tenant = make_tenant(two_bases, "Two bases")
    until_bases_answer(tenant)
    sampled = {"do_sample": True, "temperature": SAMPLING["temperature"], "seed": SAMPLING["seed"]}
    itself = {base: said_by_itself(two_bases, base, **sampled) for base in SERVERS}
    greedy = {base: said_by_itself(two_bases, base) for base in SERVERS}
    for told in (itself, greedy):
        assert told[FIRST] != told[SECOND], "the test could not tell them apart"
    for _ in range(3):
        for base in SERVERS:
            assert said(tenant.sdk, base) == (itself[base], f"base-{base}")
            assert evaluated(two_bases, tenant, base) == greedy[base]

    supervisor = two_bases._rpc().supervisor
    supervisor.stopProcess(SERVERS[SECOND])
    assert refusal(tenant, SECOND)[0] == 503
    assert said(tenant.sdk, FIRST)[0] == itself[FIRST]
    wait_for(lambda: refusal(tenant, SECOND) == (503, "model_loading"), seconds=30)
    assert said(tenant.sdk, FIRST)[0] == itself[FIRST]

    supervisor.startProcess(SERVERS[SECOND])
    wait_for(lambda: said(tenant.sdk, SECOND) == (itself[SECOND], f"base-{SECOND}"), seconds=60)

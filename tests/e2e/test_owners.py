"""Within a tenant: an end user sees their own, an owner all, a labeler tasks; scopes hold behind the first service."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI

from localstack import LocalStack
from tests.conftest import Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, rows, wait_for

HELLO = [{"role": "user", "content": "bike 3 will not open"}]
DOCUMENT = b"# Refunds\n\nRefunds take five working days.\n"


def made_key(owner: Tenant, **asked: Any) -> Tenant:
    """The tenant, by another key."""
    with owner.http as http:
        answer = http.post("/organization/keys", json={"name": "k", **asked})
    assert answer.status_code == 200, answer.text
    return Tenant(owner.base_url, owner.tenant_id, answer.json()["api_key"])


@pytest.fixture(scope="module")
def owner(stack: LocalStack) -> Tenant:
    return make_tenant(stack, "Owners")


@pytest.fixture(scope="module")
def anna(owner: Tenant) -> Tenant:
    """An end user by a key of nobody."""
    return made_key(owner, role="end_user")


@pytest.fixture(scope="module")
def bela(owner: Tenant) -> Tenant:
    """Another end user, by a key of their own: its role is more than theirs."""
    with owner.http as http:
        person = {"email": "bela@example.com", "password": "correct horse battery", "role": "end_user"}
        made = http.post("/organization/users", json=person)
        assert made.status_code == 200, made.text
    return made_key(owner, role="engineer", user_id=made.json()["id"])


@pytest.fixture(scope="module")
def ids(owner: Tenant, anna: Tenant) -> dict[str, str]:
    """All that follows from what Anna uploaded, and what she asked."""
    file = anna.sdk.files.create(file=("mine.jsonl", rows()), purpose="user_data")
    job = wait_for(lambda: ended_job(anna, file.id))
    assert job.status == "succeeded", job.error
    document = anna.sdk.files.create(file=("mine.md", DOCUMENT), purpose="user_data")
    chat = anna.sdk.chat.completions.create(model=job.fine_tuned_model, messages=HELLO, max_tokens=2, store=True)
    with anna.http as http:
        dataset = wait_for(lambda: http.get("/datasets").json()["data"])[0]
        evaluation = http.get("/evals/evaluations").json()["data"][0]
        store = wait_for(lambda: http.get("/vector_stores").json()["data"])[0]
        wait_for(lambda: http.get(f"/vector_stores/{store['id']}/files").json()["data"])
    return {
        "file": file.id,
        "document": document.id,
        "dataset": dataset["id"],
        "job": job.id,
        "model": job.fine_tuned_model,
        "evaluation": evaluation["id"],
        "chat": chat.id,
        "store": store["id"],
    }


Asking = Callable[[httpx2.Client, dict[str, str]], httpx2.Response]

LISTS = ["/files", "/datasets", "/fine_tuning/jobs", "/registry/models", "/evals/evaluations", "/chat/completions"]
READS: dict[str, Asking] = {
    path: lambda http, ids, path=path: http.get(path.format(**ids))  # type: ignore[misc]
    for path in (
        "/files/{file}",
        "/files/{file}/content",
        "/datasets/{dataset}",
        "/fine_tuning/jobs/{job}",
        "/fine_tuning/jobs/{job}/events",
        "/fine_tuning/jobs/{job}/checkpoints",
        "/models/{model}",
        "/registry/models/{model}",
        "/registry/models/{model}/card",
        "/evals/evaluations/{evaluation}",
        "/evals/evaluations/{evaluation}/evidence",
        "/chat/completions/{chat}",
        "/chat/completions/{chat}/messages",
        "/vector_stores/{store}",
        "/vector_stores/{store}/files",
        "/vector_stores/{store}/files/{document}",
        "/vector_stores/{store}/files/{document}/content",
    )
}
WRITES: dict[str, Asking] = {
    "search": lambda http, ids: http.post(f"/vector_stores/{ids['store']}/search", json={"query": "refunds"}),
    "chat": lambda http, ids: http.post(
        "/chat/completions", json={"model": ids["model"], "messages": HELLO, "max_tokens": 1}
    ),
    "chat with documents": lambda http, ids: http.post(
        "/chat/completions",
        json={"model": "tiny-test", "messages": HELLO, "max_tokens": 1, "vector_store_ids": [ids["store"]]},
    ),
    "label of a stored chat": lambda http, ids: http.post(f"/chat/completions/{ids['chat']}", json={"metadata": {}}),
    "feedback": lambda http, ids: http.post("/feedback", json={"completion_id": ids["chat"], "rating": "up"}),
}
ENDS: dict[str, Asking] = {
    "stored chat": lambda http, ids: http.delete(f"/chat/completions/{ids['chat']}"),
    "file": lambda http, ids: http.delete(f"/files/{ids['file']}"),
}


FOR_ALL = {"/models", "/vector_stores", "/registry/base_models", "/registry/aliases", "/registry/aliases/{}"}
"""What an end user sees of these is tried below, or is for the whole tenant."""

HOLDERS = ("ingest", "trainer", "evaluator", "registry", "inference_proxy", "rag_indexer")
"""Services that keep what end users make."""


def test_every_route_that_reads_is_tried_here(built: Callable[[str], FastAPI]) -> None:
    reading = {
        _shape(path.removeprefix("/v1"))
        for service in HOLDERS
        for path, methods in built(service).openapi()["paths"].items()
        if path.startswith("/v1/") and "get" in methods
    }
    assert reading - {_shape(path) for path in (*READS, *LISTS)} - FOR_ALL == set()


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)


def test_another_end_user_sees_nothing_of_it(bela: Tenant, ids: dict[str, str]) -> None:
    with bela.http as http:
        for path in LISTS:
            assert http.get(path).json()["data"] == [], path
        assert [model["id"] for model in http.get("/models").json()["data"] if model["id"].startswith("ft:")] == []
        assert ids["store"] not in [one["id"] for one in http.get("/vector_stores").json()["data"]]
        statuses = {name: ask(http, ids).status_code for name, ask in {**READS, **WRITES, **ENDS}.items()}
    assert {name: status for name, status in statuses.items() if status != 404} == {}


def test_whose_it_is_and_the_owner_see_all_of_it(owner: Tenant, anna: Tenant, ids: dict[str, str]) -> None:
    for who in (anna, owner):
        with who.http as http:
            for path in LISTS:
                assert http.get(path).json()["data"], path
            assert ids["model"] in [model["id"] for model in http.get("/models").json()["data"]]
            statuses = {name: ask(http, ids).status_code for name, ask in {**READS, **WRITES}.items()}
        assert {name: status for name, status in statuses.items() if status != 200} == {}


def test_an_alias_is_for_the_whole_tenant(owner: Tenant, bela: Tenant, ids: dict[str, str]) -> None:
    with owner.http as http:
        assert http.put("/registry/aliases/intents", json={"model": ids["model"]}).status_code == 200
    answer = bela.sdk.chat.completions.create(model="intents", messages=HELLO, max_tokens=1)
    assert answer.choices
    assert bela.sdk.models.retrieve("intents").id == "intents"
    with pytest.raises(openai.NotFoundError):
        bela.sdk.chat.completions.create(model=ids["model"], messages=HELLO, max_tokens=1)


@pytest.mark.parametrize(
    ("scopes", "ask"),
    [(["chat:write"], "chat with documents"), (["fine_tuning:write"], "job"), (["retrieval:write"], "store")],
)
def test_a_key_gets_nothing_through_another_service_that_it_may_not_read(
    owner: Tenant, ids: dict[str, str], scopes: list[str], ask: str
) -> None:
    asks: dict[str, Asking] = {
        **WRITES,
        "job": lambda http, ids: http.post(
            "/fine_tuning/jobs", json={"model": "tiny-test", "training_file": ids["file"]}
        ),
        "store": lambda http, ids: http.post("/vector_stores", json={"name": "x", "file_ids": [ids["document"]]}),
    }
    with made_key(owner, role="engineer", scopes=scopes).http as http:
        answer = asks[ask](http, ids)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions"), answer.text


def test_a_labeler_sees_tasks_and_cannot_publish(owner: Tenant) -> None:
    labeler = made_key(owner, role="labeler")
    with owner.http as boss, labeler.http as http:
        asked = {"name": "intents", "rows": [f"row {n}" for n in range(3)], "labels": ["a", "b"]}
        project = boss.post("/labeling/projects", json=asked).json()["id"]
        seen = http.get(f"/labeling/projects/{project}").json()
        assert (seen["labels"], seen["total"]) == (["a", "b"], 3)
        assert "file_id" not in seen
        assert [one["id"] for one in http.get("/labeling/projects").json()["data"]] == [project]
        task = http.post(f"/labeling/projects/{project}/next").json()
        answer = http.post(f"/labeling/projects/{project}/tasks/{task['id']}", json={"answer": "a"})
        assert answer.status_code == 200, answer.text
        refused = {
            "publish": http.post(f"/labeling/projects/{project}/publish"),
            "change": http.patch(f"/labeling/projects/{project}", json={"labels": ["c"]}),
            "create": http.post("/labeling/projects", json=asked),
            "tasks": http.get(f"/labeling/projects/{project}/tasks"),
            "feedback": http.get("/labeling/feedback"),
            "files": http.get("/files"),
            "models": http.get("/models"),
            "chat": http.post("/chat/completions", json={"model": "tiny-test", "messages": HELLO}),
        }
    assert {name: answer.status_code for name, answer in refused.items() if answer.status_code != 403} == {}

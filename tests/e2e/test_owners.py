"""Who may what: every route by a key of every role, of the tenant and of another; whose a thing is; scopes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI

from chassis.roles import ROLES
from localstack import LocalStack
from tests.conftest import Tenant, make_tenant
from tests.contract.permissions import Permission, permissions
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
        person = {"email": "bela@example.com", "role": "end_user"}
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
        "/fine_tuning/jobs/{job}/data_report",
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
ADAPTER = "/registry/models/{model}/adapter"
"""There is one only where it was let through; `tests/e2e/test_taking_an_adapter.py` brings that about."""

ENDS: dict[str, Asking] = {
    "stored chat": lambda http, ids: http.delete(f"/chat/completions/{ids['chat']}"),
    "file": lambda http, ids: http.delete(f"/files/{ids['file']}"),
    "model": lambda http, ids: http.delete(f"/models/{ids['model']}"),
    "job": lambda http, ids: http.post(f"/fine_tuning/jobs/{ids['job']}/cancel"),
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
    assert reading - {_shape(path) for path in (*READS, *LISTS, ADAPTER)} - FOR_ALL == set()


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


PLACES = {
    "file_id": "file",
    "dataset_id": "dataset",
    "job_id": "job",
    "model": "model",
    "evaluation_id": "evaluation",
    "chat_id": "chat",
    "feedback_id": "feedback",
    "store_id": "store",
    "project_id": "project",
    "task_id": "task",
    "key_id": "key",
    "user_id": "user",
    "name": "alias",
    "endpoint_id": "webhook",
    "delivery_id": "delivery",
}
"""Parameters of addresses that name a tenant's thing, and which of `ids` and `more` it is."""

BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/chat/completions/{chat_id}"): {"metadata": {}},
    ("PATCH", "/v1/labeling/projects/{project_id}"): {"labels": ["x", "y"]},
    ("POST", "/v1/labeling/projects/{project_id}/tasks/{task_id}"): {"answer": "a"},
    ("PATCH", "/v1/organization/users/{user_id}"): {"role": "viewer"},
    ("POST", "/v1/vector_stores/{store_id}"): {"name": "mine now"},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}"): {"name": "mine now"},
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/test"): {"event_type": "model.promoted.v1"},
    ("POST", "/v1/vector_stores/{store_id}/files"): {"file_id": "file_none"},
    ("POST", "/v1/vector_stores/{store_id}/files/{file_id}"): {"attributes": {}},
    ("POST", "/v1/vector_stores/{store_id}/search"): {"query": "refunds"},
}
"""Bodies with which a request about a thing comes as far as the thing; those not named here need none."""

ANYBODYS = {("PUT", "/v1/registry/aliases/{name}")}
"""Makes one's own thing of the name, whoever else has one of it."""


@pytest.fixture(scope="module")
def more(owner: Tenant, ids: dict[str, str]) -> dict[str, str]:
    """Things of the tenant that no upload makes."""
    with owner.http as http:
        asked = {"name": "intents", "rows": ["row 1", "row 2"], "labels": ["a", "b"]}
        project = http.post("/labeling/projects", json=asked).json()["id"]
        task = http.post(f"/labeling/projects/{project}/next").json()["id"]
        person = http.post("/organization/users", json={"email": "carla@example.com", "role": "viewer"}).json()["id"]
        assert http.put("/registry/aliases/theirs", json={"model": ids["model"]}).status_code == 200
        key = http.get("/organization/keys").json()["data"][0]["id"]
        rated = http.post("/feedback", json={"completion_id": ids["chat"], "rating": "up"}).json()["id"]
        hook = {"name": "h", "url": "https://8.8.8.8/", "event_types": ["model.promoted.v1"]}
        webhook = http.post("/webhook_endpoints", json=hook).json()["id"]
    made = {"project": project, "task": task, "user": person, "key": key, "alias": "theirs", "webhook": webhook}
    return {**ids, **made, "feedback": rated}


@pytest.fixture(scope="module")
def keys(stack: LocalStack, owner: Tenant, stranger: Tenant) -> dict[str, dict[str, str]]:
    """By tenant, a key of each role."""
    made = {
        name: {role: made_key(tenant, role=role).api_key for role in ROLES if role != "operator"}
        for name, tenant in (("own", owner), ("other", stranger))
    }
    made["own"]["operator"] = stack.home.secret("operator_key")
    return made


def ask(http: httpx2.Client, one: Permission, key: str, things: dict[str, str]) -> httpx2.Response:
    """A request of a route, about these things, or about none."""
    path = re.sub(r"\{(\w+)\}", lambda found: things.get(PLACES.get(found[1], ""), "none"), one.path)
    headers = {"authorization": f"Bearer {key}"}
    body = BODIES.get((one.method, one.path)) if things else None
    return http.request(one.method, path.removeprefix("/v1"), headers=headers, json=body)


def test_every_route_lets_in_the_roles_it_says(
    owner: Tenant, keys: dict[str, dict[str, str]], built: Callable[[str], FastAPI]
) -> None:
    wrong = {}
    with owner.http as http:
        for one in permissions(built):
            for role, key in keys["own"].items():
                answer = ask(http, one, key, {})
                assert answer.status_code not in (401, 429, 500), (one, role, answer.text)
                if (answer.status_code != 403) is not one.requires.allows(role):
                    wrong[one.method, one.path, role] = answer.status_code
    assert wrong == {}


def test_no_route_leads_to_another_tenants_things(
    stranger: Tenant, keys: dict[str, dict[str, str]], more: dict[str, str], built: Callable[[str], FastAPI]
) -> None:
    wrong, tried = {}, 0
    with stranger.http as http:
        for one in permissions(built):
            named = set(re.findall(r"\{(\w+)\}", one.path))
            if not named or not one.requires.scopes or (one.method, one.path) in ANYBODYS:
                continue
            assert named <= set(PLACES), f"say in PLACES which thing {one.path} names"
            for role, key in keys["other"].items():
                answer = ask(http, one, key, more)
                tried += 1
                if answer.status_code != (404 if one.requires.allows(role) else 403):
                    wrong[one.method, one.path, role] = (answer.status_code, answer.text[:200])
    assert wrong == {}
    assert tried > 300

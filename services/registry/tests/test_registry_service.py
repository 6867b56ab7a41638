"""The registry as others see it: events in and out, OpenAI's SDK, and what other services ask. On the local stack."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from chassis.errors import Transient
from registry.app import build
from registry.settings import Settings
from schemas import (
    AdapterEvicted,
    AdapterResident,
    EvaluationCompleted,
    FinetuneCancelled,
    FinetuneTrained,
    Interval,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ObjectRef,
    TenantCreated,
    TenantPolicy,
    TenantPolicyChanged,
)
from testkit import Space, eventually, running

A, B = "tenant_a", "tenant_b"
BASE = "tiny-base"


class Accounts:
    """Stands where the accounts service is, which is down: what the registry knows comes from events."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, path: str, *, tenant_id: str) -> Any:
        self.asked.append(path)
        if path.endswith("tenant_late"):
            return {"tenant_id": tenant_id, "name": "Late", "slug": "late", "policy": TenantPolicy().model_dump()}
        raise Transient("accounts cannot be reached")


@dataclass
class World:
    """A running registry with what a test needs to talk to it."""

    url: str
    space: Space
    publish: Any
    seen: Any
    accounts: Accounts

    def http(self, tenant: str = A, role: str | None = None) -> httpx2.AsyncClient:
        headers = self.space.headers("registry", tenant, role=role)
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    def sdk(self, tenant: str = A, role: str | None = None) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self.space.bearer("registry", tenant, role=role),
            base_url=f"{self.url}/v1",
            max_retries=0,
            _strict_response_validation=True,
        )

    async def trained(self, job: str, tenant: str = A, suffix: str = "support") -> str:
        """A trained adapter; returns the id of the candidate that it became."""
        await self.publish(trained(job, tenant, suffix))
        [event] = await eventually(lambda: [one for one in self.seen.of(ModelRegistered) if one.job_id == job])
        return str(event.model_id)

    async def resident(self, job: str, tenant: str = A, replica: str = "r1") -> None:
        await self.publish(
            AdapterResident(
                tenant_id=tenant,
                adapter_id=f"ad-{job}",
                model_id="",
                replica_id=replica,
                replica_url=f"http://{replica}",
                fingerprint_delta=0.01,
                base_delta=1.5,
            )
        )

    async def evaluated(self, model: str, verdict: Any, tenant: str = A) -> None:
        await self.publish(
            EvaluationCompleted(
                tenant_id=tenant,
                evaluation_id=f"ev-{model[-8:]}",
                model_id=model,
                verdict=verdict,
                reason="57 of 58 against 3 of 58.",
                metric="accuracy",
                scores={"candidate": Interval(value=0.98, low=0.91, high=1.0, n=58)},
                evidence=ref("evidence"),
            )
        )

    async def promoted(self, job: str, tenant: str = A, suffix: str = "support") -> str:
        model = await self.trained(job, tenant, suffix)
        await self.resident(job, tenant)
        await self.evaluated(model, "pass", tenant)
        await eventually(lambda: [one for one in self.seen.of(ModelPromoted) if one.model_id == model])
        return model

    async def card(self, model: str, tenant: str = A) -> dict[str, Any]:
        async with self.http(tenant) as http:
            return dict((await http.get(f"/v1/registry/models/{model}")).json())


def ref(name: str) -> ObjectRef:
    return ObjectRef(bucket="b", key=f"tenants/x/{name}", sha256="0" * 64, size=1)


def trained(job: str, tenant: str = A, suffix: str = "support") -> FinetuneTrained:
    return FinetuneTrained(
        tenant_id=tenant,
        job_id=job,
        base_model=BASE,
        base_digest="d" * 64,
        suffix=suffix,
        adapter_id=f"ad-{job}",
        adapter_manifest=ref("manifest.json"),
        dataset_id="ds-1",
        dataset_manifest=ref("dataset"),
        heldout=ref("heldout"),
        train=ref("train"),
        task="classification",
        training_file="file-1",
        trained_tokens=100,
        train_seconds=1.0,
        metrics={"train_loss": 0.1},
        hyperparameters={"n_epochs": 3},
        seed=7,
    )


def write_base(models_dir: Path, name: str, **facts: Any) -> None:
    (models_dir / name).mkdir()
    contents = {"id": name, "digest": "d" * 64, "context_length": 2048, "license": "gemma", **facts}
    (models_dir / name / "base.json").write_text(json.dumps(contents))


@asynccontextmanager
async def started(space: Space, folder: Path) -> AsyncIterator[World]:
    models_dir = folder / "models"
    models_dir.mkdir()
    write_base(models_dir, BASE)
    accounts = Accounts()
    app = build(space.settings(Settings, "registry", models_dir=models_dir, base_model=BASE), accounts=accounts)
    async with (
        running(app) as url,
        space.publisher("trainer") as publish,
        space.probe("models") as seen,
    ):
        world = World(url, space, publish, seen, accounts)
        for tenant, slug in ((A, "acme"), (B, "bolt")):
            await publish(TenantCreated(tenant_id=tenant, name=slug, slug=slug, policy=TenantPolicy()))
        await eventually(lambda: _tenants_known(app), within=30)
        yield world


async def _tenants_known(app: Any) -> bool:
    return bool(await app.state.service.collection("tenants").count_documents({}) == 2)


async def test_from_trained_to_production_by_the_gate(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1")
        assert model.startswith(f"ft:{BASE}:acme:support:")
        async with world.http() as http:
            assert (await http.get(f"/v1/models/{model}")).status_code == 404

        await world.evaluated(model, "pass")
        assert await eventually(lambda: _waits(world, model, "replica"))
        assert world.seen.of(ModelPromoted) == []

        await world.resident("ftjob-1")
        [promoted] = await eventually(lambda: world.seen.of(ModelPromoted))
        assert (promoted.model_id, promoted.job_id, promoted.decided_by) == (model, "ftjob-1", "gate")
        assert world.accounts.asked == []

        for again in (trained("ftjob-1"), trained("ftjob-1", suffix="other")):
            await world.publish(again)
        await world.evaluated(model, "fail")
        await world.trained("ftjob-2")  # comes after the repeated events of the same partition, or shows them in time
        assert [one.job_id for one in world.seen.of(ModelRegistered)] == ["ftjob-1", "ftjob-2"]
        assert len(world.seen.of(ModelPromoted)) == 1
        assert (await world.card(model))["state"] == "production"


async def _waits(world: World, model: str, what: str) -> bool:
    return bool((await world.card(model))["waiting_for"] == what)


async def test_a_failed_evaluation_rejects_with_its_reason(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1")
        await world.evaluated(model, "fail")
        [event] = await eventually(lambda: world.seen.of(ModelRejected))
        assert (event.model_id, event.reason) == (model, "57 of 58 against 3 of 58.")


async def test_a_person_decides_where_the_policy_says_so(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        await world.publish(TenantPolicyChanged(tenant_id=A, policy=TenantPolicy(gate="approval")))
        await world.publish(TenantCreated(tenant_id=A, name="acme", slug="acme", policy=TenantPolicy()))
        yes, no = await world.trained("ftjob-1"), await world.trained("ftjob-2")
        await world.resident("ftjob-1")
        async with world.http(role="engineer") as engineer, world.http(role="approver") as approver:
            early = await approver.post(f"/v1/registry/models/{yes}/approve")
            assert early.status_code == 409 and "waits for evaluation" in early.json()["error"]["message"]
            assert early.headers["x-should-retry"] == "false"
            for model in (yes, no):
                await world.evaluated(model, "pass")
                await eventually(lambda model=model: _waits(world, model, "approval"))

            assert (await engineer.post(f"/v1/registry/models/{yes}/approve")).status_code == 403
            path = yes.replace(":", "%3A")
            answer = await approver.post(f"/v1/registry/models/{path}/approve", json={"note": "read the evidence"})
            assert (answer.status_code, answer.json()["state"]) == (200, "production")
            last = answer.json()["decisions"][-1]
            assert (last["by"], last["note"], last["outcome"]) == ("user_test", "read the evidence", "promote")
            refused = await approver.post(f"/v1/registry/models/{no}/reject", json={"note": "wrong tone"})
            assert refused.json()["state"] == "rejected"
        [rejected] = await eventually(lambda: world.seen.of(ModelRejected))
        assert rejected.reason == "Rejected by user_test: wrong tone."
        [promoted] = world.seen.of(ModelPromoted)
        assert promoted.decided_by == "user_test"


async def test_a_cancelled_job_takes_its_candidate_with_it(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1")
        await world.publish(FinetuneCancelled(tenant_id=A, job_id="ftjob-1"))
        [retired] = await eventually(lambda: world.seen.of(ModelRetired))
        assert retired.model_id == model
        assert (await world.card(model))["state"] == "retired"


async def test_an_unknown_tenant_is_asked_of_accounts_once(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1", tenant="tenant_late")
        await world.evaluated(model, "needs_human", tenant="tenant_late")
        await world.trained("ftjob-2", tenant="tenant_late")
        assert model.split(":")[2] == "late"
        assert world.accounts.asked == ["/internal/tenants/tenant_late"]


async def test_the_sdk_lists_retrieves_and_deletes(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.promoted("ftjob-1")
        await world.trained("ftjob-2")
        sdk = world.sdk()
        listed = [one async for one in sdk.models.list()]
        assert [(one.id, one.owned_by) for one in listed] == [(BASE, "base"), (model, "acme")]
        assert (await sdk.models.retrieve(model)).id == model
        assert (await sdk.models.retrieve(BASE)).owned_by == "base"

        with pytest.raises(openai.PermissionDeniedError, match="base model"):
            await sdk.models.delete(BASE)
        with pytest.raises(openai.PermissionDeniedError):
            await world.sdk(role="viewer").models.delete(model)
        deleted = await sdk.models.delete(model)
        assert (deleted.id, deleted.object, deleted.deleted) == (model, "model", True)
        with pytest.raises(openai.NotFoundError) as missing:
            await sdk.models.retrieve(model)
        assert missing.value.code == "model_not_found" and "retired" in missing.value.message
        with pytest.raises(openai.NotFoundError):
            await sdk.models.delete(model)
        [retired] = await eventually(lambda: world.seen.of(ModelRetired))
        assert retired.model_id == model


async def test_deleting_a_candidate_ends_its_job(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1")
        await world.sdk().models.delete(model)
        [rejected] = await eventually(lambda: world.seen.of(ModelRejected))
        assert rejected.job_id == "ftjob-1" and "Deleted by its owner" in rejected.reason


async def test_another_tenant_sees_nothing(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.promoted("ftjob-1")
        async with world.http() as mine, world.http(B) as other:
            assert (await mine.put("/v1/registry/aliases/support", json={"model": model})).status_code == 200
            listed = (await other.get("/v1/models")).json()["data"]
            assert [one["id"] for one in listed] == [BASE]
            assert (await other.get("/v1/registry/models")).json()["data"] == []
            assert (await other.get("/v1/registry/aliases")).json()["data"] == []
            assert (await other.get("/internal/routes")).json() == []
            assert (await other.get("/internal/adapters", params={"base_model": BASE})).json() == []
            for method, path in (
                ("GET", f"/v1/models/{model}"),
                ("GET", "/v1/models/support"),
                ("DELETE", f"/v1/models/{model}"),
                ("GET", f"/v1/registry/models/{model}"),
                ("GET", f"/v1/registry/models/{model}/card"),
                ("GET", f"/v1/registry/models?after={model}"),
                ("POST", f"/v1/registry/models/{model}/approve"),
                ("POST", f"/v1/registry/models/{model}/reject"),
                ("GET", "/v1/registry/aliases/support"),
                ("DELETE", "/v1/registry/aliases/support"),
                ("GET", f"/internal/routes/{model}"),
                ("GET", "/internal/routes/support"),
            ):
                answer = await other.request(method, path)
                assert answer.status_code == 404, (method, path)
            theirs = await other.put("/v1/registry/aliases/support", json={"model": model})
            assert theirs.status_code == 404
            assert (await world.card(model))["state"] == "production"


async def test_an_event_cannot_reach_into_another_tenant(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        model = await world.trained("ftjob-1")
        await world.resident("ftjob-1", tenant=B)
        await world.publish(FinetuneCancelled(tenant_id=B, job_id="ftjob-1"))
        await world.evaluated(model, "fail", tenant=B)
        await world.promoted("ftjob-b", tenant=B)
        card = await world.card(model)
        assert (card["state"], card["replicas"], card["evaluation"]) == ("candidate", [], None)


async def test_versions_are_listed_in_pages_with_their_cards(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world:
        made = [await world.trained(f"ftjob-{number}") for number in range(3)]
        promoted = await world.promoted("ftjob-9")
        async with world.http() as http:
            found: list[str] = []
            after: dict[str, str] = {}
            while True:
                page = (await http.get("/v1/registry/models", params={"limit": 2, "order": "asc", **after})).json()
                found += [one["id"] for one in page["data"]]
                assert page["first_id"] == page["data"][0]["id"]
                if not page["has_more"]:
                    break
                after = {"after": page["last_id"]}
            assert sorted(found) == sorted([*made, promoted]) and len(set(found)) == 4
            only = (await http.get("/v1/registry/models", params={"state": "production"})).json()["data"]
            assert [one["id"] for one in only] == [promoted]
            assert (await http.get("/v1/registry/models", params={"state": "nonsense"})).status_code == 400

            card = only[0]
            assert card["hyperparameters"] == {"n_epochs": 3} and card["dataset_id"] == "ds-1"
            assert card["evaluation"]["scores"]["candidate"]["n"] == 58
            assert card["replicas"][0]["replica_url"] == "http://r1"
            text = await http.get(f"/v1/registry/models/{promoted}/card")
            assert text.headers["content-type"].startswith("text/markdown")
            assert text.text.startswith(f"# {promoted}") and "57 of 58" in text.text


async def test_the_catalogue_is_the_folders(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world, world.http() as http:
        folder = tmp_path / "models"
        write_base(folder, "another", parameters=270)
        write_base(folder, "broken")
        (folder / "broken" / "base.json").write_text("{")
        write_base(folder, "renamed", id="something-else")
        bases = (await http.get("/v1/registry/base_models")).json()["data"]
        assert [(one["id"], one["default"]) for one in bases] == [("another", False), (BASE, True)]
        assert "chat_template" not in bases[0]
        first = (await http.get("/v1/registry/base_models", params={"limit": 1})).json()
        assert first["has_more"] and first["last_id"] == "another"
        rest = (await http.get("/v1/registry/base_models", params={"limit": 1, "after": "another"})).json()
        assert [one["id"] for one in rest["data"]] == [BASE] and not rest["has_more"]
        assert (await http.get("/internal/base_models/another")).json()["parameters"] == 270
        missing = await http.get("/internal/base_models/absent")
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"
        assert (await http.get("/internal/base_models/..%2F..%2Fetc")).status_code == 404
        (folder / "another" / "base.json").unlink()
        assert [one["id"] for one in (await http.get("/v1/models")).json()["data"]] == [BASE]


async def test_aliases_point_and_can_be_pointed_back(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world, world.http() as http:
        first, second = await world.promoted("ftjob-1"), await world.promoted("ftjob-2")
        candidate = await world.trained("ftjob-3")
        for bad, model in (("ft:x", first), (BASE, first), ("Upper", first), ("good", candidate)):
            refused = await http.put(f"/v1/registry/aliases/{bad}", json={"model": model})
            assert refused.status_code == 400, bad
        for model in (first, second):
            answer = await http.put("/v1/registry/aliases/support", json={"model": model})
            assert answer.json()["model"] == model
        assert [one["model"] for one in answer.json()["history"]] == [first, second]
        assert (await world.sdk().models.retrieve("support")).id == "support"
        assert "support" in [one.id async for one in world.sdk().models.list()]
        route = (await http.get("/internal/routes/support")).json()
        assert (route["model"], route["aliases"]) == (second, ["support"])
        with pytest.raises(openai.BadRequestError, match="DELETE /v1/registry/aliases/support"):
            await world.sdk().models.delete("support")

        await world.sdk().models.delete(second)
        dangling = await http.get("/internal/routes/support")
        assert dangling.status_code == 404 and "retired" in dangling.json()["error"]["message"]
        await http.put("/v1/registry/aliases/support", json={"model": first})
        assert (await http.get("/internal/routes/support")).json()["model"] == first
        assert (await http.delete("/v1/registry/aliases/support")).json()["deleted"] is True
        assert (await http.get("/internal/routes/support")).status_code == 404


async def test_services_learn_what_to_load_and_where_to_route(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world, world.http("") as service, world.http() as mine:
        model = await world.promoted("ftjob-1")
        theirs = await world.promoted("ftjob-b", tenant=B)
        candidate = await world.trained("ftjob-2")
        gone = await world.trained("ftjob-3")
        await world.evaluated(gone, "fail")
        await eventually(lambda: world.seen.of(ModelRejected))

        routes = (await service.get("/internal/routes")).json()
        assert {(one["model"], one["tenant_id"]) for one in routes} == {(model, A), (theirs, B)}
        assert [one["model"] for one in (await mine.get("/internal/routes")).json()] == [model]
        [route] = (await mine.get("/internal/routes")).json()
        assert route["adapter_id"] == "ad-ftjob-1" and route["base_model"] == BASE
        assert route["replicas"] == [{"replica_id": "r1", "replica_url": "http://r1"}]

        load = (await service.get("/internal/adapters", params={"base_model": BASE})).json()
        assert {one["model_id"] for one in load} == {model, theirs, candidate}
        assert load[0]["manifest"]["sha256"] == "0" * 64
        assert (await service.get("/internal/adapters", params={"base_model": "other"})).json() == []

        await world.resident("ftjob-1", replica="r2")
        await world.publish(AdapterEvicted(tenant_id=A, adapter_id="ad-ftjob-1", replica_id="r1"))
        await eventually(lambda: _held_by(mine, model, ["r2"]))
        missing = await mine.get(f"/internal/routes/{candidate}")
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


async def _held_by(http: httpx2.AsyncClient, model: str, replicas: list[str]) -> bool:
    route = (await http.get(f"/internal/routes/{model}")).json()
    return [one["replica_id"] for one in route["replicas"]] == replicas


async def test_internal_addresses_are_for_services_only(space: Space, tmp_path: Path) -> None:
    async with started(space, tmp_path) as world, httpx2.AsyncClient(base_url=world.url) as anonymous:
        for path in ("/internal/routes", "/internal/base_models/x", "/internal/adapters?base_model=x", "/v1/models"):
            assert (await anonymous.get(path)).status_code == 401, path

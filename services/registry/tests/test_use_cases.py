"""What the registry decides, by its one door and with no process beside it: the gate, names, deletion, time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from registry_harness import BASE, Accounts, Harness, write_base

from chassis.clock import wall
from registry.app import build
from registry.settings import Settings
from schemas import (
    FinetuneCancelled,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    TenantCreated,
    TenantPolicy,
    TenantPolicyChanged,
)
from testkit import Space, eventually
from testkit.alone import NOWHERE, Alone, alone


@dataclass
class Lonely(Harness):
    """A registry alone, and one test's two tenants in it."""

    service: Alone = field(default_factory=Alone)

    def http(self, tenant: str | None = None, role: str | None = None) -> httpx2.AsyncClient:
        return self.service.http(self.space.headers("registry", self.a if tenant is None else tenant, role=role))


async def test_a_services_clock_is_its_own_and_goes_with_it(folder: Path) -> None:
    settings = Space(NOWHERE, folder).settings(Settings, "registry", models_dir=folder, base_model=BASE)
    before = wall()
    async with alone(build, settings, peers={"accounts": Accounts()}) as service:
        assert wall() == service.seconds
    assert before <= wall() < before + 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a base model, and keys."""
    made = tmp_path_factory.mktemp("registry")
    write_base(made, BASE)
    return made


@pytest_asyncio.fixture
async def registry(folder: Path) -> AsyncIterator[Lonely]:
    accounts, space = Accounts(), Space(NOWHERE, folder)
    settings = space.settings(Settings, "registry", models_dir=folder, base_model=BASE, registry_aliases=3)
    async with alone(build, settings, peers={"accounts": accounts}) as service:
        broker = service.broker
        lonely = Lonely("", space, broker.tell, broker, accounts, folder, service=service)
        for tenant, slug in ((lonely.a, "acme"), (lonely.b, "bolt")):
            await broker.tell(TenantCreated(tenant_id=tenant, name=slug, slug=slug, policy=TenantPolicy()))
        yield lonely


async def test_a_candidate_is_promoted_once_it_passed_and_a_replica_proved_it(registry: Lonely) -> None:
    model = await registry.trained(1)
    await registry.publish(registry.evaluated(model, "pass"))
    assert (await registry.card(model))["waiting_for"] == "replica"
    assert registry.of(ModelPromoted) == []
    for event in (registry.ready(), registry.resident(1)):
        await registry.publish(event)
    await registry.asks("r1")
    [promoted] = await eventually(lambda: registry.of(ModelPromoted))
    assert (promoted.model_id, promoted.decided_by) == (model, "gate")
    async with registry.http() as mine, registry.http(registry.b) as others:
        assert [one["id"] for one in (await mine.get("/v1/models")).json()["data"]] == [BASE, model]
        assert [one["id"] for one in (await others.get("/v1/models")).json()["data"]] == [BASE]


async def test_the_same_job_and_evaluation_again_change_nothing(registry: Lonely) -> None:
    model = await registry.trained(1)
    for again in (registry.training(1, suffix="other"), registry.evaluated(model, "fail"), registry.resident(1)):
        await registry.publish(again)
    await registry.publish(registry.evaluated(model, "pass"))
    await eventually(lambda: registry.of(ModelRejected))
    assert [one.model_id for one in registry.of(ModelRegistered)] == [model]
    assert registry.of(ModelPromoted) == []


async def test_a_person_decides_where_the_policy_says_so(registry: Lonely) -> None:
    newer = TenantPolicyChanged(tenant_id=registry.a, policy=TenantPolicy(gate="approval"), revision=2)
    older = TenantPolicyChanged(tenant_id=registry.a, policy=TenantPolicy(gate="advisory"), revision=1)
    for change in (newer, older):
        await registry.publish(change)
    model = await registry.trained(1)
    for event in (registry.resident(1), registry.evaluated(model, "pass")):
        await registry.publish(event)
    await registry.publish(registry.ready())
    await registry.asks("r1")
    assert (await registry.card(model))["waiting_for"] == "approval"
    async with registry.http(role="engineer") as engineer, registry.http(role="approver") as approver:
        assert (await engineer.post(f"/v1/registry/models/{model}/approve")).status_code == 403
        approved = await approver.post(f"/v1/registry/models/{model}/approve", json={"note": "read it"})
    assert approved.json()["state"] == "production"
    [promoted] = await eventually(lambda: registry.of(ModelPromoted))
    assert promoted.decided_by == "user_test"


async def test_an_unknown_tenant_is_asked_of_accounts_once(registry: Lonely) -> None:
    registry.accounts.knows["tenant_late"] = "late"
    model = await registry.trained(1, tenant="tenant_late")
    await registry.trained(2, tenant="tenant_late")
    assert model.split(":")[2] == "late"
    assert registry.accounts.asked == ["/internal/tenants/tenant_late"]


async def test_a_cancelled_job_takes_its_candidate_with_it_and_gets_none_later(registry: Lonely) -> None:
    model = await registry.trained(1)
    for number in (1, 2):
        await registry.publish(FinetuneCancelled(tenant_id=registry.a, job_id=registry.job(number)))
    await registry.publish(registry.training(2))
    [retired] = await eventually(lambda: registry.of(ModelRetired))
    assert retired.model_id == model
    assert [one.model_id for one in registry.of(ModelRegistered)] == [model]


async def test_an_alias_points_at_models_in_production_only(registry: Lonely) -> None:
    served, candidate = await registry.promoted(1), await registry.trained(2)
    async with registry.http() as http:
        refused = await http.put("/v1/registry/aliases/support", json={"model": candidate})
        pointed = await http.put("/v1/registry/aliases/support", json={"model": served})
        found = await http.get("/v1/models/support")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_not_in_production")
    assert (pointed.status_code, found.json()["id"]) == (200, "support")


async def test_a_tenant_has_so_many_aliases_and_points_those_anew(registry: Lonely) -> None:
    """Each question for a route reads all of a tenant's."""
    served = {"model": await registry.promoted(1)}
    async with registry.http() as http:
        made = [await http.put(f"/v1/registry/aliases/a{number}", json=served) for number in range(4)]
        again = await http.put("/v1/registry/aliases/a0", json=served)
        assert [answer.status_code for answer in made] == [200, 200, 200, 403]
        assert made[-1].json()["error"]["code"] == "too_many_aliases"
        assert again.status_code == 200
        await http.delete("/v1/registry/aliases/a0")
        assert (await http.put("/v1/registry/aliases/a3", json=served)).status_code == 200


async def test_a_request_with_an_idempotency_key_is_answered_as_it_was(registry: Lonely) -> None:
    await registry.publish(TenantPolicyChanged(tenant_id=registry.a, policy=TenantPolicy(gate="approval"), revision=1))
    model = await registry.trained(1)
    for event in (registry.resident(1), registry.evaluated(model, "pass")):
        await registry.publish(event)
    async with registry.http(role="approver") as http:
        key: dict[str, Any] = {"headers": {"idempotency-key": "once"}, "json": {"note": "yes"}}
        first = await http.post(f"/v1/registry/models/{model}/approve", **key)
        again = await http.post(f"/v1/registry/models/{model}/approve", **key)
    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert "idempotent-replayed" in again.headers


async def test_time_is_what_the_given_clock_says(registry: Lonely) -> None:
    registry.service.seconds = 1_900_000_000.5
    model = await registry.trained(1)
    registry.service.seconds += 3600
    async with registry.http() as http:
        await registry.publish(registry.evaluated(model, "fail"))
        card = (await http.get(f"/v1/registry/models/{model}")).json()
        deleted = await http.delete(f"/v1/models/{model}")
    assert card["created_at"] == 1_900_000_000
    assert [one["at"] for one in card["decisions"]] == [1_900_003_600]
    assert deleted.status_code == 200

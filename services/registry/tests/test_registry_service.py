"""The registry as others see it: events in and out, OpenAI's SDK, and what other services ask. On the local stack."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from registry_harness import BASE, Harness, write_base, write_provider
from structlog.testing import capture_logs

from chassis.ids import new_id
from registry.settings import Settings
from schemas import (
    AdapterEvicted,
    AdapterLoadFailed,
    DatasetDeleted,
    FinetuneCancelled,
    ModelDeleted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelWaiting,
    TenantCreated,
    TenantPolicy,
    TenantPolicyChanged,
)
from schemas.artifacts import BASE_FILE, PROVIDER_FILE
from schemas.http.registry import PROVIDER_MODEL
from stores.mongo import connect
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_from_trained_to_production_by_the_gate(harness: Harness) -> None:
    model = await harness.trained(1)
    assert model.startswith(f"ft:{BASE}:acme:support:")
    async with harness.http() as http:
        assert (await http.get(f"/v1/models/{model}")).status_code == 404

    await harness.digest(harness.evaluated(model, "pass"))
    assert (await harness.card(model))["waiting_for"] == "replica"
    assert harness.of(ModelPromoted) == []

    await harness.digest(harness.ready(), harness.resident(1))
    await harness.asks("r1")
    [promoted] = await eventually(lambda: harness.of(ModelPromoted))
    assert (promoted.model_id, promoted.job_id, promoted.decided_by) == (model, harness.job(1), "gate")
    assert harness.accounts.asked == []

    again = harness.training(1), harness.training(1, suffix="other"), harness.evaluated(model, "fail")
    await harness.digest(*again, harness.resident(1))
    await harness.trained(2)
    assert [one.job_id for one in harness.of(ModelRegistered)] == [harness.job(1), harness.job(2)]
    assert len(harness.of(ModelPromoted)) == 1
    assert (await harness.card(model))["state"] == "production"


async def test_what_a_model_waits_for_is_said_and_an_adapter_that_cannot_be_loaded_too(harness: Harness) -> None:
    model = await harness.trained(1)
    failed = AdapterLoadFailed(
        tenant_id=harness.a,
        adapter_id=harness.resident(1).adapter_id,
        model_id=model,
        replica_id="r1",
        permanent=True,
        reason="off its fingerprint by 0.4 nats",
    )
    await harness.digest(failed, failed)
    await harness.digest(harness.evaluated(model, "needs_human"))
    told, asked = await eventually(lambda: found if len(found := harness.of(ModelWaiting)) == 2 else None)
    assert (told.waiting_for, told.job_id, told.evaluation_id) == ("evaluation", harness.job(1), None)
    assert "0.4 nats" in told.reason
    assert (asked.waiting_for, asked.reason) == ("approval", "57 of 58 against 3 of 58.")
    card = await harness.card(model)
    assert card["waiting_since"] >= card["created_at"]
    [shown] = card["load_failures"]
    assert (shown["replica_id"], shown["permanent"]) == ("r1", True)


async def test_a_failed_evaluation_rejects_with_its_reason(harness: Harness) -> None:
    model = await harness.trained(1)
    await harness.digest(harness.evaluated(model, "fail"))
    [event] = await eventually(lambda: harness.of(ModelRejected))
    assert (event.model_id, event.reason) == (model, "57 of 58 against 3 of 58.")


async def test_a_person_decides_where_the_policy_says_so(harness: Harness) -> None:
    await harness.digest(
        TenantPolicyChanged(tenant_id=harness.a, policy=TenantPolicy(gate="approval")),
        TenantCreated(tenant_id=harness.a, name="acme", slug="acme", policy=TenantPolicy()),
    )
    yes, no = await harness.trained(1), await harness.trained(2)
    await harness.digest(harness.ready(), harness.resident(1))
    async with harness.http(role="engineer") as engineer, harness.http(role="approver") as approver:
        early = await approver.post(f"/v1/registry/models/{yes}/approve")
        assert early.status_code == 409
        assert "waits for evaluation" in early.json()["error"]["message"]
        assert early.headers["x-should-retry"] == "false"
        for model in (yes, no):
            await harness.digest(harness.evaluated(model, "pass"))
            assert (await harness.card(model))["waiting_for"] == "approval"

        assert (await engineer.post(f"/v1/registry/models/{yes}/approve")).status_code == 403
        await harness.asks("r1")
        path = yes.replace(":", "%3A")
        answer = await approver.post(f"/v1/registry/models/{path}/approve", json={"note": "read the evidence"})
        assert (answer.status_code, answer.json()["state"]) == (200, "production")
        last = answer.json()["decisions"][-1]
        assert (last["by"], last["note"], last["outcome"]) == ("user_test", "read the evidence", "promote")
        refused = await approver.post(f"/v1/registry/models/{no}/reject", json={"note": "wrong tone"})
        assert refused.json()["state"] == "rejected"
    [rejected] = await eventually(lambda: harness.of(ModelRejected))
    assert rejected.reason == "Refused by a person: wrong tone."
    [promoted] = harness.of(ModelPromoted)
    assert promoted.decided_by == "user_test"


async def test_a_cancelled_job_takes_its_candidate_with_it(harness: Harness) -> None:
    model = await harness.trained(1)
    await harness.publish(FinetuneCancelled(tenant_id=harness.a, job_id=harness.job(1)))
    [retired] = await eventually(lambda: harness.of(ModelRetired))
    assert retired.model_id == model
    assert (await harness.card(model))["state"] == "retired"


async def test_a_cancelled_job_gets_no_candidate_whatever_comes_later(harness: Harness) -> None:
    await harness.digest(FinetuneCancelled(tenant_id=harness.a, job_id=harness.job(1)), harness.training(1))
    await harness.trained(2)
    assert [one.job_id for one in harness.of(ModelRegistered)] == [harness.job(2)]


async def test_an_older_policy_does_not_undo_a_newer_one(harness: Harness) -> None:
    newer = TenantPolicyChanged(tenant_id=harness.a, policy=TenantPolicy(gate="approval"), revision=2)
    older = TenantPolicyChanged(tenant_id=harness.a, policy=TenantPolicy(gate="advisory"), revision=1)
    await harness.digest(newer, older)
    model = await harness.trained(1)
    await harness.digest(harness.resident(1), harness.evaluated(model, "pass"))
    assert (await harness.card(model))["waiting_for"] == "approval"


async def test_a_model_is_not_promoted_on_the_word_of_a_replica_that_has_another_base(harness: Harness) -> None:
    model, moved = await harness.trained(1), new_id("moved")
    await harness.digest(harness.ready(moved, digest="e" * 64), harness.resident(1, replica=moved))
    await harness.asks(moved)
    await harness.digest(harness.evaluated(model, "pass"))
    await harness.asks(moved)
    assert (await harness.card(model))["waiting_for"] == "replica"
    await harness.digest(harness.ready(moved))
    await harness.asks(moved)
    await eventually(lambda: [one for one in harness.of(ModelPromoted) if one.model_id == model])
    assert moved in await harness.held_by(model)


async def test_an_unknown_tenant_is_asked_of_accounts_once(harness: Harness) -> None:
    late = new_id("tenant_late")
    harness.accounts.knows[late] = "late"
    model = await harness.trained(1, tenant=late)
    await harness.digest(harness.evaluated(model, "needs_human", tenant=late))
    await harness.trained(2, tenant=late)
    assert model.split(":")[2] == "late"
    assert harness.accounts.asked == [f"/internal/tenants/{late}"]
    assert (await harness.card(model, late))["waiting_for"] == "approval"


async def test_the_sdk_lists_retrieves_and_deletes(harness: Harness) -> None:
    model = await harness.promoted(1)
    await harness.trained(2)
    sdk = harness.sdk()
    listed = [one async for one in sdk.models.list()]
    assert [(one.id, one.owned_by) for one in listed] == [(BASE, "base"), (model, "acme")]
    assert (await sdk.models.retrieve(model)).id == model
    assert (await sdk.models.retrieve(BASE)).owned_by == "base"

    with pytest.raises(openai.PermissionDeniedError, match="base model"):
        await sdk.models.delete(BASE)
    with pytest.raises(openai.PermissionDeniedError):
        await harness.sdk(role="viewer").models.delete(model)
    deleted = await sdk.models.delete(model)
    assert (deleted.id, deleted.object, deleted.deleted) == (model, "model", True)
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve(model)
    assert missing.value.code == "model_not_found"
    assert "retired" in missing.value.message
    with pytest.raises(openai.NotFoundError):
        await sdk.models.delete(model)
    [retired] = await eventually(lambda: harness.of(ModelRetired))
    assert retired.model_id == model
    [gone] = await eventually(lambda: harness.of(ModelDeleted))
    assert (gone.model_id, gone.job_id, gone.adapter_id) == (model, harness.job(1), retired.adapter_id)
    assert (await harness.card(model))["deleted_at"]


async def test_an_end_user_takes_back_their_own_model_and_no_other(harness: Harness) -> None:
    async with harness.http(role="end_user") as theirs:
        models = [await harness.trained(1, owner="user_test"), await harness.trained(2, owner="user_other")]
        statuses = [(await theirs.delete(f"/v1/models/{model}")).status_code for model in (*models, BASE)]
        assert statuses == [200, 404, 403]
        assert (await theirs.put("/v1/registry/aliases/x", json={"model": models[1]})).status_code == 403
        assert (await theirs.post(f"/v1/registry/models/{models[1]}/reject")).status_code == 403
    for role in ("viewer", "approver", "auditor", "labeler"):
        async with harness.http(role=role) as other:
            assert (await other.delete(f"/v1/models/{models[1]}")).status_code == 403, role
    assert (await harness.card(models[1]))["state"] == "candidate"


async def test_a_model_that_was_refused_is_deleted_too_and_so_is_what_was_made_for_it(harness: Harness) -> None:
    model = await harness.trained(1)
    await harness.digest(harness.evaluated(model, "fail"))
    assert (await harness.card(model))["state"] == "rejected"
    await harness.sdk().models.delete(model)
    [gone] = await eventually(lambda: harness.of(ModelDeleted))
    assert gone.model_id == model
    assert len(harness.of(ModelRejected)) == 1
    with pytest.raises(openai.NotFoundError, match="deleted already"):
        await harness.sdk().models.delete(model)


@pytest.mark.parametrize("order", ["registered first", "deleted first"])
async def test_a_candidate_whose_rows_are_deleted_before_it_is_tested_ends_its_job(
    harness: Harness, order: str
) -> None:
    learned = harness.training(1).dataset.model_copy(update={"dataset_id": f"ds-{harness.a}"})
    training = harness.training(1, dataset=learned)
    deleted = DatasetDeleted(tenant_id=harness.a, dataset_id=learned.dataset_id, heldout=learned.heldout)
    for event in (training, deleted, deleted) if order == "registered first" else (deleted, training, training):
        await harness.digest(event)
    [rejected] = await eventually(lambda: harness.of(ModelRejected))
    assert (rejected.job_id, rejected.code) == (training.job_id, "file_deleted")
    [made] = [one for one in harness.of(ModelRegistered) if one.job_id == training.job_id]
    assert (await harness.card(made.model_id))["state"] == "rejected"


async def test_deleting_a_candidate_ends_its_job(harness: Harness) -> None:
    model = await harness.trained(1)
    await harness.sdk().models.delete(model)
    [rejected] = await eventually(lambda: harness.of(ModelRejected))
    assert rejected.job_id == harness.job(1)
    assert "Deleted by its owner" in rejected.reason


async def test_a_model_that_an_earlier_release_only_took_out_of_use_is_found_and_let_go(harness: Harness) -> None:
    model, used = await harness.promoted(1), await harness.promoted(2)
    database = connect(harness.space.settings(Settings, "registry"), "registry")
    as_then = {"$set": {"state": "retired"}, "$unset": {"deleted_at": ""}}
    async with harness.http() as http:

        async def leftovers(*, purge: bool) -> dict[str, int]:
            return dict((await http.post("/internal/leftovers", json={"purge": purge})).json())

        await leftovers(purge=True)
        await database["models"].update_one({"_id": model}, as_then)
        assert await leftovers(purge=False) == {"purged": 0, "found": 1}
        assert harness.of(ModelDeleted) == []
        assert await leftovers(purge=True) == {"purged": 1, "found": 0}
        [deleted] = await eventually(lambda: harness.of(ModelDeleted))
        assert (deleted.model_id, deleted.job_id) == (model, harness.job(1))
        assert await leftovers(purge=True) == {"purged": 0, "found": 0}
    assert (await harness.card(used))["state"] == "production"


async def test_another_tenant_sees_nothing(harness: Harness) -> None:
    model = await harness.promoted(1)
    async with harness.http() as mine, harness.http(harness.b) as other:
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
            ("GET", f"/internal/versions/{model}"),
        ):
            answer = await other.request(method, path)
            assert answer.status_code == 404, (method, path)
        theirs = await other.put("/v1/registry/aliases/support", json={"model": model})
        assert theirs.status_code == 404
        assert (await harness.card(model))["state"] == "production"


async def test_an_event_cannot_reach_into_another_tenant(harness: Harness) -> None:
    model = await harness.trained(1)
    stolen = harness.resident(1).model_copy(update={"tenant_id": harness.b})
    cancelled = FinetuneCancelled(tenant_id=harness.b, job_id=harness.job(1))
    await harness.digest(stolen, cancelled, harness.evaluated(model, "fail", tenant=harness.b))
    card = await harness.card(model)
    assert (card["state"], card["replicas"], card["evaluation"]) == ("candidate", [], None)


async def test_versions_are_listed_in_pages_with_their_cards(harness: Harness) -> None:
    made = [await harness.trained(number) for number in range(3)]
    promoted = await harness.promoted(9)
    async with harness.http() as http:
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await http.get("/v1/registry/models", params={"limit": 2, "order": "asc", **after})).json()
            found += [one["id"] for one in page["data"]]
            assert page["first_id"] == page["data"][0]["id"]
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
        assert sorted(found) == sorted([*made, promoted])
        assert len(set(found)) == 4
        only = (await http.get("/v1/registry/models", params={"state": "production"})).json()["data"]
        assert [one["id"] for one in only] == [promoted]
        assert (await http.get("/v1/registry/models", params={"state": "nonsense"})).status_code == 400

        card = only[0]
        assert card["hyperparameters"] == {"n_epochs": 3}
        assert card["dataset_id"] == "ds-1"
        assert card["evaluation"]["scores"]["candidate"]["n"] == 58
        assert card["replicas"][0]["replica_url"] == "http://r1"
        text = await http.get(f"/v1/registry/models/{promoted}/card")
        assert text.headers["content-type"].startswith("text/markdown")
        assert text.text.startswith(f"# {promoted}")
        assert "57 of 58" in text.text


async def test_the_catalogue_is_the_folders(harness: Harness) -> None:
    async with harness.http() as http:
        folder = harness.models_dir
        write_base(folder, "another", parameters=270)
        write_base(folder, "broken")
        (folder / "broken" / "base.json").write_text("{")
        write_base(folder, "renamed", id="something-else")
        bases = (await http.get("/v1/registry/base_models")).json()["data"]
        assert [(one["id"], one["default"]) for one in bases] == [("another", False), (BASE, True)]
        assert "chat_template" not in bases[0]
        first = (await http.get("/v1/registry/base_models", params={"limit": 1})).json()
        assert first["has_more"]
        assert first["last_id"] == "another"
        rest = (await http.get("/v1/registry/base_models", params={"limit": 1, "after": "another"})).json()
        assert [one["id"] for one in rest["data"]] == [BASE]
        assert not rest["has_more"]
        newest = (await http.get("/v1/registry/base_models", params={"after": BASE, "order": "desc"})).json()
        assert [one["id"] for one in newest["data"]] == ["another"]
        unknown = await http.get("/v1/registry/base_models", params={"after": "absent"})
        assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "after")
        assert "'absent'" in unknown.json()["error"]["message"]
        assert (await http.get("/internal/base_models/another")).json()["parameters"] == 270
        missing = await http.get("/internal/base_models/absent")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"
        assert (await http.get("/internal/base_models/..%2F..%2Fetc")).status_code == 404
        for name in ("another", "broken", "renamed"):
            (folder / name / "base.json").unlink()
        assert [one["id"] for one in (await http.get("/v1/models")).json()["data"]] == [BASE]


async def test_a_providers_model_is_a_base_model_without_weights(harness: Harness) -> None:
    engine = {"kind": "openai", "url": "https://api.example/v1/", "model": "their-name", "key_file": "theirs"}
    spec = {"id": "a-far", "context_length": 4096, "engine": engine, "price": {"input": 0.4, "output": 1.6}}
    wrong: dict[str, Any] = {
        "renamed": {"id": "another-name"},
        "keyed": {"engine": {**engine, "api_key": "sk-their-secret"}},
        "signed": {"engine": {**engine, "url": "https://me:sk-their-secret@api.example/v1"}},
        "elsewhere": {"engine": {**engine, "url": "ftp://sk-their-secret@api.example"}},
        "misspelt": {"prize": {"input": 0.4, "output": 1.6}},
        "readable": {"engine": {**engine, "url": "http://api.example/v1"}},
        "climbing": {"engine": {**engine, "key_file": "../sk-their-secret"}},
        BASE: {"id": BASE},
    }
    with capture_logs() as logged:
        write_provider(harness.models_dir, "a-far", spec)
        for name, change in wrong.items():
            write_provider(harness.models_dir, name, {**spec, "id": name, **change})
        async with harness.http() as http:
            bases = (await http.get("/v1/registry/base_models")).json()["data"]
            refused = {one["path"].split("/")[-2] for one in logged if one["event"] == "base_model_refused"}
            listed = [one["id"] for one in (await http.get("/v1/models")).json()["data"]]
            inside = (await http.get("/internal/base_models")).json()
            weights = await http.get("/internal/base_models/a-far")
            told = (await http.get("/internal/provider_models/a-far")).json()
            missing = [await http.get(f"/internal/provider_models/{name}") for name in (BASE, "absent")]
            gone = await http.delete("/v1/models/a-far")
    for name in ("a-far", *wrong):
        (harness.models_dir / name / PROVIDER_FILE).unlink()
    assert [(one["id"], one["engine"], one["fine_tuning"], one["default"]) for one in bases] == [
        (BASE, "own", True, True),
        ("a-far", "openai", False, False),
    ]
    assert bases[1]["price"] == spec["price"]
    assert "example" not in str(bases)
    assert refused == set(wrong)
    assert "sk-their-secret" not in str(logged)
    assert listed == [BASE, "a-far"]
    assert [one["id"] for one in inside] == [BASE]
    assert (weights.status_code, weights.json()["error"]["code"]) == (404, PROVIDER_MODEL)
    assert "fine-tune" in weights.json()["error"]["message"]
    assert told["engine"]["url"] == "https://api.example/v1"
    assert [one.status_code for one in missing] == [404, 404]
    assert gone.status_code == 403


async def test_aliases_point_and_can_be_pointed_back(harness: Harness) -> None:
    async with harness.http() as http:
        first, second = await harness.promoted(1), await harness.promoted(2)
        candidate = await harness.trained(3)
        for bad, model in (("ft:x", first), (BASE, first), ("Upper", first), ("good", candidate)):
            refused = await http.put(f"/v1/registry/aliases/{bad}", json={"model": model})
            assert refused.status_code == 400, bad
        for model in (first, second):
            answer = await http.put("/v1/registry/aliases/support", json={"model": model})
            assert answer.json()["model"] == model
        assert [one["model"] for one in answer.json()["history"]] == [first, second]
        assert (await harness.sdk().models.retrieve("support")).id == "support"
        assert "support" in [one.id async for one in harness.sdk().models.list()]
        route = (await http.get("/internal/routes/support")).json()
        assert (route["model"], route["aliases"]) == (second, ["support"])
        with pytest.raises(openai.BadRequestError, match="DELETE /v1/registry/aliases/support"):
            await harness.sdk().models.delete("support")

        deleted = await harness.sdk().models.delete(second)
        [kept] = (deleted.model_extra or {})["kept"]
        assert (kept["object"], kept["id"]) == ("model.alias", "support")
        assert "pointed at another" in kept["because"]
        dangling = await http.get("/internal/routes/support")
        assert dangling.status_code == 404
        assert "retired" in dangling.json()["error"]["message"]
        await http.put("/v1/registry/aliases/support", json={"model": first})
        assert (await http.get("/internal/routes/support")).json()["model"] == first
        assert (await http.delete("/v1/registry/aliases/support")).json()["deleted"] is True
        assert (await http.get("/internal/routes/support")).status_code == 404


async def test_services_learn_what_to_load_and_where_to_route(harness: Harness) -> None:
    async with harness.http("") as service, harness.http() as mine:
        model = await harness.promoted(1)
        theirs = await harness.promoted(8, tenant=harness.b)
        candidate = await harness.trained(2)
        gone = await harness.trained(3)
        await harness.digest(harness.evaluated(gone, "fail"))
        await eventually(lambda: harness.of(ModelRejected))

        await harness.asks("r1")
        routes = (await service.get("/internal/routes")).json()
        assert {(one["model"], one["tenant_id"]) for one in routes} >= {(model, harness.a), (theirs, harness.b)}
        assert [one["model"] for one in (await mine.get("/internal/routes")).json()] == [model]
        [route] = (await mine.get("/internal/routes")).json()
        assert route["adapter_id"] == f"ad-{harness.a}-1"
        assert (route["base_model"], route["base_digest"]) == (BASE, "d" * 64)
        assert route["replicas"] == [
            {"replica_id": "r1", "replica_url": "http://r1", "engine": "tgi", "capabilities": ["echo"]}
        ]

        load = (await service.get("/internal/adapters", params={"base_model": BASE})).json()
        assert {one["model_id"] for one in load} >= {model, theirs, candidate}
        assert gone not in {one["model_id"] for one in load}
        assert load[0]["manifest"]["sha256"] == "0" * 64
        awaited = {one["model_id"]: one["awaited"] for one in load}
        assert awaited[candidate] is True
        assert awaited[model] is False
        assert (await service.get("/internal/adapters", params={"base_model": "other"})).json() == []

        evicted = AdapterEvicted(tenant_id=harness.a, adapter_id=f"ad-{harness.a}-1", replica_id="r1")
        await harness.digest(harness.ready("r2"), harness.resident(1, replica="r2"), evicted)
        await harness.asks("r1", "r2")
        assert await harness.held_by(model) == ["r2"]
        missing = await mine.get(f"/internal/routes/{candidate}")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"

        versions = [(await mine.get(f"/internal/versions/{one}")).json() for one in (model, candidate)]
        assert [(one["model"], one["state"]) for one in versions] == [(model, "production"), (candidate, "candidate")]
        assert [[held["replica_id"] for held in one["replicas"]] for one in versions] == [["r2"], []]
        await harness.digest(harness.resident(2, replica="r2"))
        tested = (await mine.get(f"/internal/versions/{candidate}")).json()
        assert [held["replica_id"] for held in tested["replicas"]] == ["r2"]
        async with harness.http(harness.b) as other:
            for one in (model, candidate, gone):
                answer = await other.get(f"/internal/versions/{one}")
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), one
        over = await mine.get(f"/internal/versions/{gone}")
        assert (over.status_code, over.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_base_model_is_routed_to_the_replicas_that_proved_it_and_to_no_others(harness: Harness) -> None:
    write_base(harness.models_dir, "second-base", digest="e" * 64)
    first, second, other = new_id("first"), new_id("second"), new_id("other")
    await harness.digest(
        harness.ready(first),
        harness.ready(second, base="second-base", digest="e" * 64),
        harness.ready(other, digest="e" * 64),
    )
    await harness.asks(first, second, other)
    mine = {first, second, other}
    assert mine & {*await harness.held_by(BASE)} == {first}
    assert mine & {*await harness.held_by("second-base")} == {second}
    async with harness.http() as http:
        route = (await http.get("/internal/routes/second-base")).json()
        assert (route["model"], route["base_model"], route["base_digest"]) == ("second-base", "second-base", "e" * 64)
        assert (route["adapter_id"], route["tenant_id"], route["owner"]) == ("", "", "")
        await harness.asks(first, second, other)
        shown = {one["id"]: one["replicas"] for one in (await http.get("/v1/registry/base_models")).json()["data"]}
        assert shown["second-base"] == 1
    (harness.models_dir / "second-base" / BASE_FILE).unlink()


async def test_a_replica_that_has_another_base_now_answers_for_no_adapter_of_the_one_before(harness: Harness) -> None:
    moved = new_id("moved")
    model = await harness.promoted(1)
    await harness.digest(harness.ready(moved), harness.resident(1, replica=moved))
    await harness.asks("r1", moved)
    assert await harness.held_by(model) == ["r1", moved]
    await harness.digest(harness.ready(moved, digest="e" * 64))
    await harness.asks("r1", moved)
    assert await harness.held_by(model) == ["r1"]


async def test_an_address_at_which_two_bases_were_proven_is_nobodys(harness: Harness) -> None:
    before, after = new_id("before"), new_id("after")
    await harness.digest(
        harness.ready(before, url="http://same"), harness.ready(after, digest="e" * 64, url="http://same")
    )
    await harness.asks("r1", before, after)
    assert not {before, after} & {*await harness.held_by(BASE)}
    await harness.digest(harness.ready(after, url="http://same"))
    await harness.asks("r1", before, after)
    assert {before, after} & {*await harness.held_by(BASE)} == {after}, "an address is its last replica's"


@pytest.mark.parametrize("base", [("another", "d" * 64), (BASE, "e" * 64)], ids=["name", "digest"])
async def test_a_replica_is_at_once_not_believed_to_hold_a_base_that_it_does_not_ask_for(
    harness: Harness, base: tuple[str, str]
) -> None:
    moved = new_id("moved")
    await harness.digest(harness.ready(moved))
    await harness.asks(moved)
    assert moved in await harness.held_by(BASE)
    harness.bases[moved] = base
    await harness.asks(moved)
    assert moved not in await harness.held_by(BASE)


async def test_a_replica_is_told_what_it_is_taken_to_hold_and_may_ask_so_before_it_lives(harness: Harness) -> None:
    model, mine, other = await harness.trained(1), new_id("mine"), new_id("other")
    await harness.digest(harness.ready(mine), harness.resident(1, replica=mine))
    async with harness.http("") as http:
        for replica, resident in ((mine, True), (other, False), ("", False)):
            params = {"base_model": BASE, "replica_id": replica, "lives": False}
            told = (await http.get("/internal/adapters", params=params)).json()
            assert {one["model_id"]: one["resident"] for one in told}[model] is resident
    assert mine not in await harness.held_by(BASE)
    await harness.asks(mine)
    assert mine in await harness.held_by(BASE)


async def test_internal_addresses_are_for_services_only(harness: Harness) -> None:
    async with httpx2.AsyncClient(base_url=harness.url) as anonymous:
        for path in (
            "/internal/routes",
            "/internal/routes/x",
            "/internal/versions/x",
            "/internal/base_models/x",
            "/internal/provider_models/x",
            "/internal/adapters?base_model=x",
            "/v1/models",
        ):
            assert (await anonymous.get(path)).status_code == 401, path

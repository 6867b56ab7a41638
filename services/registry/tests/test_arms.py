"""Versions that answer by embeddings: who serves a name, by whose decision, and that all goes with it; alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from registry_harness import BASE
from registry_races import SILENT_SECONDS, Race, told
from structlog.testing import capture_logs
from test_use_cases import Lonely, folder, registry

from registry.domain import is_version_id, name_of, version_id, versions_of
from schemas import (
    DatasetDeleted,
    FinetuneCancelled,
    ModelDeleted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelWaiting,
    TenantPolicy,
    TenantPolicyChanged,
)
from schemas.artifacts import CurvePoint, Gain, LearningCurve
from testkit import eventually

__all__ = ["folder", "registry"]


async def policy(registry: Lonely, gate: Any) -> None:
    await registry.publish(TenantPolicyChanged(tenant_id=registry.a, policy=TenantPolicy(gate=gate), revision=1))


def test_a_version_has_the_name_it_serves_under_in_its_id() -> None:
    name = "ft:a@head:acme:support@x:1a2b3c4d"
    assert versions_of(name) == [name, f"{name}@head", f"{name}@nearest"]
    assert [name_of(one) for one in versions_of(name)] == [name] * 3
    assert [is_version_id(one) for one in (*versions_of(name), "@head", "x@other")] == [False, True, True, False, False]
    assert version_id(name, "nearest") == f"{name}@nearest"


async def test_an_arm_that_passed_answers_under_the_models_name_and_waits_for_no_replica(registry: Lonely) -> None:
    version = await registry.fitted(1)
    name = version.removesuffix("@head")
    [made] = registry.of(ModelRegistered)
    fitting = registry.fitting(1)
    assert (made.name, made.arm, made.adapter_id) == (name, "head", fitting.arm_id)
    assert (made.adapter_manifest, made.dataset, made.metrics) == (
        fitting.arm_manifest,
        fitting.dataset,
        fitting.metrics,
    )
    card = await registry.card(version)
    assert (card["name"], card["arm"], card["waiting_for"], card["serves"]) == (name, "head", "evaluation", False)
    [untested] = await told(registry, f"/internal/arms/{name}")
    assert (untested["version"], untested["state"]) == (version, "candidate")
    async with registry.http() as http:
        assert (await http.get(f"/v1/models/{name}")).status_code == 404
        assert (await http.get(f"/internal/routes/{name}")).status_code == 404
    tested = await told(registry, f"/internal/versions/{version}")
    assert (tested["model"], tested["version"], tested["state"]) == (name, version, "candidate")
    assert tested["arm"] == {
        "kind": "head",
        "generates": False,
        "manifest": fitting.arm_manifest.model_dump(),
        "embedder": fitting.embedder.model_dump(),
    }

    await registry.publish(registry.evaluated(version, "pass"))
    [promoted] = await eventually(lambda: registry.of(ModelPromoted))
    assert (promoted.model_id, promoted.name, promoted.arm) == (version, name, "head")
    assert (promoted.adapter_id, promoted.decided_by) == (fitting.arm_id, "gate")
    assert registry.of(ModelWaiting) == []
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["model"], route["version"], route["adapter_id"]) == (name, version, fitting.arm_id)
    assert (route["replicas"], route["arm"]["kind"], route["tenant_id"]) == ([], "head", registry.a)
    assert route["stands_in"] is False
    assert await told(registry, "/internal/routes") == [route]
    assert [one["id"] for one in (await told(registry, "/v1/models"))["data"]] == [BASE, name]
    assert (await told(registry, f"/v1/models/{name}"))["id"] == name
    async with registry.http() as http:
        for path in (f"/v1/models/{version}", f"/internal/routes/{version}"):
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
            assert f"asked by name: '{name}'" in refused.json()["error"]["message"]
    assert (await registry.card(version))["serves"] is True


async def test_an_arm_by_which_the_base_answers_is_routed_to_living_replicas_of_that_base(registry: Lonely) -> None:
    digest = "d" * 64
    version = await registry.fitted(1, arm="nearest", generates=True, base_digest=digest)
    name = version.removesuffix("@nearest")
    [made] = registry.of(ModelRegistered)
    assert (made.arm, made.generates) == ("nearest", True)
    await registry.publish(registry.evaluated(version, "pass"))
    await eventually(lambda: registry.of(ModelPromoted))
    assert registry.of(ModelWaiting) == []
    assert (await told(registry, f"/internal/routes/{name}"))["replicas"] == []

    await registry.digest(registry.ready("r1"), registry.ready("r2", digest="e" * 64), registry.ready("r3", "other"))
    await registry.asks("r1", "r2", "r3")
    for path in (f"/internal/routes/{name}", f"/internal/versions/{version}"):
        route = await told(registry, path)
        assert [one["replica_id"] for one in route["replicas"]] == ["r1"], path
        assert (route["base_digest"], route["arm"]["generates"], route["version"]) == (digest, True, version)
    [arm] = await told(registry, f"/internal/arms/{name}")
    assert [one["replica_id"] for one in arm["replicas"]] == ["r1"]
    card = await registry.card(version)
    assert (card["arm"], card["generates"], card["serves"]) == ("nearest", True, True)
    async with registry.http() as http:
        written = (await http.get(f"/v1/registry/models/{version}/card")).text
    assert "By the base model, which is shown the training rows whose questions are closest." in written
    assert digest in written
    bound = {"hand_over_below": 0.5}
    async with registry.http(role="owner") as http:
        refused = await http.post(f"/v1/registry/models/{version}/pin", json=bound)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "hand_over_below")
    assert "is an arm by which the base model answers" in refused.json()["error"]["message"]


async def test_an_adapter_takes_the_name_over_from_an_arm_by_which_the_base_answers(registry: Lonely) -> None:
    arm = await registry.fitted(1, arm="nearest", generates=True, base_digest="d" * 64)
    await registry.publish(registry.evaluated(arm, "pass"))
    await registry.digest(registry.ready("r1"))
    await registry.asks("r1")
    name = await registry.trained(1)
    await registry.digest(registry.resident(1))
    await registry.publish(registry.evaluated(name, "pass"))
    await eventually(lambda: len(registry.of(ModelPromoted)) == 2)
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["version"], route["arm"], route["stands_in"]) == ("", None, False)


async def test_the_card_of_an_arm_shows_how_it_grew_with_rows(registry: Lonely) -> None:
    points = [
        CurvePoint(rows=144, accuracy=0.75, low=0.625, high=0.875),
        CurvePoint(rows=230, accuracy=0.875, low=0.8125, high=0.9375),
    ]
    curve = LearningCurve(points=points, twice=Gain(rows=288, gain=0.04, low=0.01, high=0.06))
    grown, before = await registry.fitted(1, learning_curve=curve), await registry.fitted(2)
    async with registry.http() as http:
        [shown, earlier] = [
            (await http.get(f"/v1/registry/models/{one}/card")).text.partition("## How it answers")[2]
            for one in (grown, before)
        ]
    assert "288 rows more of the same kind would probably bring about 4 points (1 to 6)." in shown
    assert "| 144 | 0.750 | 0.625 to 0.875 |\n| 230 | 0.875 | 0.812 to 0.938 |" in shown
    assert "rows more" not in earlier
    assert (await registry.card(grown))["learning_curve"] == curve.model_dump()
    assert (await registry.card(before))["learning_curve"] is None


async def test_model_servers_are_told_of_no_arm_and_nothing_they_say_changes_one(registry: Lonely) -> None:
    version = await registry.fitted(1)
    name = await registry.trained(1)
    await registry.answering(2)
    listed = await told(registry, f"/internal/adapters?base_model={BASE}", tenant="")
    assert [one["model_id"] for one in listed] == [name]
    mistaken = registry.resident(1).model_copy(update={"adapter_id": registry.fitting(1).arm_id})
    await registry.publish(mistaken)
    assert (await registry.card(version))["replicas"] == []


async def test_the_adapter_takes_the_name_over_and_the_arm_answers_while_no_replica_holds_it(registry: Lonely) -> None:
    name = await registry.answering(1)
    version = f"{name}@head"
    assert await registry.trained(1) == name
    assert (await told(registry, f"/internal/routes/{name}"))["version"] == version
    tested = await told(registry, f"/internal/versions/{name}")
    assert (tested["arm"], tested["version"], tested["adapter_id"]) == (None, "", registry.resident(1).adapter_id)
    for event in (registry.ready(), registry.resident(1), registry.evaluated(name, "pass")):
        await registry.publish(event)
    await registry.asks("r1")
    assert (await registry.card(name))["state"] == (await registry.card(version))["state"] == "production"
    async with registry.http() as http:
        pointed = await http.put("/v1/registry/aliases/support", json={"model": name})
    assert pointed.status_code == 200

    for silent, serving in ((False, name), (True, version)):
        if silent:
            registry.service.seconds += SILENT_SECONDS
        route = await told(registry, "/internal/routes/support")
        assert (route["model"], route["version"]) == (name, version if silent else "")
        assert (bool(route["arm"]), bool(route["replicas"]), route["aliases"]) == (silent, not silent, ["support"])
        assert route["stands_in"] is silent
        assert await told(registry, "/internal/routes") == [route]
        cards = (await told(registry, f"/v1/registry/models?name={name}"))["data"]
        assert {card["id"] for card in cards} == {name, version}
        assert [card["id"] for card in cards if card["serves"]] == [serving]
        [arm] = await told(registry, f"/internal/arms/{name}")
        assert (arm["version"], arm["model"], arm["arm"]["kind"]) == (version, name, "head")
        assert [one["id"] for one in (await told(registry, "/v1/models"))["data"]] == [BASE, name, "support"]


async def test_an_adapter_without_an_arm_is_routed_to_nobody_while_no_replica_holds_it(registry: Lonely) -> None:
    name = await registry.promoted(1)
    registry.service.seconds += SILENT_SECONDS
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["replicas"], route["arm"], route["version"]) == ([], None, "")
    assert (await registry.card(name))["serves"] is True
    assert await told(registry, f"/internal/arms/{name}") == []


async def test_a_job_has_one_arm_however_often_it_says_so(registry: Lonely) -> None:
    version = await registry.fitted(1)
    for again in (registry.fitting(1, suffix="other"), registry.fitting(1, arm="nearest")):
        await registry.publish(again)
    await registry.publish(registry.evaluated(version, "pass"))
    await registry.publish(registry.evaluated(version, "fail"))
    assert [one.model_id for one in registry.of(ModelRegistered)] == [version]
    assert [one.model_id for one in registry.of(ModelPromoted)] == [version]
    assert registry.of(ModelRejected) == []


@pytest.mark.parametrize(
    ("gate", "verdict", "outcome"),
    [
        ("auto", "pass", "rejected"),
        ("auto", "needs_human", "rejected"),
        ("advisory", "pass", "rejected"),
        ("advisory", "fail", "rejected"),
        ("approval", "pass", "awaiting_approval"),
        ("approval", "fail", "awaiting_approval"),
    ],
)
async def test_an_adapter_that_an_arm_in_production_beats_leaves_it_the_name(
    registry: Lonely, gate: Any, verdict: Any, outcome: str
) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    await policy(registry, gate)
    await registry.publish(registry.resident(1))
    await registry.publish(registry.evaluated(name, verdict, beaten_by="head"))
    card = await registry.card(name)
    assert (card["state"], card["evaluation"]["beaten_by"]) == (outcome, "head")
    assert card["evaluation"]["cascade"]["arm"] == "head"
    said = registry.of(ModelWaiting if outcome == "awaiting_approval" else ModelRejected)[-1]
    for fact in ("57 of 58", "arm 'head'", "accuracy 0.966", "0.980"):
        assert fact in said.reason
        assert fact in card["decisions"][-1]["note"]
    if isinstance(said, ModelRejected):
        assert (said.code, said.model_id) == ("arm_is_better", name)
    assert (await told(registry, f"/internal/routes/{name}"))["version"] == f"{name}@head"
    async with registry.http() as http:
        assert "where the adapter reaches" in (await http.get(f"/v1/registry/models/{name}/card")).text


@pytest.mark.parametrize("gate", ["advisory", "auto", "approval"])
@pytest.mark.parametrize("verdict", ["pass", "fail", "needs_human"])
async def test_an_arm_that_did_not_pass_answers_only_if_a_person_says_so(
    registry: Lonely, gate: Any, verdict: Any
) -> None:
    await policy(registry, gate)
    version = await registry.fitted(1)
    await registry.publish(registry.evaluated(version, verdict))
    state = (await registry.card(version))["state"]
    if gate == "approval" or (gate, verdict) == ("auto", "needs_human"):
        assert state == "awaiting_approval"
    else:
        assert state == ("production" if verdict == "pass" else "rejected")
    arms = await told(registry, f"/internal/arms/{version.removesuffix('@head')}")
    assert len(arms) == (state == "production"), "nobody waits for its test"


async def test_an_adapter_that_failed_is_rejected_for_that_whatever_an_arm_does(registry: Lonely) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    await registry.publish(registry.evaluated(name, "fail", beaten_by="head"))
    [rejected] = await eventually(lambda: registry.of(ModelRejected))
    assert (rejected.code, rejected.reason) == ("gate_rejected", "57 of 58 against 3 of 58.")


@pytest.mark.parametrize("arm", ["none", "not decided", "rejected", "deleted", "of another kind", "of another job"])
async def test_an_adapter_is_beaten_by_no_arm_that_does_not_serve_its_name(registry: Lonely, arm: str) -> None:
    name = await registry.trained(1)
    if arm == "of another job":
        await registry.answering(2)
    elif arm == "of another kind":
        await registry.answering(1, arm="nearest")
    elif arm != "none":
        version = await registry.fitted(1)
        if arm != "not decided":
            await registry.publish(registry.evaluated(version, "fail" if arm == "rejected" else "pass"))
        if arm == "deleted":
            async with registry.http() as http:
                assert (await http.delete(f"/v1/models/{version}")).status_code == 200
    for event in (registry.ready(), registry.resident(1), registry.evaluated(name, "pass", beaten_by="head")):
        await registry.publish(event)
    await registry.asks("r1")
    card = await registry.card(name)
    assert (card["state"], card["evaluation"]["beaten_by"], card["serves"]) == ("production", None, True)
    assert card["evaluation"]["cascade"] is None


@pytest.mark.parametrize(
    ("gate", "verdict", "adapter", "arm"),
    [
        ("auto", "fail", "rejected", "retired"),
        ("auto", "pass", "candidate", "retired"),
        ("auto", "needs_human", "awaiting_approval", "retired"),
        ("advisory", "fail", "candidate", "retired"),
        ("approval", "fail", "awaiting_approval", "production"),
    ],
)
async def test_an_arm_that_is_worse_than_the_base_model_is_withdrawn_unless_a_person_decides(
    registry: Lonely, gate: Any, verdict: Any, adapter: str, arm: str
) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    await policy(registry, gate)
    for _ in range(2):
        await registry.publish(registry.evaluated(name, verdict, below_base="head"))
    card, of_arm = await registry.card(name), await registry.card(f"{name}@head")
    assert (card["state"], of_arm["state"], of_arm["serves"]) == (adapter, arm, arm == "production")
    if arm == "production":
        assert (registry.of(ModelRetired), card["evaluation"]["below_base"]) == ([], None)
        return
    async with registry.http() as http:
        markdown = (await http.get(f"/v1/registry/models/{name}/card")).text
    [retired] = registry.of(ModelRetired)
    assert (retired.model_id, retired.arm, retired.job_id) == (f"{name}@head", "head", registry.training(1).job_id)
    for fact in ("accuracy 0.970", "arm 'head' reaches 0.810"):
        assert fact in retired.reason
        assert fact in of_arm["decisions"][-1]["note"]
        assert fact in markdown
    assert [(one.code, one.withdrawn) for one in registry.of(ModelRejected)] == [("gate_rejected", "head")] * (
        adapter == "rejected"
    )
    async with registry.http() as http:
        assert (await http.get(f"/internal/routes/{name}")).status_code == 404


async def test_no_adapter_gives_way_to_an_arm_that_is_withdrawn(registry: Lonely) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    for event in (registry.ready(), registry.resident(1)):
        await registry.publish(event)
    await registry.publish(registry.evaluated(name, "pass", beaten_by="head", below_base="head"))
    await registry.asks("r1")
    assert (await registry.card(name))["state"] == "production"
    assert (await registry.card(f"{name}@head"))["state"] == "retired"


async def test_only_an_arm_in_production_is_withdrawn(registry: Lonely) -> None:
    version = await registry.fitted(1)
    name = await registry.trained(1)
    await registry.publish(registry.evaluated(name, "fail", below_base="head"))
    assert (await registry.card(version))["state"] == "candidate"
    [rejected] = await eventually(lambda: registry.of(ModelRejected))
    assert (rejected.model_id, rejected.withdrawn) == (name, None)


async def test_each_version_has_a_decision_of_its_own(registry: Lonely) -> None:
    await policy(registry, "approval")
    version = await registry.fitted(1)
    name = await registry.trained(1)
    for model in (version, name):
        await registry.publish(registry.evaluated(model, "pass"))
    waits = registry.of(ModelWaiting)
    assert [(one.model_id, one.waiting_for, one.arm) for one in waits] == [
        (version, "approval", "head"),
        (name, "approval", None),
    ]
    async with registry.http(role="approver") as http:
        approved = (await http.post(f"/v1/registry/models/{version}/approve")).json()
        assert (approved["id"], approved["state"], approved["serves"]) == (version, "production", True)
        assert (await registry.card(name))["waiting_for"] == "approval"
        again = await http.post(f"/v1/registry/models/{version}/approve")
        assert again.status_code == 409
        refused = (await http.post(f"/v1/registry/models/{name}/reject")).json()
        assert (refused["id"], refused["state"]) == (name, "rejected")
    assert (await registry.card(version))["state"] == "production"


async def test_the_name_means_the_adapter_once_there_is_one_and_the_only_version_before(registry: Lonely) -> None:
    await policy(registry, "approval")
    version = await registry.fitted(1)
    name = version.removesuffix("@head")
    await registry.publish(registry.evaluated(version, "pass"))
    other = await registry.fitted(2)
    await registry.publish(registry.evaluated(other, "pass"))
    assert (await registry.card(name))["id"] == version
    async with registry.http(role="approver") as http:
        await registry.trained(2)
        early = await http.post(f"/v1/registry/models/{other.removesuffix('@head')}/approve")
        assert (early.status_code, early.json()["error"]["code"]) == (409, "wrong_state")
        approved = await http.post(f"/v1/registry/models/{name}/approve")
        missing = await http.post(f"/v1/registry/models/{name}x/approve")
        decided = await http.post(f"/v1/registry/models/{name}/reject")
    assert approved.json()["id"] == version
    assert (missing.status_code, decided.status_code) == (404, 409)
    assert (await registry.card(other))["waiting_for"] == "approval"
    [promoted] = await eventually(lambda: registry.of(ModelPromoted))
    assert promoted.model_id == version


async def test_a_decision_on_a_name_lets_no_more_than_one_version_through(registry: Lonely) -> None:
    """Two arms of a name wait: no release makes them, and whoever decides must say which one they mean."""
    await policy(registry, "approval")
    version = await registry.fitted(1)
    name = version.removesuffix("@head")
    await registry.publish(registry.evaluated(version, "pass"))
    models = registry.service.documents["models"].documents
    twin = f"{name}@nearest"
    models[twin] = {**models[version], "_id": twin, "outbox": [], "arm": {**models[version]["arm"], "kind": "nearest"}}
    async with registry.http(role="approver") as http:
        for verb in ("approve", "reject"):
            refused = await http.post(f"/v1/registry/models/{name}/{verb}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "several_versions")
            assert f"{version}, {twin}" in refused.json()["error"]["message"]
    assert [models[one]["state"] for one in (version, twin)] == ["awaiting_approval"] * 2


async def test_an_alias_points_at_a_name_and_at_no_version(registry: Lonely) -> None:
    name, waiting = await registry.answering(1), await registry.fitted(2)
    async with registry.http() as http, registry.http(registry.b) as other:
        refused = await http.put("/v1/registry/aliases/support", json={"model": f"{name}@head"})
        early = await http.put("/v1/registry/aliases/support", json={"model": waiting.removesuffix("@head")})
        pointed = await http.put("/v1/registry/aliases/support", json={"model": name})
        theirs = [await other.put("/v1/registry/aliases/x", json={"model": one}) for one in (name, f"{name}@head")]
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_is_a_version")
    assert f"one version of '{name}'" in refused.json()["error"]["message"]
    assert (early.status_code, early.json()["error"]["code"]) == (400, "model_not_in_production")
    assert (pointed.status_code, [one.status_code for one in theirs]) == (200, [404, 404])
    assert (await told(registry, "/internal/routes/support"))["version"] == f"{name}@head"


async def test_the_name_takes_every_version_with_it_and_those_that_come_later(registry: Lonely) -> None:
    name = await registry.answering(1)
    version = f"{name}@head"
    async with registry.http() as http:
        assert (await http.delete(f"/v1/models/{name}")).json()["deleted"] is True
    [retired] = await eventually(lambda: registry.of(ModelRetired))
    [deleted] = await eventually(lambda: registry.of(ModelDeleted))
    assert (retired.model_id, retired.arm) == (version, "head")
    assert (deleted.model_id, deleted.arm, deleted.name, deleted.job_id) == (version, "head", name, registry.job(1))

    for _ in range(2):
        await registry.publish(registry.training(1))
    [rejected] = await eventually(lambda: registry.of(ModelRejected))
    assert (rejected.model_id, rejected.code, rejected.job_id) == (name, "model_deleted", registry.job(1))
    assert [(one.model_id, one.arm, one.name) for one in registry.of(ModelDeleted)][1:] == [(name, None, name)]
    async with registry.http() as http:
        for path in (f"/v1/models/{name}", f"/internal/routes/{name}", f"/internal/versions/{name}"):
            assert (await http.get(path)).status_code == 404, path
        gone = await http.delete(f"/v1/models/{name}")
    assert (gone.status_code, "deleted already" in gone.text) == (404, True)
    assert await told(registry, f"/internal/arms/{name}") == []
    assert [one["id"] for one in (await told(registry, "/v1/models"))["data"]] == [BASE]


async def test_a_version_is_taken_back_alone_by_its_own_id(registry: Lonely) -> None:
    name = await registry.answering(1)
    async with registry.http() as http:
        for status in (200, 404):
            assert (await http.delete(f"/v1/models/{name}@head")).status_code == status
    [deleted] = await eventually(lambda: registry.of(ModelDeleted))
    assert (deleted.model_id, deleted.name) == (f"{name}@head", "")
    assert await registry.trained(1) == name
    assert (await registry.card(name))["state"] == "candidate"


async def test_a_name_is_taken_back_whose_only_version_was_taken_back_alone(registry: Lonely) -> None:
    name = await registry.answering(1)
    async with registry.http() as http:
        statuses = [(await http.delete(f"/v1/models/{one}")).status_code for one in (f"{name}@head", name, name)]
    assert statuses == [200, 200, 404]
    deleted = await eventually(lambda: found if len(found := registry.of(ModelDeleted)) == 2 else None)
    assert [(one.model_id, one.name) for one in deleted] == [(f"{name}@head", ""), (f"{name}@head", name)]
    await registry.publish(registry.training(1))
    assert (await registry.card(name))["state"] == "rejected"


async def test_what_is_kept_of_a_version_are_the_aliases_that_answer_no_more(registry: Lonely) -> None:
    name = await registry.answering(1)
    async with registry.http() as http:
        assert (await http.put("/v1/registry/aliases/support", json={"model": name})).status_code == 200
        kept = (await http.delete(f"/v1/models/{name}@head")).json()["kept"]
    assert [(one["object"], one["id"]) for one in kept] == [("model.alias", "support")]


async def test_a_cancelled_job_takes_all_its_versions_with_it_and_gets_none_later(registry: Lonely) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    for number in (1, 2):
        await registry.publish(FinetuneCancelled(tenant_id=registry.a, job_id=registry.job(number)))
    await registry.publish(registry.fitting(2))
    assert {one.model_id for one in registry.of(ModelRetired)} == {name, f"{name}@head"}
    assert {one.job_id for one in registry.of(ModelRegistered)} == {registry.job(1)}


@pytest.mark.parametrize("order", ["registered first", "deleted first"])
async def test_an_arm_whose_rows_are_deleted_before_it_is_tested_is_rejected(registry: Lonely, order: str) -> None:
    fitting = registry.fitting(1)
    deleted = DatasetDeleted(tenant_id=registry.a, dataset_id="ds-1", heldout=fitting.dataset.heldout)
    for event in (fitting, deleted) if order == "registered first" else (deleted, fitting):
        await registry.publish(event)
    [rejected] = await eventually(lambda: registry.of(ModelRejected))
    assert (rejected.code, rejected.arm) == ("file_deleted", "head")


async def test_another_tenant_sees_no_arm(registry: Lonely) -> None:
    name = await registry.answering(1)
    version = f"{name}@head"
    async with registry.http(registry.b) as other:
        for model in (name, version):
            for method, path in (
                ("GET", f"/v1/models/{model}"),
                ("DELETE", f"/v1/models/{model}"),
                ("GET", f"/v1/registry/models/{model}"),
                ("GET", f"/v1/registry/models/{model}/card"),
                ("POST", f"/v1/registry/models/{model}/approve"),
                ("POST", f"/v1/registry/models/{model}/reject"),
                ("GET", f"/internal/routes/{model}"),
                ("GET", f"/internal/versions/{model}"),
            ):
                assert (await other.request(method, path)).status_code == 404, (method, path)
        for path in (f"/internal/arms/{name}", "/internal/routes"):
            assert (await other.get(path)).json() == []
        assert (await other.get("/v1/registry/models", params={"name": name})).json()["data"] == []
    assert await told(registry, f"/internal/arms/{name}", tenant="") == []
    assert (await registry.card(version))["state"] == "production"


async def test_an_end_user_takes_back_their_own_name_and_no_other(registry: Lonely) -> None:
    names = [await registry.answering(number, owner=f"user_{who}") for number, who in ((1, "test"), (2, "other"))]
    async with registry.http(role="end_user") as theirs:
        listed = [one["id"] for one in (await theirs.get("/v1/models")).json()["data"]]
        statuses = [(await theirs.delete(f"/v1/models/{name}")).status_code for name in names]
    assert (listed, statuses) == ([BASE, names[0]], [200, 404])


async def test_the_card_says_how_an_arm_answers_and_how_well(registry: Lonely) -> None:
    name = await registry.answering(1)
    async with registry.http() as http:
        [text, same] = [(await http.get(f"/v1/registry/models/{one}/card")).text for one in (f"{name}@head", name)]
    assert text == same
    for fact in (
        f"# {name}@head",
        f"`{name}`",
        "logistic regression on the embedding",
        "tiny-embedder",
        "288",
        "head_accuracy (out of fold) | 0.958",
        "0.980",
        "57 of 58",
        registry.fitting(1).arm_id,
    ):
        assert fact in text
    assert "base model digest" not in text.lower()


async def test_an_operator_hears_of_a_name_whose_arm_is_taken_back_while_the_adapter_is_refused_for_it(
    registry: Lonely,
) -> None:
    told = 0
    for step in range(1, 100):
        race = Race()
        await race.models.prepare()
        await race.tenants.learn(registry.a, "acme", TenantPolicy())
        arm, adapter = [await race.gate.register(made(1)) for made in (registry.fitting, registry.training)]
        assert arm is not None
        assert adapter is not None
        await race.gate.judge(registry.evaluated(arm.id, "pass"))
        judge = partial(race.gate.judge, registry.evaluated(adapter.id, "pass", beaten_by="head"))
        delete = partial(race.gate.delete, registry.a, arm.id, "user_1", {})
        with capture_logs() as logs:
            if not await race.within(step, judge, delete):
                break
        said = [one["name"] for one in logs if one["event"] == "name_without_version"]
        if said:
            assert said == [adapter.id]
            assert (await race.models.get(registry.a, adapter.id)).state == "rejected"
        told += len(said)
    assert told > 1
    assert step < 99


@pytest.mark.parametrize("first", ["registration", "deletion"])
async def test_no_version_of_a_name_outlives_it_wherever_it_is_taken_back(registry: Lonely, first: str) -> None:
    for step in range(1, 100):
        race = Race()
        await race.models.prepare()
        await race.tenants.learn(registry.a, "acme", TenantPolicy())
        model = await race.gate.register(registry.training(1))
        assert model is not None
        register = partial(race.gate.register, registry.fitting(1))
        delete = partial(race.gate.delete, registry.a, model.id, "user_1", {})
        one, other = (register, delete) if first == "registration" else (delete, register)
        if not await race.within(step, one, other):
            break
        versions = await race.models.named(registry.a, model.id)
        assert {version.id for version in versions} == {model.id, f"{model.id}@head"}
        assert all(version.deleted_at for version in versions), step
    assert 5 < step < 99

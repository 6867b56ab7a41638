"""Versions that are arms, on the local stack: the index that keeps jobs apart, OpenAI's SDK, pins, and the gauges."""

from __future__ import annotations

import httpx2
import openai
import pytest
from registry_harness import BASE, Harness

from chassis.errors import Conflict
from eventbus import AggregateStore
from registry.domain import Model
from registry.settings import Settings
from registry.store import Models
from schemas import ModelDeleted, ModelPinned, ModelPromoted, ModelUnpinned
from stores.mongo import connect, ensure_index
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_models_of_the_release_before_get_an_arm_beside_them_and_no_second_adapter(harness: Harness) -> None:
    database = connect(harness.space.settings(Settings, "registry"), "registry")
    collection = database["models"]
    await collection.drop_index("job_id_1_arm.kind_1")
    await collection.create_index("job_id", unique=True)
    name = await harness.trained(1)
    await collection.update_one({"_id": name}, {"$unset": {"arm": ""}})

    store = AggregateStore(collection, Model, "registry", lambda: None)
    for _ in range(2):
        await ensure_index(collection, "job_id", unique=True)  # as the release before does at its start
        await Models(store, *(database[one] for one in ("x", "y", "z"))).prepare()
    indexes = {tuple(field for field, _ in one["key"]) for one in (await collection.index_information()).values()}
    assert ("job_id", "arm.kind") in indexes
    assert ("job_id",) not in indexes

    version = await harness.fitted(1)
    for one in (name, version):
        model = await store.get(harness.a, one)
        with pytest.raises(Conflict):
            await store.add(model.model_copy(update={"id": f"{one}-again"}))
    found = await Models(store, *(database[one] for one in ("x", "y", "z"))).of_job(harness.a, harness.job(1))
    assert {one.id for one in found} == {name, version}
    assert (await harness.card(name))["arm"] is None


async def test_the_sdk_sees_one_model_whichever_version_answers_and_deletes_all_of_it(harness: Harness) -> None:
    version = await harness.fitted(1)
    name = version.removesuffix("@head")
    await harness.digest(harness.evaluated(version, "pass"))
    await eventually(lambda: [one for one in harness.of(ModelPromoted) if one.model_id == version])
    sdk = harness.sdk()
    assert (await sdk.models.retrieve(name)).id == name
    assert await harness.promoted(1) == name
    assert [(one.id, one.owned_by) async for one in sdk.models.list()] == [(BASE, "base"), (name, "acme")]
    async with harness.http() as http:
        cards = (await http.get("/v1/registry/models", params={"name": name})).json()["data"]
        arms = (await http.get(f"/internal/arms/{name.replace(':', '%3A')}")).json()
    assert {(one["id"], one["arm"], one["serves"]) for one in cards} == {(name, None, True), (version, "head", False)}
    assert [one["version"] for one in arms] == [version]

    assert (await sdk.models.delete(name)).deleted
    gone = await eventually(lambda: found if len(found := harness.of(ModelDeleted)) == 2 else None)
    assert {(one.model_id, one.name) for one in gone} == {(name, name), (version, name)}
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve(name)


async def test_a_pin_is_kept_and_told_and_is_for_who_decides_in_its_own_tenant(harness: Harness) -> None:
    name = await harness.answering(1)
    assert await harness.promoted(1) == name
    place = f"/v1/registry/models/{name.replace(':', '%3A')}%40head"
    async with harness.http(role="approver") as http, harness.http(role="viewer") as viewer:
        for verb, serving in (("pin", f"{name}@head"), ("unpin", name)):
            assert (await viewer.post(f"{place}/{verb}")).status_code == 403
            async with harness.http(harness.b, role="owner") as other:
                assert (await other.post(f"{place}/{verb}")).status_code == 404
            card = (await http.post(f"{place}/{verb}", json={"note": "Faster."})).json()
            assert (card["id"], card["pinned"], card["serves"]) == (f"{name}@head", verb == "pin", verb == "pin")
            assert (card["decisions"][-1]["outcome"], card["decisions"][-1]["note"]) == (verb, "Faster.")
            cards = (await http.get("/v1/registry/models", params={"name": name})).json()["data"]
            assert [one["id"] for one in cards if one["serves"]] == [serving]
    [pinned] = await eventually(lambda: harness.of(ModelPinned))
    [ended] = await eventually(lambda: harness.of(ModelUnpinned))
    assert (pinned.name, pinned.revision, ended.name, ended.revision) == (name, 1, name, 2)


async def test_arms_in_production_are_told_to_services_only(harness: Harness) -> None:
    async with httpx2.AsyncClient(base_url=harness.url) as anonymous:
        assert (await anonymous.get("/internal/arms/x")).status_code == 401

"""A person pins the version by which a name answers: until when, in whose place, and who is told; alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from registry_harness import BASE, Harness
from registry_races import SILENT_SECONDS, Race, told
from test_use_cases import Lonely, folder, registry

from chassis.errors import WriteRefused
from registry.domain import Model, decisions_of, is_pinned, pin, pins_of, unpin
from schemas import (
    Event,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    TenantPolicy,
)
from testkit import eventually

__all__ = ["folder", "registry"]

PERSON = "user_test"


def version(harness: Harness, *, arm: bool, state: Any = "production") -> Model:
    """A version of one name."""
    made = (
        Model.register_arm(harness.fitting(1), "acme", at=1)
        if arm
        else Model.register(harness.training(1), "acme", at=1)
    )
    made.state = state
    made.take_pending()
    return made


def said(model: Model) -> list[tuple[str, int, str | None]]:
    """What it says of its pin."""
    events: Sequence[Event] = model.take_pending()
    assert all(isinstance(one, (ModelPinned, ModelUnpinned)) for one in events)
    return [(one.type.split(".")[1], one.revision, one.arm) for one in events]  # type: ignore[attr-defined]


def test_a_pin_and_its_end_are_kept_as_one_decision_and_said_as_events(registry: Lonely) -> None:
    model = version(registry, arm=True)
    for at in (5, 7):
        pin(model, None, PERSON, "it is faster", at)
        assert (is_pinned(model), model.pin.since, said(model)) == (True, at, [("pinned", at - 4, "head")])
        assert [(one.outcome, one.by, one.at, one.note) for one in decisions_of(model)] == [
            ("pin", PERSON, at, "it is faster")
        ]
        unpin(model, model.pin, "user_other", "", at + 1)
        assert (is_pinned(model), said(model)) == (False, [("unpinned", at - 3, "head")])
        assert [(one.outcome, one.by, one.at, one.note) for one in decisions_of(model)] == [
            ("unpin", "user_other", at + 1, "")
        ]


def test_other_decisions_stay_beside_that_about_a_pin(registry: Lonely) -> None:
    model = version(registry, arm=False)
    pin(model, None, PERSON, "", 2)
    model.retire(PERSON, "", 3)
    assert [one.outcome for one in decisions_of(model)] == ["pin", "retire"]


def test_a_pin_is_later_than_the_one_whose_place_it_takes_whatever_the_clock_says(registry: Lonely) -> None:
    arm, adapter = version(registry, arm=True), version(registry, arm=False)
    pin(arm, None, PERSON, "", 9)
    pin(adapter, arm, PERSON, "", 4)
    assert pins_of([adapter, arm]) == [arm, adapter]


def test_pins_of_one_moment_have_one_order(registry: Lonely) -> None:
    arm, adapter = version(registry, arm=True), version(registry, arm=False)
    for one in (arm, adapter):
        pin(one, None, PERSON, "", 9)
    assert pins_of([arm, adapter]) == pins_of([adapter, arm]) == [adapter, arm]


def test_only_the_pin_that_was_seen_is_ended(registry: Lonely) -> None:
    model = version(registry, arm=True)
    pin(model, None, PERSON, "", 5)
    seen = model.pin
    unpin(model, seen, PERSON, "", 5)
    pin(model, None, PERSON, "", 5)
    unpin(model, seen, PERSON, "", 5)
    assert is_pinned(model)


@pytest.mark.parametrize("state", ["candidate", "awaiting_approval", "rejected", "retired"])
def test_only_a_version_in_production_is_pinned(registry: Lonely, state: Any) -> None:
    model = version(registry, arm=True, state=state)
    with pytest.raises(WriteRefused, match=f"it is {state}. Only a version in production can be") as refused:
        pin(model, None, PERSON, "", 2)
    assert (refused.value.code, decisions_of(model), model.take_pending()) == ("wrong_state", [], [])


def test_a_pin_means_nothing_once_its_version_is_out_of_production(registry: Lonely) -> None:
    model = version(registry, arm=True)
    pin(model, None, PERSON, "", 2)
    model.retire(PERSON, "", 3)
    model.take_pending()
    assert (is_pinned(model), pins_of([model])) == (False, [])
    unpin(model, model.pin, PERSON, "", 4)
    assert model.take_pending() == []


async def both(registry: Lonely) -> tuple[str, str]:
    """A name whose adapter and arm are in production, and the id of the arm; a replica holds the adapter."""
    name = await registry.answering(1)
    await registry.trained(1)
    for event in (registry.ready(), registry.resident(1), registry.evaluated(name, "pass")):
        await registry.publish(event)
    await registry.asks("r1")
    assert (await registry.card(name))["serves"] is True
    return name, f"{name}@head"


async def ask(
    registry: Lonely, model: str, verb: str, note: str | None = None, role: str = "approver", **said: float | None
) -> Any:
    body = said if note is None else {"note": note, **said}
    async with registry.http(role=role) as http:
        return await http.post(f"/v1/registry/models/{model}/{verb}", json=body or None)


async def done(
    registry: Lonely, model: str, verb: str, note: str | None = None, **said: float | None
) -> dict[str, Any]:
    answer = await ask(registry, model, verb, note, **said)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def serving(registry: Lonely, name: str) -> list[tuple[str, bool]]:
    """By the cards of a name, who serves it, and whether it is pinned."""
    cards = (await told(registry, f"/v1/registry/models?name={name}"))["data"]
    return [(card["id"], card["pinned"]) for card in cards if card["serves"]]


async def test_a_pinned_arm_goes_on_answering_when_the_adapter_is_promoted_until_it_is_unpinned(
    registry: Lonely,
) -> None:
    name = await registry.answering(1)
    arm = f"{name}@head"
    card = await done(registry, arm, "pin", "It is faster.")
    assert (card["id"], card["pinned"], card["serves"]) == (arm, True, True)
    assert card["decisions"][-1] == {
        "outcome": "pin",
        "by": PERSON,
        "at": int(registry.service.seconds),
        "note": "It is faster.",
    }
    await registry.trained(1)
    for event in (registry.ready(), registry.resident(1), registry.evaluated(name, "pass")):
        await registry.publish(event)
    await registry.asks("r1")
    assert (await registry.card(name))["state"] == "production"
    assert await serving(registry, name) == [(arm, True)]
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["version"], route["arm"]["kind"], route["stands_in"]) == (arm, "head", False)
    assert await told(registry, "/internal/routes") == [route]
    assert [one["id"] for one in (await told(registry, "/v1/models"))["data"]] == [BASE, name]

    card = await done(registry, name, "unpin")
    assert (card["id"], card["pinned"], card["decisions"][-1]["outcome"]) == (arm, False, "unpin")
    assert await serving(registry, name) == [(name, False)]
    assert (await told(registry, f"/internal/routes/{name}"))["version"] == ""
    [pinned] = await eventually(lambda: registry.of(ModelPinned))
    [ended] = await eventually(lambda: registry.of(ModelUnpinned))
    for event in (pinned, ended):
        assert (event.model_id, event.name, event.arm, event.job_id) == (arm, name, "head", registry.job(1))
        assert event.decided_by == PERSON
    assert (pinned.revision, ended.revision) == (1, 2)


async def test_no_arm_stands_in_for_a_pinned_adapter(registry: Lonely) -> None:
    name, arm = await both(registry)
    assert (await done(registry, name, "pin"))["id"] == name, "of a name with several versions the adapter is meant"
    registry.service.seconds += SILENT_SECONDS
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["version"], route["arm"], route["replicas"], route["stands_in"]) == ("", None, [], False)
    assert await serving(registry, name) == [(name, True)]
    [asked] = await told(registry, f"/internal/arms/{name}")
    assert (asked["version"], asked["stands_in"]) == (arm, False)
    refused = await ask(registry, arm, "unpin", None)
    assert refused.status_code == 409, "what a page of before shows ends no later pin"
    await done(registry, name, "unpin")
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["version"], route["stands_in"]) == (arm, True)


async def test_a_pin_takes_the_place_of_the_one_before(registry: Lonely) -> None:
    name, arm = await both(registry)
    for model, other in ((arm, name), (name, arm), (arm, name)):
        assert (await done(registry, model, "pin"))["pinned"] is True
        assert await serving(registry, name) == [(model, True)]
        assert (await registry.card(other))["pinned"] is False
    last = (await registry.card(name))["decisions"][-1]
    assert (last["outcome"], last["by"], last["note"]) == ("unpin", PERSON, f"{arm} is pinned instead.")
    assert [one["outcome"] for one in (await registry.card(arm))["decisions"]] == ["promote", "pin"]
    await done(registry, arm, "unpin")
    assert await serving(registry, name) == [(name, False)]


async def test_to_pin_what_is_pinned_changes_nothing(registry: Lonely) -> None:
    name, arm = await both(registry)
    first = await done(registry, arm, "pin", "once")
    registry.service.seconds += 5
    assert await done(registry, arm, "pin", "twice") == first
    await done(registry, arm, "unpin")
    await eventually(lambda: registry.of(ModelUnpinned))
    assert len(registry.of(ModelPinned)) == 1
    assert await serving(registry, name) == [(name, False)]


async def test_a_pinned_arm_hands_over_to_the_adapter_in_production_or_to_nobody_named(registry: Lonely) -> None:
    name = await registry.answering(1)
    arm = f"{name}@head"
    assert (await told(registry, f"/internal/routes/{name}"))["hand_over"] is None
    assert (await done(registry, arm, "pin", hand_over_below=0.75))["hand_over_below"] == 0.75
    to_base = {"below": 0.75, "adapter_id": "", "base_digest": "", "replicas": []}
    assert (await told(registry, f"/internal/routes/{name}"))["hand_over"] == to_base
    await registry.trained(1)
    for event in (registry.ready(), registry.resident(1)):
        await registry.publish(event)
    await registry.asks("r1")
    assert (await told(registry, f"/internal/routes/{name}"))["hand_over"] == to_base, "it is not let through yet"
    await registry.publish(registry.evaluated(name, "pass"))
    route = await told(registry, f"/internal/routes/{name}")
    assert (route["version"], route["replicas"], route["stands_in"]) == (arm, [], False)
    card, hand_over = await registry.card(name), route["hand_over"]
    assert (hand_over["below"], hand_over["adapter_id"]) == (0.75, card["adapter_id"])
    assert (hand_over["base_digest"], [one["replica_id"] for one in hand_over["replicas"]]) == ("d" * 64, ["r1"])
    assert (await told(registry, f"/internal/versions/{arm}"))["hand_over"] is None, "a test asks the arm itself"
    registry.service.seconds += SILENT_SECONDS
    assert (await told(registry, f"/internal/routes/{name}"))["hand_over"]["replicas"] == []
    async with registry.http() as http:
        assert (await http.delete(f"/v1/models/{arm}")).status_code == 200
    assert (await told(registry, f"/internal/routes/{name}"))["hand_over"] is None


async def test_another_bound_is_another_pin_of_which_the_last_counts(registry: Lonely) -> None:
    name, arm = await both(registry)
    for below in (0.5, 0.9, None):
        card = await done(registry, arm, "pin", hand_over_below=below)
        assert (card["pinned"], card["hand_over_below"]) == (True, below)
        hand_over = (await told(registry, f"/internal/routes/{name}"))["hand_over"]
        assert (hand_over or {}).get("below") == below
        assert await done(registry, arm, "pin", "again") == card, "a bound that is not said stays"
    await eventually(lambda: len(registry.of(ModelPinned)) >= 3)
    found = [(one.revision, one.hand_over_below) for one in registry.of(ModelPinned)]
    assert found == [(1, 0.5), (2, 0.9), (3, None)]
    await done(registry, arm, "pin", hand_over_below=0.9)
    assert (await done(registry, arm, "unpin"))["hand_over_below"] is None
    assert (await done(registry, arm, "pin"))["hand_over_below"] is None, "a later pin brings no bound of before"


async def test_a_bound_that_means_nothing_is_refused(registry: Lonely) -> None:
    name, arm = await both(registry)
    adapter = await ask(registry, name, "pin", hand_over_below=0.5)
    assert (adapter.status_code, adapter.json()["error"]["param"]) == (400, "hand_over_below")
    assert "is an adapter, which does not say how sure it is" in adapter.json()["error"]["message"]
    for below in (0, -0.1, 1.1):
        assert (await ask(registry, arm, "pin", hand_over_below=below)).status_code == 400, below
    assert (await ask(registry, arm, "unpin", hand_over_below=0.5)).status_code == 400, "an unread field"
    assert await serving(registry, name) == [(name, False)]


async def test_a_pinned_version_that_is_deleted_leaves_the_name_to_the_usual_choice(registry: Lonely) -> None:
    name, arm = await both(registry)
    await done(registry, arm, "pin")
    async with registry.http() as http:
        assert (await http.delete(f"/v1/models/{arm}")).status_code == 200
    assert await serving(registry, name) == [(name, False)]
    card = await registry.card(arm)
    assert (card["state"], card["pinned"], card["serves"]) == ("retired", False, False)
    refused = await ask(registry, name, "unpin")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "wrong_state")
    assert "tests choose" in refused.json()["error"]["message"]


async def test_what_cannot_be_pinned_is_refused_with_what_can(registry: Lonely) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    several = await ask(registry, name, "pin")
    assert (several.status_code, several.json()["error"]["code"]) == (409, "several_versions")
    assert f"pin one of {name}@head." in several.json()["error"]["message"]
    untested = await ask(registry, await registry.trained(2), "pin")
    assert (untested.status_code, untested.json()["error"]["code"]) == (409, "wrong_state")
    assert "it is candidate" in untested.json()["error"]["message"]
    only = await registry.answering(3)
    assert (await done(registry, only, "pin"))["id"] == f"{only}@head"
    for verb in ("pin", "unpin"):
        for model in (f"{name}x", f"{name}@nearest", BASE):
            assert (await ask(registry, model, verb)).status_code == 404, (verb, model)
        unread = await ask(registry, only, verb, "x" * 2001)
        assert (unread.status_code, (await registry.card(f"{only}@head"))["pinned"]) == (400, True)


async def test_only_who_may_decide_pins_and_nobody_another_tenants(registry: Lonely) -> None:
    name, arm = await both(registry)
    for verb in ("pin", "unpin"):
        for role in ("viewer", "engineer", "end_user"):
            assert (await ask(registry, arm, verb, role=role)).status_code == 403, (verb, role)
        async with registry.http(registry.b, role="owner") as other:
            for model in (name, arm):
                refused = await other.post(f"/v1/registry/models/{model}/{verb}")
                assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert await serving(registry, name) == [(name, False)]


@pytest.mark.parametrize(
    ("pinned", "beaten_by", "arm", "adapter"),
    [(False, None, "retired", "rejected"), (True, None, "production", "rejected"), (True, "head", "production", None)],
)
async def test_an_arm_that_a_person_pinned_is_not_withdrawn(
    registry: Lonely, pinned: bool, beaten_by: Any, arm: str, adapter: str | None
) -> None:
    name = await registry.answering(1)
    await registry.trained(1)
    if pinned:
        await done(registry, f"{name}@head", "pin")
    verdict = "fail" if adapter else "pass"
    await registry.publish(registry.evaluated(name, verdict, below_base="head", beaten_by=beaten_by))
    assert (await registry.card(f"{name}@head"))["state"] == arm
    [rejected] = await eventually(lambda: registry.of(ModelRejected))
    assert (rejected.withdrawn, rejected.code) == (
        None if pinned else "head",
        "gate_rejected" if adapter else "arm_is_better",
    )
    assert len(registry.of(ModelRetired)) == (not pinned)


async def test_the_card_says_that_it_is_pinned_by_whom_and_why(registry: Lonely) -> None:
    name, arm = await both(registry)
    await done(registry, arm, "pin", "It is faster.")
    async with registry.http() as http:
        texts = [(await http.get(f"/v1/registry/models/{one}/card")).text for one in (arm, name)]
    assert "| Pinned | by a person: its name answers by it, whatever tests say |" in texts[0]
    assert f"| pin | `{PERSON}` | It is faster. |" in texts[0]
    await done(registry, arm, "pin", hand_over_below=0.95)
    async with registry.http() as http:
        text = (await http.get(f"/v1/registry/models/{arm}/card")).text
    assert "| Pinned | by a person: its name answers by it, whatever tests say, where it is at least 95 % sure;" in text
    assert "| Pinned | no |" in texts[1]


async def raced(registry: Lonely, step: int, first: str, second: str) -> tuple[Race, str, bool]:
    """A name with both versions in production, while whose pinning, `first`, something else is done, `second`."""
    race = Race()
    await race.models.prepare()
    await race.tenants.learn(registry.a, "acme", TenantPolicy())
    await race.replicas.ready(registry.ready())
    await race.replicas.heard("r1", BASE, "d" * 64)
    arm = await race.gate.register(registry.fitting(1))
    adapter = await race.gate.register(registry.training(1))
    assert arm is not None
    assert adapter is not None
    await race.gate.hold(registry.resident(1))
    for one in (arm, adapter):
        await race.gate.judge(registry.evaluated(one.id, "pass"))
    ids = {"adapter": adapter.id, "arm": arm.id}
    do = {
        "pin the arm": partial(race.pinning.pin, registry.a, arm.id, PERSON, ""),
        "pin the adapter": partial(race.pinning.pin, registry.a, ids["adapter"], PERSON, ""),
        "delete the arm": partial(race.gate.delete, registry.a, arm.id, PERSON, {}),
    }
    if first == "unpin":
        await do["pin the arm"]()
        do["unpin"] = partial(race.pinning.unpin, registry.a, adapter.name, PERSON, "")
    refusals = (WriteRefused,) if second == "delete the arm" else ()

    async def tried() -> None:
        with suppress(*refusals):
            await do[first]()

    return race, adapter.name, await race.within(step, tried, do[second])


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ("pin the arm", "pin the adapter", {1}),
        ("pin the adapter", "pin the arm", {1}),
        ("pin the arm", "pin the arm", {1}),
        ("pin the arm", "delete the arm", {0}),
        ("unpin", "pin the adapter", {0, 1}),
    ],
)
async def test_whatever_happens_in_the_middle_of_a_pin_at_most_one_is_left(
    registry: Lonely, first: str, second: str, left: set[int]
) -> None:
    for step in range(1, 100):
        race, name, whole = await raced(registry, step, first, second)
        if not whole:
            break
        found = await race.models.named(registry.a, name)
        assert len(pins_of(found)) in left, step
        assert all(one.state == "production" for one in found if second != "delete the arm")
    assert 3 < step < 99


async def test_a_pin_that_was_cut_off_is_whole_once_it_is_repeated(registry: Lonely) -> None:
    name, arm = await both(registry)
    await done(registry, arm, "pin")
    documents = registry.service.documents["models"].documents
    documents[name]["pin"] = {**documents[arm]["pin"], "since": documents[arm]["pin"]["since"] + 1}
    assert await serving(registry, name) == [(name, True)]
    assert (await done(registry, name, "pin"))["pinned"] is True
    assert [(await registry.card(one))["pinned"] for one in (name, arm)] == [True, False]


async def test_versions_of_the_release_before_are_not_pinned(registry: Lonely) -> None:
    name = await registry.answering(1)
    documents = registry.service.documents["models"].documents
    del documents[f"{name}@head"]["pin"]
    assert await serving(registry, name) == [(f"{name}@head", False)]
    assert (await done(registry, name, "pin"))["pinned"] is True
    assert [one.model_id for one in registry.of(ModelPromoted)] == [f"{name}@head"]

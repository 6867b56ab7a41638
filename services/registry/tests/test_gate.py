"""The gate's decisions, as the domain alone makes them."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import Conflict
from registry.alias import Alias
from registry.card import markdown
from registry.domain import LoadFailure, Model, Replica, model_name, note_download
from registry.domain.downloads import REMEMBERED
from schemas import (
    DatasetRef,
    EvaluationCompleted,
    FinetuneTrained,
    Interval,
    ModelDeleted,
    ModelPromoted,
    ModelRegistered,
    ModelRejected,
    ModelRetired,
    ModelWaiting,
    ObjectRef,
    Usage,
)
from schemas.artifacts import Cascade, CascadeStep

REF = ObjectRef(bucket="b", key="tenants/tenant_a/x", sha256="0" * 64, size=1)
REASON = "The candidate is right on 57 of 58 held-out rows, the base model on 3."


def trained(**changes: Any) -> FinetuneTrained:
    facts: dict[str, Any] = {
        "tenant_id": "tenant_a",
        "job_id": "ftjob-1",
        "base_model": "gemma-3-270m",
        "base_digest": "f" * 64,
        "suffix": "support",
        "adapter_id": "ad-1",
        "adapter_manifest": REF,
        "dataset": DatasetRef(dataset_id="ds-1", task="classification", manifest=REF, train=REF, heldout=REF),
        "training_file": "file-1",
        "trained_tokens": 1234,
        "train_seconds": 55.5,
        "metrics": {"train_loss": 0.12},
        "hyperparameters": {"n_epochs": 3},
        "seed": 7,
    }
    return FinetuneTrained(**{**facts, **changes})


def completed(verdict: str) -> EvaluationCompleted:
    return EvaluationCompleted(
        tenant_id="tenant_a",
        evaluation_id="ev-1",
        model_id="m",
        verdict=verdict,  # type: ignore[arg-type]
        reason=REASON,
        metric="accuracy",
        scores={"candidate": Interval(value=0.98, low=0.9, high=1.0, n=58)},
        measured={"macro_f1": Interval(value=0.875, low=0.75, high=1.0, n=58)},
        evidence=REF,
    )


def replica(name: str = "replica-1") -> Replica:
    return Replica(replica_id=name, replica_url=f"http://{name}", fingerprint_delta=0.01, base_delta=2.0, at=5)


def candidate(**changes: Any) -> Model:
    model = Model.register(trained(**changes), "acme", at=1)
    model.trust(("replica-1", "replica-2", "replica-3"))
    model.take_pending()
    return model


def test_a_trained_adapter_becomes_a_candidate_named_after_its_job() -> None:
    model = Model.register(trained(), "acme", at=1)
    [event] = model.take_pending()
    assert isinstance(event, ModelRegistered)
    assert (event.model_id, event.adapter_id, event.job_id) == (model.id, "ad-1", "ftjob-1")
    assert model.id.startswith("ft:gemma-3-270m:acme:support:")
    assert model.id == Model.register(trained(), "acme", at=99).id
    assert model.id != Model.register(trained(job_id="ftjob-2"), "acme", at=1).id
    assert (model.state, model.waiting_for) == ("candidate", "evaluation")


def test_a_suffix_cannot_break_the_name_apart() -> None:
    name = model_name("base", "acme", "a:b/c d%", "ftjob-1")
    assert name.split(":")[:4] == ["ft", "base", "acme", "a-b-c-d-"]
    assert len(name.split(":")) == 5
    assert model_name("base", "acme", "", "ftjob-1").startswith("ft:base:acme::")
    assert "返品" in model_name("base", "acme", "返品", "ftjob-1")


@pytest.mark.parametrize(
    ("policy", "verdict", "state", "events"),
    [
        ("auto", "pass", "production", [ModelPromoted]),
        ("auto", "fail", "rejected", [ModelRejected]),
        ("auto", "needs_human", "awaiting_approval", [ModelWaiting]),
        ("approval", "pass", "awaiting_approval", [ModelWaiting]),
        ("approval", "fail", "awaiting_approval", [ModelWaiting]),
        ("approval", "needs_human", "awaiting_approval", [ModelWaiting]),
        ("advisory", "pass", "production", [ModelPromoted]),
        ("advisory", "fail", "production", [ModelPromoted]),
        ("advisory", "needs_human", "production", [ModelPromoted]),
    ],
)
def test_the_gate_follows_the_policy(policy: Any, verdict: str, state: str, events: list[type]) -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.judge(completed(verdict), policy, at=3)
    assert model.state == state
    assert [type(event) for event in model.take_pending()] == events


def test_a_pass_without_a_replica_waits_for_one() -> None:
    model = candidate()
    model.judge(completed("pass"), "auto", at=3)
    assert (model.state, model.waiting_for) == ("candidate", "replica")
    [waiting] = model.take_pending()
    assert isinstance(waiting, ModelWaiting)
    assert (waiting.waiting_for, waiting.job_id, waiting.revision) == ("replica", "ftjob-1", 1)
    model.hold(replica(), at=4)
    [event] = model.take_pending()
    assert isinstance(event, ModelPromoted)
    assert event.decided_by == "gate"
    assert (model.state, model.promoted_at, model.waiting_for) == ("production", 4, None)


def test_a_replica_that_did_not_prove_the_base_or_is_silent_promotes_nothing() -> None:
    model = candidate()
    model.trust(["replica-2"])
    model.hold(replica(), at=2)
    model.judge(completed("pass"), "auto", at=3)
    model.look_again(at=4)
    assert (model.state, model.waiting_for) == ("candidate", "replica")
    model.trust(["replica-1"])
    model.look_again(at=5)
    assert (model.state, model.promoted_at) == ("production", 5)


def test_whoever_waits_for_a_person_hears_why_and_then_for_what_it_waits() -> None:
    model = candidate()
    model.judge(completed("needs_human"), "auto", at=3)
    model.approve("user_1", "", at=9)
    waits = [event for event in model.take_pending() if isinstance(event, ModelWaiting)]
    assert [(one.waiting_for, one.revision, one.reason) for one in waits] == [
        ("approval", 1, REASON),
        ("replica", 2, ""),
    ]
    assert waits[0].evaluation_id == "ev-1"
    assert model.waiting_since == 9


def failure(reason: str = "out of memory", *, permanent: bool = False, at: int = 4) -> LoadFailure:
    url = "http://replica-1"
    return LoadFailure(replica_id="replica-1", replica_url=url, reason=reason, permanent=permanent, at=at)


@pytest.mark.parametrize("decided", [False, True])
def test_an_adapter_that_a_replica_cannot_load_is_told_once_for_each_reason(decided: bool) -> None:
    model = candidate()
    if decided:
        model.judge(completed("pass"), "auto", at=3)
    model.take_pending()
    for told in (failure(), failure(at=5), failure("off its fingerprint", permanent=True, at=6)):
        model.note_load_failure(told)
    first, second = model.take_pending()
    assert isinstance(first, ModelWaiting)
    assert isinstance(second, ModelWaiting)
    assert first.waiting_for == second.waiting_for == ("replica" if decided else "evaluation")
    assert "out of memory. It is tried again." in first.reason
    assert "off its fingerprint. It will not be tried there again." in second.reason
    assert second.revision == first.revision + 1
    assert "off its fingerprint" in markdown(model)
    model.hold(replica(), at=7)
    [last] = model.take_pending()
    assert isinstance(last, ModelPromoted if decided else ModelWaiting)
    assert model.load_failures == []
    model.note_load_failure(failure(at=8))
    assert model.load_failures == [], "it holds it: that was said before"


def test_the_card_tells_what_an_answer_took() -> None:
    took = Usage(
        answers=58, prompt_tokens=1392, completion_tokens=203, seconds_median=0.38, seconds_p95=0.52, cost=None
    )
    model = candidate()
    model.judge(completed("pass"), "auto", at=3)
    assert "What an answer took" not in markdown(model), "said by a release that does not tell"
    for cost, cell in ((None, ""), (0.0116, " 0.2 |")):
        model = candidate()
        usage = {"candidate": took.model_copy(update={"cost": cost})}
        model.judge(completed("pass").model_copy(update={"usage": usage}), "auto", at=3)
        assert f"| candidate | 0.38 s | 0.52 s | 24.0 | 3.5 |{cell}\n" in markdown(model)


def test_the_card_tells_what_arm_and_adapter_would_do_together() -> None:
    took = Usage(answers=60, prompt_tokens=600, completion_tokens=90, seconds_median=0.02, seconds_p95=0.4, cost=None)
    score = Interval(value=0.9666, low=0.9, high=1.0, n=60)
    steps = [
        CascadeStep(below=below, handed_over=below / 2, score=score, over_adapter=score, took=took)
        for below in (0.5, 0.9)
    ]
    model = candidate()
    cascade = Cascade(arm="head", steps=steps, advised=0.9)
    model.judge(completed("pass").model_copy(update={"cascade": cascade}), "auto", at=3)
    assert model.evaluation is not None
    assert model.evaluation.cascade == cascade
    told = markdown(model)
    assert "The arm `head` first, and the adapter where it is less sure, on the same rows:" in told
    assert "| 50 % | 25 % | 0.967 | 0.900 to 1.000 | 0.02 s | 0.4 s |\n" in told
    assert "| 90 % | 45 % | 0.967 (advised) | 0.900 to 1.000 | 0.02 s | 0.4 s |\n" in told


def test_who_took_a_copy_last_is_remembered_and_each_copy_is_said() -> None:
    model = candidate()
    model.take_pending()
    for at in range(REMEMBERED + 1):
        note_download(model, f"user_{at}", at)
    note_download(model, "user_7", REMEMBERED + 1)
    assert [one.at for one in model.downloads] == [*range(1, 7), *range(8, REMEMBERED + 2)]
    assert (model.downloads[-1].by, model.downloads[-1].times) == ("user_7", 2)
    assert len(model.take_pending()) == REMEMBERED + 2


def test_a_replica_that_left_does_not_count() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.drop("replica-1")
    model.judge(completed("pass"), "auto", at=3)
    assert (model.state, model.replicas) == ("candidate", [])


def test_a_replica_that_proves_again_is_kept_once() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.hold(replica(), at=3)
    model.hold(replica("replica-2"), at=3)
    assert [one.replica_id for one in model.replicas] == ["replica-1", "replica-2"]
    model.hold(replica("replica-3").model_copy(update={"replica_url": "http://replica-1"}), at=4)
    assert [one.replica_id for one in model.replicas] == ["replica-2", "replica-3"]


def test_the_same_evaluation_twice_has_one_effect() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    for _ in range(2):
        model.judge(completed("pass"), "auto", at=3)
    assert len(model.take_pending()) == 1
    assert len(model.decisions) == 1


def test_a_rejection_carries_the_evidence() -> None:
    model = candidate()
    model.judge(completed("fail"), "auto", at=3)
    [event] = model.take_pending()
    assert isinstance(event, ModelRejected)
    assert (event.reason, event.evaluation_id) == (REASON, "ev-1")


def test_a_person_approves_and_is_remembered() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.judge(completed("needs_human"), "auto", at=3)
    model.take_pending()
    model.approve("user_1", "looked at all rows", at=10)
    [event] = model.take_pending()
    assert isinstance(event, ModelPromoted)
    assert event.decided_by == "user_1"
    last = model.decisions[-1]
    assert (last.outcome, last.by, last.note, last.at) == ("promote", "user_1", "looked at all rows", 10)


def test_a_person_rejects_and_the_job_hears_why() -> None:
    model = candidate()
    model.judge(completed("pass"), "approval", at=3)
    model.take_pending()
    model.reject("user_1", "wrong tone", at=10)
    [event] = model.take_pending()
    assert isinstance(event, ModelRejected)
    assert event.reason == "Refused by a person: wrong tone."
    assert model.state == "rejected"
    assert model.decisions[-1].by == "user_1"


def test_a_refusal_without_a_reason_names_no_id_either() -> None:
    model = candidate()
    model.judge(completed("pass"), "approval", at=3)
    model.take_pending()
    model.reject("user_1", ".", at=10)
    [event] = model.take_pending()
    assert isinstance(event, ModelRejected)
    assert event.reason == "Refused by a person, who gave no reason."


def test_what_is_decided_cannot_be_decided_again() -> None:
    model = candidate()
    with pytest.raises(Conflict, match="waits for evaluation"):
        model.approve("user_1", "", at=2)
    model.judge(completed("fail"), "auto", at=3)
    with pytest.raises(Conflict, match="is rejected"):
        model.approve("user_1", "", at=4)
    with pytest.raises(Conflict, match="is rejected"):
        model.reject("user_1", "", at=4)
    model.hold(replica(), at=5)
    model.retire("owner", "", at=6)
    assert model.state == "rejected"


def test_production_is_left_by_retirement_only() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.judge(completed("pass"), "auto", at=3)
    model.take_pending()
    with pytest.raises(Conflict, match="DELETE"):
        model.reject("user_1", "", at=4)
    model.retire("user_1", "", at=5)
    [event] = model.take_pending()
    assert isinstance(event, ModelRetired)
    model.hold(replica("replica-2"), at=6)
    assert (model.state, model.take_pending()) == ("retired", [])


@pytest.mark.parametrize(
    ("policy", "events"),
    [("auto", [ModelRetired, ModelDeleted]), ("approval", [ModelRejected, ModelDeleted]), ("fails", [ModelDeleted])],
)
def test_a_model_is_deleted_once_in_whatever_state(policy: str, events: list[type]) -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.judge(
        completed("fail" if policy == "fails" else "pass"), "approval" if policy == "approval" else "auto", at=3
    )
    model.take_pending()
    for at in (4, 5):
        model.delete("user_1", at=at)
    assert [type(event) for event in model.take_pending()] == events
    assert model.deleted_at == 4


def test_a_candidate_that_is_deleted_says_so_and_that_nobody_refused_it() -> None:
    model = candidate()
    model.delete("user_1", at=4)
    [rejected, _] = model.take_pending()
    assert (rejected.reason, rejected.code) == ("Deleted by its owner.", "model_deleted")


def test_rows_deleted_before_the_test_end_the_candidate_and_later_ones_do_not() -> None:
    untested, tested = candidate(), candidate()
    tested.judge(completed("pass"), "auto", at=3)
    for model in (untested, tested):
        model.take_pending()
        for at in (4, 5):
            model.lose_rows(at=at)
    [rejected] = untested.take_pending()
    assert (type(rejected), rejected.code, untested.state) == (ModelRejected, "file_deleted", "rejected")
    assert (tested.waiting_for, tested.take_pending()) == ("replica", [])


def test_a_cancelled_candidate_is_not_promoted_later() -> None:
    model = candidate()
    model.judge(completed("pass"), "auto", at=3)
    model.retire("owner", "cancelled", at=4)
    model.take_pending()
    model.hold(replica(), at=5)
    assert (model.state, model.take_pending()) == ("retired", [])


def test_the_card_tells_the_whole_story() -> None:
    model = candidate()
    model.hold(replica(), at=2)
    model.judge(completed("pass"), "auto", at=3)
    text = markdown(model)
    for fact in (
        model.id,
        "ds-1",
        "file-1",
        "ftjob-1",
        "ad-1",
        "n_epochs",
        REASON,
        "0.980",
        "macro_f1",
        "0.875",
        "replica-1",
        "gate",
    ):
        assert fact in text
    assert "Not evaluated yet." in markdown(candidate())


def test_the_card_says_how_often_the_same_rows_were_asked_before() -> None:
    model = candidate()
    model.judge(completed("pass").model_copy(update={"earlier_verdicts": 7}), "auto", at=3)
    assert "held-out rows before this one: 7." in markdown(model)


def test_a_note_cannot_break_the_cards_table() -> None:
    model = candidate()
    model.judge(completed("pass"), "approval", at=3)
    model.reject("user_1", "a | b\n| forged | row |", at=4)
    [line] = [line for line in markdown(model).splitlines() if "forged" in line]
    assert "a \\| b \\| forged" in line


def test_an_alias_remembers_where_it_pointed() -> None:
    alias = Alias.create("tenant_a", "support", "ft:one", "user_1", at=1)
    alias.point("ft:two", "user_2", at=2)
    alias.point("ft:two", "user_3", at=3)
    assert alias.model == "ft:two"
    assert [(one.model, one.by) for one in alias.history] == [("ft:one", "user_1"), ("ft:two", "user_2")]

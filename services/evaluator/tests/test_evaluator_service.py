"""The evaluator at work on the local stack, asking a proxy that answers what a test chooses."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from evaluator_harness import (
    BASE,
    LABELS,
    Asked,
    Harness,
    copies_the_examples,
    label_of,
    process,
    right,
    rows,
    settings,
    wrong,
)

from chassis.errors import RateLimited, SartorError, Transient
from chassis.ids import now
from evaluator.app import build
from evaluator.settings import Settings
from schemas import (
    DatasetDeleted,
    EvaluationCompleted,
    EvidenceDeleted,
    ModelDeleted,
    ModelRegistered,
    ModelRejected,
    ObjectRef,
)
from testkit import Space, eventually, running
from testkit.running import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_good_candidate_passes_with_all_the_evidence(harness: Harness) -> None:
    model = await harness.register(rows(0, 30))
    harness.hold(model, right)
    harness.proxy.base = copies_the_examples
    harness.proxy.prices = True
    await harness.publish(model)

    event = await harness.completed(model)
    assert (event.verdict, event.metric) == ("pass", "accuracy")
    assert {name: score.value for name, score in event.scores.items()} == {
        "base": 0.0,
        "few_shot": 1.0,
        "candidate": 1.0,
    }
    assert all(score.n == 30 for score in event.scores.values())
    assert "30 right" in event.reason
    assert "+100.0 points" in event.reason

    evidence = await harness.evidence(event)
    assert len(evidence["rows"]) == 30
    assert evidence["rows_refused"] == []
    first = evidence["rows"][0]
    assert first["answers"]["candidate"]["text"] == first["reference"] == label_of(first["messages"][-1]["content"])
    assert first["answers"]["base"]["scores"] == {"accuracy": 0.0}
    measured = dict.fromkeys(("accuracy", "macro_precision", "macro_recall", "macro_f1"), 1.0)
    assert {name: score["value"] for name, score in evidence["scores"]["candidate"].items()} == measured
    assert evidence["classes"]["candidate"] == [
        {"name": name, "rows": 10, "answered": 10, "precision": 1.0, "recall": 1.0, "f1": 1.0}
        for name in sorted(LABELS)
    ]
    assert {one["recall"] for one in evidence["classes"]["base"]} == {0.0}
    assert {name: score.value for name, score in event.measured.items()} == measured
    assert evidence["differences"]["candidate - few_shot"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 30}
    assert evidence["cost"]["few_shot"]["prompt_tokens"] > evidence["cost"]["base"]["prompt_tokens"] > 0
    assert evidence["suite"] == {"name": "heldout", "version": 3}
    assert len(evidence["few_shot_examples"]) == 6
    assert [evidence["cost"][system]["cost"] for system in ("base", "few_shot", "candidate")] == [7.5, 7.5, 7.5]
    assert event.cost == (await harness.shown(model))["cost"] == 22.5
    usage = {system: one.model_dump() for system, one in event.usage.items()}
    assert usage == evidence["cost"] == (await harness.shown(model))["usage"]
    assert usage["candidate"]["answers"] == evidence["rows_asked"]
    assert harness.tenant in {tenant for _, _, tenant in harness.proxy.callers}
    assert {caller[:2] for caller in harness.proxy.callers} == {("evaluator", "service:evaluator")}

    shown = await harness.shown(model)
    assert (shown["status"], shown["progress"], shown["verdict"]) == ("completed", {"done": 90, "total": 90}, "pass")
    assert shown["metrics"]["accuracy"] == shown["scores"]
    assert set(shown["metrics"]) == set(measured)
    assert all(set(found) == set(shown["scores"]) for found in shown["metrics"].values())
    assert {one["model"] for one in harness.proxy.requests} >= {BASE, model.model_id}
    for body in harness.proxy.requests:
        assert (set(body), body["stop"], body["max_tokens"]) == (
            {"model", "messages", "stop", "max_tokens"},
            ["\n"],
            5,
        )
    assert 1 < harness.proxy.most_at_once <= 4
    assert set(harness.proxy.asked.values()) <= {1, 2}  # base is asked each question twice: alone and with examples
    assert len([one for one in harness.seen.of(EvaluationCompleted) if one.model_id == model.model_id]) == 1


async def test_an_arm_is_judged_by_itself(harness: Harness) -> None:
    name = f"ft:{BASE}:acme::named"
    model = await harness.register(rows(0, 30), arm="head", name=name)
    harness.hold(model, right)
    event = await harness.completed(model)
    assert (event.verdict, set(event.scores)) == ("pass", {"candidate"}), event.reason
    assert {one["model"] for one in harness.proxy.requests} == {model.model_id}
    shown = await harness.shown(model)
    assert (shown["arm"], shown["name"], shown["progress"]) == ("head", name, {"done": 30, "total": 30})


async def test_a_candidate_that_learnt_nothing_fails(harness: Harness) -> None:
    harness.proxy.base = right
    model = await harness.register(rows(0, 20))
    harness.hold(model, wrong)
    event = await harness.completed(model)
    assert event.verdict == "fail"
    assert "no better" in event.reason


async def test_generation_in_japanese_is_judged_by_chrf(harness: Harness) -> None:
    answer = "返品は三十日以内に、購入時の箱に入れてお送りください。"
    heldout = [
        {
            "messages": [
                {"role": "user", "content": f"返品について {number}"},
                {"role": "assistant", "content": f"{answer}番号は{number}です。"},
            ]
        }
        for number in range(12)
    ]
    harness.proxy.base = lambda _: "You can return it."
    model = await harness.register(heldout, train=heldout[:4], task="generation")
    harness.hold(model, lambda _: answer)
    event = await harness.completed(model)
    assert (event.verdict, event.metric) == ("pass", "chrF")
    evidence = await harness.evidence(event)
    scores = evidence["scores"]
    assert scores["candidate"]["chrF"]["value"] > 0.7 > 0.1 > scores["base"]["chrF"]["value"]
    assert scores["candidate"]["rougeL"]["value"] > 0.7
    bleu = scores["candidate"]["BLEU"]
    assert bleu["low"] <= bleu["value"] <= bleu["high"]
    assert bleu["value"] > 0.6 > 0.1 > scores["base"]["BLEU"]["value"]
    assert scores["candidate"]["exact_match"]["value"] == 0.0
    assert "classes" not in evidence
    assert (await harness.shown(model))["metrics"]["BLEU"]["candidate"] == scores["candidate"]["BLEU"]
    assert evidence["generation"]["stop"] == []


async def test_it_waits_for_the_adapter_and_never_counts_its_absence(harness: Harness) -> None:
    model = await harness.register(rows(0, 12))
    await eventually(lambda: [one for one in harness.proxy.requests if one["model"] == model.model_id])
    assert (await harness.shown(model))["progress"]["done"] == 24
    harness.hold(model, right)
    event = await harness.completed(model)
    assert event.verdict == "pass"
    assert event.scores["candidate"].value == 1.0
    document = await harness.documents.find_one({"model_id": model.model_id})
    assert document["adapter_missed_at"] is None, "an answer ends the wait"


async def test_an_adapter_that_never_comes_is_left_to_a_person(harness: Harness) -> None:
    model = await harness.register(rows(0, 12))
    await eventually(lambda: _last_error(harness, model))
    await harness.documents.update_one({"model_id": model.model_id}, {"$set": {"adapter_missed_at": now() - 601}})
    event = await harness.completed(model)
    assert (event.verdict, event.scores) == ("needs_human", {})
    assert "cannot be asked" in event.reason
    assert (await harness.shown(model))["attempts"] == 0, "looking for an adapter is no attempt"
    assert (await harness.evidence(event))["reason"] == event.reason
    before = Counter(harness.proxy.asked)
    assert all(count == 2 for (asked, _), count in before.items() if asked == BASE)


async def test_evaluations_whose_adapters_do_not_come_hold_up_no_other(harness: Harness) -> None:
    waiting = [await harness.register(rows(0, 12)) for _ in range(5)]
    for model in waiting:
        await eventually(lambda model=model: _last_error(harness, model))
    good = await harness.register(rows(0, 12))
    harness.hold(good, right)
    assert (await harness.completed(good)).verdict == "pass"
    done = [event.model_id for event in harness.seen.of(EvaluationCompleted)]
    assert not [model for model in waiting if model.model_id in done]
    late = waiting[-1]
    harness.hold(late, right)
    assert (await harness.completed(late)).verdict == "pass"


async def _last_error(harness: Harness, model: ModelRegistered) -> bool:
    shown = await harness.shown(model)
    return "cannot be asked" in (shown.get("last_error") or "")


async def test_a_broken_engine_is_asked_again_later(harness: Harness) -> None:
    harness.proxy.broken = True
    model = await harness.register(rows(0, 12))
    await eventually(lambda: len(harness.proxy.requests) >= 2)
    harness.proxy.broken = False
    harness.hold(model, right)
    event = await harness.completed(model)
    assert event.verdict == "pass"


async def test_while_the_proxy_is_away_an_evaluation_is_put_off_and_counts_nothing(space: Space) -> None:
    proxy, port = Asked(space), free_port()
    async with running(proxy.app()) as registry:
        app = build(settings(space, f"http://127.0.0.1:{port}", registry_url=registry))
        async with running(app) as url, space.publisher("registry") as publish, space.probe("evaluations") as seen:
            harness = Harness(space, url, proxy, publish, seen)
            model = await harness.register(rows(0, 12))
            harness.hold(model, right)
            await eventually(lambda: _last_error(harness, model))
            shown = await harness.shown(model)
            assert (shown["status"], shown["attempts"], shown["progress"]["done"]) == ("queued", 0, 0)
            async with running(proxy.app(), port=port):
                event = await harness.completed(model)
            assert event.verdict == "pass"
            assert (await harness.shown(model))["attempts"] == 1


@pytest.mark.parametrize(
    "error",
    [
        SartorError("It crashed."),
        Transient("The model is not reachable at the moment."),
        Transient("What answers in this model's place is not this model.", code="wrong_model"),
        Transient("out of memory", code="generation_failed"),
    ],
    ids=["500", "engine away", "wrong model", "broken"],
)
async def test_a_question_that_is_never_answered_is_left_to_a_person_after_so_many_attempts(
    harness: Harness, error: SartorError
) -> None:
    """That everything else is answered, the shortest of questions too, makes no difference."""
    harness.proxy.failing["number 3"] = error
    model = await harness.register(rows(0, 12))
    harness.hold(model, right)
    event = await harness.completed(model)
    assert (event.verdict, event.scores) == ("needs_human", {})
    assert f"{error.message} (3 attempts)." in event.reason


async def test_what_was_answered_of_a_test_that_is_given_up_has_its_cost(harness: Harness) -> None:
    harness.proxy.prices = True
    harness.proxy.failing["number 403"] = Transient("out of memory", code="generation_failed")
    model = await harness.register(rows(400, 12))
    harness.hold(model, right)
    event = await harness.completed(model)
    assert event.verdict == "needs_human"
    assert event.cost == (await harness.shown(model))["cost"] == 0.25 * 11  # the base's other answers


async def test_a_part_of_the_cost_does_not_pass_for_the_whole(harness: Harness) -> None:
    harness.proxy.prices, harness.proxy.unpriced = True, "number 3"
    model = await harness.register(rows(0, 12))
    harness.hold(model, right)
    event = await harness.completed(model)
    assert (event.verdict, event.cost, (await harness.shown(model))["cost"]) == ("pass", None, None)
    assert {one["cost"] for one in (await harness.evidence(event))["cost"].values()} == {None}


async def test_a_question_that_is_refused_costs_nothing_and_leaves_the_cost_known(harness: Harness) -> None:
    harness.proxy.prices, harness.proxy.refuse = True, "number 3"
    model = await harness.register(rows(0, 15))
    harness.hold(model, right)
    event = await harness.completed(model)
    assert event.cost == 0.25 * 3 * 14


async def test_a_wait_that_no_answer_ends_is_one_wait_however_often_the_shortest_question_is_answered(
    harness: Harness,
) -> None:
    harness.proxy.failing["number 0"] = RateLimited("Too many requests at the same time.")
    model = await harness.register(rows(0, 12))
    harness.hold(model, right)
    await eventually(lambda: _last_error(harness, model))
    await harness.documents.update_one({"model_id": model.model_id}, {"$set": {"adapter_missed_at": now() - 601}})
    event = await harness.completed(model)
    assert [one for one in harness.proxy.requests if one["messages"][-1]["content"] == "."]
    assert (event.verdict, event.scores) == ("needs_human", {})
    assert (await harness.shown(model))["attempts"] == 0


async def test_a_candidate_that_is_answered_for_by_another_adapter_is_left_to_a_person(harness: Harness) -> None:
    model = await harness.register(rows(0, 12))
    harness.proxy.adapters[model.model_id] = "ad-of-another"
    harness.hold(model, right)
    event = await harness.completed(model)
    assert (event.verdict, event.scores) == ("needs_human", {})
    assert "ad-of-another" in event.reason


async def test_a_row_the_engine_refuses_is_left_out_for_all(harness: Harness) -> None:
    harness.proxy.refuse = "number 3"
    model = await harness.register(rows(0, 15))
    harness.hold(model, right)
    event = await harness.completed(model)
    assert {score.n for score in event.scores.values()} == {14}
    evidence = await harness.evidence(event)
    assert {(one["row"], one["system"]) for one in evidence["rows_refused"]} == {
        (3, "base"),
        (3, "few_shot"),
        (3, "candidate"),
    }
    assert "512 tokens" in evidence["rows_refused"][0]["reason"]


async def test_rows_that_teach_nothing_measure_nobody_and_are_no_examples(harness: Harness) -> None:
    silent = [
        {"messages": [one["messages"][1], {**one["messages"][2], "content": "SILENT", "weight": 0}]}
        for one in rows(0, 8)
    ]
    model = await harness.register([*silent, *rows(10, 12)], train=[*silent, *rows(1000, 30)])
    harness.hold(model, right)
    event = await harness.completed(model)
    assert event.verdict == "pass"
    assert {score.n for score in event.scores.values()} == {12}
    assert event.scores["candidate"].value == 1.0
    evidence = await harness.evidence(event)
    assert evidence["rows_without_weight"] == 8
    assert "SILENT" not in str(evidence["few_shot_examples"])


async def test_verdicts_on_the_same_rows_are_counted(harness: Harness) -> None:
    heldout = rows(200, 12)
    found = []
    for _ in range(3):
        model = await harness.register(heldout)
        harness.hold(model, right)
        found.append(await harness.completed(model))
    assert [event.earlier_verdicts for event in found] == [0, 1, 2]
    assert (await harness.evidence(found[-1]))["earlier_verdicts"] == 2
    other = await harness.register(rows(300, 12))
    harness.hold(other, right)
    assert (await harness.completed(other)).earlier_verdicts == 0


@pytest.mark.parametrize("heldout", [[], rows(0, 4)])
async def test_too_few_rows_are_for_a_person(harness: Harness, heldout: list[dict[str, Any]]) -> None:
    model = await harness.register(heldout)
    harness.hold(model, right)
    assert (await harness.completed(model)).verdict == "needs_human"


async def test_rows_that_are_gone_end_the_evaluation_at_once(harness: Harness) -> None:
    gone = ObjectRef(bucket=f"{harness.space.prefix}-sartor", key="tenants/x/gone.jsonl", sha256="0" * 64, size=3)
    model = await harness.register(gone)
    event = await harness.completed(model)
    assert event.verdict == "needs_human"
    assert "gone.jsonl" in event.reason
    assert (await harness.shown(model))["attempts"] == 1


async def test_a_rejected_model_is_no_longer_tested(harness: Harness) -> None:
    model = await harness.register(rows(0, 12))
    await eventually(lambda: [one for one in harness.proxy.requests if one["model"] == model.model_id])
    await harness.publish(
        ModelRejected(
            tenant_id=model.tenant_id,
            model_id=model.model_id,
            job_id=model.job_id,
            adapter_id=model.adapter_id,
            reason="Deleted",
        )
    )
    await eventually(lambda: _has_status(harness, model, "cancelled"))
    evaluation = (await harness.shown(model))["id"]
    async with harness.http() as http:
        answer = await http.get(f"/v1/evals/evaluations/{evaluation}/evidence")
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "evidence_not_ready"
    # The slot is free again: another evaluation gets through.
    other = await harness.register(rows(0, 12))
    harness.hold(model, right)
    harness.hold(other, right)
    await harness.completed(other)
    assert not [one for one in harness.seen.of(EvaluationCompleted) if one.model_id == model.model_id]


async def _evidence_status(harness: Harness, event: EvaluationCompleted) -> int:
    async with harness.http() as http:
        return (await http.get(f"/v1/evals/evaluations/{event.evaluation_id}/evidence")).status_code


def _stored(harness: Harness) -> Any:
    return harness.space.objects().keys(f"tenants/{harness.tenant}/evaluations/")


def _deleted(model: ModelRegistered) -> ModelDeleted:
    ids = model.model_dump(include={"tenant_id", "model_id", "job_id", "adapter_id"})
    return ModelDeleted(**ids)


async def test_the_evidence_goes_with_its_model_and_only_the_scores_stay(harness: Harness) -> None:
    model, other = await harness.register(rows(0, 12)), await harness.register(rows(0, 12))
    harness.hold(model, right)
    harness.hold(other, right)
    event, kept = await harness.completed(model), await harness.completed(other)
    for _ in range(2):
        await harness.publish(_deleted(model))
    await eventually(lambda: [one for one in harness.seen.of(EvidenceDeleted) if one.model_id == model.model_id])
    assert await _stored(harness) == [kept.evidence.key]
    assert (await _evidence_status(harness, event), await _evidence_status(harness, kept)) == (404, 200)
    shown = await harness.shown(model)
    assert (shown["evidence"], shown["verdict"], set(shown["scores"])) == (None, event.verdict, set(event.scores))
    again = await harness.register(rows(0, 12))
    harness.hold(again, right)
    assert (await harness.completed(again)).earlier_verdicts == 2, "it was judged on these rows, and that stays known"
    assert len([one for one in harness.seen.of(EvidenceDeleted) if one.model_id == model.model_id]) == 1


async def test_evidence_goes_with_the_rows_and_no_test_on_them_goes_on(harness: Harness) -> None:
    """Rows of the same content in another dataset are others."""
    done = await harness.register(rows(0, 12))
    harness.hold(done, right)
    event = await harness.completed(done)
    going_on, twin = await harness.register(done.dataset.heldout), await harness.register(rows(0, 12))
    await eventually(lambda: [one for one in harness.proxy.requests if one["model"] == going_on.model_id])
    harness.hold(twin, right)
    kept = await harness.completed(twin)
    await harness.publish(DatasetDeleted(tenant_id=harness.tenant, dataset_id="ds-1", heldout=done.dataset.heldout))
    await eventually(
        lambda: len([one for one in harness.seen.of(EvidenceDeleted) if one.tenant_id == harness.tenant]) == 2
    )
    assert await _stored(harness) == [kept.evidence.key]
    assert await _evidence_status(harness, event) == 404
    assert (await harness.shown(going_on))["status"] == "cancelled"
    answers = harness.documents.database["answers"]
    await eventually(lambda: _none(answers, {"tenant_id": harness.tenant}), within=90)


async def test_a_candidate_whose_rows_are_deleted_before_it_is_heard_of_is_not_tested(harness: Harness) -> None:
    evaluations = harness.documents.database["evaluations"]

    async def rows_of(model: ModelRegistered) -> Any:
        found = await evaluations.find_one({"model_id": model.model_id})
        return found["heldout"]["key"] if found else None

    known, other = await harness.register(rows(0, 4)), await harness.register(rows(0, 4))
    await eventually(lambda: rows_of(known))
    await harness.publish(DatasetDeleted(tenant_id=harness.tenant, dataset_id="ds-1", heldout=known.dataset.heldout))
    await eventually(lambda: [one for one in harness.seen.of(EvidenceDeleted) if one.tenant_id == harness.tenant])
    late = await harness.register(known.dataset.heldout)
    await harness.publish(late.model_copy(update={"dataset": other.dataset}))
    rows_of_other = other.dataset.heldout.key
    assert await eventually(lambda: rows_of(late)) == rows_of_other, "of the one that was said first there is none"


async def _none(collection: Any, query: dict[str, Any]) -> bool:
    return bool(await collection.count_documents(query) == 0)


async def _has_status(harness: Harness, model: ModelRegistered, status: str) -> bool:
    return bool((await harness.shown(model)).get("status") == status)


async def test_another_tenant_and_another_role_see_nothing(harness: Harness) -> None:
    model = await harness.register(rows(0, 12))
    harness.hold(model, right)
    event = await harness.completed(model)
    path = f"/v1/evals/evaluations/{event.evaluation_id}"
    async with harness.http("tenant_other") as other, harness.http(role="labeler") as labeler:
        for address in (path, f"{path}/evidence", f"/v1/evals/evaluations?after={event.evaluation_id}"):
            assert (await other.get(address)).status_code == 404, address
        assert (await other.get("/v1/evals/evaluations")).json()["data"] == []
        assert (await labeler.get(path)).status_code == 403
    async with httpx2.AsyncClient(base_url=harness.url) as anonymous:
        assert (await anonymous.get(path)).status_code == 401


async def test_evaluations_come_in_pages(harness: Harness) -> None:
    models = [await harness.register(rows(0, 4)) for _ in range(3)]
    for model in models:
        harness.hold(model, right)
    for model in models:
        await harness.completed(model)
    async with harness.http() as http:
        first = (await http.get("/v1/evals/evaluations", params={"limit": 2})).json()
        assert len(first["data"]) == 2
        assert first["has_more"]
        assert first["last_id"] == first["data"][-1]["id"]
        rest = (await http.get("/v1/evals/evaluations", params={"limit": 2, "after": first["last_id"]})).json()
        assert len(rest["data"]) == 1
        assert not rest["has_more"]
        ids = {one["id"] for one in first["data"] + rest["data"]}
        assert len(ids) == 3
        assert (await http.get("/v1/evals/evaluations", params={"status": "queued"})).json()["data"] == []
        assert (await http.get("/v1/evals/evaluations", params={"limit": 0})).status_code == 400


def unhurried(given: Settings) -> Settings:
    """The settings of who takes over, which keeps its lease on a busy machine too."""
    return given.model_copy(update={"evaluator_lease_seconds": 30.0})


async def test_a_killed_worker_loses_only_the_questions_in_flight(space: Space) -> None:
    proxy = Asked(space, delay=0.05)
    parallel = 4
    async with running(proxy.app()) as asked_url:
        first, second = (
            settings(space, asked_url, service_port=port, replica_id=f"r{port}", evaluator_parallel=parallel)
            for port in (free_port(), free_port())
        )
        async with space.publisher("registry") as publish, space.probe("evaluations") as seen:
            harness = Harness(space, "", proxy, publish, seen)
            model = await harness.register(rows(0, 40))
            harness.hold(model, right)
            async with process(first) as worker:
                await eventually(lambda: len(proxy.asked) > 50, within=90)
                worker.kill()
                await worker.wait()
            answered = sum(proxy.asked.values())
            assert answered < 120
            async with running(build(unhurried(second))) as harness.url:
                event = await harness.completed(model)
                assert event.verdict == "pass"
                assert event.scores["candidate"].n == 40
                shown = await harness.shown(model)
                assert shown["attempts"] == 2
                # asked or answered, but not yet kept
                assert 120 <= sum(proxy.asked.values()) <= 120 + 2 * parallel
                assert len(seen.of(EvaluationCompleted)) == 1
                await publish(model)
                other = model.model_copy(update={"model_id": f"{model.model_id}0"})
                proxy.adapters[other.model_id] = other.adapter_id
                harness.hold(other, right)
                await publish(other)
                await eventually(lambda: len(seen.of(EvaluationCompleted)) == 2)
                assert [one.model_id for one in seen.of(EvaluationCompleted)].count(model.model_id) == 1


async def test_a_frozen_worker_changes_nothing_when_it_wakes(space: Space, tmp_path: Path) -> None:
    proxy = Asked(space, delay=0.05)
    log = tmp_path / "frozen.log"
    async with running(proxy.app()) as asked_url:
        first, second = (settings(space, asked_url, service_port=free_port(), replica_id=name) for name in "ab")
        async with space.publisher("registry") as publish, space.probe("evaluations") as seen:
            harness = Harness(space, "", proxy, publish, seen)
            model = await harness.register(rows(0, 40))
            harness.hold(model, right)
            async with process(first, log) as frozen:
                await eventually(lambda: len(proxy.asked) > 20, within=90)
                frozen.send_signal(signal.SIGSTOP)
                async with running(build(unhurried(second))) as harness.url:
                    event = await harness.completed(model)
                    before = await harness.evidence(event)
                    frozen.send_signal(signal.SIGCONT)
                    await eventually(lambda: "attempt_lost" in log.read_text())
                    assert await harness.evidence(event) == before
                    assert (await harness.shown(model))["attempts"] == 2
                    assert len(seen.of(EvaluationCompleted)) == 1

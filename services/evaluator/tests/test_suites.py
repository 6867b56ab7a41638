"""What a suite must be, and metrics that have to be waited for: kept like answers, and decisive like any other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, get_args

import pytest
from evaluator_harness import Asked, Harness, right, rows, settings, wrong

from chassis.errors import Transient
from evaluator.app import build
from evaluator.metrics import ACCURACY, CHRF, MACRO_F1, AwaitedMetric, Case, RowMetric
from evaluator.metrics.matching import exact_match
from evaluator.suites import NAME, SUITES, Suite
from schemas import Task
from testkit import Space, eventually, running


async def never(_: Case) -> float:
    raise AssertionError


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"metrics": (CHRF,)}, "the deciding metric must be a row's, and one of"),
        ({"metrics": (ACCURACY, MACRO_F1), "deciding": MACRO_F1}, "the deciding metric must be a row's"),
        ({"metrics": (ACCURACY, RowMetric("accuracy", exact_match))}, "two metrics have one name"),
        ({"metrics": (ACCURACY, RowMetric("a.b", exact_match))}, "a metric cannot be called 'a.b'"),
        ({"systems": ("base", "few_shot")}, "base and candidate must be asked"),
        ({"systems": ("base", "candidate", "candidate")}, "a system is asked twice"),
        (
            {"metrics": (perplexity := RowMetric("perplexity", exact_match, range=(1, 1e9)),), "deciding": perplexity},
            "from 0, the worst, to 1, the best",
        ),
        (
            {"metrics": tuple(RowMetric(f"m{n}", exact_match) for n in range(33))},
            "33 metrics, and an event tells of 32",
        ),
        (
            {"metrics": (judged := AwaitedMetric("judged", never, "nobody"),), "deciding": judged, "of_classes": True},
            "nothing can be waited for",
        ),
    ],
)
def test_a_suite_that_cannot_decide_is_refused_when_it_is_read(asked: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"metrics": (ACCURACY,), "deciding": ACCURACY, **asked}
    with pytest.raises(ValueError, match=says):
        Suite("wrong", 1, **given)


def test_each_task_has_its_suite_and_is_decided_as_before() -> None:
    assert set(SUITES) == set(get_args(Task))
    assert {task: suite.deciding.name for task, suite in SUITES.items()} == {
        "classification": "accuracy",
        "generation": "chrF",
    }
    assert [metric.name for metric in SUITES["generation"].metrics] == ["chrF", "rougeL", "BLEU", "exact_match"]


async def test_a_score_that_was_waited_for_is_asked_for_once_however_many_attempts_there_are(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, asked, failed = Asked(space, base=wrong), Counter[tuple[int, str]](), []

    async def judge(case: Case) -> float:
        if sum(asked.values()) >= 10 and not failed:
            await eventually(ten_are_kept)
            failed.append(case)
            raise Transient("The judge is away.")
        asked[case.row.index, case.answer] += 1
        return 0.75 if exact_match(case) else 0.25

    judged = AwaitedMetric("judged", judge, "right is 0.75")
    suites = {**SUITES, "classification": Suite("judged", 1, (ACCURACY, judged), deciding=judged)}
    async with running(proxy.app()) as asked_url:
        monkeypatch.setattr("evaluator.app.SUITES", suites)
        app = build(settings(space, asked_url))
        answers = app.state.service.collection("answers")

        async def ten_are_kept() -> bool:
            return bool(await answers.count_documents({f"scores.{judged.key}": {"$exists": True}}) == 10)

        async with running(app) as url, space.publisher("registry") as publish, space.probe("evaluations") as seen:
            harness = Harness(space, url, proxy, publish, seen)
            model = await harness.register(rows(0, 12))
            harness.hold(model, right)
            event = await harness.completed(model)
            evidence = await harness.evidence(event)
    assert failed, "the first attempt came to its end"
    assert (event.metric, event.verdict, evidence["attempts"]) == ("judged", "pass", 2)
    judged_as = {"base": 0.25, "few_shot": 0.25, "candidate": 0.75}
    assert {name: score.value for name, score in event.scores.items()} == judged_as
    assert evidence["rows"][0]["answers"]["candidate"]["scores"] == {"accuracy": 1.0, "judged": 0.75}
    assert len(asked) == 24  # of 12 rows the right answer, and one wrong answer that two systems gave
    assert sum(asked.values()) == 36, "an answer was judged twice"


async def test_a_judge_that_is_another_than_before_judges_every_answer_itself(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, asked = Asked(space, base=wrong), count()

    async def lenient(_: Case) -> float:
        if next(asked) >= 10:
            raise Transient("The judge is away.")
        return 1.0

    async def strict(case: Case) -> float:
        return 0.5 if exact_match(case) else 0.0

    def judged_by(judge: Callable[[Case], Awaitable[float]], definition: str) -> dict[Task, Suite]:
        judged = AwaitedMetric("judged", judge, definition)
        return {**SUITES, "classification": Suite("judged", 1, (ACCURACY, judged), deciding=judged)}

    async with (
        running(proxy.app()) as asked_url,
        space.publisher("registry") as publish,
        space.probe("evaluations") as seen,
    ):
        monkeypatch.setattr("evaluator.app.SUITES", judged_by(lenient, "lenient"))
        app = build(settings(space, asked_url))
        async with running(app) as url:
            harness = Harness(space, url, proxy, publish, seen)
            model = await harness.register(rows(0, 12))
            harness.hold(model, right)
            answers = app.state.service.collection("answers")
            await eventually(lambda: answers.count_documents({"scores": {"$ne": {}}}))
        monkeypatch.setattr("evaluator.app.SUITES", judged_by(strict, "strict"))
        async with running(build(settings(space, asked_url))) as url:
            harness = Harness(space, url, proxy, publish, seen)
            event = await harness.completed(model)
    assert {name: score.value for name, score in event.scores.items()} == {"base": 0, "few_shot": 0, "candidate": 0.5}


async def test_scores_are_waited_for_so_many_at_a_time(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, places = Asked(space, base=wrong), 3
    waiting, most = 0, list[int]()

    async def judge(_: Case) -> float:
        nonlocal waiting
        waiting += 1
        most.append(waiting)
        for _turn in range(5):
            await asyncio.sleep(0)  # whoever else may begin does
        waiting -= 1
        return 0.5

    judged = AwaitedMetric("judged", judge, "always 0.5")
    suites = {**SUITES, "classification": Suite("judged", 1, (ACCURACY, judged), deciding=judged)}
    async with running(proxy.app()) as asked_url:
        monkeypatch.setattr("evaluator.app.SUITES", suites)
        app = build(settings(space, asked_url, evaluator_parallel=places))
        async with running(app) as url, space.publisher("registry") as publish, space.probe("evaluations") as seen:
            harness = Harness(space, url, proxy, publish, seen)
            model = await harness.register(rows(0, 12))
            harness.hold(model, right)
            await harness.completed(model)
    assert (len(most), max(most)) == (36, places)


def test_a_metric_is_another_one_under_another_definition() -> None:
    keys = {AwaitedMetric(name, never, told).key for name in ("a", "b") for told in ("by x. $1", "by y")}
    assert len(keys) == 4
    assert all(NAME.fullmatch(key) for key in keys), "it is a field of documents"

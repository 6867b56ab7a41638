"""Arms judged by themselves, and adapters judged beside the arm that serves their name, with no process beside."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from evaluator_harness import BASE, LABELS, Messages, copies_the_examples, jsonl, label_of, right, rows, wrong

from chassis.errors import Invalid, NotFound, RateLimited, SartorError, Transient
from chassis.ids import new_id
from evaluator.app import build
from evaluator.settings import Settings
from schemas import DatasetRef, EvaluationCompleted, ModelRegistered, ObjectRef, Task
from schemas.artifacts import ArmKind, EmbedderFacts
from schemas.http.registry import ArmRoute, ModelRoute
from testkit import Space, eventually
from testkit.alone import NOWHERE, Alone, alone
from testkit.base_models import base_spec
from testkit.stub_peer import StubPeer

Says = Callable[[Messages], str]
UNKNOWN = "The rows do not show that it knows them"


def knows(share: int) -> Says:
    """Right to all but every so many questions."""

    def says(messages: Messages) -> str:
        number = int(messages[-1]["content"].rsplit(maxsplit=1)[-1])
        return "nonsense" if number % share == 0 else label_of(f"{number}")

    return says


@dataclass
class Others(StubPeer):
    """inference_proxy and registry, played.

    Attributes:
        says: by model, how it answers; who is not in it is not served.
        ids: by model, the adapter or arm that it says has answered.
        sure: by model, how sure it says that it is.
        serving: by name, the arms that the registry knows of.
        failing: by model, what it is always answered with.
        held_up: by model, until when its answers but the first wait.
        too_long: by model, a question that it refuses.
        asked: how often each (model, question) was answered.
        tried: by model, how often it was asked, whether or not it answered.
        looked: what else was asked of either.
        at_once, most_at_once: by model, questions that it has now, and had at most.
    """

    says: dict[str, Says] = field(default_factory=lambda: {BASE: wrong})
    ids: dict[str, str] = field(default_factory=dict)
    sure: dict[str, Callable[[str], float]] = field(default_factory=dict)
    serving: dict[str, list[ModelRoute]] = field(default_factory=dict)
    failing: dict[str, SartorError] = field(default_factory=dict)
    held_up: dict[str, asyncio.Event] = field(default_factory=dict)
    too_long: dict[str, str] = field(default_factory=dict)
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    looked: list[str] = field(default_factory=list)
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)

    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        if path == "/internal/evaluation/answers":
            return await self._answer(options["json"])
        self.looked.append(path)
        match path:
            case "/internal/base_models/{}":
                return base_spec(ids[0], context_length=512).model_dump()
            case "/internal/arms/{}":
                if ids[0] not in self.serving:
                    raise NotFound("There is no such name.")
                return [route.model_dump() for route in self.serving[ids[0]]]
            case "/internal/evaluation/token_counts":
                return {"tokens": len(options["json"]["text"].split())}
        raise AssertionError(path)

    async def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        model, question = body["model"], body["messages"][-1]["content"]
        self.tried[model] += 1
        self.at_once[model] += 1
        self.most_at_once[model] = max(self.most_at_once[model], self.at_once[model])
        try:
            await asyncio.sleep(0)
            if model in self.held_up and self.questions(model):
                await self.held_up[model].wait()
        finally:
            self.at_once[model] -= 1
        if model in self.failing:
            raise self.failing[model]
        if self.too_long.get(model) == question:
            raise Invalid("messages: too long.", code="context_length_exceeded")
        if model not in self.says:
            raise Transient("The model is being loaded.", code="model_loading")
        if question != ".":
            self.asked[model, question] += 1
        return {
            "text": self.says[model](body["messages"]) if question != "." else ".",
            "finish_reason": "stop",
            "prompt_tokens": 3,
            "completion_tokens": 1,
            "adapter_id": self.ids.get(model),
            "cost": 0.25,
            "confidence": self.sure[model](question) if model in self.sure else None,
        }

    def questions(self, model: str) -> int:
        """How often it answered."""
        return sum(count for (asked, _), count in self.asked.items() if asked == model)


@dataclass
class Lonely:
    """An evaluator alone, and who it asks."""

    service: Alone
    others: Others
    space: Space
    tenant: str = field(default_factory=lambda: new_id("tenant_"))

    def put(self, lines: Sequence[dict[str, Any]]) -> ObjectRef:
        data, key = jsonl(list(lines)), f"tenants/{self.tenant}/datasets/{new_id('ds-')}/rows.jsonl"
        self.service.objects.objects[key] = data
        return ObjectRef(bucket="sartor", key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    def named(self) -> str:
        return f"ft:{BASE}:acme::{new_id('')[:8]}"

    async def register(
        self,
        heldout: Sequence[dict[str, Any]],
        says: Says | None,
        arm: ArmKind | None = None,
        *,
        train: Sequence[dict[str, Any]] | None = None,
        task: Task = "classification",
        name: str = "",
        generates: bool = False,
    ) -> str:
        """A version that comes to be tested; returns its id."""
        name = name or self.named()
        model_id = f"{name}@{arm}" if arm else name
        train_ref = self.put(rows(1000, 60) if train is None else train)
        event = ModelRegistered(
            tenant_id=self.tenant,
            model_id=model_id,
            job_id=new_id("ftjob-"),
            base_model=BASE,
            adapter_id=new_id("arm-" if arm else "ad-"),
            adapter_manifest=train_ref,
            dataset=DatasetRef(task=task, train=train_ref, heldout=self.put(heldout)),
            name=name if arm else "",
            arm=arm,
            generates=generates,
        )
        self.others.ids[model_id] = event.adapter_id
        if says is not None:
            self.others.says[model_id] = says
        await self.service.broker.tell(event)
        return model_id

    def serve(
        self, name: str, says: Says, kind: ArmKind = "head", state: Any = "production", *, generates: bool = False
    ) -> str:
        """An arm serves a name; returns the id of its version."""
        version, manifest = f"{name}@{kind}", self.put(rows(0, 1))
        embedder = EmbedderFacts(id="tiny", digest="00", dimensions=4)
        self.others.serving[name] = [
            ModelRoute(
                model=name,
                aliases=[],
                tenant_id=self.tenant,
                owner="",
                base_model=BASE,
                base_digest="d",
                adapter_id=f"arm-of-{name}",
                state=state,
                replicas=[],
                version=version,
                arm=ArmRoute(kind=kind, generates=generates, manifest=manifest, embedder=embedder),
            )
        ]
        self.others.says[version], self.others.ids[version] = says, f"arm-of-{name}"
        return version

    async def completed(self, model_id: str) -> EvaluationCompleted:
        async def found() -> list[EvaluationCompleted]:
            self.service.seconds += 1  # what was put off is due
            return [one for one in self.service.broker.of(EvaluationCompleted) if one.model_id == model_id]

        [event] = await eventually(found, within=20)
        return event

    async def shown(self, model_id: str) -> dict[str, Any]:
        async with self.service.http(self.space.headers("evaluator", self.tenant)) as http:
            found = (await http.get("/v1/evals/evaluations", params={"model": model_id})).json()["data"]
            return dict(found[0]) if found else {}

    async def evidence(self, event: EvaluationCompleted) -> dict[str, Any]:
        async with self.service.http(self.space.headers("evaluator", self.tenant)) as http:
            answer = await http.get(f"/v1/evals/evaluations/{event.evaluation_id}/evidence")
            assert answer.status_code == 200, answer.text
            return dict(answer.json())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest_asyncio.fixture
async def evaluator(folder: Path) -> AsyncIterator[Lonely]:
    others, space = Others(), Space(NOWHERE, folder)
    settings = space.settings(
        Settings,
        "evaluator",
        evaluator_slots=1,
        evaluator_parallel=4,
        evaluator_arm_parallel=3,
        evaluator_poll_seconds=0.02,
        evaluator_retry_seconds=0.1,
        evaluator_attempts=5,
    )
    async with alone(build, settings, peers={"inference_proxy": others, "registry": others}) as service:
        yield Lonely(service, others, space)


async def test_an_arm_that_knows_the_rows_passes_by_its_own_answers(evaluator: Lonely) -> None:
    model = await evaluator.register(rows(0, 100), knows(10), "head")
    event = await evaluator.completed(model)
    assert (event.verdict, event.metric, event.beaten_by) == ("pass", "accuracy", None), event.reason
    assert {name: score.value for name, score in event.scores.items()} == {"candidate": 0.9}
    assert event.reason.startswith("On 100 held-out rows the head got 90 right and always giving one answer got 3")
    assert {asked for asked, _ in evaluator.others.asked} == {model}, "people wait for it: nobody else is asked"
    assert evaluator.others.looked == [], "it has no base model to count tokens with, and no arm beside it"
    assert set(evaluator.others.asked.values()) == {1}
    assert 1 < evaluator.others.most_at_once[model] <= 3
    evidence = await evaluator.evidence(event)
    assert evidence["suite"] == {"name": "heldout_arm", "version": 1}
    assert (evidence["arm"], evidence["rows_counted"]) == ("head", 100)
    assert set(evidence["differences"]) == {"candidate - commonest answer"}
    assert "serving_arm" not in evidence
    shown = await evaluator.shown(model)
    assert (shown["arm"], shown["name"], shown["model"]) == ("head", model.removesuffix("@head"), model)
    assert shown["progress"] == {"done": 100, "total": 100}


@pytest.mark.parametrize(
    ("heldout", "says", "told"),
    [
        (rows(0, 30), lambda _: LABELS[0], "+0.0 points"),
        (rows(0, 30), wrong, "-33.3 points"),
        (rows(0, 5), right, "chance alone does as well in 12.5 % of such tests"),
        (rows(0, 12), knows(2), "chance alone does as well"),
        ([], right, "No held-out row could be tested"),
    ],
    ids=["always one answer", "wrong", "few rows", "unclear", "no rows"],
)
async def test_what_does_not_show_that_an_arm_knows_the_rows_fails_and_no_person_is_asked(
    evaluator: Lonely, heldout: list[dict[str, Any]], says: Says, told: str
) -> None:
    event = await evaluator.completed(await evaluator.register(heldout, says, "nearest"))
    assert event.verdict == "fail"
    assert UNKNOWN in event.reason
    assert told in event.reason


async def test_few_rows_are_enough_for_an_arm_where_chance_would_seldom_do_as_well(evaluator: Lonely) -> None:
    event = await evaluator.completed(await evaluator.register(rows(0, 9), right, "head"))
    assert event.verdict == "pass", event.reason
    assert event.reason.startswith("On 9 held-out rows the head got 9 right and always giving one answer got 3 right.")


async def test_an_arm_that_is_answered_for_by_another_fails(evaluator: Lonely) -> None:
    name = evaluator.named()
    evaluator.others.says[f"{name}@head"] = right
    model = await evaluator.register(rows(0, 12), None, "head", name=name)
    evaluator.others.ids[model] = "arm-of-another"
    event = await evaluator.completed(model)
    assert (event.verdict, event.scores) == ("fail", {})
    assert "arm-of-another" in event.reason
    assert UNKNOWN in event.reason


@pytest.mark.parametrize("code", ["wrong_model", "arm_gone"])
async def test_an_arm_that_is_refused_for_good_holds_up_its_job_for_no_more_than_three_attempts(
    evaluator: Lonely, code: str
) -> None:
    model = await evaluator.register(rows(0, 12), right, "head")
    evaluator.others.failing[model] = Transient("What answers is not this model.", code=code)
    event = await evaluator.completed(model)
    assert (event.verdict, event.scores) == ("fail", {})
    assert "What answers is not this model." in event.reason
    assert evaluator.others.most_at_once[model] == 1
    assert evaluator.others.tried[model] == 3


async def test_an_arm_is_waited_for_alone_though_its_base_model_is_away(evaluator: Lonely) -> None:
    del evaluator.others.says[BASE]
    model = await evaluator.register(rows(0, 12), None, "head")

    async def put_off() -> bool:
        return "cannot be asked" in ((await evaluator.shown(model)).get("last_error") or "")

    await eventually(put_off, within=20)
    evaluator.others.says[model] = right
    event = await evaluator.completed(model)
    assert event.verdict == "pass", event.reason
    assert (await evaluator.shown(model))["attempts"] == 1


async def test_what_is_registered_is_tested_at_once(folder: Path) -> None:
    """By nobody's next look, which is an hour away."""
    others, space = Others(), Space(NOWHERE, folder)
    settings = space.settings(Settings, "evaluator", evaluator_slots=1, evaluator_poll_seconds=3600.0)
    async with alone(build, settings, peers={"inference_proxy": others, "registry": others}) as service:
        evaluator = Lonely(service, others, space)
        await evaluator.completed(await evaluator.register(rows(0, 20), right))
        await evaluator.completed(await evaluator.register(rows(0, 20), right, "head"))


async def test_an_arm_never_waits_for_the_tests_of_adapters(evaluator: Lonely) -> None:
    """One worker is all they have, and they have asked as much as may be asked at a time."""
    evaluator.others.held_up[BASE] = asyncio.Event()
    adapters = [await evaluator.register(rows(0, 20), right) for _ in range(3)]
    await eventually(lambda: evaluator.others.at_once[BASE] == 4)
    arm = await evaluator.register(rows(0, 20), right, "head")
    assert (await evaluator.completed(arm)).verdict == "pass"
    assert not [one for one in evaluator.service.broker.of(EvaluationCompleted) if one.model_id in adapters]
    evaluator.others.held_up.pop(BASE).set()
    for adapter in adapters:
        assert (await evaluator.completed(adapter)).verdict == "pass"


def text_rows(first: int, count: int, answer: Callable[[int], str]) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"n {number}"}, {"role": "assistant", "content": answer(number)}]}
        for number in range(first, first + count)
    ]


FORMS = (
    "You may return it within thirty days in its own box.",
    "The parcel leaves our warehouse on the next working day.",
    "Your invoice is in the account under orders, as a PDF.",
)


def form(number: int) -> str:
    return FORMS[number % 3]


def lookalike(number: int) -> str:
    return f"Dear customer, we thank you for your letter about article {hashlib.md5(b'%d' % number).hexdigest()[:10]}."


async def test_free_text_passes_where_it_is_right_and_not_where_it_is_only_written_alike(evaluator: Lonely) -> None:
    def of(messages: Messages) -> int:
        return int(messages[-1]["content"].split()[-1])

    good = await evaluator.register(
        text_rows(0, 30, form),
        lambda messages: form(of(messages)),
        "nearest",
        train=text_rows(100, 60, form),
        task="generation",
    )
    event = await evaluator.completed(good)
    assert (event.verdict, event.metric) == ("pass", "chrF"), event.reason
    assert "the nearest training row reached chrF 100.0" in event.reason
    alike = await evaluator.register(
        text_rows(0, 30, lookalike),
        lambda messages: lookalike(of(messages))[:-6] + "?????.",
        "nearest",
        train=text_rows(100, 60, lambda number: f"{lookalike(number)} Bye, {number}."),
        task="generation",
    )
    event = await evaluator.completed(alike)
    evidence = await evaluator.evidence(event)
    assert evidence["differences"]["candidate - commonest answer"]["low"] > 0, "better than any one answer"
    assert event.verdict == "fail", event.reason
    assert "% of what that lacks, and 50 % are needed" in event.reason


def fact(number: int) -> str:
    return f"Article {hashlib.md5(b'%d' % number).hexdigest()[:10]} lies in row {number} of the upper hall."


def writes(share: int) -> Says:
    """What is right of all but every so many questions, where something else is written alike."""

    def says(messages: Messages) -> str:
        number = int(messages[-1]["content"].split()[-1])
        return fact(number + 1000) if number % share == 0 else fact(number)

    return says


def copies(of: Callable[[int], str]) -> Says:
    """What another row says, which is written alike."""

    def says(messages: Messages) -> str:
        number = int(messages[-1]["content"].split()[-1])
        return of(number)[:14] + of(number + 1000)[14:]

    return says


async def of_shown_rows(evaluator: Lonely, says: Says, count: int = 40, **more: Any) -> EvaluationCompleted:
    """What comes of an arm by which the base model answers, of rows whose answers come once."""
    heldout, train = text_rows(0, count, fact), text_rows(100, 60, fact)
    model = await evaluator.register(heldout, says, "nearest", train=train, task="generation", generates=True, **more)
    return await evaluator.completed(model)


async def test_an_arm_by_which_the_base_answers_passes_where_it_is_better_than_the_base_alone(
    evaluator: Lonely,
) -> None:
    evaluator.others.says[BASE] = lambda _: "I cannot say."
    event = await of_shown_rows(evaluator, writes(10))
    assert event.verdict == "pass", event.reason
    assert set(event.scores) == {"base", "candidate"}
    assert {score.n for score in event.scores.values()} == {16}, "people wait for it"
    assert "the base model, shown the closest training rows, reached chrF" in event.reason
    assert event.reason.endswith("against the base model alone.")
    assert event.cost == 0.25 * 16 * 2
    evidence = await evaluator.evidence(event)
    assert (evidence["suite"]["name"], evidence["generates"]) == ("heldout_generating_arm", True)
    assert set(evidence["differences"]) == {"candidate - base", "candidate - commonest answer"}


@pytest.mark.parametrize(
    ("of_base", "says", "count", "why"),
    [
        (writes(10), writes(10), 40, f"{UNKNOWN}: +0.0 points"),
        (writes(10), writes(2), 40, "against the base model alone"),
        (lambda _: "I cannot say.", copies(fact), 40, "% of what that lacks, and 50 % are needed"),
        (lambda _: "I cannot say.", lambda _: fact(100), 40, "against always giving one answer; chance alone"),
        (lambda _: "I cannot say.", writes(10), 5, "chance alone does as well in 3.1 % of such tests"),
    ],
)
async def test_an_arm_by_which_the_base_answers_fails_where_it_is_not_clearly_worth_it(
    evaluator: Lonely, of_base: Says, says: Says, count: int, why: str
) -> None:
    evaluator.others.says[BASE] = of_base
    event = await of_shown_rows(evaluator, says, count)
    assert event.verdict == "fail", event.reason
    assert why in event.reason


async def test_a_row_that_is_too_long_for_an_arm_by_which_the_base_answers_leaves_it_in_the_test(
    evaluator: Lonely,
) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right, "nearest", generates=True)
    evaluator.others.too_long[version] = rows(5, 1)[0]["messages"][-2]["content"]
    event = await evaluator.completed(await evaluator.register(rows(1, 40), knows(2), name=name))
    assert {score.n for score in event.scores.values()} == {39}
    assert event.beaten_by == "nearest", event.reason
    assert "against the base model, shown the closest training rows." in event.reason


async def test_no_arm_that_answers_itself_waits_for_one_by_which_the_base_answers(evaluator: Lonely) -> None:
    evaluator.others.held_up[BASE] = asyncio.Event()
    name = evaluator.named()
    slow = [asyncio.create_task(of_shown_rows(evaluator, writes(10), name=f"{name}{one}")) for one in range(2)]
    await eventually(lambda: evaluator.others.at_once[BASE] == 4)
    arm = await evaluator.register(rows(0, 20), right, "head")
    assert (await evaluator.completed(arm)).verdict == "pass"
    assert not any(one.done() for one in slow)
    evaluator.others.held_up.pop(BASE).set()
    await asyncio.gather(*slow)


@pytest.mark.parametrize(
    ("adapter", "arm", "beaten"), [(right, right, False), (knows(10), right, False), (knows(2), right, True)]
)
async def test_an_adapter_gives_way_to_an_arm_by_which_the_base_answers_only_where_that_is_better_beyond_doubt(
    evaluator: Lonely, adapter: Says, arm: Says, beaten: bool
) -> None:
    name = evaluator.named()
    evaluator.serve(name, arm, "nearest", generates=True)
    event = await evaluator.completed(await evaluator.register(rows(1, 40), adapter, name=name))
    assert event.beaten_by == ("nearest" if beaten else None), event.reason


async def test_an_adapter_is_tested_beside_the_arm_that_serves_its_name(evaluator: Lonely) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right)
    evaluator.others.says[BASE] = copies_the_examples
    model = await evaluator.register(rows(0, 60), right, name=name)
    event = await evaluator.completed(model)
    assert (event.verdict, event.beaten_by) == ("pass", "head"), event.reason
    assert set(event.scores) == {"base", "few_shot", "candidate", "head"}
    assert {score.n for score in event.scores.values()} == {60}
    assert "and the head, in use meanwhile, got 60 right" in event.reason
    assert event.reason.endswith("It has +0.0 points (95 % interval +0.0 to +0.0) against the head.")
    assert evaluator.others.questions(version) == 60
    assert {question for asked, question in evaluator.others.asked if asked == version} == {
        question for asked, question in evaluator.others.asked if asked == model
    }
    evidence = await evaluator.evidence(event)
    assert evidence["serving_arm"] == {
        "kind": "head",
        "version": version,
        "arm_id": f"arm-of-{name}",
        "generates": False,
        "away": None,
        "goes_on": True,
        "better_beyond_doubt": [],
    }
    assert evidence["rows"][0]["answers"]["head"]["scores"] == {"accuracy": 1.0}
    assert (await evaluator.shown(model))["beaten_by"] == "head"
    assert event.cost == 0.25 * 60 * 4


async def test_an_adapter_that_is_better_beyond_doubt_is_not_beaten_and_who_else_is_better_is_said(
    evaluator: Lonely,
) -> None:
    name = evaluator.named()
    evaluator.serve(name, knows(3), "nearest")
    evaluator.others.says[BASE] = copies_the_examples
    event = await evaluator.completed(await evaluator.register(rows(0, 60), right, name=name))
    assert (event.verdict, event.beaten_by) == ("pass", None), event.reason
    assert "against the nearest training row" in event.reason
    assert (await evaluator.evidence(event))["serving_arm"]["better_beyond_doubt"] == ["few_shot", "candidate"]


async def test_what_an_arm_and_its_adapter_would_do_together_is_told_with_what_is_advised(
    evaluator: Lonely, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluator.cascade._is_less", lambda one, other: one != other)  # all that is played is as quick
    name = evaluator.named()
    version = evaluator.serve(name, knows(3))
    evaluator.others.sure[version] = lambda question: 0.6 if int(question.rsplit(maxsplit=1)[-1]) % 3 == 0 else 0.95
    evaluator.others.says[BASE] = copies_the_examples
    event = await evaluator.completed(await evaluator.register(rows(0, 60), right, name=name))
    assert event.cascade is not None
    assert (event.cascade.arm, event.cascade.advised, event.beaten_by) == ("head", 0.7, None)
    told = [(one.below, round(one.handed_over, 3), round(one.score.value, 3)) for one in event.cascade.steps]
    assert told == [(0.5, 0.0, 0.667), (0.7, 0.333, 1.0), (0.9, 0.333, 1.0), (0.99, 1.0, 1.0)]
    assert [one.took.cost for one in event.cascade.steps] == [15.0, 20.0, 20.0, 30.0]
    together = "what the head is less than 70 % sure of, 33 % of these rows, the two together got 60 right: "
    together += "+0.0 points (95 % interval +0.0 to +0.0) against it alone."
    assert event.reason.endswith(f"Where it answers only {together}")
    evidence = await evaluator.evidence(event)
    assert evidence["cascade"] == event.cascade.model_dump()
    assert {one["answers"]["head"]["confidence"] for one in evidence["rows"]} == {0.6, 0.95}
    assert all("confidence" not in one["answers"]["candidate"] for one in evidence["rows"])
    assert (await evaluator.shown(event.model_id))["cascade"] == event.cascade.model_dump()


@pytest.mark.parametrize(
    ("arm", "base", "tested", "why"),
    [
        (knows(20), right, 20, ("fail", None, None)),
        (knows(60), wrong, 60, ("pass", "head", None)),
        (knows(2), knows(7), 60, ("pass", None, "head")),
    ],
    ids=["it failed", "the arm goes on", "the arm is withdrawn"],
)
async def test_nothing_is_left_to_an_adapter_that_comes_into_no_use_or_by_an_arm_that_does(
    evaluator: Lonely, monkeypatch: pytest.MonkeyPatch, arm: Says, base: Says, tested: int, why: tuple[str, Any, Any]
) -> None:
    monkeypatch.setattr("evaluator.cascade._is_less", lambda one, other: one != other)
    name = evaluator.named()
    version = evaluator.serve(name, arm)

    def sure(question: str) -> float:
        asked = [{"role": "user", "content": question}]
        return 0.95 if arm(asked) == right(asked) else 0.6

    evaluator.others.sure[version] = sure
    evaluator.others.says[BASE] = base
    event = await evaluator.completed(await evaluator.register(rows(1, tested), right, name=name))
    assert (event.verdict, event.beaten_by, event.below_base) == why, event.reason
    assert event.cascade is not None
    assert [one.score.value for one in event.cascade.steps[1:]] == [1.0, 1.0, 1.0]
    assert event.cascade.advised is None
    assert "together" not in event.reason


@pytest.mark.parametrize("rows_tested", [60, 8, 5])
async def test_an_arm_that_is_clearly_worse_than_the_base_model_is_said_to_be_and_beats_nobody(
    evaluator: Lonely, rows_tested: int
) -> None:
    name = evaluator.named()
    evaluator.serve(name, wrong)
    evaluator.others.says[BASE] = right
    event = await evaluator.completed(await evaluator.register(rows(0, rows_tested), wrong, name=name))
    behind = "The base model is clearly better than the head: +100.0 points"
    if rows_tested == 5:
        assert (event.below_base, behind in event.reason) == (None, False), "too few rows to say so"
    else:
        verdict = "fail" if rows_tested == 60 else "needs_human"
        assert (event.verdict, event.beaten_by, event.below_base) == (verdict, None, "head"), event.reason
        assert behind in event.reason
        assert (await evaluator.shown(name))["below_base"] == "head"
        assert (await evaluator.evidence(event))["serving_arm"]["goes_on"] is False


async def put_off(evaluator: Lonely, name: str) -> None:
    async def said() -> bool:
        return bool((await evaluator.shown(name)).get("last_error"))

    await eventually(said, within=20)


@pytest.mark.parametrize("state", ["production", "awaiting_approval", "rejected", "candidate"])
async def test_an_adapter_waits_until_the_arm_of_its_name_is_tested_and_no_longer(
    evaluator: Lonely, state: str
) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right, state="candidate")
    await evaluator.register(rows(0, 20), right, name=name)
    await put_off(evaluator, name)
    assert evaluator.others.asked.total() == 0
    if state == "candidate":  # still
        evaluator.service.seconds += 600
    elif state == "production":
        evaluator.serve(name, right)
    else:
        evaluator.others.serving[name] = []
    event = await evaluator.completed(name)
    beside = {"head"} if state == "production" else set()
    assert set(event.scores) == {"base", "few_shot", "candidate"} | beside
    assert evaluator.others.questions(version) == (20 if beside else 0)
    assert (await evaluator.shown(name))["attempts"] == 1


@pytest.mark.parametrize(
    "error",
    [NotFound("The model is retired."), Invalid("It answers no such question."), None],
    ids=["retired", "refused", "another arm"],
)
async def test_an_arm_that_will_never_answer_holds_up_no_adapter(evaluator: Lonely, error: SartorError | None) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right)
    if error is not None:
        evaluator.others.failing[version] = error
    else:
        evaluator.others.ids[version] = "arm-of-another"
    event = await evaluator.completed(await evaluator.register(rows(0, 20), right, name=name))
    assert (event.verdict, event.beaten_by) == ("pass", None), event.reason
    assert set(event.scores) == {"base", "few_shot", "candidate"}
    assert {score.n for score in event.scores.values()} == {20}, "no row is left out because of it"
    shown, evidence = await evaluator.shown(name), await evaluator.evidence(event)
    assert (shown["attempts"], shown["progress"]) == (1, {"done": 60, "total": 60})
    assert (error.message if error else "arm-of-another") in evidence["serving_arm"]["away"]
    assert event.cost == 0.25 * 20 * 3, "what it answered is no answer of this test"
    assert "The head could not be asked: " in event.reason


@pytest.mark.parametrize("back", [True, False], ids=["for a while", "for good"])
@pytest.mark.parametrize(
    "error",
    [
        Transient("The model is being loaded.", code="model_loading"),
        Transient("The model is not reachable at the moment."),
        Transient("Another answers.", code="wrong_model"),
        RateLimited("One too many."),
    ],
    ids=["away", "broken", "wrong", "busy"],
)
async def test_an_arm_that_is_away_is_waited_for_a_few_minutes(
    evaluator: Lonely, error: SartorError, back: bool
) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right)
    evaluator.others.failing[version] = error
    await evaluator.register(rows(0, 60), knows(4), name=name)
    await put_off(evaluator, name)
    if back:
        del evaluator.others.failing[version]
    else:
        evaluator.service.seconds += 300
    event = await evaluator.completed(name)
    assert (event.verdict, event.beaten_by) == ("pass", "head" if back else None), event.reason
    assert ("The head could not be asked: " in event.reason) is not back
    assert event.reason.endswith(error.message) is not back
    assert evaluator.others.questions(version) == (60 if back else 0)
    assert (await evaluator.shown(name))["attempts"] == 1, "that is no attempt of the adapter"
    assert evaluator.others.questions(name) == 60, "what is answered is kept"


async def test_a_later_attempt_asks_the_arm_that_the_first_one_found(evaluator: Lonely) -> None:
    name = evaluator.named()
    version = evaluator.serve(name, right)
    await evaluator.register(rows(0, 20), None, name=name)
    await eventually(lambda: evaluator.others.questions(BASE) == 40)
    del evaluator.others.serving[name]
    evaluator.others.says[name] = right
    event = await evaluator.completed(name)
    assert set(event.scores) == {"base", "few_shot", "candidate", "head"}
    assert evaluator.others.questions(version) == 20


async def test_arms_are_no_tries_of_an_adapter(evaluator: Lonely) -> None:
    kinds: list[ArmKind | None] = ["head", None, "head", None]
    found = [await evaluator.completed(await evaluator.register(rows(0, 20), right, kind)) for kind in kinds]
    assert [event.earlier_verdicts for event in found] == [0, 0, 1, 1]

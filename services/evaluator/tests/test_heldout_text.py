"""Candidates judged by what held-out text is worth to them as they are served, with no process beside the evaluator."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio

from chassis.errors import Invalid, SartorError, Transient
from chassis.ids import new_id
from evaluator.app import build
from evaluator.comparison import Comparison
from evaluator.intervals import clustered_mean, t95
from evaluator.metrics import PERPLEXITY
from evaluator.settings import Settings
from evaluator.suites import TEXT_SUITES
from evaluator.text_report import decide
from evaluator.windows import Window, choose, read_windows
from schemas import DatasetRef, EvaluationCompleted, Interval, ModelDeleted, ModelRegistered, ObjectRef
from schemas.artifacts import HELDOUT, MANIFEST, AdapterManifest, HeldoutDocument, HeldoutText, HeldoutWindow
from schemas.http.inference_proxy import UNSUPPORTED
from testkit import Space, eventually
from testkit.alone import NOWHERE, Alone, alone
from testkit.stub_peer import StubPeer

BASE, ADAPTER = "tiny-base", "ad-1"
SUITE = TEXT_SUITES["pretrain"]
WORDS = ("kumo", "bicycle", "返品", "warehouse", "order", "seven")
STUDENT = {4: 2.776, 5: 2.571, 8: 2.306, 9: 2.262, 30: 2.042, 49: 2.010, 999: 1.962, 100_000: 1.960}
"""The 97.5 % quantile by degrees of freedom, from a table."""


Gains = float | Callable[[str], float]
"""Nats that a candidate saves of each token of a text."""


def saved(gains: Gains, text: str) -> float:
    return gains(text.strip()) if callable(gains) else gains


def uneven(text: str) -> float:
    """A gain that is another one for each text, and clear over many."""
    return 0.4 + len(text) % 5 / 100


def by_luck(text: str) -> float:
    return (hashlib.sha256(text.encode()).digest()[0] - 127) / 100


@dataclass
class Scores(StubPeer):
    """inference_proxy, played: each word is a token, and what it is worth depends on who is asked and what is said.

    Attributes:
        gains: what the candidate saves.
        failing: by words of a text, what it is always answered with.
        adapter: who answers for the candidate.
        asked: how often each (model, text) was answered.
    """

    gains: Gains = 0.4
    failing: dict[str, SartorError] = field(default_factory=dict)
    adapter: str | None = ADAPTER
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        assert (path, ids) == ("/internal/evaluation/scores", ())
        model, text = options["json"]["model"], options["json"]["text"]
        for word, error in self.failing.items():
            if word in text:
                raise error
        self.asked[model, text] += 1
        gain = 0.0 if model == BASE else saved(self.gains, text)
        losses = [2 + len(word) % 3 - gain for word in text.split()[1:]]
        return {
            "logprobs": [-loss for loss in losses],
            "prompt_tokens": len(losses) + 1,
            "adapter_id": None if model == BASE else self.adapter,
            "cost": 0.25,
        }


def document(number: int, words: int = 40) -> str:
    said = (f"{WORDS[(number + place) % len(WORDS)]}{number}.{place}" for place in range(words - 1))
    return " ".join([f"page-{number}", *said])


def cut(text: str, words: int) -> list[tuple[int, int]]:
    """Windows of so many words, without a character between them."""
    ends = [place for place, letter in enumerate(text) if letter == " "][words - 1 :: words]
    return [*zip([0, *ends], [*ends, len(text)], strict=True)]


def listed(
    texts: Sequence[str],
    run_gain: Gains = 0.4,
    words: int = 10,
    kind: Literal["document", "rows"] = "rows",
    unit: Literal["documents", "passages"] = "documents",
) -> HeldoutText:
    """What a run says that held every second text out."""
    return HeldoutText(
        version=1,
        kind=kind,
        unit=unit,
        documents=[
            HeldoutDocument(
                line=line,
                windows=[
                    HeldoutWindow(
                        start=start, end=end, tokens=words - 1, base=3, adapter=3 - saved(run_gain, text[start:end])
                    )
                    for start, end in cut(text, words)
                ],
            )
            for line, text in enumerate(texts)
            if line % 2 == 0
        ],
    )


@dataclass
class Lonely:
    """An evaluator alone, and who it asks."""

    service: Alone
    proxy: Scores
    space: Space
    tenant: str = field(default_factory=lambda: new_id("tenant_"))

    def put(self, key: str, data: bytes) -> ObjectRef:
        self.service.objects.objects[key] = data
        return ObjectRef(bucket="sartor", key=key, sha256=hashlib.sha256(data).hexdigest(), size=len(data))

    async def register(self, texts: Sequence[str], heldout: HeldoutText | None, method: str = "pretrain") -> str:
        """A candidate that was trained on some of the texts; returns its id."""
        place = f"tenants/{self.tenant}/adapters/{new_id('ad-')}/"
        rows = heldout is None or heldout.kind == "rows"
        lines = [json.dumps({"text": f"\n{text} "}) if rows else text for text in texts]
        text = self.put(f"{place}text", "\n".join(lines).encode())
        files = {}
        if heldout is not None:
            ref = self.put(f"{place}{HELDOUT}", heldout.model_dump_json().encode())
            files = {HELDOUT: {"sha256": ref.sha256, "size": ref.size}}
        manifest = AdapterManifest.model_validate({"files": files, "base_id": BASE, "base_digest": "d"})
        event = ModelRegistered(
            tenant_id=self.tenant,
            model_id=f"ft:{BASE}:acme::{new_id('')[:8]}",
            job_id=new_id("ftjob-"),
            base_model=BASE,
            adapter_id=ADAPTER,
            adapter_manifest=self.put(f"{place}{MANIFEST}", manifest.model_dump_json().encode()),
            dataset=DatasetRef(task="generation", train=text, heldout=text),
            method=method,
        )
        await self.service.broker.tell(event)
        return event.model_id

    async def completed(self, model_id: str) -> EvaluationCompleted:
        async def found() -> list[EvaluationCompleted]:
            self.service.seconds += 1  # what was put off is due
            return [one for one in self.service.broker.of(EvaluationCompleted) if one.model_id == model_id]

        [event] = await eventually(found, within=20)
        return event

    async def judged(self, texts: Sequence[str], heldout: HeldoutText | None) -> EvaluationCompleted:
        return await self.completed(await self.register(texts, heldout))

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
    proxy, space = Scores(), Space(NOWHERE, folder)
    settings = space.settings(
        Settings, "evaluator", evaluator_poll_seconds=0.02, evaluator_windows=40, evaluator_retry_seconds=0.1
    )
    async with alone(build, settings, peers={"inference_proxy": proxy, "registry": proxy}) as service:
        yield Lonely(service, proxy, space)


TEXTS = [document(number) for number in range(20)]


async def test_a_candidate_that_is_less_surprised_by_every_document_passes(evaluator: Lonely) -> None:
    evaluator.proxy.gains = uneven
    event = await evaluator.judged(TEXTS, listed(TEXTS, uneven))
    assert (event.verdict, event.metric) == ("pass", "heldout_perplexity"), event.reason
    assert "(lower is better)" in event.reason
    assert "over 10 documents)" in event.reason
    base, candidate = event.scores["base"], event.scores["candidate"]
    assert event.measured == {"heldout_perplexity": candidate}
    assert (base.n, candidate.n) == (10, 10)
    assert candidate.low < candidate.value < base.value < base.high
    assert 0.4 <= math.log(base.value / candidate.value) <= 0.45
    evidence = await evaluator.evidence(event)
    assert evidence["suite"] == {"name": "heldout_text", "version": 2}
    assert evidence["interval_over"] == {"unit": "documents", "n": 10}
    assert evidence["differences"]["candidate - base"]["value"] == pytest.approx(math.log(base.value / candidate.value))
    assert evidence["tokens"] == 10 * 4 * 9
    assert [one["line"] for one in evidence["documents"]] == list(range(1, 21, 2))
    assert not any(word in json.dumps(evidence, ensure_ascii=False) for word in ("page-", *WORDS))
    assert (event.cost, evidence["cost"]["candidate"]["prompt_tokens"]) == (0.25 * 2 * 40, 400)
    assert {name: one.model_dump() for name, one in event.usage.items()} == evidence["cost"]


async def test_base_and_candidate_score_the_same_windows_once_and_none_holds_text_of_two_documents(
    evaluator: Lonely,
) -> None:
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    expected = {text[start:end] for text in TEXTS[::2] for start, end in cut(text, 10)}
    for model in (BASE, event.model_id):
        assert {text for name, text in evaluator.proxy.asked if name == model} == expected
    assert set(evaluator.proxy.asked.values()) == {1}


@pytest.mark.parametrize(
    ("gains", "verdict", "says"),
    [
        (-0.3, "fail", "It is no better: -0.300 nats a token"),
        (0.0, "fail", "It is no better"),
        (by_luck, "needs_human", "Whether it is better is not clear"),
    ],
    ids=["worse", "alike", "now so, now so"],
)
async def test_the_interval_of_the_gain_decides(evaluator: Lonely, gains: Gains, verdict: str, says: str) -> None:
    evaluator.proxy.gains = gains
    event = await evaluator.judged(TEXTS, listed(TEXTS, gains))
    assert (event.verdict, says in event.reason) == (verdict, True), event.reason


@pytest.mark.parametrize(("served", "verdict"), [(0.4, "pass"), (0.44, "pass"), (0.0, "needs_human")])
async def test_what_is_served_must_gain_what_the_run_measured(evaluator: Lonely, served: float, verdict: str) -> None:
    evaluator.proxy.gains = served
    event = await evaluator.judged(TEXTS, listed(TEXTS, run_gain=0.4))
    assert event.verdict == verdict, event.reason
    if verdict == "needs_human":
        assert "the training run measured +0.400 on the same text, and they may differ by 0.05" in event.reason
        assert set(event.scores) == {"base", "candidate"}, "a person sees what was measured"
    assert (await evaluator.evidence(event))["training_run"] == {"gain": 0.4, "tolerance": 0.05}


async def test_the_base_model_is_not_taken_for_the_candidate(evaluator: Lonely) -> None:
    evaluator.proxy.adapter = None
    event = await evaluator.judged(TEXTS, listed(TEXTS, run_gain=0.0))
    assert event.verdict == "needs_human"
    assert "was answered for by 'None', which is not what is tested" in event.reason
    assert event.scores == {}


async def test_an_engine_that_cannot_score_is_asked_once_and_a_person_decides(evaluator: Lonely) -> None:
    unable = Invalid("echo: the engine of this model does not tell what a prompt is worth.", code=UNSUPPORTED)
    evaluator.proxy.failing = {f"page-{number}": unable for number in range(20)}
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    assert event.verdict == "needs_human"
    assert f"'{BASE}' cannot be asked what a text is worth to it." in event.reason
    assert "does not tell what a prompt is worth" in event.reason
    assert evaluator.proxy.asked.total() == 0


async def test_a_window_that_one_refuses_is_left_out_for_both(evaluator: Lonely) -> None:
    evaluator.proxy.failing = {"page-4": Invalid("too long", code="context_length_exceeded")}
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    assert event.verdict == "pass", event.reason
    evidence = await evaluator.evidence(event)
    assert (evidence["windows_asked"], evidence["windows_counted"], evidence["tokens"]) == (40, 39, 39 * 9)
    refused = {(one["row"], one["system"]) for one in evidence["windows_refused"]}
    assert refused == {(8, "base"), (8, "candidate")}


async def test_where_nothing_can_be_scored_nothing_is_known(evaluator: Lonely) -> None:
    evaluator.proxy.failing = {word: Invalid("too long") for word in WORDS}
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    assert (event.verdict, event.scores) == ("needs_human", {})
    assert "No held-out text could be scored" in event.reason
    assert "too long" in event.reason


async def test_a_later_attempt_asks_only_what_is_not_scored_yet(evaluator: Lonely) -> None:
    evaluator.proxy.failing = {"page-10": Transient("out of memory")}
    model = await evaluator.register(TEXTS, listed(TEXTS))

    async def put_back() -> list[dict[str, Any]]:
        async with evaluator.service.http(evaluator.space.headers("evaluator", evaluator.tenant)) as http:
            found = (await http.get("/v1/evals/evaluations", params={"model": model})).json()["data"]
        return [one for one in found if one["last_error"]]

    [shown] = await eventually(put_back)
    assert shown["progress"]["total"] == 80
    assert 0 < shown["progress"]["done"] < 80
    evaluator.proxy.failing = {}
    event = await evaluator.completed(model)
    assert event.verdict == "pass", event.reason
    assert set(evaluator.proxy.asked.values()) == {1}
    assert evaluator.proxy.asked.total() == 80


async def test_a_run_that_did_not_say_what_it_held_out_is_left_to_a_person(evaluator: Lonely) -> None:
    event = await evaluator.judged(TEXTS, None)
    assert event.verdict == "needs_human"
    assert "did not say which text it held out" in event.reason
    assert evaluator.proxy.asked.total() == 0


async def test_a_text_that_is_another_one_is_left_to_a_person(evaluator: Lonely) -> None:
    event = await evaluator.judged([f"{text}." for text in TEXTS[:3]], listed(TEXTS))
    assert event.verdict == "needs_human"
    assert "does not hold the text that its run says it held out" in event.reason


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("text", "The text that the model learned from was deleted"),
        (HELDOUT, "in a way that this release does not know"),
    ],
)
async def test_what_is_gone_or_of_a_later_release_is_said_at_once(evaluator: Lonely, lost: str, why: str) -> None:
    def put(key: str, data: bytes) -> ObjectRef:
        if key.endswith(f"/{lost}") and lost == HELDOUT:
            data = data.replace(b'"version":1', b'"version":2')
        ref = Lonely.put(evaluator, key, data)
        if key.endswith("/text") and lost == "text":
            del evaluator.service.objects.objects[key]
        return ref

    evaluator.put = put  # type: ignore[method-assign]
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    assert event.verdict == "needs_human"
    assert why in event.reason
    assert "attempts" not in event.reason


async def test_of_an_only_document_the_passages_are_counted(evaluator: Lonely) -> None:
    text = document(0, 800)
    evaluator.proxy.gains = uneven
    event = await evaluator.judged([text], listed([text], uneven, 20, kind="document", unit="passages"))
    assert event.verdict == "pass", event.reason
    assert event.scores["base"].n == 40 * 19 // 32
    assert (await evaluator.evidence(event))["interval_over"] == {"unit": "passages", "n": 23}


async def test_no_score_is_left_once_the_model_is_deleted(evaluator: Lonely) -> None:
    event = await evaluator.judged(TEXTS, listed(TEXTS))
    deleted = ModelDeleted(tenant_id=evaluator.tenant, model_id=event.model_id, job_id="ftjob-1", adapter_id=ADAPTER)
    await evaluator.service.broker.tell(deleted)
    folder = f"tenants/{evaluator.tenant}/evaluations/"
    await eventually(lambda: not [key for key in evaluator.service.objects.objects if key.startswith(folder)])
    assert not evaluator.service.documents["answers"].documents


ONE = HeldoutWindow(start=0, end=3, tokens=2, base=1.0, adapter=0.5)


@pytest.mark.parametrize(
    ("line", "windows"),
    [
        (1, [ONE]),
        (0, [ONE.model_copy(update={"end": 9})]),
        (0, [ONE.model_copy(update={"start": 3})]),
        (0, [ONE, ONE]),
    ],
    ids=["no such line", "beyond the document", "of nothing", "twice"],
)
def test_places_that_are_not_in_the_text_are_refused(line: int, windows: list[HeldoutWindow]) -> None:
    heldout = HeldoutText(
        version=1, kind="rows", unit="documents", documents=[HeldoutDocument(line=line, windows=windows)]
    )
    with pytest.raises(Invalid, match="does not hold the text"):
        read_windows(b'{"text": "a b c d"}', heldout)


def test_windows_stand_in_the_document_without_the_white_space_around_it() -> None:
    said = HeldoutDocument(line=0, windows=[ONE, ONE.model_copy(update={"start": 3, "end": 7})])
    for kind, data in (("rows", b'{"text": "\\n\\n a b c d\\n"}'), ("document", b"\n\n a b c d\n")):
        heldout = HeldoutText(version=1, kind=kind, unit="documents", documents=[said])  # type: ignore[arg-type]
        assert [one.text for one in read_windows(data, heldout)] == ["a b", " c d"]


def windows(sizes: Sequence[int]) -> list[Window]:
    lines = [line for line, size in enumerate(sizes) for _ in range(size)]
    return [Window(index, line, "x", 1, 0.0) for index, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("sizes", "most", "by_line"),
    [
        ([3, 1, 2], 10, {0: 3, 1: 1, 2: 2}),
        ([100, 1, 2], 10, {0: 3, 1: 1, 2: 2}),
        ([5] * 20, 10, dict.fromkeys(range(1, 20, 2), 1)),
        ([500], 10, {0: 10}),
    ],
)
def test_documents_share_the_windows_that_are_asked(sizes: list[int], most: int, by_line: dict[int, int]) -> None:
    chosen = choose(windows(sizes), most)
    assert Counter(one.line for one in chosen) == by_line
    assert len({one.index for one in chosen}) == len(chosen) <= most


def test_no_part_of_documents_is_asked_more_than_another() -> None:
    """Many begin with the same heading: were the first window asked of each, that would decide."""
    n_documents, each = 150, 5
    chosen = choose(windows([each] * n_documents), 200)
    where = Counter(one.index % each for one in chosen)
    assert len(chosen) == n_documents
    assert set(where) == set(range(each))
    assert max(where.values()) < 1.2 * min(where.values())
    assert [one.index for one in choose(windows([9]), 3)] == [1, 4, 7]


@pytest.mark.parametrize("n", [1, 5])
def test_few_documents_decide_nothing_however_clear_the_gain(n: int) -> None:
    gain = Comparison(Interval(value=0.4, low=0.39, high=0.41, n=n), 0.5**n)
    scores = {system: Interval(value=9.0, low=8.0, high=10.0, n=n) for system in ("base", "candidate")}
    verdict = decide(SUITE, scores, gain, 0.4, "documents", SUITE.fewest_documents)
    assert verdict.kind == "needs_human"
    assert f"too few held-out documents to say how sure that is: {n}, and at least 6 are needed" in verdict.reason


@pytest.mark.parametrize("freedom", STUDENT)
def test_the_interval_is_students(freedom: int) -> None:
    assert t95(freedom) == pytest.approx(STUDENT[freedom], rel=4e-3)


def test_what_a_document_says_fifty_times_weighs_no_more() -> None:
    once, often = (
        clustered_mean([[1.0], [2.0], [3.0], [6.0]]),
        clustered_mean([[1.0] * 50, [2.0] * 50, [3.0] * 50, [6.0] * 50]),
    )
    assert (once.value, once.high) == pytest.approx((often.value, often.high))
    assert once.high - once.value == pytest.approx(t95(3) * 2.1602469 / 2)
    assert clustered_mean([[1.0, 3.0], [2.0]]).value == 2.0, "a mean of tokens, not of documents"
    assert clustered_mean([[1.0, 2.0]]) == Interval(value=1.5, low=1.5, high=1.5, n=1)


def test_chance_alone_seldom_passes_however_uneven_the_documents() -> None:
    draw = random.Random(3)
    passed = 0
    for _ in range(600):
        sizes = [draw.randint(5, 60) for _ in range(12)]
        base = [[draw.gauss(3, 2)] * size for size in sizes]
        candidate = [[loss - gained for loss in unit] for unit, gained in zip(base, draws(draw, sizes), strict=True)]
        passed += PERPLEXITY.gain(candidate, base, 1).clear
    assert 0 < passed / 600 < 0.04


def draws(draw: random.Random, sizes: Sequence[int]) -> list[float]:
    return [draw.gauss(0, 0.5) for _ in sizes]


def test_perplexity_is_e_to_the_mean_loss_and_a_gain_is_paired() -> None:
    base, candidate = [[3.0, 1.0], [5.0]], [[2.0, 1.0], [4.0]]
    assert PERPLEXITY.interval(base).value == pytest.approx(math.exp(3))
    assert PERPLEXITY.gain(candidate, base, 1).interval.value == pytest.approx(2 / 3)
    assert math.isfinite(PERPLEXITY.interval([[5.0], [5000.0]]).high)

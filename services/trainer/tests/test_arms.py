"""Arms of jobs: fitted beside the training by a lane of their own, published once, and what the job makes of them."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from arms import prove, unpack
from chassis.errors import Invalid, NotFound, RateLimited, SartorError, Transient, WriteRefused
from schemas import (
    DatasetPrepared,
    DatasetRef,
    Event,
    FinetuneArmFitted,
    FinetuneFailed,
    FinetuneSucceeded,
    ModelDeleted,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ModelWaiting,
    ObjectRef,
    RowCounts,
)
from schemas.artifacts import BASE_FILE, DATA_REPORT, MANIFEST, EmbedderFacts
from schemas.http.rag_indexer import MOST_QUESTIONS, QuestionVectors
from testkit import eventually
from testkit.alone import NOWHERE, Alone, alone
from testkit.base_models import base_spec
from testkit.space import Space
from testkit.stub_peer import StubPeer
from trainer import worker
from trainer.app import build
from trainer.arms import giving_up, lane, rows
from trainer.arms.fitter import Fitter
from trainer.arms.lines import COMPLETED, Line, tell_lines
from trainer.arms.orders import Made, NoArm, Order
from trainer.domain import OPENAI_STATUS, Adapter, ArmFit, Failure, FittedArm, Job
from trainer.run.fork_server import ForkServer
from trainer.settings import Settings
from trainer.stages import stage_of, waiting_of
from trainer.store import Jobs
from trainer.use_cases import Requests
from work import GiveUp

REF = ObjectRef(bucket="sartor", key="k", sha256="0" * 64, size=1)
EMBEDDER = EmbedderFacts(id="made-up", digest="ab", dimensions=8)
NAME = "ft:b:o::1a2b"
LABELS = ("refund", "lost_card", "close_account")
TENANT = "tenant_a"
REPORT = "/v1/fine_tuning/jobs/ftjob-1/data_report"


def fitted(kind: Any = "head", arm_id: str = "arm-1") -> FittedArm:
    return FittedArm(
        kind=kind, arm_id=arm_id, manifest=REF, embedder=EMBEDDER, rows=9, fit_seconds=1, metrics={"head_accuracy": 0.9}
    )


def dataset(train: ObjectRef = REF) -> DatasetPrepared:
    return DatasetPrepared(
        tenant_id=TENANT,
        dataset=DatasetRef(
            dataset_id="ds-1", task="classification", manifest=REF, train=train, validation=REF, heldout=REF
        ),
        file_id="file-1",
        purpose="fine-tune",
        rows=RowCounts(train=80, validation=5, heldout=15),
    )


def waiting(arm: Any, what: Any = "approval", revision: int = 1) -> ModelWaiting:
    return ModelWaiting(
        tenant_id=TENANT,
        model_id=f"{NAME}@head",
        job_id="ftjob-1",
        waiting_for=what,
        revision=revision,
        reason="25 of 30.",
        arm=arm,
    )


def pin_of(arm: str | None, revision: int, kind: type[ModelPinned] | type[ModelUnpinned] = ModelPinned) -> Any:
    """A person pinned the arm, or the adapter, or that ended."""
    ids = {"tenant_id": TENANT, "job_id": "ftjob-1", "name": NAME, "decided_by": "user_1"}
    return kind(**ids, model_id=f"{NAME}@{arm}" if arm else NAME, arm=arm, revision=revision)


def enqueue(job: Job) -> None:
    job.enqueue(dataset(), None, {"n_epochs": 1}, 2)
    job.expect_arm()


BAD = Failure(code="gate_rejected", message="no better than its base")
STEPS: dict[str, Callable[[Job], object]] = {
    "enqueue": enqueue,
    "start": lambda job: job.start(2),
    "fit": lambda job: job.take_arm(fitted()),
    "no arm": lambda job: job.give_up_arm(3),
    "arm answers": lambda job: job.answer_by_arm(NAME, 3),
    "arm refused": lambda job: job.lose_arm(3),
    "train": lambda job: job.finish_training(
        Adapter(adapter_id="ad-1", manifest=REF, base_digest="d", trained_tokens=9, train_seconds=1, metrics={}), 3
    ),
    "refuse": lambda job: job.come_to_nothing(BAD, 4),
    "give up": lambda job: job.fail_training(BAD, 4),
    "lose rows": lambda job: job.lose_data("ds-1", BAD, 4),
    "promote": lambda job: job.succeed(NAME, 4),
    "cancel": lambda job: job.cancel(4),
    "pin": lambda job: job.arm.hear_of_pin(pin_of("head", 1)),
    "unpin": lambda job: job.arm.hear_of_pin(pin_of("head", 2, ModelUnpinned)),
    "pause": lambda job: job.pause(4),
}


def job(*steps: str) -> Job:
    made = Job(
        id="ftjob-1", tenant_id=TENANT, created_at=1, organization="o", base_model="b", training_file="f", seed=1
    )
    made.lease.fence = 1
    for step in steps:
        STEPS[step](made)
    return made


TRAINED = ("enqueue", "start", "fit", "train")


@pytest.mark.parametrize(
    ("steps", "state", "answers_by", "arm", "files"),
    [
        (("enqueue", "fit", "arm answers"), "queued", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "arm answers"), "running", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "arm answers", "pause"), "paused", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "arm refused"), "running", None, "over", "unwanted"),
        (("enqueue", "start", "fit", "arm answers", "arm refused"), "running", None, "over", "unwanted"),
        ((*TRAINED, "arm answers", "promote"), "succeeded", "adapter", "serving", "kept"),
        ((*TRAINED, "promote"), "succeeded", "adapter", "fitted", "kept"),
        ((*TRAINED, "promote", "arm answers"), "succeeded", "adapter", "serving", "kept"),
        (("enqueue", "start", "train", "promote"), "succeeded", "adapter", "over", "kept"),
        ((*TRAINED, "arm answers", "refuse"), "succeeded", "head", "serving", "kept"),
        ((*TRAINED, "refuse"), "awaiting_arm", None, "fitted", "kept"),
        ((*TRAINED, "refuse", "arm answers"), "succeeded", "head", "serving", "kept"),
        ((*TRAINED, "refuse", "arm refused"), "failed", None, "over", "unwanted"),
        ((*TRAINED, "arm refused", "refuse"), "failed", None, "over", "unwanted"),
        (("enqueue", "start", "train", "refuse"), "awaiting_arm", None, "to_fit", "kept"),
        (("enqueue", "start", "train", "refuse", "no arm"), "failed", None, "over", "kept"),
        (("enqueue", "start", "train", "no arm", "refuse"), "failed", None, "over", "kept"),
        (("enqueue", "start", "train", "refuse", "fit", "arm answers"), "succeeded", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "give up"), "awaiting_arm", None, "fitted", "kept"),
        (("enqueue", "start", "fit", "arm answers", "give up"), "succeeded", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "give up", "arm refused"), "failed", None, "over", "unwanted"),
        (("enqueue", "start", "lose rows"), "failed", None, "over", "kept"),
        (("enqueue", "start", "fit", "arm answers", "lose rows"), "succeeded", "head", "serving", "kept"),
        (("enqueue", "start", "fit", "arm answers", "cancel"), "cancelled", None, "over", "unwanted"),
        ((*TRAINED, "refuse", "cancel"), "cancelled", None, "over", "unwanted"),
        (("enqueue", "cancel", "fit"), "cancelled", None, "over", "kept"),
        (("enqueue", "no arm", "fit"), "queued", None, "over", "kept"),
        (("enqueue", "start", "fit", "arm answers", "pin"), "running", "head", "serving", "kept"),
        ((*TRAINED, "arm answers", "pin", "promote"), "succeeded", "head", "serving", "kept"),
        ((*TRAINED, "promote", "pin", "arm answers"), "succeeded", "head", "serving", "kept"),
        ((*TRAINED, "arm answers", "promote", "pin", "unpin"), "succeeded", "adapter", "serving", "kept"),
        ((*TRAINED, "arm answers", "promote", "unpin", "pin"), "succeeded", "adapter", "serving", "kept"),
        ((*TRAINED, "arm answers", "pin", "promote", "arm refused"), "succeeded", "adapter", "over", "unwanted"),
    ],
)
def test_what_becomes_of_a_job_with_an_arm(
    steps: tuple[str, ...], state: str, answers_by: str | None, arm: str, files: str
) -> None:
    made = job(*steps)
    assert (made.state, made.answers_by, made.arm.state, made.arm.files) == (state, answers_by, arm, files)
    assert (made.fine_tuned_model is not None) == (answers_by is not None)
    kinds = [event.type for event in made.take_pending()]
    assert kinds.count("finetune.arm_fitted.v1") == (1 if made.arm.made else 0)
    assert kinds.count("finetune.succeeded.v1") == (state == "succeeded")
    assert kinds.count("finetune.failed.v1") == (state == "failed")
    if state == "failed":
        assert made.error == BAD
    if "train" in steps and ("refuse" in steps or "cancel" in steps):
        assert made.adapter_files == "unwanted"


def test_of_two_fits_the_first_is_published() -> None:
    made = job("enqueue", "fit")
    made.take_arm(fitted(arm_id="arm-2"))
    assert made.arm.made == fitted()
    assert [event.type for event in made.take_pending()] == ["finetune.arm_fitted.v1"]


def test_a_job_that_waits_for_its_arm_is_told_as_one_that_is_tested() -> None:
    made = job(*TRAINED, "refuse")
    assert (OPENAI_STATUS[made.state], stage_of(made)) == ("running", "testing")
    made.wait(waiting("head"), 9)
    assert stage_of(made) == "awaiting_approval"
    assert f"{NAME}@head" in waiting_of(made).who  # type: ignore[union-attr]


def test_that_a_person_must_decide_about_the_arm_is_said_while_the_job_trains() -> None:
    made = job("enqueue", "start", "fit")
    assert waiting_of(made) is None
    made.wait(waiting("head"), 9)
    made.wait(waiting("head", "evaluation", revision=1), 10)
    said = waiting_of(made)
    assert stage_of(made) == "training"
    assert said is not None
    assert (said.since, f"{NAME}@head" in said.who) == (9, True)
    made.answer_by_arm(NAME, 11)
    assert waiting_of(made) is None


@pytest.mark.parametrize(
    ("steps", "stage"),
    [
        (("enqueue", "fit"), "queued"),
        (("enqueue", "start", "fit"), "training"),
        (("enqueue", "start", "fit", "pause"), "paused"),
        (TRAINED, "testing"),
    ],
)
def test_that_a_person_must_decide_about_the_arm_is_said_in_every_stage(steps: tuple[str, ...], stage: str) -> None:
    made = job(*steps)
    before = waiting_of(made)
    assert stage_of(made) == stage
    assert before is None or f"{NAME}@head" not in before.who
    made.wait(waiting("head"), 9)
    said = waiting_of(made)
    assert stage_of(made) == stage
    assert said is not None
    assert (f"{NAME}@head" in said.who, said.person) == (True, True)


def test_a_job_that_waits_for_its_arm_alone_says_that_and_not_that_its_adapter_is_tested() -> None:
    made = job("enqueue", "start", "train", "refuse")
    assert waiting_of(made).what.startswith("The training came to nothing; its quick way to answer is being fitted")  # type: ignore[union-attr]
    made = job(*TRAINED, "refuse")
    assert waiting_of(made).what.startswith("The training came to nothing; its quick way to answer is tested")  # type: ignore[union-attr]


def test_what_the_arm_waits_for_is_not_what_the_adapter_waits_for() -> None:
    made = job(*TRAINED)
    made.wait(waiting("head"), 9)
    assert stage_of(made) == "testing"


def test_a_job_of_an_earlier_release_has_no_arm_and_is_shown_as_before() -> None:
    stored = job("enqueue", "start", "train", "promote").to_document()
    del stored["arm"], stored["setback"]
    old = Job.model_validate({**stored, "id": "ftjob-1"})
    assert (old.arm.state, old.answers_by, old.state) == ("no", "adapter", "succeeded")


@pytest.mark.parametrize("said", ["heads", "head;nearest", "head,adapter"])
def test_a_kind_that_there_is_not_is_refused(said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trainer_arms"):
        Space(NOWHERE, tmp_path).settings(Settings, "trainer", trainer_arms=said)


def write(path: Path, messages: list[list[dict[str, Any]]]) -> None:
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_rows_without_question_or_answer_to_learn_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = [turn("system", "s"), turn("user", "where is it?"), turn("assistant", "lost_card")]
    write(
        path,
        [
            [turn("user", "a"), turn("assistant", "b", weight=0)],
            good,
            [turn("user", "a")],
            [turn("system", "s"), turn("assistant", "b")],
            [*good, turn("user", "and now?"), turn("assistant", "refund")],
            [turn("user", "my money"), turn("assistant", "refund")],
        ],
    )
    chosen = rows.choose(path, 1, shown_below=0.5)
    assert not chosen.generates
    assert [(row.question, row.answer) for row in rows.read(path, chosen)] == [
        ("where is it?", "lost_card"),
        ("where is it?\nlost_card\nand now?", "refund"),
        ("my money", "refund"),
    ]


def test_rows_whose_answers_come_once_are_shown_each_once_without_the_system_and_no_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    first = [turn("system", "s"), turn("user", "who?"), turn("assistant", "an owl", weight=1)]
    write(
        path,
        [
            first,
            [turn("developer", "d"), turn("user", "who?"), turn("assistant", "an owl")],
            [turn("user", "when?"), turn("assistant", "at night " * 10)],
            [turn("user", "what?"), turn("tool", "7"), turn("assistant", "seven")],
            *([turn("user", f"what is {number}?"), turn("assistant", f"it is {number}")] for number in range(30)),
        ],
    )
    monkeypatch.setattr(rows, "MOST_SHOWN_BYTES", 120)
    chosen = rows.choose(path, 1, shown_below=0.5)
    assert chosen.generates
    shown = [row.shown for row in rows.read(path, chosen)]
    assert len(shown) == len(set(shown)) == 31
    assert json.loads(shown[0]) == {"messages": [turn("user", "who?"), turn("assistant", "an owl")]}
    with pytest.raises(NoArm, match="10% at least must"):
        rows.choose(path, 1, shown_below=0)
    monkeypatch.setattr(rows, "MOST_SHOWN_BYTES", 20)
    with pytest.raises(NoArm, match="can be shown no row"):
        rows.choose(path, 1, shown_below=0.5)


@pytest.mark.parametrize(("share", "shown"), [(0.4, True), (0.6, False)])
def test_rows_are_shown_where_too_few_answers_come_again(tmp_path: Path, share: float, shown: bool) -> None:
    path = tmp_path / "train.jsonl"
    answers = ["yes" if number < 100 * share else f"it is {number}" for number in range(100)]
    write(path, [[turn("user", f"q{number}"), turn("assistant", answer)] for number, answer in enumerate(answers)])
    assert rows.choose(path, 1, shown_below=0.5).generates == shown
    assert not rows.choose(path, 1, shown_below=rows.SHOWN_BELOW["classification"]).generates


def test_many_rows_to_show_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    monkeypatch.setattr(rows, "MOST_ANSWER_BYTES", 500)
    write(path, [[turn("user", f"q{number}"), turn("assistant", f"a{number}")] for number in range(60)])
    found = list(rows.read(path, rows.choose(path, 1, shown_below=0.5)))
    assert 1 < len(found) < 10
    assert sum(len(row.shown) for row in found) <= 500
    assert [row.question for row in found] == sorted((row.question for row in found), key=lambda one: int(one[1:]))


def test_rows_that_ask_the_same_are_one_group_and_an_answer_is_held_once() -> None:
    embedded = lane.Embedded()
    said = QuestionVectors(embedder=EMBEDDER, vectors=base64.b64encode(np.ones(24, dtype="<f4").tobytes()).decode())
    asked = ("Where is  it?", "a"), ("where\nIS it?", "b"), ("When?", "a")
    embedded.take([rows.Row(question, answer, []) for question, answer in asked], said)
    assert embedded.groups[0] == embedded.groups[1] != embedded.groups[2]
    assert (embedded.answers, embedded.places) == ({"a": 0, "b": 1}, [0, 1, 0])


def order(places: list[int], groups: list[int], answers: list[str]) -> Order:
    return Order(
        kinds=["head", "nearest"],
        embedder=EMBEDDER,
        answers=answers,
        places=places,
        groups=groups,
        probes={0: "q"},
        seed=1,
        dataset={},
        code_version="1",
        created_at=1,
    )


def made_of(ordered: Order, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Made:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # which the process sets for itself
        monkeypatch.setenv(name, "1")
    from trainer.arms.process import make

    return make(ordered, vectors.astype(np.float32))[0]


def test_rows_that_ask_the_same_tell_nothing_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(1)
    vectors, places = chance.normal(size=(100, 8)), chance.integers(0, 4, 100)
    doubled = order([*places, *places], [*range(100)] * 2, ["a", "b", "c", "d"])
    made = made_of(doubled, np.vstack([vectors, vectors]), monkeypatch)
    assert max(made.metrics["nearest_accuracy"], made.metrics["head_accuracy"]) < 0.5


def test_a_long_answer_costs_its_length_once(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [0, 1] * 200 + [2]
    ordered = order(places, [*range(401)], ["a", "b", "long " * 20_000])
    assert len(ordered.model_dump_json()) < 110_000
    vectors = np.eye(8)[places] + np.random.default_rng(1).normal(size=(401, 8)) * 0.1
    tracemalloc.start()
    try:
        made = made_of(ordered, vectors, monkeypatch)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.kind is not None
    assert held < 20_000_000


def test_of_many_rows_some_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    monkeypatch.setattr(rows, "sample", lambda answers, seed: np.arange(len(answers))[seed::2])
    write(path, [[turn("user", f"q{number}"), turn("assistant", "a")] for number in range(6)])
    chosen = rows.choose(path, 1, shown_below=0)
    assert [row.question for row in rows.read(path, chosen)] == ["q1", "q3", "q5"]


@dataclass
class StubPeers(StubPeer):
    """The other services; vectors follow from the first word of a question.

    Attributes:
        error: what rag_indexer refuses with.
        broken: it leaves out a vector.
        breaks_at: portions of each attempt after which it is away.
        digests: of its embedder, by portion; the last one stays.
        before: what happens before it answers.
    """

    error: SartorError | None = None
    broken: bool = False
    breaks_at: int | None = None
    digests: list[str] = field(default_factory=lambda: ["ab"])
    before: Callable[[], Awaitable[None]] | None = None
    portions: list[int] = field(default_factory=list)

    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        assert (path, options["tenant_id"]) == ("/internal/embeddings", TENANT)
        if self.before is not None:
            await self.before()
        if self.error is not None:
            raise self.error
        texts = options["json"]["texts"]
        vectors = np.stack([vector_of(text) for text in texts])[int(self.broken) :]
        if self.breaks_at is not None and len(self.portions) % 2 == self.breaks_at:
            self.portions.append(0)
            raise Transient("rag_indexer cannot be reached.")
        digest = self.digests[min(len(self.portions), len(self.digests) - 1)]
        self.portions.append(len(texts))
        return {
            "embedder": {"id": "made-up", "digest": digest, "dimensions": 8},
            "vectors": base64.b64encode(vectors.astype("<f4").tobytes()).decode(),
        }


def vector_of(text: str) -> np.ndarray:
    """A unit vector near that of the first word."""
    word = text.split(maxsplit=1)[0]
    chance = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:8], 16))
    vector = np.eye(8)[LABELS.index(word) if word in LABELS else 5] + chance.normal(size=8) * 0.1
    return np.asarray(vector / np.linalg.norm(vector))


class Room:
    """A trainer by itself, whose jobs nobody trains."""

    def __init__(self, service: Alone, peers: StubPeers, space: Space) -> None:
        self.service, self.peers, self.space = service, peers, space
        assert service.app is not None
        self.objects = service.app.state.service.objects
        self.jobs, self.fits = service.app.state.service._stores

    async def queue(self, labels: Sequence[str] = LABELS * 30, answers: Sequence[str] | None = None) -> DatasetPrepared:
        """A job whose rows are stored: a question of each label, and the label as the answer, or another."""
        await self.ask()
        messages = [
            [turn("user", f"{label} {number}"), turn("assistant", answer)]
            for number, (label, answer) in enumerate(zip(labels, answers or labels, strict=True))
        ]
        content = "".join(json.dumps({"messages": one}) + "\n" for one in messages).encode()
        train = await self.objects.put_bytes(f"tenants/{TENANT}/datasets/ds-1/train.jsonl", content)
        await self.service.broker.tell(dataset(train), "ingest")
        return dataset(train)

    async def ask(self) -> None:
        made = Job(
            id="ftjob-1",
            tenant_id=TENANT,
            created_at=1_800_000_000,
            organization="o",
            base_model="b",
            training_file="file-1",
            seed=7,
        )
        await self.jobs.add(made)

    async def job(self) -> Job:
        found: Job = await self.jobs.get(TENANT, "ftjob-1")
        return found

    async def change(self, *steps: str) -> None:
        for step in steps:
            if step == "start":
                await self.jobs.claim({"_id": "ftjob-1"}, "nobody", 600)
            await self.jobs.update(TENANT, "ftjob-1", STEPS[step])

    def told(self) -> list[str]:
        lines = self.service.documents["job_events"].documents.values()
        return [line["message"] for line in sorted(lines, key=lambda line: line["order"])]

    def stored(self) -> list[str]:
        return sorted(key for key in self.service.objects.objects if "/arms/" in key)

    def working(self, name: str) -> Any:
        """What runs in the background under a name."""
        return self.service.app.state.service._background[name].__self__  # type: ignore[union-attr]

    @property
    def fitting(self) -> lane.ArmFitting:
        found: lane.ArmFitting = self.working("arms")._kind
        return found

    async def done(self) -> Job:
        """The job once its arm is fitted, or given up."""

        async def there() -> bool:
            return bool((await self.fits.get(TENANT, "ftjob-1")).state == "done")

        await eventually(there, within=60)
        return await self.job()

    async def put_off(self) -> None:
        """An attempt was made and nobody may make another, until the clock moves on."""

        async def there() -> bool:
            lease = (await self.fits.get(TENANT, "ftjob-1")).lease
            return bool(lease.owner == "" and lease.fence and lease.until_ms > self.service.seconds * 1000)

        await eventually(there, within=60)

    async def hear(self, kind: type[Event], **facts: Any) -> None:
        """The registry says something of the arm, unless `arm` is None."""
        arm = facts.pop("arm", "head")
        known = {
            "tenant_id": TENANT,
            "job_id": "ftjob-1",
            "model_id": f"{NAME}@head" if arm else NAME,
            "adapter_id": "arm-1" if arm else "ad-1",
            "arm": arm,
        }
        if kind is ModelPromoted:
            facts |= {"name": NAME if arm else "", "base_model": "b", "decided_by": "gate"}
        await self.service.broker.tell(kind(**known, **facts), "registry")


@asynccontextmanager
async def room_of(tmp_path: Path, **changes: Any) -> AsyncIterator[Room]:
    space = Space(NOWHERE, tmp_path)
    settings = space.settings(Settings, "trainer", trainer_work_dir=tmp_path / "work", **changes)
    peers = StubPeers()

    def without_training(*args: Any, **overrides: Any) -> Any:
        app = build(*args, **overrides)
        del app.state.service._background["worker"]
        return app

    by_name = dict.fromkeys(("accounts", "ingest", "registry", "rag_indexer"), peers)
    async with alone(without_training, settings, by_name) as service:
        yield Room(service, peers, space)


@pytest_asyncio.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr("trainer.sweep.SWEEP_SECONDS", 0.1)
    async with room_of(tmp_path) as made:
        yield made


async def test_an_arm_is_fitted_stored_and_published_once_while_the_job_waits_for_its_turn(room: Room) -> None:
    prepared = await room.queue()
    job = await room.done()
    assert (job.state, job.arm.state, job.fine_tuned_model) == ("queued", "fitted", None)
    [said] = await eventually(lambda: room.service.broker.of(FinetuneArmFitted))
    assert (said.arm, said.job_id, said.rows, said.embedder) == ("head", job.id, 90, EMBEDDER)
    assert said.dataset == prepared.dataset
    assert said.metrics["head_accuracy"] > 0.95
    assert said.metrics.keys() == {"head_accuracy", "nearest_accuracy", "commonest_accuracy"}
    assert room.peers.portions == [MOST_QUESTIONS, 90 - MOST_QUESTIONS]
    folder = f"tenants/{TENANT}/arms/{job.id}/1/"
    assert said.arm_manifest.key == f"{folder}{MANIFEST}"
    files = {key.removeprefix(folder): stored(room, key) for key in room.stored()}
    read = unpack(files.pop(MANIFEST), files)
    assert read.arm_id == said.arm_id
    assert sorted(read.answers) == sorted(LABELS)
    assert (read.manifest.seed, read.manifest.dataset) == (
        7,
        {"dataset_id": "ds-1", "manifest_sha256": REF.sha256},
    )
    vectors = np.stack([vector_of(probe.question) for probe in read.probes]).astype(np.float32)
    prove(read, vectors)
    assert room.told()[-1].startswith("A head was fitted to 90 rows in ")
    assert said.learning_curve is not None
    assert [point.rows for point in said.learning_curve.points] == [9, 18, 36, 72]
    assert room.told()[-1].endswith(said.learning_curve.said)


async def test_an_arm_is_fitted_as_soon_as_its_job_is_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By nobody's next look, which is an hour away."""
    often = lane.policy
    monkeypatch.setattr(lane, "policy", lambda settings: replace(often(settings), idle_seconds=3600.0))
    async with room_of(tmp_path) as room:
        await eventually(lambda: room.working("arms")._awake._waiters)  # it has looked, and found nothing
        await room.queue()
        assert (await room.done()).arm.state == "fitted"


def stored(room: Room, key: str) -> bytes:
    return bytes(room.service.objects.objects[key])


async def test_an_arm_waits_for_who_makes_vectors_and_is_given_up_after_an_hour(room: Room) -> None:
    room.peers.error = Transient("rag_indexer cannot be reached.")
    await room.queue()
    for _ in range(lane.MOST_FAILURES + 2):
        await room.put_off()
        room.service.seconds += lane.RETRY_SECONDS + 1
    assert (await room.job()).arm.state == "to_fit"
    room.service.seconds += lane.LONGEST_AWAY_SECONDS
    job = await room.done()
    assert (job.state, job.arm.state) == ("queued", "over")
    assert room.told()[-1].startswith("Nothing answers before the training is over: ")


async def test_an_arm_is_fitted_once_who_makes_vectors_is_back(room: Room) -> None:
    room.peers.error = Transient("rag_indexer cannot be reached.")
    await room.queue()
    await room.put_off()
    room.peers.error = None
    room.service.seconds += lane.RETRY_SECONDS + 1
    assert (await room.done()).arm.state == "fitted"


async def test_an_embedder_that_is_exchanged_between_portions_makes_no_arm_of_two(room: Room) -> None:
    room.peers.digests = ["ab", "cd"]
    await room.queue()
    await room.put_off()
    assert not room.stored()
    room.service.seconds += lane.RETRY_SECONDS + 1
    made = (await room.done()).arm.made
    assert made is not None
    assert made.embedder.digest == "cd"


@pytest.mark.parametrize(
    "error", [Transient("rag_indexer cannot be reached."), RateLimited("later"), NotFound("no such route")]
)
async def test_a_fit_that_was_ordered_long_ago_waits_as_long_as_any(room: Room, error: SartorError) -> None:
    await room.fits.add(ArmFit(id="ftjob-1", tenant_id=TENANT, created_at=1))
    room.peers.error = error
    await room.queue()
    for _ in range(lane.MOST_FAILURES + 1):
        await room.put_off()
        room.service.seconds += lane.RETRY_SECONDS + 1
    room.peers.error = None
    room.service.seconds += lane.RETRY_SECONDS + 1
    assert (await room.done()).arm.state == "fitted"


async def test_what_was_away_and_came_back_is_away_from_then_on(room: Room) -> None:
    room.peers.error = Transient("rag_indexer cannot be reached.")
    await room.queue()
    await room.put_off()
    room.peers.error, room.peers.breaks_at = None, 1
    room.service.seconds += lane.LONGEST_AWAY_SECONDS - 60
    await eventually(lambda: room.peers.portions)
    await room.put_off()
    room.service.seconds += 120
    await eventually(lambda: len(room.peers.portions) > 1)
    assert (await room.job()).arm.state == "to_fit"


async def test_an_embedder_that_is_exchanged_for_ever_is_not_waited_for(room: Room) -> None:
    room.peers.digests = ["ab", "cd"] * 9
    await room.queue()
    await room.put_off()
    room.service.seconds += lane.LONGEST_AWAY_SECONDS + 1
    assert (await room.done()).arm.state == "over"
    assert len(room.peers.portions) == 4
    assert "two different ones" in room.told()[-1]


@pytest.mark.parametrize("changes", [{"trainer_generating_arms": False}, {"trainer_arms": "head"}])
async def test_nothing_is_embedded_where_the_answers_tell_that_there_will_be_no_arm(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    async with room_of(tmp_path, **changes) as room:
        await room.queue([f"text {number}" for number in range(95)] + ["refund"] * 5)
        assert (await room.done()).arm.state == "over"
        assert room.told()[-1].endswith("5% of its rows have an answer that comes again, 10% at least must.")
        assert room.peers.portions == []


async def test_rows_that_the_base_model_is_shown_are_found_again_by_what_they_ask(room: Room, tmp_path: Path) -> None:
    folder = room.fitting._models_dir = tmp_path / "models"
    (folder / "b").mkdir(parents=True)
    spec = base_spec("b")
    (folder / "b" / BASE_FILE).write_text(spec.model_dump_json())
    await room.queue([f"{LABELS[number % 3]} {number}" for number in range(30)])
    job = await room.done()
    assert job.arm.state == "fitted"
    [said] = await eventually(lambda: room.service.broker.of(FinetuneArmFitted))
    assert (said.arm, said.generates, said.base_digest) == ("nearest", True, spec.digest)
    assert (said.rows, said.metrics, said.learning_curve) == (30, {}, None)
    assert room.told()[-1].startswith("The vectors of 30 rows were made in ")
    folder_of = said.arm_manifest.key.removesuffix(MANIFEST)
    files = {key.removeprefix(folder_of): stored(room, key) for key in room.stored()}
    read = unpack(files.pop(MANIFEST), files)
    assert read.manifest.generates
    asked = f"{LABELS[1]} 1 1"
    closest = read.arm.confidences(vector_of(asked)[None].astype(np.float32))[0].argmax()
    assert json.loads(read.answers[closest]) == {"messages": [turn("user", asked), turn("assistant", f"{LABELS[1]} 1")]}
    prove(read, np.stack([vector_of(probe.question) for probe in read.probes]).astype(np.float32))


async def test_no_rows_are_shown_to_a_base_model_that_cannot_be_read(room: Room) -> None:
    await room.queue([f"text {number}" for number in range(30)])
    assert (await room.done()).arm.state == "over"
    assert room.told()[-1].endswith("the base model 'b' cannot be read here.")


async def test_nothing_is_embedded_where_answers_are_too_long(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ANSWER_BYTES", len("".join(LABELS)) - 1)
    await room.queue()
    assert (await room.done()).arm.state == "over"
    assert room.peers.portions == []


async def test_nothing_is_embedded_for_an_installation_that_tries_no_arm_any_more(room: Room) -> None:
    room.fitting._kinds = []
    await room.queue()
    assert (await room.done()).arm.state == "over"
    assert room.told()[-1].endswith("this installation tries none any more.")
    assert room.peers.portions == []


async def test_a_worker_that_lost_a_fit_gives_no_arm_up(room: Room) -> None:
    room.peers.error = Transient("rag_indexer cannot be reached.")
    await room.queue()
    await room.put_off()
    with pytest.raises(WriteRefused):
        await room.fitting.ended(await room.fits.get(TENANT, "ftjob-1"), GiveUp("it took too long."))
    assert (await room.job()).arm.state == "to_fit"
    assert not [line for line in room.told() if line.startswith("Nothing answers")]


async def test_why_a_job_fails_is_told_where_its_training_is_given_up_while_its_arm_is(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    during(monkeypatch, giving_up, lambda: room.change("start", "train", "refuse"))
    room.fitting._kinds = []
    await room.queue()
    assert (await room.done()).error == BAD
    assert room.told()[-1] == BAD.message


async def test_that_a_job_is_over_is_told_where_its_arm_is_let_through_while_its_training_is_given_up(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during(monkeypatch, worker, lambda: room.change("arm answers"))
    await room.queue()
    await room.done()
    await room.change("start")
    settings = Space(NOWHERE, tmp_path).settings(Settings, "trainer")
    training = worker.Training(room.fitting._jobs, room.fitting._objects, ForkServer(), settings)
    await training.ended(await room.job(), GiveUp("no better than its base"))
    assert (await room.job()).state == "succeeded"
    assert room.told()[-1] == COMPLETED


def during(monkeypatch: pytest.MonkeyPatch, where: ModuleType, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Have something happen between the first lines that a module tells and what it writes then."""
    told: list[Job] = []

    async def tell_lines_and_more(jobs: Jobs, job: Job, lines: Sequence[Line]) -> None:
        await tell_lines(jobs, job, lines)
        told.append(job)
        if len(told) == 1:
            await meanwhile()

    monkeypatch.setattr(where, "tell_lines", tell_lines_and_more)


async def test_a_job_that_expects_an_arm_which_nobody_fits_is_told_so(room: Room) -> None:
    await room.ask()
    await room.change("enqueue", "start", "train", "refuse")

    async def failed() -> bool:
        return (await room.job()).state == "failed"

    await eventually(failed)
    assert room.told()[-2:] == ["Nothing answers before the training is over: its fit was lost.", BAD.message]


async def test_a_job_that_another_replica_queued_without_an_arm_expects_none(room: Room) -> None:
    await room.ask()
    waits = await room.job()
    await room.jobs.update(TENANT, "ftjob-1", lambda it: it.enqueue(dataset(), None, {"n_epochs": 1}, 2))
    await room.fitting._jobs.learn(dataset())
    await room.working("sweep")._data.advance(waits)
    assert (await room.done()).arm.state == "no"


async def test_who_cancels_a_job_whose_model_answers_is_told_that_it_goes_too(room: Room, monkeypatch: Any) -> None:
    await room.queue()
    await room.done()
    await room.change("start", "arm answers")
    nobody = room.peers
    requests = Requests(room.fitting._jobs, room.working("sweep")._data, nobody, nobody, 1)
    await requests.cancel(TENANT, "ftjob-1", {})
    assert room.told()[-1] == f"The job was cancelled. Its model {NAME} goes too and answers no more."


@pytest.mark.parametrize("error", [None, Invalid("too many")])
async def test_what_cannot_be_fitted_is_given_up_and_the_job_goes_on(room: Room, error: SartorError | None) -> None:
    room.peers.error, room.peers.broken = error, error is None
    await room.queue()
    for _ in range(lane.MOST_FAILURES - 1 if isinstance(error, Invalid) else 0):
        await room.put_off()
        room.service.seconds += lane.RETRY_SECONDS + 1
    if error is None:
        await room.put_off()
        room.service.seconds += lane.LONGEST_AWAY_SECONDS + 1
    job = await room.done()
    assert (job.state, job.arm.state, room.stored()) == ("queued", "over", [])
    assert room.service.broker.of(FinetuneArmFitted) == []


async def test_an_arm_that_knows_no_more_than_the_commonest_answer_is_none(room: Room) -> None:
    await room.queue([LABELS[0]] * 40)
    job = await room.done()
    assert (job.arm.state, room.stored()) == ("over", [])
    assert "commonest answer" in room.told()[-1]


async def test_an_arm_of_a_job_that_ends_meanwhile_is_not_published_and_leaves_nothing(room: Room) -> None:
    async def cancel() -> None:
        await room.change("cancel")

    room.peers.before = cancel
    await room.queue(LABELS * 10)
    job = await room.done()
    assert (job.state, job.arm.made, room.stored()) == ("cancelled", None, [])
    assert room.service.broker.of(FinetuneArmFitted) == []


async def test_an_arm_that_another_attempt_published_meanwhile_stays_the_only_one(room: Room) -> None:
    async def publish() -> None:
        await room.change("fit")

    room.peers.before = publish
    await room.queue(LABELS * 10)
    job = await room.done()
    assert (job.arm.made, room.stored()) == (fitted(), [])
    assert len(await eventually(lambda: room.service.broker.of(FinetuneArmFitted))) == 1


async def test_a_fit_that_was_ordered_for_a_job_that_is_not_queued_yet_waits_for_it(room: Room) -> None:
    await room.fits.add(ArmFit(id="ftjob-1", tenant_id=TENANT, created_at=1_800_000_000))
    await room.ask()
    await room.put_off()
    assert (await room.fits.get(TENANT, "ftjob-1")).state == "to_fit"


async def test_without_kinds_no_arm_is_expected(tmp_path: Path) -> None:
    async with room_of(tmp_path, trainer_arms="") as room:
        await room.queue()
        assert (await room.job()).arm.state == "no"
        assert not room.service.documents["arm_fits"].documents


async def test_a_job_answers_by_its_arm_while_it_is_trained_and_says_so(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    for _ in range(2):
        await room.hear(ModelPromoted)
    job = await room.job()
    assert (job.state, job.fine_tuned_model, job.answers_by) == ("running", NAME, "head")
    assert room.told()[-1] == f"The model answers now by its head, as {NAME}; training goes on."
    await room.change("train")
    await room.hear(ModelRejected, arm=None, reason="0.91 to 0.92", code="arm_is_better")
    job = await room.job()
    assert (job.state, job.fine_tuned_model, job.answers_by, job.error) == ("succeeded", NAME, "head", None)
    assert room.told()[-2:] == [
        "The model was not let through: 0.91 to 0.92 The model goes on answering by its head.",
        "The job has successfully completed",
    ]
    room.service.seconds += 601  # the claim of who trains ends
    await eventually(lambda: room.service.documents["jobs"].documents["ftjob-1"]["adapter_files"] != "unwanted")
    job = await room.job()
    assert (job.adapter_files, job.arm.files) == ("deleted", "kept")
    assert len(room.stored()) == 5


async def test_a_job_whose_adapter_is_refused_waits_for_its_arm_and_fails_with_the_adapters_reason(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start", "train")
    await room.hear(ModelRejected, arm=None, reason="no better than its base")
    assert (await room.job()).state == "awaiting_arm"
    assert room.service.broker.of(FinetuneFailed) == []
    await room.hear(ModelRejected, reason="no better than the commonest answer")
    job = await room.job()
    assert job.error == Failure(code="gate_rejected", message="no better than its base")
    [said] = await eventually(lambda: room.service.broker.of(FinetuneFailed))
    assert said.message == "no better than its base"
    assert room.told()[-2:] == [
        "The model's head was not let through: no better than the commonest answer",
        "no better than its base",
    ]
    await eventually(lambda: not room.stored())
    assert (await eventually(room.job)).arm.files in ("unwanted", "deleted")


@pytest.mark.parametrize("first", ["refused", "withdrawn"])
async def test_a_job_whose_arm_is_withdrawn_and_whose_adapter_is_refused_fails_in_whatever_order_it_hears(
    room: Room, first: str
) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    await room.hear(ModelPromoted)
    await room.change("train")
    hear = {
        "refused": partial(room.hear, ModelRejected, arm=None, reason="no better than its base", withdrawn="head"),
        "withdrawn": partial(room.hear, ModelRetired, reason="The base model is better."),
    }
    await hear.pop(first)()
    job = await room.job()
    assert (job.state, job.fine_tuned_model) == ("failed" if first == "refused" else "evaluating", None)
    [later] = hear.values()
    await later()
    job = await room.job()
    assert job.error == Failure(code="gate_rejected", message="no better than its base")
    assert len(await eventually(lambda: room.service.broker.of(FinetuneFailed))) == 1
    assert room.service.broker.of(FinetuneSucceeded) == []
    assert "The model's head answers no more: The base model is better." in room.told()
    await eventually(lambda: not room.stored())


async def test_a_job_whose_adapter_answers_loses_a_withdrawn_arm_and_nothing_else(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    await room.hear(ModelPromoted)
    await room.change("train")
    await room.hear(ModelPromoted, arm=None)
    await room.hear(ModelRetired, reason="The base model is better.")
    job = await room.job()
    assert (job.state, job.fine_tuned_model, job.answers_by) == ("succeeded", NAME, "adapter")
    await eventually(lambda: not room.stored())


async def test_a_job_says_by_which_version_a_person_has_its_model_answer(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    await room.hear(ModelPromoted)
    await room.change("train")
    await room.hear(ModelPromoted, arm=None)
    before = len(room.told())
    for event, by in (
        (pin_of("head", 1), "head"),
        (pin_of(None, 1), "head"),
        (pin_of("head", 2, ModelUnpinned), "adapter"),
        (pin_of("head", 1), "adapter"),
        (pin_of(None, 2, ModelUnpinned), "adapter"),
        (pin_of("head", 3).model_copy(update={"hand_over_below": 0.875}), "head"),
    ):
        await room.service.broker.tell(event, "registry")
        assert (await room.job()).answers_by == by
    assert room.told()[before:] == [
        "The model answers by its head: a person pinned it.",
        "The model answers by its adapter: a person pinned it.",
        "The model's head is no longer pinned.",
        "The model's adapter is no longer pinned.",
        "The model answers by its head: a person pinned it. It hands over to the next where it is less than 87.5% "
        "sure.",
    ]


async def test_a_pin_of_a_job_that_is_not_there_any_more_is_nobodys(room: Room) -> None:
    await room.service.broker.tell(pin_of("head", 1), "registry")
    assert room.told() == []


async def test_a_name_that_is_taken_back_ends_the_job_and_one_version_does_not(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    await room.hear(ModelPromoted)
    await room.hear(ModelDeleted)
    job = await room.job()
    assert (job.state, job.fine_tuned_model, job.arm.state) == ("running", None, "over")
    await eventually(lambda: not room.stored())
    await room.hear(ModelDeleted, name=NAME)
    job = await room.job()
    assert (job.state, job.error and job.error.code) == ("failed", "model_deleted")


async def test_that_the_arm_waits_for_a_person_is_told_while_the_job_trains(room: Room) -> None:
    await room.queue()
    await room.done()
    await room.change("start")
    await room.service.broker.tell(waiting("head"), "registry")
    assert room.told()[-1].startswith("The model's head waits for a person with models:approve to decide; ")
    assert f"{NAME}@head" in room.told()[-1]


async def test_what_the_rows_tell_is_read_by_who_may_read_them_and_goes_with_the_arm(room: Room) -> None:
    labels = LABELS * 60
    wrong = {0: "lost_card", 61: "close_account"}
    await room.queue(labels, [wrong.get(number, label) for number, label in enumerate(labels)])
    await room.done()
    headers = room.space.headers("trainer", TENANT)
    async with room.service.http(headers) as http:
        shown = (await http.get(REPORT)).json()
        assert (shown["object"], shown["job_id"], shown["arm"], shown["rows"]) == (
            "fine_tuning.job.data_report",
            "ftjob-1",
            "head",
            180,
        )
        suspected = {row["question"]: (row["answer"], row["likelier"]) for row in shown["suspects"]}
        assert suspected == {"refund 0": ("lost_card", "refund"), "lost_card 61": ("close_account", "lost_card")}
        assert {(one["wanted"], one["given"]) for one in shown["confusions"]} == set(suspected.values())
        assert shown["said"] == [
            "What more rows would bring cannot be told: too few answers are wrong, or there are too few rows.",
            "The arm was at least 90% sure of 180 of 180 rows: 99% of these answers were right.",
            "Taken for another most often (once): lost_card, for refund.",
            "2 rows may have a wrong answer: look before you change one.",
        ]
        assert (await http.get(REPORT.replace("-1", "-2"))).status_code == 404
    for others in (
        room.space.headers("trainer", "tenant_other"),
        room.space.headers("trainer", TENANT, role="approver"),
    ):
        async with room.service.http(others) as http:
            assert (await http.get(REPORT)).status_code in (403, 404)
    await room.hear(ModelRejected, reason="worse", code="fail")
    await eventually(lambda: not room.stored())
    async with room.service.http(headers) as http:
        gone = await http.get(REPORT)
    assert gone.status_code == 404
    assert "goes with it" in gone.json()["error"]["message"]


PROCESS = """#!{python}
import os, sys, time
from trainer.arms import process

def tell(*_):
    {does}

process.tell = tell
sys.argv = sys.argv[2:]
process.main()
"""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ('raise IndexError("a secret row")', "in tell"),
        ("os._exit(9)", "9"),
        ("time.sleep(60)", "TimeoutError"),
        ("sys.exit(sys.stdout.buffer.write(b'{}') and 0)", "ValidationError"),
    ],
    ids=["raises", "is killed", "hangs", "says nothing"],
)
async def test_an_arm_is_none_the_worse_where_nothing_can_be_told_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, said: str
) -> None:
    places = [number % 3 for number in range(90)]
    vectors = np.stack([vector_of(f"{LABELS[place]} {row}") for row, place in enumerate(places)]).astype("<f4")
    asked = order(places, list(range(90)), list(LABELS))
    whole = await Fitter().fit(asked, [vectors.tobytes()])
    python = tmp_path / "python"
    python.write_text(PROCESS.format(python=sys.executable, does=does))
    python.chmod(0o700)
    monkeypatch.setattr("trainer.arms.fitter.sys.executable", str(python))
    monkeypatch.setattr("trainer.arms.fitter.LONGEST_REPORT_SECONDS", 1.0 if "sleep" in does else 60.0)
    with capture_logs() as logged:
        made = await Fitter().fit(asked, [vectors.tobytes()])
    assert whole.report is not None
    assert (made.report, made.files, made.kind) == (None, whole.files, whole.kind)
    [broke] = [line for line in logged if line["event"] == "data_report_broke"]
    assert said in str(broke)
    assert "secret" not in str(broke)


async def test_an_arm_without_a_report_is_published(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr("trainer.arms.fitter._report", nothing)
    await room.queue()
    await room.done()
    [event] = await eventually(lambda: room.service.broker.of(FinetuneArmFitted))
    assert event.learning_curve is None
    assert len(room.stored()) == 4
    assert "rows more" not in room.told()[-1]
    async with room.service.http(room.space.headers("trainer", TENANT)) as http:
        answer = await http.get(REPORT)
    assert answer.status_code == 404
    assert "no data report" in answer.json()["error"]["message"]


async def test_an_arm_of_an_earlier_release_has_no_report(room: Room) -> None:
    await room.ask()
    await room.change("fit")
    async with room.service.http(room.space.headers("trainer", TENANT)) as http:
        assert (await http.get(REPORT)).status_code == 404


async def test_what_no_job_names_of_arms_is_found(room: Room) -> None:
    await room.queue()
    await room.done()
    late = await room.objects.put_bytes(f"tenants/{TENANT}/arms/ftjob-1/9/answers.json", b"[]")
    foreign = await room.objects.put_bytes(f"tenants/{TENANT}/arms/ftjob-9/1/answers.json", b"[]")
    store = room.service.app.state.service._background["orphans"].__self__._folders["arms"]  # type: ignore[union-attr]
    assert f"tenants/{TENANT}/arms/ftjob-1/1/{DATA_REPORT}" in room.stored()
    found = await store(TENANT, {"ftjob-1": [*room.stored()[:5], late.key], "ftjob-9": [foreign.key]})
    assert (found.removable, found.unknown) == ([late.key], [foreign.key])

"""Arms of jobs: fitted beside the training by a lane of their own, published once, and what the job makes of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from arms import prove, unpack
from chassis.errors import Invalid, NotFound, SartorError, Transient
from schemas import (
    DatasetPrepared,
    DatasetRef,
    Event,
    FinetuneArmFitted,
    FinetuneFailed,
    ModelDeleted,
    ModelPromoted,
    ModelRejected,
    ModelWaiting,
    ObjectRef,
    RowCounts,
)
from schemas.artifacts import MANIFEST, EmbedderFacts
from schemas.http.rag_indexer import MOST_QUESTIONS
from testkit import eventually
from testkit.alone import NOWHERE, Alone, alone
from testkit.space import Space
from testkit.stub_peer import StubPeer
from trainer.app import build
from trainer.arms import lane, rows
from trainer.domain import OPENAI_STATUS, Adapter, ArmFit, Failure, FittedArm, Job
from trainer.settings import Settings
from trainer.stages import stage_of, waiting_of

REF = ObjectRef(bucket="sartor", key="k", sha256="0" * 64, size=1)
EMBEDDER = EmbedderFacts(id="made-up", digest="ab", dimensions=8)
NAME = "ft:b:o::1a2b"
LABELS = ("refund", "lost_card", "close_account")
TENANT = "tenant_a"


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
        ],
    )
    chosen = rows.choose(path, 1)
    assert list(rows.read(path, chosen)) == [
        ("where is it?", "lost_card"),
        ("where is it?\nlost_card\nand now?", "refund"),
    ]


def test_of_many_rows_some_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    monkeypatch.setattr(rows, "sample", lambda answers, seed: np.arange(len(answers))[seed::2])
    write(path, [[turn("user", f"q{number}"), turn("assistant", "a")] for number in range(6)])
    assert [question for question, _ in rows.read(path, rows.choose(path, 1))] == ["q1", "q3", "q5"]


@dataclass
class Elsewhere(StubPeer):
    """The other services; vectors follow from the first word of a question.

    Attributes:
        error: what rag_indexer refuses with.
        broken: it leaves out a vector.
        digests: of its embedder, by portion; the last one stays.
        before: what happens before it answers.
    """

    error: SartorError | None = None
    broken: bool = False
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

    def __init__(self, service: Alone, elsewhere: Elsewhere) -> None:
        self.service, self.elsewhere = service, elsewhere
        assert service.app is not None
        self.objects = service.app.state.service.objects
        self.jobs, self.fits = service.app.state.service._stores

    async def queue(self, labels: Sequence[str] = LABELS * 30) -> DatasetPrepared:
        """A job whose rows are stored: a question of each label, and the label as the answer."""
        await self.ask()
        messages = [
            [turn("user", f"{label} {number}"), turn("assistant", label)] for number, label in enumerate(labels)
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
    settings = Space(NOWHERE, tmp_path).settings(Settings, "trainer", trainer_work_dir=tmp_path / "work", **changes)
    elsewhere = Elsewhere()

    def without_training(*args: Any, **overrides: Any) -> Any:
        app = build(*args, **overrides)
        del app.state.service._background["worker"]
        return app

    peers = dict.fromkeys(("accounts", "ingest", "registry", "rag_indexer"), elsewhere)
    async with alone(without_training, settings, peers) as service:
        yield Room(service, elsewhere)


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
    assert room.elsewhere.portions == [MOST_QUESTIONS, 90 - MOST_QUESTIONS]
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


def stored(room: Room, key: str) -> bytes:
    return bytes(room.service.objects.objects[key])


async def test_an_arm_waits_for_who_makes_vectors_and_is_given_up_after_an_hour(room: Room) -> None:
    room.elsewhere.error = Transient("rag_indexer cannot be reached.")
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
    room.elsewhere.error = Transient("rag_indexer cannot be reached.")
    await room.queue()
    await room.put_off()
    room.elsewhere.error = None
    room.service.seconds += lane.RETRY_SECONDS + 1
    assert (await room.done()).arm.state == "fitted"


async def test_an_embedder_that_is_exchanged_between_portions_makes_no_arm_of_two(room: Room) -> None:
    room.elsewhere.digests = ["ab", "cd"]
    await room.queue()
    await room.put_off()
    assert not room.stored()
    room.service.seconds += lane.RETRY_SECONDS + 1
    made = (await room.done()).arm.made
    assert made is not None
    assert made.embedder.digest == "cd"


@pytest.mark.parametrize("error", [None, Invalid("too many"), NotFound("no such route")])
async def test_what_cannot_be_fitted_is_given_up_and_the_job_goes_on(room: Room, error: SartorError | None) -> None:
    room.elsewhere.error, room.elsewhere.broken = error, error is None
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

    room.elsewhere.before = cancel
    await room.queue(LABELS * 10)
    job = await room.done()
    assert (job.state, job.arm.made, room.stored()) == ("cancelled", None, [])
    assert room.service.broker.of(FinetuneArmFitted) == []


async def test_an_arm_that_another_attempt_published_meanwhile_stays_the_only_one(room: Room) -> None:
    async def publish() -> None:
        await room.change("fit")

    room.elsewhere.before = publish
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
    assert (job.adapter_files, job.arm.files) != ("kept", "unwanted")
    assert room.stored()


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


async def test_what_no_job_names_of_arms_is_found(room: Room) -> None:
    await room.queue()
    await room.done()
    late = await room.objects.put_bytes(f"tenants/{TENANT}/arms/ftjob-1/9/answers.json", b"[]")
    foreign = await room.objects.put_bytes(f"tenants/{TENANT}/arms/ftjob-9/1/answers.json", b"[]")
    store = room.service.app.state.service._background["orphans"].__self__._folders["arms"]  # type: ignore[union-attr]
    found = await store(TENANT, {"ftjob-1": [*room.stored()[:4], late.key], "ftjob-9": [foreign.key]})
    assert (found.removable, found.unknown) == ([late.key], [foreign.key])

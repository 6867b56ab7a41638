"""The states of a job: what may follow what, and which events are recorded."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import Conflict
from schemas import DatasetPrepared, DatasetRef, ModelWaiting, ObjectRef, RowCounts
from trainer.domain import ENDED, OPENAI_STATUS, Adapter, Checkpoint, Failure, Job
from trainer.stages import stage_of, waiting_of

REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
DATASET = DatasetPrepared(
    tenant_id="t",
    dataset=DatasetRef(dataset_id="ds-1", task="classification", manifest=REF, train=REF, validation=REF, heldout=REF),
    file_id="file-1",
    purpose="user_data",
    rows=RowCounts(train=80, validation=5, heldout=15),
    labels=3,
)
ADAPTER = Adapter(adapter_id="ad-1", manifest=REF, base_digest="d", trained_tokens=9, train_seconds=1, metrics={})


def waiting(what: str, revision: int = 1, reason: str = "") -> ModelWaiting:
    return ModelWaiting(
        tenant_id="t",
        model_id="ft:x",
        job_id="ftjob-1",
        waiting_for=what,  # type: ignore[arg-type]
        revision=revision,
        reason=reason,
    )


STEPS = {
    "enqueue": lambda job: job.enqueue(DATASET, None, {"n_epochs": 1}, 2),
    "start": lambda job: job.start(2),
    "train": lambda job: job.finish_training(ADAPTER, 2),
    "succeed": lambda job: job.succeed("ft:x", 2),
    "fail": lambda job: job.fail(Failure(code="c", message="m"), 2),
    "cancel": lambda job: job.cancel(2),
    "pause": lambda job: job.pause(2),
    "resume": lambda job: job.resume(2),
    "give_place": lambda job: job.give_place(2),
    "wait": lambda job: job.wait(waiting("approval"), 2),
}


def job(*steps: str) -> Job:
    made = Job(id="ftjob-1", tenant_id="t", created_at=1, organization="o", base_model="b", training_file="f", seed=1)
    made.lease.fence = 1
    for step in steps:
        STEPS[step](made)
    return made


def events(of: Job) -> list[str]:
    return [event.type for event in of.take_pending()]


WAY = ("enqueue", "start", "train", "succeed")


def test_the_straight_way() -> None:
    done = job(*WAY)
    assert done.state == "succeeded"
    assert done.fine_tuned_model == "ft:x"
    assert events(done) == ["finetune.started.v1", "finetune.trained.v1", "finetune.succeeded.v1"]


@pytest.mark.parametrize("last", ["succeed", "fail", "cancel"])
@pytest.mark.parametrize("then", list(STEPS))
def test_an_ended_job_never_changes(last: str, then: str) -> None:
    ended = job("enqueue", "start", "train", last)
    before = ended.model_copy(deep=True)
    events(ended)
    try:
        STEPS[then](ended)
    except Conflict:
        pass
    assert ended.state == before.state
    assert ended.model_dump() == before.model_dump()
    assert events(ended) == []


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        (("pause",), "paused"),
        (("pause", "resume"), "waiting_for_dataset"),
        (("pause", "enqueue"), "paused"),
        (("pause", "enqueue", "resume"), "queued"),
        (("enqueue", "pause", "resume"), "queued"),
        (("enqueue", "start", "pause"), "paused"),
        (("enqueue", "start", "pause", "resume", "start"), "running"),
        (("enqueue", "start", "start"), "running"),
        (("enqueue", "start", "give_place"), "queued"),
        (("enqueue", "start", "pause", "give_place"), "paused"),
        (("enqueue", "start", "give_place", "train"), "evaluating"),
        (("enqueue", "enqueue"), "queued"),
        (("enqueue", "start", "train", "cancel"), "cancelled"),
    ],
)
def test_side_ways(steps: tuple[str, ...], state: str) -> None:
    assert job(*steps).state == state


@pytest.mark.parametrize(
    "steps",
    [("start",), ("train",), ("enqueue", "start", "pause", "train"), (*WAY[:3], "train"), (*WAY[:3], "pause")],
)
def test_wrong_turns_are_refused(steps: tuple[str, ...]) -> None:
    with pytest.raises(Conflict):
        job(*steps)


def test_the_last_two_checkpoints_are_kept_to_go_on_from() -> None:
    reached = [Checkpoint(step=step, manifest=REF) for step in (5, 5, 9)]
    tried = job("enqueue", "start")
    tried.record_checkpoint(reached[0])
    tried.drop_checkpoint()
    assert tried.checkpoints == []
    tried.record_checkpoint(reached[1])
    tried.record_checkpoint(reached[2])
    assert tried.checkpoints == [reached[2], reached[1]]
    tried.drop_checkpoint()
    assert tried.checkpoints == [reached[1]]


@pytest.mark.parametrize("halt", [("pause",), ("pause", "resume")])
def test_a_checkpoint_stored_after_a_halt_is_kept_and_after_the_end_refused(halt: tuple[str, ...]) -> None:
    checkpoint = Checkpoint(step=5, manifest=REF)
    halted = job("enqueue", "start", *halt)
    halted.record_checkpoint(checkpoint)
    assert halted.checkpoint == checkpoint
    with pytest.raises(Conflict):
        job("enqueue", "start", "cancel").record_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("steps", "stage", "waits"),
    [
        ((), "waiting_for_file", "f must be read"),
        (("enqueue",), "queued", "worker"),
        (("enqueue", "start"), "training", None),
        (("enqueue", "start", "pause"), "paused", "resumed"),
        (WAY[:3], "testing", "tested"),
        ((*WAY[:3], "wait"), "awaiting_approval", "person"),
        *(((*WAY[:3], end), "ended", None) for end in ("succeed", "fail", "cancel")),
    ],
)
def test_a_job_says_its_stage_and_what_it_waits_for(steps: tuple[str, ...], stage: str, waits: str | None) -> None:
    made = job(*steps)
    assert stage_of(made) == stage
    found = waiting_of(made)
    assert (found is None) == (waits is None)
    if found is not None:
        assert str(waits) in found.what
        assert found.who
        assert found.since == (2 if steps else 1)


def test_what_the_model_waits_for_is_known_by_the_newest_word_only() -> None:
    made = job(*WAY[:3])
    made.wait(waiting("approval", 2, "Too few rows."), 5)
    made.wait(waiting("evaluation", 1, "Replica r1 could not load it."), 6)
    found = waiting_of(made)
    assert found is not None
    assert (stage_of(made), found.since) == ("awaiting_approval", 5)
    assert "Too few rows." in found.what
    assert "sartor models approve ft:x" in found.who
    made.wait(waiting("replica", 3), 7)
    made.wait(waiting("replica", 4, "Replica r1 could not load it."), 8)
    found = waiting_of(made)
    assert found is not None
    assert (stage_of(made), found.since) == ("loading", 7), "a new reason is no new wait"
    assert "could not load it" in found.what


@pytest.mark.parametrize("last", ["fail", "cancel", "deleted"])
def test_an_adapter_that_nobody_will_serve_is_discarded_and_lost_once(last: str) -> None:
    over = job("enqueue", "start", "train", "succeed" if last == "deleted" else last)
    over.discard_adapter()
    events(over)
    assert over.adapter_files == "unwanted"
    for _ in range(2):
        over.lose_adapter()
        over.discard_adapter()
    assert (over.adapter_files, events(over)) == ("deleted", ["finetune.adapter_deleted.v1"])
    assert over.adapter == ADAPTER, "which it was stays known"


@pytest.mark.parametrize("steps", [WAY, ("enqueue", "start", "train"), ("cancel",)])
def test_nothing_is_discarded_of_a_living_model_or_where_there_is_nothing(steps: tuple[str, ...]) -> None:
    kept = job(*steps)
    assert kept.adapter_files == "kept"
    kept.lose_adapter()
    assert kept.adapter_files == "kept"


def test_an_adapter_stored_after_the_end_is_discarded_and_takes_no_others_place() -> None:
    cancelled, done = job("enqueue", "start", "cancel"), job(*WAY)
    for one in (cancelled, done):
        one.leave_adapter(ADAPTER.model_copy(update={"adapter_id": "ad-late"}))
    assert cancelled.adapter is not None
    assert done.adapter is not None
    assert (cancelled.adapter.adapter_id, cancelled.adapter_files) == ("ad-late", "unwanted")
    assert (done.adapter.adapter_id, done.adapter_files) == ("ad-1", "kept")


def test_every_state_has_an_openai_status() -> None:
    states: Any = Job.model_fields["state"].annotation
    assert set(OPENAI_STATUS) == set(states.__args__)
    assert {OPENAI_STATUS[state] for state in ENDED} == {"succeeded", "failed", "cancelled"}


def test_training_that_is_given_up_fails_a_job_unless_its_adapter_is_there() -> None:
    failure = Failure(code="c", message="m")
    for steps, state in ((("enqueue", "start"), "failed"), (("enqueue", "start", "train"), "evaluating")):
        made = job(*steps)
        made.fail_training(failure, 2)
        assert made.state == state

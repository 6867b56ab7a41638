"""The worker with real training processes on the tiny model: what is learned, what halts a run, where it goes on."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from worker_shop import LONGEST, Shop, runs

from chassis.clock import CLOCK
from chassis.errors import Transient
from stores.mongo import PyMongoError
from testkit import Space, eventually
from trainer import training_process
from trainer.app import build
from trainer.domain import CLAIMABLE, Job, Text
from trainer.job_objects import Rows
from trainer.run.config import FailedForGood
from trainer.run.fork_server import ForkServer
from trainer.run.reports import Finished, Report
from trainer.settings import Settings
from trainer.training_process import TrainingProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_run_outlives_uploads_that_fail_and_waits_for_slow_ones(shop: Shop) -> None:
    began: list[int] = []

    async def trouble(step: int) -> None:
        began.append(step)
        if len(began) == 1:
            raise Transient("The object store cannot be reached.")
        if len(began) == 2:
            await asyncio.sleep(1.5)
            assert shop.saved() == step, "a run that goes on loses more than one save interval to a kill"

    shop.store.before_checkpoint = trouble
    job_id = await shop.queue_job(30)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
        listed = await shop.jobs.checkpoints(job, limit=0, after=None)
    assert (job.lease.fence, job.lease.failures) == (1, 0)
    assert [one.step for one in listed][::-1] == began[1:], "all but the failed one, the slow one too"
    assert all(after - before == 5 for before, after in pairwise(began)), "no save is passed over"
    assert await shop.told(job_id) == [
        "Training started on 11 rows.",
        f"Rows left out because they are longer than {LONGEST} tokens: 1 of 12.",
        "Training is over; testing the model on held-out rows.",
    ]


async def test_a_document_is_learned_and_a_killed_run_of_it_makes_the_same_adapter(shop: Shop) -> None:
    text = "".join(f"Bicycle {number} waits in hall {number % 7} until someone fetches it. " for number in range(120))
    whole, cut = await shop.queue_text("ftjob-whole", text), "ftjob-cut"
    async with shop.working():
        undisturbed = await shop.becomes(whole, "evaluating")
        await shop.queue_text(cut, text)
        await shop.reaches(cut, 5)
        [run] = runs()
        run.kill()
        job = await shop.becomes(cut, "evaluating")
    assert job.lease.fence == 2
    assert job.adapter is not None
    assert undisturbed.adapter is not None
    assert job.adapter.adapter_id == undisturbed.adapter.adapter_id
    metrics = job.adapter.metrics
    assert metrics["heldout_perplexity"] < metrics["base_heldout_perplexity"]
    assert metrics["heldout_gain"] > 1.96 * metrics["heldout_gain_error"]
    told = await shop.told(whole)
    assert told[0].startswith("Training started on ")
    assert told[0].endswith(" windows.")
    assert told[1].startswith("It is one document, so its last section is held out")


async def test_rows_of_text_are_learned_as_they_are(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_text("ftjob-rows", "x"))
    records = b'{"text": "one"}\n{"text": "two"}\n'
    rows = await shop.objects.put_bytes("rows/records.jsonl", records)
    job.text = Text(file_id="file-9", kind="rows", object=rows)
    config = await shop.training._prepare(job, tmp_path)
    assert Path(config.train_path).read_bytes() == records
    assert (config.method, config.of_method, config.validation_path) == (
        "pretrain",
        {"context_length": float(LONGEST)},
        None,
    )
    assert config.dataset == {"file_id": "file-9", "kind": "rows", "sha256": rows.sha256}


async def test_a_job_paused_and_resumed_at_once_goes_on_where_it_was(shop: Shop) -> None:
    shop.employ(trainer_save_every_steps=20)
    job_id = await shop.queue_job(60)
    async with shop.working():
        before = await shop.reaches(job_id)
        await shop.change(job_id, lambda job: job.pause(2), lambda job: job.resume(2))
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, job.lease.failures) == (2, 0)
    resumed = next(line for line in await shop.told(job_id) if "resumed" in line)
    assert before.checkpoint is not None
    assert int(resumed.split()[4]) > before.checkpoint.step, "what was trained until the halt is kept"


@pytest.fixture
def finished(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs of the runs that came to their end."""
    found: list[str] = []
    keep = TrainingProcess._keep

    async def kept(self: TrainingProcess, report: Report) -> None:
        await keep(self, report)
        if isinstance(report, Finished):
            found.append(self._job.id)

    monkeypatch.setattr(TrainingProcess, "_keep", kept)
    return found


async def test_a_long_job_gives_its_place_to_a_tenant_who_waits_and_goes_on_where_it_was(
    shop: Shop, finished: list[str]
) -> None:
    shop.employ(trainer_slice_seconds=0.0)
    long, own = await shop.queue_job(40), await shop.queue_job(1)
    async with shop.working():
        await shop.reaches(long, 4)
        short = await shop.queue_job(3, tenant="tenant_b")
        await shop.becomes(short, "evaluating", tenant="tenant_b")
        halted = await shop.get(long)
        assert halted.state in ("queued", "running"), "it is not done yet"
        assert (await shop.get(own)).lease.fence == 0, "who waits of its own tenant is no reason"
        job = await shop.becomes(long, "evaluating")
    assert job.lease.failures == 0
    assert finished == [short, long], "no run that came to its end was thrown away"
    told = await shop.told(long)
    gave = [at for at, line in enumerate(told) if line.startswith("Others wait")]
    went_on = [int(told[at + 1].removeprefix("Training resumed from step ").split()[0]) for at in gave]
    assert gave
    assert went_on == sorted(went_on)
    assert went_on[0] >= 4


async def test_a_job_that_is_about_done_keeps_its_place(shop: Shop, finished: list[str]) -> None:
    shop.employ(trainer_slice_seconds=0.0)
    short, other = await shop.queue_job(2), await shop.queue_job(1, tenant="tenant_b")
    async with shop.working():
        job = await shop.becomes(short, "evaluating")
        assert (await shop.get(other, "tenant_b")).state in CLAIMABLE, "it waited all the time"
        listed = await shop.jobs.checkpoints(job, limit=0, after=None)
    assert job.lease.fence == 1
    assert 5 in [one.step for one in listed], "it might have given it, one step before its end"
    assert finished == [short]
    assert not [line for line in await shop.told(short) if line.startswith("Others wait")]


@pytest.mark.parametrize("watched", [True, False], ids=["halted", "unseen"])
async def test_a_run_that_was_done_before_it_could_stop_is_not_thrown_away(
    shop: Shop, finished: list[str], monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr(training_process, "WATCH_SECONDS", 0.1 if watched else 60)
    job_id = await shop.queue_job(2)
    store = TrainingProcess._keep

    async def done(self: TrainingProcess, report: Report) -> None:
        await store(self, report)
        if isinstance(report, Finished):
            await shop.change(job_id, lambda job: job.give_place(2))
            if watched:
                await eventually(lambda: self._halted)

    monkeypatch.setattr(TrainingProcess, "_keep", done)
    async with shop.working():
        job = await shop.becomes(job_id, "evaluating")
    assert (job.lease.fence, finished) == (1, [job_id])


async def test_an_end_is_told_before_it_is_written_so_that_it_is_come_to_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await shop.queue_job(1, base_model="none-such")
    tell, cut = shop.jobs.tell, []

    async def away(job: Job, key: str, message: str, **about: Any) -> None:
        if key == "failed" and not cut:
            cut.append(message)
            raise PyMongoError("connection closed")
        await tell(job, key, message, **about)

    monkeypatch.setattr(shop.jobs, "tell", away)
    async with shop.working():
        job = await shop.becomes(job_id, "failed")
    assert cut
    assert job.error is not None
    assert (await shop.told(job_id))[-1] == job.error.message


async def test_a_job_cancelled_after_the_database_failed_for_a_while_stops_training(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await shop.queue_job(5000)
    get, asked = shop.kept.get, 0

    async def away(*_: Any) -> Job:
        nonlocal asked
        asked += 1
        raise PyMongoError("connection closed")

    async with shop.working():
        await shop.reaches(job_id)
        [run] = runs()
        with monkeypatch.context() as cut:
            cut.setattr(shop.kept, "get", away)
            await asyncio.sleep(2 * training_process.WATCH_SECONDS)
        assert asked
        assert run.is_running(), "a healthy run outlives it"
        assert shop.kept.get == get
        await shop.change(job_id, lambda job: job.cancel(2))
        job = await shop.let_go(job_id)
    assert not runs()
    assert (job.state, job.lease.fence, job.lease.failures) == ("cancelled", 1, 0)


async def test_what_is_told_later_is_the_newer_line_whatever_the_clocks_of_workers_say(shop: Shop) -> None:
    job = await shop.get(await shop.queue_job(1))
    for number, ahead in enumerate((7200, 0, -7200, 0, 0)):
        token = CLOCK.set(lambda ahead=ahead: time.time() + ahead)  # type: ignore[misc]
        await shop.jobs.tell(job, f"line {number}", f"${number} of $level")
        CLOCK.reset(token)
    await shop.jobs.tell(job, "line 0", "said again")
    assert await shop.told(job.id) == [f"${number} of $level" for number in range(5)]


async def test_rows_that_teach_nothing_are_counted_and_said(shop: Shop) -> None:
    job_id = await shop.queue_job(8, unweighted=3)
    async with shop.working():
        await shop.becomes(job_id, "evaluating")
    told = await shop.told(job_id)
    assert "Training started on 8 rows." in told
    why = "every answer in them has the weight 0 and there is nothing to learn"
    assert f"Rows left out because {why}: 3 of 12." in told
    assert f"Rows left out because they are longer than {LONGEST} tokens: 1 of 12." in told


async def test_validation_rows_of_the_training_file_choose_no_epoch(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_job(1))
    prepared = job.dataset
    assert prepared is not None
    own = (await shop.objects.get_bytes(prepared.dataset.train)).splitlines(keepends=True)
    new = b'{"messages": [{"role": "user", "content": "new"}, {"role": "assistant", "content": "refund"}]}\n'
    heldout = await shop.objects.put_bytes("rows/heldout.jsonl", new.replace(b"new", b"held out"))
    learned = prepared.dataset.model_copy(update={"heldout": heldout})
    job.dataset = prepared.model_copy(update={"dataset": learned})
    empty = await shop.objects.put_bytes("rows/none.jsonl", b"")

    async def validated_by(*rows: bytes) -> Rows:
        given = await shop.objects.put_bytes("rows/given.jsonl", b"".join(rows))
        validating = learned.model_copy(update={"train": given, "validation": empty})
        job.validation = prepared.model_copy(update={"dataset": validating})
        return await shop.store.fetch_rows(job, tmp_path)

    found = await validated_by(own[3], new, own[0])
    assert found.validation is not None
    assert (found.validation.read_bytes(), found.repeated) == (new, 3)
    with pytest.raises(FailedForGood, match="is in the training file too") as refused:
        await validated_by(*own[::-1])
    assert refused.value.code == "invalid_validation_file"


@pytest.mark.parametrize("base", ["../tiny-test/../tiny-test", "..", "", "gone", "{absolute}"])
async def test_a_base_model_is_a_name_and_never_a_path(shop: Shop, tmp_path: Path, base: str) -> None:
    job = await shop.get(await shop.queue_job(1))
    folder = shop.settings.models_dir / "tiny-test"
    job.base_model = base.format(absolute=folder)
    with pytest.raises(FailedForGood) as refused:
        await shop.training._prepare(job, tmp_path)
    assert refused.value.code == "base_model_missing"


async def test_a_run_is_made_with_the_patience_that_was_asked_for(shop: Shop, tmp_path: Path) -> None:
    job = await shop.get(await shop.queue_job(1))
    assert (await shop.training._prepare(job, tmp_path)).early_stop_patience == 0
    job.hyperparameters |= {"early_stop_patience": 3}
    assert (await shop.training._prepare(job, tmp_path)).early_stop_patience == 3


async def test_what_runs_are_forked_from_ends_with_the_service(
    space: Space, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[ForkServer] = []

    async def end(fork_server: ForkServer) -> None:
        ended.append(fork_server)

    monkeypatch.setattr(ForkServer, "close", end)
    folders = {"models_dir": tiny_models, "trainer_work_dir": tmp_path / "work"}
    app = build(space.settings(Settings, "trainer", base_model="tiny-test", **folders))
    async with app.router.lifespan_context(app):
        assert ended == []
    assert len(ended) == 1

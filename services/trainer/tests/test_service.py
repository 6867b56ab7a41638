"""Jobs through the API and events on the local stack, up to the queue and after the gate; training is tested apart."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from trainer_world import BASE, World

from chassis.ids import new_id
from schemas import (
    DatasetRejected,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneSucceeded,
    RowCounts,
    TenantPolicy,
)
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_job_waits_for_its_data_and_is_queued_with_it(world: World) -> None:
    job = await world.job(suffix="support", seed=7, metadata={"team": "x"})
    assert (job.status, job.seed, job.metadata, job.model) == ("validating_files", 7, {"team": "x"}, BASE)
    assert job.hyperparameters.n_epochs == "auto"
    await world.digest(world.prepared(job.training_file), times=2)
    queued = await world.becomes(job, "queued")
    assert isinstance(queued.hyperparameters.n_epochs, int)
    assert await world.messages(job) == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "No validation file was given: of 400 rows, 20 were held out for validation and 80 for the evaluation; "
        "300 are trained on.",
        f"Files validated, the job is queued with n_epochs {queued.hyperparameters.n_epochs}, "
        f"batch_size {queued.hyperparameters.batch_size}, learning_rate_multiplier 1.0.",
    ]
    [asked] = await eventually(lambda: [one for one in world.of(FinetuneRequested) if one.job_id == job.id])
    assert (asked.training_file, asked.trigger) == (job.training_file, "request")
    at_once = await world.job(job.training_file)
    assert at_once.status == "queued"


async def test_a_file_that_cannot_be_trained_on_fails_its_job_with_the_reason(world: World) -> None:
    job = await world.job()
    rejected = DatasetRejected(
        tenant_id=world.a, file_id=job.training_file, purpose="fine-tune", code="bad_json", message="rows.jsonl, line 3"
    )
    await world.publish(rejected)
    failed = await world.becomes(job, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert failed.error.message == "rows.jsonl, line 3"
    assert (await eventually(lambda: world.of(FinetuneFailed)))[0].code == "invalid_training_file"


async def test_a_file_of_a_few_rows_can_validate_and_not_train(world: World) -> None:
    few = RowCounts(train=6, validation=1, heldout=2)
    job = await world.job(validation_file=world.file())
    await world.publish(world.prepared(str(job.validation_file), rows=RowCounts(train=1, validation=0, heldout=0)))
    await world.publish(world.prepared(job.training_file, rows=few.model_copy(update={"train": 7})))
    await world.becomes(job, "queued")
    refused = await world.job()
    await world.publish(world.prepared(refused.training_file, rows=few))
    failed = await world.becomes(refused, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert failed.error.message == (
        "training_file: 9 different rows are too few to learn and to test from; at least 10."
    )


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 400, "model_not_found", "model"),
        ({"model": "../base_models"}, 400, "model_not_found", "model"),
        ({"model": ""}, 400, "invalid_value", "model"),
        ({"training_file": "file-none"}, 404, "file_not_found", "training_file"),
        ({"training_file": "../files"}, 404, "file_not_found", "training_file"),
        ({"training_file": "theirs"}, 404, "file_not_found", "training_file"),
        ({"validation_file": "theirs"}, 404, "file_not_found", "validation_file"),
        ({"training_file": "document"}, 400, "invalid_purpose", "training_file"),
        ({"training_file": "broken"}, 400, "invalid_file", "training_file"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, None, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"epochs": 1}}, 400, None, "hyperparameters.epochs"),
        ({"method": {"type": "dpo"}}, 400, None, "method.type"),
        ({"integrations": [{"type": "wandb"}]}, 400, None, "integrations"),
        ({"suffix": "a b"}, 400, "invalid_value", "suffix"),
        ({"seed": -1}, 400, "invalid_value", "seed"),
    ],
)
async def test_a_wrong_request_names_its_field_and_makes_no_job(
    world: World, asked: dict[str, Any], status: int, code: str | None, param: str
) -> None:
    files = {
        "theirs": world.file(tenant=world.b),
        "document": world.file(purpose="assistants"),
        "broken": world.file(status="error", status_details="line 3"),
    }
    asked = {name: files.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}
    async with world.http() as http:
        answer = await http.post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": world.file(), **asked})
        assert answer.status_code == status, answer.text
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
        assert (await http.get("/v1/fine_tuning/jobs")).json()["data"] == []


@pytest.mark.parametrize(("made_from", "trigger"), [({}, "upload"), ({"project_id": "proj_1"}, "labels")])
async def test_new_data_is_fine_tuned_by_itself_once_however_often_its_event_comes(
    world: World, made_from: dict[str, str], trigger: str
) -> None:
    world.elsewhere.policies[world.a] = TenantPolicy(base_model="other-base")
    event = world.prepared(world.file(), purpose="user_data", **made_from)
    await world.digest(event, times=3)
    [job] = [job async for job in world.sdk().fine_tuning.jobs.list(extra_query={"training_file": str(event.file_id)})]
    assert (job.status, job.model, job.organization_id) == ("queued", "other-base", "acme")
    [asked] = await eventually(lambda: [one for one in world.of(FinetuneRequested) if one.job_id == job.id])
    assert asked.trigger == trigger


@pytest.mark.parametrize(("purpose", "tune"), [("user_data", False), ("fine-tune", True)])
async def test_data_waits_for_a_request_where_purpose_or_policy_say_so(world: World, purpose: Any, tune: bool) -> None:
    world.elsewhere.policies[world.a] = TenantPolicy(tune_on_upload=tune)
    event = world.prepared(world.file(), purpose=purpose)
    await world.digest(event)
    jobs = world.sdk().fine_tuning.jobs
    assert [job async for job in jobs.list(extra_query={"training_file": str(event.file_id)})] == []


async def test_data_of_a_file_that_was_deleted_since_is_not_fine_tuned_by_itself(world: World) -> None:
    event = world.prepared(new_id("file-"), purpose="user_data")
    await world.digest(event)
    jobs = world.sdk().fine_tuning.jobs
    assert [job async for job in jobs.list(extra_query={"training_file": str(event.file_id)})] == []


async def test_jobs_are_listed_by_page_and_found_by_metadata_and_file(world: World) -> None:
    made = [await world.job(metadata={"team": "x" if n else "y", "n": str(n)}) for n in range(4)]
    jobs = world.sdk().fine_tuning.jobs
    by_two = [job.id async for job in jobs.list(limit=2)]
    assert sorted(by_two) == sorted(job.id for job in made)
    assert [job.id for job in (await jobs.list(after=by_two[2])).data] == by_two[3:]
    assert {job.id async for job in jobs.list(metadata={"team": "x"}, limit=2)} == {job.id for job in made[1:]}
    assert [job.id async for job in jobs.list(metadata={"team": "x", "n": "3"})] == [made[3].id]
    only = [job.id async for job in jobs.list(extra_query={"training_file": made[2].training_file})]
    assert only == [made[2].id]

    strangers = world.sdk(world.b).fine_tuning.jobs
    assert (await strangers.list()).data == []
    for call in (strangers.retrieve, strangers.cancel, strangers.pause, strangers.resume, strangers.list_events):
        with pytest.raises(openai.NotFoundError):
            await call(made[0].id)
    with pytest.raises(openai.NotFoundError):
        await strangers.list(after=made[0].id)
    assert await world.status(made[0]) == "validating_files"


async def test_a_cancelled_job_stays_cancelled_and_says_so_once(world: World) -> None:
    job = await world.job()
    await world.publish(world.prepared(job.training_file))
    await world.becomes(job, "queued")
    for _ in range(2):
        cancelled = await world.sdk().fine_tuning.jobs.cancel(job.id)
        assert cancelled.status == "cancelled"
        assert cancelled.finished_at is not None
    for steer in (world.sdk().fine_tuning.jobs.pause, world.sdk().fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError):
            await steer(job.id)
    await world.decide(world.promoted(job))
    await world.digest(world.prepared(job.training_file))
    assert await world.status(job) == "cancelled"
    assert len([event for event in world.of(FinetuneCancelled) if event.job_id == job.id]) == 1
    assert (await world.messages(job)).count("The job was cancelled.") == 1


async def test_a_paused_job_is_not_queued_by_its_data_until_it_is_resumed(world: World) -> None:
    job, jobs = await world.job(), world.sdk().fine_tuning.jobs
    await jobs.pause(job.id)
    assert (await jobs.resume(job.id)).status == "validating_files"
    await jobs.pause(job.id)
    await world.digest(world.prepared(job.training_file))
    assert await world.state(job) == "paused"
    assert (await jobs.resume(job.id)).status == "queued"
    assert await world.state(job) == "queued"
    lines = [line for line in await world.messages(job) if "paused" in line or "taken up" in line]
    assert lines == ["The job is paused; its progress is kept.", "The job was taken up again."] * 2


async def test_events_come_newest_first_and_by_page(world: World) -> None:
    job, other, jobs = await world.job(), await world.job(), world.sdk().fine_tuning.jobs
    await jobs.pause(job.id)
    await jobs.resume(job.id)
    whole = (await jobs.list_events(job.id)).data
    assert [event.message.split()[0] for event in whole] == ["The", "The", "Validating", "Created"]
    assert [event.id async for event in jobs.list_events(job.id, limit=1)] == [event.id for event in whole]
    page = await jobs.list_events(job.id, limit=3)
    assert page.has_more
    assert [event.id for event in (await jobs.list_events(job.id, after=whole[1].id)).data] == [
        event.id for event in whole[2:]
    ]
    with pytest.raises(openai.NotFoundError):
        await jobs.list_events(other.id, after=whole[1].id)


async def test_the_gate_ends_the_job_as_it_decided_once(world: World) -> None:
    good, bad = await world.job(), await world.job()
    await world.decide(*[world.promoted(good), world.rejected(bad, "3 of 58 against 41 of 58.")] * 2)
    succeeded, failed = await world.becomes(good, "succeeded"), await world.becomes(bad, "failed")
    assert (succeeded.fine_tuned_model, succeeded.error) == (f"ft:{world.a}", None)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("gate_rejected", "3 of 58 against 41 of 58.")
    assert failed.fine_tuned_model is None
    await world.decide(world.rejected(good), world.promoted(bad))
    assert (await world.status(good), await world.status(bad)) == ("succeeded", "failed")
    assert [event.job_id for event in world.of(FinetuneSucceeded)] == [good.id]
    assert [event.job_id for event in world.of(FinetuneFailed)].count(bad.id) == 1
    assert (await world.messages(good))[-1] == "The job has successfully completed"
    assert (await world.messages(bad))[-1] == "The model was not let through: 3 of 58 against 41 of 58."


async def test_a_request_repeated_under_one_key_is_one_job(world: World) -> None:
    file, key = world.file(), {"Idempotency-Key": new_id("once")}
    jobs = world.sdk().fine_tuning.jobs
    first, second = [await jobs.create(model=BASE, training_file=file, extra_headers=key) for _ in range(2)]
    assert first.id == second.id
    assert len((await world.sdk().fine_tuning.jobs.list()).data) == 1


async def test_a_tenant_may_have_only_so_many_jobs_open(world: World) -> None:
    made = [await world.job() for _ in range(5)]
    with pytest.raises(openai.RateLimitError, match="cancel some"):
        await world.job()
    await world.sdk().fine_tuning.jobs.cancel(made[0].id)
    assert (await world.job()).status == "validating_files"

"""Jobs through the API and events on the local stack, up to the queue and after the gate; training is tested apart."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai.types.fine_tuning.job_create_params import JobCreateParams
from prometheus_client import REGISTRY
from trainer_harness import BASE, FAR_BASE, OTHER_BASE, Harness

from chassis.ids import new_id, now
from schemas import (
    DatasetDeleted,
    DatasetRejected,
    FinetuneAdapterDeleted,
    FinetuneCancelled,
    FinetuneFailed,
    FinetuneRequested,
    FinetuneSucceeded,
    ModelDeleted,
    RowCounts,
    TenantPolicy,
)
from stores.mongo import PyMongoError
from stores.waiting import measure_waiting
from testkit import eventually
from trainer.domain import Job
from trainer.store import WAITING, Jobs

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_job_waits_for_its_data_and_is_queued_with_it(harness: Harness) -> None:
    job = await harness.job(suffix="support", seed=7, metadata={"team": "x"})
    assert (job.status, job.seed, job.metadata, job.model) == ("validating_files", 7, {"team": "x"}, BASE)
    assert job.hyperparameters.n_epochs == "auto"
    await harness.digest(harness.prepared(job.training_file), times=2)
    queued = await harness.becomes(job, "queued")
    assert isinstance(queued.hyperparameters.n_epochs, int)
    assert await harness.messages(job) == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file}",
        "No validation file was given: of 400 rows, 20 were held out for validation and 80 for the evaluation; "
        "300 are trained on.",
        f"Files validated, the job is queued with n_epochs {queued.hyperparameters.n_epochs}, "
        f"batch_size {queued.hyperparameters.batch_size}, learning_rate_multiplier 1.0.",
    ]
    [asked] = await eventually(lambda: [one for one in harness.of(FinetuneRequested) if one.job_id == job.id])
    assert (asked.training_file, asked.trigger) == (job.training_file, "request")
    at_once = await harness.job(job.training_file)
    assert at_once.status == "queued"


async def test_a_file_that_cannot_be_trained_on_fails_its_job_with_the_reason(harness: Harness) -> None:
    job = await harness.job()
    rejected = DatasetRejected(
        tenant_id=harness.a,
        file_id=job.training_file,
        purpose="fine-tune",
        code="bad_json",
        message="rows.jsonl, line 3",
    )
    await harness.publish(rejected)
    failed = await harness.becomes(job, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert failed.error.message == "rows.jsonl, line 3"
    assert (await eventually(lambda: harness.of(FinetuneFailed)))[0].code == "invalid_training_file"


async def test_a_file_of_a_few_rows_can_validate_and_not_train(harness: Harness) -> None:
    few = RowCounts(train=6, validation=1, heldout=2)
    job = await harness.job(validation_file=harness.file())
    await harness.publish(harness.prepared(str(job.validation_file), rows=RowCounts(train=1, validation=0, heldout=0)))
    await harness.publish(harness.prepared(job.training_file, rows=few.model_copy(update={"train": 7})))
    await harness.becomes(job, "queued")
    refused = await harness.job()
    await harness.publish(harness.prepared(refused.training_file, rows=few))
    failed = await harness.becomes(refused, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert failed.error.message == (
        "training_file: 9 different rows are too few to learn and to test from; at least 10."
    )


async def test_a_validation_file_that_is_the_training_file_is_refused(harness: Harness) -> None:
    file = harness.file()
    with pytest.raises(openai.BadRequestError, match="rows of the training file") as refused:
        await harness.job(file, validation_file=file)
    assert refused.value.param == "validation_file"
    twin = harness.file()
    job = await harness.job(file, validation_file=twin)
    first = harness.prepared(file)
    same = first.dataset.model_copy(update={"dataset_id": f"ds-{twin}"})
    await harness.publish(first)
    await harness.publish(harness.prepared(twin, dataset=same))
    failed = await harness.becomes(job, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_validation_file", "validation_file")
    assert "rows of the training file" in failed.error.message


async def test_the_patience_a_job_asks_for_is_kept(harness: Harness) -> None:
    job = await harness.job(hyperparameters={"early_stop_patience": 3})  # type: ignore[dict-item]
    await harness.publish(harness.prepared(job.training_file))
    await harness.becomes(job, "queued")
    shown = await harness.shown(job)
    assert shown["hyperparameters"]["early_stop_patience"] == 3
    assert (await harness.store.get(harness.a, job.id)).hyperparameters["early_stop_patience"] == 3


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 400, "model_not_found", "model"),
        ({"model": FAR_BASE}, 400, "provider_model", "model"),
        ({"model": "../base_models"}, 400, "model_not_found", "model"),
        ({"model": ""}, 400, "invalid_value", "model"),
        ({"training_file": "file-none"}, 404, "file_not_found", "training_file"),
        ({"training_file": "../files"}, 404, "file_not_found", "training_file"),
        ({"training_file": "theirs"}, 404, "file_not_found", "training_file"),
        ({"validation_file": "theirs"}, 404, "file_not_found", "validation_file"),
        ({"training_file": "document"}, 400, "invalid_purpose", "training_file"),
        ({"training_file": "broken"}, 400, "invalid_file", "training_file"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, None, "hyperparameters.n_epochs"),
        ({"model": "../../etc"}, 400, "model_not_found", "model"),
        ({"model": "x" * 257}, 400, "invalid_value", "model"),
        ({"training_file": "f" * 129}, 400, "invalid_value", "training_file"),
        ({"hyperparameters": {"n_epochs": True}}, 400, None, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "3" * 5000}}, 400, None, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"epochs": 1}}, 400, None, "hyperparameters.epochs"),
        ({"hyperparameters": {"epochs": "auto"}}, 400, None, "hyperparameters.epochs"),
        ({"hyperparameters": {"a\0b": "auto"}}, 400, None, "hyperparameters.a\\x00b"),
        ({"method": {"type": "dpo"}}, 400, None, "method.type"),
        ({"method": {"type": "reinforcement"}}, 400, None, "method.type"),
        ({"method": {"type": "supervised", "dpo": {"hyperparameters": {}}}}, 400, "unknown_parameter", "method.dpo"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}},
            400,
            None,
            "hyperparameters.beta",
        ),
        (
            {
                "hyperparameters": {"n_epochs": 1},
                "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            },
            400,
            None,
            "hyperparameters",
        ),
        ({"integrations": [{"type": "wandb"}]}, 400, "unknown_parameter", "integrations"),
        ({"epochs": 3}, 400, "unknown_parameter", "epochs"),
        ({"metadata": {"k": "v" * 513}}, 400, "invalid_value", "metadata.k"),
        ({"metadata": {"a\0b": "c"}}, 400, "invalid_value", "metadata.a\\x00b"),
        ({"metadata": {str(n): "v" for n in range(17)}}, 400, "invalid_value", "metadata"),
        ({"suffix": "a b"}, 400, "invalid_value", "suffix"),
        ({"seed": -1}, 400, "invalid_value", "seed"),
    ],
)
async def test_a_wrong_request_names_its_field_and_makes_no_job(
    harness: Harness, asked: dict[str, Any], status: int, code: str | None, param: str
) -> None:
    files = {
        "theirs": harness.file(tenant=harness.b),
        "document": harness.file(purpose="assistants"),
        "broken": harness.file(status="error", status_details="line 3"),
    }
    asked = {name: files.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}
    async with harness.http() as http:
        answer = await http.post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": harness.file(), **asked})
        assert answer.status_code == status, answer.text
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
        assert (await http.get("/v1/fine_tuning/jobs")).json()["data"] == []


@pytest.mark.parametrize(("made_from", "trigger"), [({}, "upload"), ({"project_id": "proj_1"}, "labels")])
async def test_new_data_is_fine_tuned_by_itself_once_however_often_its_event_comes(
    harness: Harness, made_from: dict[str, str], trigger: str
) -> None:
    harness.peers.policies[harness.a] = TenantPolicy(base_model=OTHER_BASE)
    event = harness.prepared(harness.file(), purpose="user_data", **made_from)
    await harness.digest(event, times=3)
    [job] = [
        job async for job in harness.sdk().fine_tuning.jobs.list(extra_query={"training_file": str(event.file_id)})
    ]
    assert (job.status, job.model, job.organization_id) == ("queued", OTHER_BASE, "acme")
    [asked] = await eventually(lambda: [one for one in harness.of(FinetuneRequested) if one.job_id == job.id])
    assert asked.trigger == trigger


@pytest.mark.parametrize(("purpose", "tune"), [("user_data", False), ("fine-tune", True)])
async def test_data_waits_for_a_request_where_purpose_or_policy_say_so(
    harness: Harness, purpose: Any, tune: bool
) -> None:
    harness.peers.policies[harness.a] = TenantPolicy(tune_on_upload=tune)
    event = harness.prepared(harness.file(), purpose=purpose)
    await harness.digest(event)
    jobs = harness.sdk().fine_tuning.jobs
    assert [job async for job in jobs.list(extra_query={"training_file": str(event.file_id)})] == []


async def test_data_of_a_file_that_was_deleted_since_is_not_fine_tuned_by_itself(harness: Harness) -> None:
    event = harness.prepared(new_id("file-"), purpose="user_data")
    await harness.digest(event)
    jobs = harness.sdk().fine_tuning.jobs
    assert [job async for job in jobs.list(extra_query={"training_file": str(event.file_id)})] == []


async def test_jobs_are_listed_by_page_and_found_by_metadata_and_file(harness: Harness) -> None:
    made = [await harness.job(metadata={"team": "x" if n else "y", "n": str(n)}) for n in range(4)]
    jobs = harness.sdk().fine_tuning.jobs
    by_two = [job.id async for job in jobs.list(limit=2)]
    assert sorted(by_two) == sorted(job.id for job in made)
    assert [job.id for job in (await jobs.list(after=by_two[2])).data] == by_two[3:]
    assert {job.id async for job in jobs.list(metadata={"team": "x"}, limit=2)} == {job.id for job in made[1:]}
    assert [job.id async for job in jobs.list(metadata={"team": "x", "n": "3"})] == [made[3].id]
    only = [job.id async for job in jobs.list(extra_query={"training_file": made[2].training_file})]
    assert only == [made[2].id]

    strangers = harness.sdk(harness.b).fine_tuning.jobs
    assert (await strangers.list()).data == []
    for call in (strangers.retrieve, strangers.cancel, strangers.pause, strangers.resume, strangers.list_events):
        with pytest.raises(openai.NotFoundError):
            await call(made[0].id)
    with pytest.raises(openai.NotFoundError):
        await strangers.list(after=made[0].id)
    assert await harness.status(made[0]) == "validating_files"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"suffix": None, "seed": None, "validation_file": None, "metadata": None, "method": None},
        {"integrations": None, "hyperparameters": None},
        {"integrations": [], "hyperparameters": {}},
        {"hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}},
        {"method": {"type": "supervised"}},
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}, "dpo": None}},
    ],
)
async def test_a_field_at_its_default_asks_for_nothing(harness: Harness, asked: dict[str, Any]) -> None:
    async with harness.http() as http:
        answer = await http.post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": harness.file(), **asked})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert set(made["hyperparameters"].values()) == {"auto"}
    assert (made["integrations"], made["metadata"], made["validation_file"]) == ([], None, None)


HONOURED: dict[str, tuple[Any, Any]] = {
    "model": (OTHER_BASE, lambda job: job["model"]),
    "seed": (7, lambda job: job["seed"]),
    "metadata": ({"team": "x", "desk": ""}, lambda job: job["metadata"]),
    "hyperparameters": ({"n_epochs": 2}, lambda job: {"n_epochs": job["hyperparameters"]["n_epochs"]}),
    "method": (
        {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 2}}},
        lambda job: {
            "type": job["method"]["type"],
            "supervised": {
                "hyperparameters": {"batch_size": job["method"]["supervised"]["hyperparameters"]["batch_size"]}
            },
        },
    ),
}
"""Field of OpenAI's request -> a value, and where the job says it; files and the suffix are tried apart."""


async def test_each_field_of_the_sdk_changes_the_job_or_is_refused_by_name(harness: Harness) -> None:
    apart = {"training_file", "validation_file", "suffix"}
    refused = {"integrations"}
    assert set(JobCreateParams.__annotations__) == HONOURED.keys() | apart | refused
    async with harness.http() as http:
        for field, (value, said) in HONOURED.items():
            body = {"model": BASE, "training_file": harness.file(), field: value}
            made = (await http.post("/v1/fine_tuning/jobs", json=body)).json()
            assert said(made) == value, field
            await http.post(f"/v1/fine_tuning/jobs/{made['id']}/cancel")
        asked = {"model": BASE, "training_file": harness.file(), "validation_file": harness.file(), "suffix": "support"}
        made = (await http.post("/v1/fine_tuning/jobs", json=asked)).json()
    assert {name: made[name] for name in ("training_file", "validation_file")} == {
        name: asked[name] for name in ("training_file", "validation_file")
    }
    assert (await harness.store.get(harness.a, made["id"])).suffix == "support"


async def test_jobs_are_found_by_their_metadata_also_where_it_is_empty_or_missing(harness: Harness) -> None:
    empty, none = await harness.job(metadata={"team": ""}), await harness.job()
    async with harness.http() as http:

        async def found(query: str) -> list[str]:
            answer = await http.get(f"/v1/fine_tuning/jobs?{query}")
            assert answer.status_code == 200, answer.text
            return [job["id"] for job in answer.json()["data"]]

        assert await found("metadata[team]=") == [empty.id]
        assert await found("metadata=null") == [none.id]
        assert len(await found("")) == 2
        for query in ("metadata[$where]=1", "metadata[a.b]=1", "metadata=x", "status=failed", "order=asc"):
            answer = await http.get(f"/v1/fine_tuning/jobs?{query}")
            assert answer.status_code == 400, query
            assert answer.json()["error"]["param"] == query.split("=")[0]


async def test_a_stored_job_is_accepted_whatever_fails_afterwards(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = harness.file()
    await harness.digest(harness.prepared(file))

    async def away(*_: Any, **__: Any) -> None:
        raise PyMongoError("away")

    with monkeypatch.context() as broken:
        broken.setattr(Jobs, "tell", away)
        job = await harness.job(file)
        assert (await harness.sdk().fine_tuning.jobs.pause(job.id)).status == "queued"
        assert (await harness.sdk().fine_tuning.jobs.resume(job.id)).status == "validating_files"
    assert len((await harness.sdk().fine_tuning.jobs.list(extra_query={"training_file": file})).data) == 1
    await harness.becomes(job, "queued")  # by the sweep
    assert (await harness.messages(job))[:2] == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {file}",
    ]


@pytest.mark.parametrize("base", ["gone-base", "../../etc", "/etc", "..", FAR_BASE])
async def test_an_automatic_job_for_a_base_model_that_is_not_there_says_so_at_once(harness: Harness, base: str) -> None:
    harness.peers.policies[harness.a] = TenantPolicy(base_model=base)
    event = harness.prepared(harness.file(), purpose="user_data")
    await harness.digest(event, times=2)
    [job] = [
        job async for job in harness.sdk().fine_tuning.jobs.list(extra_query={"training_file": str(event.file_id)})
    ]
    assert job.status == "failed"
    assert job.error is not None
    code = "provider_model" if base == FAR_BASE else "model_not_found"
    assert (job.error.code, job.error.param) == (code, "model")
    assert BASE in job.error.message, "those that are there are named"
    assert (await harness.messages(job))[-1] == job.error.message


async def test_a_cancelled_job_stays_cancelled_and_says_so_once(harness: Harness) -> None:
    job = await harness.job()
    await harness.publish(harness.prepared(job.training_file))
    await harness.becomes(job, "queued")
    for _ in range(2):
        cancelled = await harness.sdk().fine_tuning.jobs.cancel(job.id)
        assert cancelled.status == "cancelled"
        assert cancelled.finished_at is not None
    for steer in (harness.sdk().fine_tuning.jobs.pause, harness.sdk().fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError):
            await steer(job.id)
    await harness.decide(harness.promoted(job))
    await harness.digest(harness.prepared(job.training_file))
    assert await harness.status(job) == "cancelled"
    assert len([event for event in harness.of(FinetuneCancelled) if event.job_id == job.id]) == 1
    assert (await harness.messages(job)).count("The job was cancelled.") == 1


async def test_a_paused_job_is_not_queued_by_its_data_until_it_is_resumed(harness: Harness) -> None:
    job, jobs = await harness.job(), harness.sdk().fine_tuning.jobs
    await jobs.pause(job.id)
    assert (await jobs.resume(job.id)).status == "validating_files"
    await jobs.pause(job.id)
    await harness.digest(harness.prepared(job.training_file))
    assert await harness.state(job) == "paused"
    assert (await jobs.resume(job.id)).status == "queued"
    assert await harness.state(job) == "queued"
    lines = [line for line in await harness.messages(job) if "paused" in line or "taken up" in line]
    assert lines == ["The job is paused; its progress is kept.", "The job was taken up again."] * 2


async def test_events_come_newest_first_and_by_page(harness: Harness) -> None:
    job, other, jobs = await harness.job(), await harness.job(), harness.sdk().fine_tuning.jobs
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


async def test_a_job_says_what_its_model_waits_for_until_that_ends(harness: Harness) -> None:
    job = await harness.evaluating()
    assert (await harness.shown(job))["stage"] == "testing"
    waits = harness.waiting(job, "approval", 1, "Only 7 held-out rows: too few to decide.")
    await harness.publish(waits)
    await harness.publish(waits)
    await eventually(lambda: _stage(harness, job, "awaiting_approval"))
    shown = await harness.shown(job)
    assert shown["status"] == "running"
    assert "7 held-out rows" in shown["waiting_for"]["what"]
    assert "models:approve" in shown["waiting_for"]["who"]
    assert f"sartor models approve ft:{harness.a}" in shown["waiting_for"]["who"]
    assert shown["waiting_for"]["since"] >= job.created_at
    await harness.publish(harness.waiting(job, "replica", 2, "Replica r1 could not load the adapter: out of memory."))
    await eventually(lambda: _stage(harness, job, "loading"))
    await harness.decide(harness.promoted(job))
    ended = await harness.shown(job)
    assert (ended["status"], ended["stage"], ended["waiting_for"]) == ("succeeded", "ended", None)
    await harness.decide(waits)
    assert (await harness.shown(job))["stage"] == "ended"
    told = [line for line in await harness.messages(job) if "wait" in line]
    assert len(told) == 2
    assert told[0].startswith("The model waits for a person with models:approve to decide; `sartor models approve ft:")
    assert "out of memory" in told[1]


async def _stage(harness: Harness, job: Any, stage: str) -> bool:
    return bool((await harness.shown(job))["stage"] == stage)


async def test_the_oldest_of_each_waiting_state_is_measured(harness: Harness) -> None:
    job = await harness.evaluating()
    await harness.publish(harness.waiting(job, "approval"))
    await eventually(lambda: _stage(harness, job, "awaiting_approval"))
    await harness.jobs.update_one({"_id": job.id}, {"$set": {"since": now() - 7200}})

    async def oldest(stage: str) -> float:
        """As measured now; the service, which measures too, may have begun before the change and said so after."""
        await measure_waiting(harness.jobs, WAITING, "since")
        return REGISTRY.get_sample_value("waiting_oldest_seconds", {"collection": "jobs", "state": stage}) or 0

    async def as_old() -> bool:
        return 7200 <= await oldest("awaiting_approval") < 7300

    async def as_new() -> bool:
        return await oldest("awaiting_approval") < 7200

    await eventually(as_old)
    assert await oldest("loading") < 7200
    await harness.decide(harness.promoted(job))
    await eventually(as_new)


async def test_the_gate_ends_the_job_as_it_decided_once(harness: Harness) -> None:
    good, bad = await harness.job(), await harness.job()
    await harness.decide(*[harness.promoted(good), harness.rejected(bad, "3 of 58 against 41 of 58.")] * 2)
    succeeded, failed = await harness.becomes(good, "succeeded"), await harness.becomes(bad, "failed")
    assert (succeeded.fine_tuned_model, succeeded.error) == (f"ft:{harness.a}", None)
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("gate_rejected", "3 of 58 against 41 of 58.")
    assert failed.fine_tuned_model is None
    taken_back = await harness.job()
    await harness.decide(
        harness.rejected(taken_back, "Deleted by its owner.").model_copy(update={"code": "model_deleted"})
    )
    ended = await harness.becomes(taken_back, "failed")
    assert ended.error is not None
    assert (ended.error.code, ended.error.message) == ("model_deleted", "Deleted by its owner.")
    await harness.decide(harness.rejected(good), harness.promoted(bad))
    assert (await harness.status(good), await harness.status(bad)) == ("succeeded", "failed")
    assert [event.job_id for event in harness.of(FinetuneSucceeded)] == [good.id]
    assert [event.job_id for event in harness.of(FinetuneFailed)].count(bad.id) == 1
    assert (await harness.messages(good))[-1] == "The job has successfully completed"
    assert (await harness.messages(bad))[-1] == "The model was not let through: 3 of 58 against 41 of 58."


async def test_an_end_user_cancels_their_own_job_and_no_other(harness: Harness) -> None:
    jobs = [await harness.job(), await harness.job()]
    for job, owner in zip(jobs, ("user_test", "user_other"), strict=True):
        await harness.jobs.update_one({"_id": job.id}, {"$set": {"owner": owner}})
    for role, statuses in (("viewer", [403, 403]), ("approver", [403, 403]), ("end_user", [200, 404])):
        async with httpx2.AsyncClient(headers=harness.space.headers("trainer", harness.a, role=role)) as http:
            answers = [await http.post(f"{harness.url}/v1/fine_tuning/jobs/{job.id}/cancel") for job in jobs]
            paused = await http.post(f"{harness.url}/v1/fine_tuning/jobs/{jobs[1].id}/pause")
        assert ([answer.status_code for answer in answers], paused.status_code) == (statuses, 403), role
    assert [await harness.state(job) for job in jobs] == ["cancelled", "waiting_for_dataset"]


async def test_a_job_whose_rows_are_deleted_before_it_is_trained_ends_with_that_reason(harness: Harness) -> None:
    queued, tested = await harness.job(), await harness.evaluating()
    await harness.publish(harness.prepared(queued.training_file))
    await harness.becomes(queued, "queued")
    for job in (queued, tested):
        for _ in range(2):
            await harness.publish(gone(harness, job.training_file))
    failed = await harness.becomes(queued, "failed")
    assert failed.error is not None
    assert failed.error.code == "file_deleted"
    late = await harness.job(queued.training_file)
    ended = await harness.becomes(late, "failed")
    assert ended.error is not None
    assert ended.error.code == "invalid_training_file"
    assert "deleted" in ended.error.message
    await harness.decide(harness.promoted(tested))
    assert await harness.status(tested) == "succeeded", "what is trained needs its rows no more"


def gone(harness: Harness, file: str) -> DatasetDeleted:
    """The rows of a file are deleted."""
    learned = harness.prepared(file).dataset
    return DatasetDeleted(tenant_id=harness.a, dataset_id=learned.dataset_id, file_id=file, heldout=learned.heldout)


async def test_a_job_that_is_trained_while_its_rows_are_deleted_keeps_its_adapter(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await harness.job()
    await harness.publish(harness.prepared(job.training_file))
    await harness.becomes(job, "queued")
    resting_on = Jobs.resting_on

    async def found_and_then_trained(jobs: Jobs, tenant_id: str, dataset_id: str) -> list[Job]:
        found = await resting_on(jobs, tenant_id, dataset_id)
        if found:
            await harness.train(job)
        return found

    monkeypatch.setattr(Jobs, "resting_on", found_and_then_trained)
    await harness.publish(gone(harness, job.training_file))

    async def trained() -> bool:
        return await harness.state(job) != "queued"

    await eventually(trained)
    await harness.publish(gone(harness, job.training_file))
    await harness.decide(harness.promoted(job))
    assert await harness.status(job) == "succeeded"
    assert (await harness.store.get(harness.a, job.id)).adapter_files == "kept"
    assert not [line for line in await harness.messages(job) if "deleted" in line]


async def test_rows_that_were_deleted_before_they_were_heard_of_are_trained_on_by_no_job(harness: Harness) -> None:
    file = harness.file()
    await harness.publish(gone(harness, file))
    await harness.publish(harness.prepared(file))
    failed = await harness.becomes(await harness.job(file), "failed")
    assert failed.error is not None
    assert failed.error.code == "invalid_training_file"
    assert "deleted" in failed.error.message


async def test_the_adapter_of_a_deleted_model_is_removed_and_said_to_be_once(harness: Harness) -> None:
    job = await harness.evaluating()
    objects = harness.space.objects()
    await objects.prepare()
    folder = f"tenants/{harness.a}/adapters/ad-1"
    await objects.put_bytes(f"{folder}/weights", b"x")
    await objects.put_bytes(f"{folder}/manifest.json", b"{}")
    await harness.decide(harness.promoted(job))
    deleted = ModelDeleted(**harness.model(job))
    await harness.decide(deleted, deleted)
    [lost] = await eventually(lambda: harness.of(FinetuneAdapterDeleted))
    assert (lost.job_id, lost.adapter_id) == (job.id, "ad-1")
    assert await objects.keys(f"{folder}/") == []
    assert await harness.status(job) == "succeeded"
    assert len(harness.of(FinetuneAdapterDeleted)) == 1


async def test_an_adapter_that_an_earlier_release_kept_of_a_refused_model_is_found_and_removed(
    harness: Harness,
) -> None:
    job, used = await harness.evaluating(), await harness.evaluating()
    await harness.decide(harness.promoted(used))
    as_then = {"state": "failed", "adapter_files": "kept"}
    await harness.store.collection.update_one({"_id": job.id}, {"$set": as_then})
    async with harness.http() as http:

        async def leftovers(*, purge: bool) -> dict[str, int]:
            return dict((await http.post("/internal/leftovers", json={"purge": purge})).json())

        assert await leftovers(purge=False) == {"purged": 0, "found": 1}
        assert await leftovers(purge=True) == {"purged": 1, "found": 0}
        [lost] = await eventually(lambda: harness.of(FinetuneAdapterDeleted))
        assert lost.job_id == job.id
        assert await leftovers(purge=True) == {"purged": 0, "found": 0}
    assert (await harness.store.get(harness.a, used.id)).adapter_files == "kept"


async def test_a_request_repeated_under_one_key_is_one_job(harness: Harness) -> None:
    file, key = harness.file(), {"Idempotency-Key": new_id("once")}
    jobs = harness.sdk().fine_tuning.jobs
    first, second = [await jobs.create(model=BASE, training_file=file, extra_headers=key) for _ in range(2)]
    assert first.id == second.id
    assert len((await harness.sdk().fine_tuning.jobs.list()).data) == 1


async def test_a_tenant_may_have_only_so_many_jobs_open(harness: Harness) -> None:
    made = [await harness.job() for _ in range(5)]
    with pytest.raises(openai.RateLimitError, match="cancel some"):
        await harness.job()
    await harness.sdk().fine_tuning.jobs.cancel(made[0].id)
    assert (await harness.job()).status == "validating_files"

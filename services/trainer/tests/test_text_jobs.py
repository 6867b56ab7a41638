"""Jobs that learn from text, through the API and the events of a running trainer."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from trainer_world import BASE, World

from schemas import FileDeleted, FinetuneRequested, FinetuneStarted, FinetuneTrained, Purpose
from schemas.http.ingest import FileText
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def lenient(world: World) -> openai.AsyncOpenAI:
    """The `openai` SDK before answers that its types do not know: it has no such method."""
    return world.sdk().with_options(_extra_kwargs={"_strict_response_validation": False})


async def ask(world: World, file: str = "", **hyperparameters: Any) -> FineTuningJob:
    """A job by `pretrain`."""
    told = {"pretrain": {"hyperparameters": hyperparameters}} if hyperparameters else {}
    return await lenient(world).fine_tuning.jobs.create(
        model=BASE,
        training_file=file or world.file(purpose="assistants"),
        extra_body={"method": {"type": "pretrain", **told}},
    )


async def becomes(world: World, job: FineTuningJob, status: str) -> dict[str, Any]:
    async def now() -> Any:
        shown = await world.shown(job)
        return shown if shown["status"] == status else None

    found: dict[str, Any] = await eventually(now)
    return found


async def test_a_document_is_pretrained_on_and_its_events_say_how(world: World) -> None:
    job = await ask(world, learning_rate_multiplier=0.5, context_length=512)
    assert (await world.shown(job))["stage"] == "waiting_for_file"
    await world.publish(world.document(job.training_file, size=400_000))
    shown = await becomes(world, job, "queued")
    chosen = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.5, "context_length": 512}  # 195 windows
    assert shown["method"] == {"type": "pretrain", "pretrain": {"hyperparameters": chosen}}
    assert shown["hyperparameters"] == chosen

    await world.train(job)
    [requested] = await eventually(lambda: [one for one in world.of(FinetuneRequested) if one.job_id == job.id])
    [started] = await eventually(lambda: [one for one in world.of(FinetuneStarted) if one.job_id == job.id])
    [trained] = await eventually(lambda: [one for one in world.of(FinetuneTrained) if one.job_id == job.id])
    assert {requested.method, started.method, trained.method} == {"pretrain"}
    text = world.document(job.training_file, size=400_000).text
    learned = trained.dataset
    assert (learned.dataset_id, learned.heldout, learned.task) == (job.training_file, text, "generation")


async def test_rows_of_text_are_pretrained_on_though_they_are_no_dataset(world: World) -> None:
    file = world.file(purpose="user_data")
    job = await ask(world, file)
    await world.publish(world.not_rows(file, "no_answers"))
    await world.publish(world.unlabelled(file, rows=2000))
    chosen = (await becomes(world, job, "queued"))["hyperparameters"]
    assert (chosen["n_epochs"], chosen["batch_size"]) == (1, 32), "a row is a window at least, however short"
    later = await ask(world, file)
    assert (await world.shown(later))["status"] == "queued"


async def test_a_document_among_ones_own_data_is_pretrained_on(world: World) -> None:
    file = world.file(purpose="user_data")
    job = await ask(world, file)
    await world.publish(world.not_rows(file, "no_rows"))
    await world.publish(world.document(file))
    await becomes(world, job, "queued")


@pytest.mark.parametrize("purpose", ["assistants", "user_data"])
async def test_a_file_that_was_read_before_anybody_listened_is_asked_for(world: World, purpose: str) -> None:
    file = world.file(purpose=purpose, status="processed")
    if purpose == "user_data":
        await world.publish(world.not_rows(file, "no_answers"))
    job = await ask(world, file)
    assert (await world.shown(job))["stage"] == "waiting_for_file"
    if purpose == "user_data":
        found = FileText(kind="rows", text=world.unlabelled(file).records, rows=450)
    else:
        found = FileText(kind="document", text=world.document(file, size=450 * 4096).text)
    world.elsewhere.texts[world.a, file] = found
    chosen = (await becomes(world, job, "queued"))["hyperparameters"]
    assert (chosen["n_epochs"], chosen["batch_size"]) == (1, 16)
    at_once = await ask(world, file)
    assert (await world.shown(at_once))["status"] == "queued"
    await world.train(at_once)
    [trained] = await eventually(lambda: [one for one in world.of(FinetuneTrained) if one.job_id == at_once.id])
    assert trained.dataset.heldout == found.text


async def test_no_upload_starts_it_by_itself(world: World) -> None:
    document, rows = world.file(purpose="user_data"), world.file(purpose="user_data")
    await world.publish(world.document(document))
    await world.publish(world.unlabelled(rows))
    for file in (document, rows):
        job = await ask(world, file)
        await becomes(world, job, "queued")
        listed = lenient(world).fine_tuning.jobs
        assert [one.id async for one in listed.list(extra_query={"training_file": file})] == [job.id]


async def test_rows_with_answers_are_refused_and_what_to_do_is_said(world: World) -> None:
    job = await ask(world, world.file(purpose="user_data"))
    await world.publish(world.prepared(job.training_file, purpose="user_data"))
    failed = await becomes(world, job, "failed")
    assert (failed["error"]["code"], failed["error"]["param"]) == ("invalid_training_file", "training_file")
    assert "Use the method 'supervised'" in failed["error"]["message"]


@pytest.mark.parametrize(("purpose", "code"), [("assistants", "no_document"), ("user_data", "bad_encoding")])
async def test_a_file_that_cannot_be_read_fails_the_job(world: World, purpose: Purpose, code: str) -> None:
    job = await ask(world, world.file(purpose=purpose))
    await world.publish(world.not_rows(job.training_file, code, purpose))
    failed = await becomes(world, job, "failed")
    assert failed["error"]["message"] == f"no rows: {code}"


async def test_a_deleted_document_is_pretrained_on_by_nobody(world: World) -> None:
    queued, waiting = await ask(world), await ask(world)
    await world.publish(world.document(queued.training_file))
    await becomes(world, queued, "queued")
    for job in (queued, waiting):
        await world.publish(FileDeleted(tenant_id=world.a, file_id=job.training_file))
    assert (await becomes(world, queued, "failed"))["error"]["code"] == "file_deleted"
    await becomes(world, waiting, "failed")
    await world.publish(world.document(waiting.training_file))  # parsed before, told after
    late = await ask(world, waiting.training_file)
    assert "deleted" in (await becomes(world, late, "failed"))["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "param", "said"),
    [
        (
            {"method": {"type": "pretrain", "pretrain": {"hyperparameters": {"beta": 1}}}},
            "hyperparameters.beta",
            "can be",
        ),
        (
            {"method": {"type": "pretrain", "pretrain": {"hyperparameters": {"early_stop_patience": 1}}}},
            "hyperparameters.early_stop_patience",
            "n_epochs, batch_size, learning_rate_multiplier, context_length can be set",
        ),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"context_length": 64}}}},
            "hyperparameters.context_length",
            "can be set",
        ),
        (
            {"method": {"type": "pretrain", "pretrain": {"hyperparameters": {"context_length": 1025}}}},
            "hyperparameters.context_length",
            "allows 1024 tokens at most; got 1025",
        ),
        ({"method": {"type": "pretrain", "supervised": {}}}, "method.supervised", "ask for 'supervised'"),
        ({"method": {"type": "supervised", "pretrain": {}}}, "method.pretrain", "ask for 'pretrain'"),
        ({"method": {"type": "dpo"}}, "method.type", "use 'supervised' or 'pretrain'"),
        ({"method": {"type": "pretrain"}, "validation_file": "rows"}, "validation_file", "Leave it out"),
        ({"method": {"type": "pretrain"}, "training_file": "batch"}, "training_file", "'assistants' (a document)"),
        ({"method": {"type": "pretrain"}, "training_file": "rows"}, "training_file", "or 'user_data' (rows of the"),
        ({"training_file": "document"}, "training_file", "upload it with 'fine-tune'"),
    ],
)
async def test_what_a_method_cannot_use_is_refused_by_its_name(
    world: World, asked: dict[str, Any], param: str, said: str
) -> None:
    files = {name: world.file(purpose=kind) for name, kind in (("document", "assistants"), ("batch", "batch"))}
    files["rows"] = world.file()
    asked = {name: files.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}
    async with world.http() as http:
        body = {"model": BASE, "training_file": files["document"], **asked}
        if param != "training_file" and "validation_file" not in asked:
            body["training_file"] = files["rows"]
        answer = await http.post("/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param
        assert said in answer.json()["error"]["message"]
        assert (await http.get("/v1/fine_tuning/jobs")).json()["data"] == []

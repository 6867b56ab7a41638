"""Jobs that learn from text, through the API and the events of a running trainer."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob
from trainer_harness import BASE, Harness

from schemas import FileDeleted, FinetuneRequested, FinetuneStarted, FinetuneTrained, Purpose
from schemas.http.ingest import FileText
from testkit import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def lenient(harness: Harness) -> openai.AsyncOpenAI:
    """The `openai` SDK before answers that its types do not know: it has no such method."""
    return harness.sdk().with_options(_extra_kwargs={"_strict_response_validation": False})


async def ask(harness: Harness, file: str = "", **hyperparameters: Any) -> FineTuningJob:
    """A job by `pretrain`."""
    told = {"pretrain": {"hyperparameters": hyperparameters}} if hyperparameters else {}
    return await lenient(harness).fine_tuning.jobs.create(
        model=BASE,
        training_file=file or harness.file(purpose="assistants"),
        extra_body={"method": {"type": "pretrain", **told}},
    )


async def becomes(harness: Harness, job: FineTuningJob, status: str) -> dict[str, Any]:
    async def now() -> Any:
        shown = await harness.shown(job)
        return shown if shown["status"] == status else None

    found: dict[str, Any] = await eventually(now)
    return found


async def test_a_document_is_pretrained_on_and_its_events_say_how(harness: Harness) -> None:
    job = await ask(harness, learning_rate_multiplier=0.5, context_length=512)
    assert (await harness.shown(job))["stage"] == "waiting_for_file"
    await harness.publish(harness.document(job.training_file, size=400_000))
    shown = await becomes(harness, job, "queued")
    chosen = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 0.5, "context_length": 512}  # 195 windows
    assert shown["method"] == {"type": "pretrain", "pretrain": {"hyperparameters": chosen}}
    assert shown["hyperparameters"] == chosen

    await harness.train(job)
    [requested] = await eventually(lambda: [one for one in harness.of(FinetuneRequested) if one.job_id == job.id])
    [started] = await eventually(lambda: [one for one in harness.of(FinetuneStarted) if one.job_id == job.id])
    [trained] = await eventually(lambda: [one for one in harness.of(FinetuneTrained) if one.job_id == job.id])
    assert {requested.method, started.method, trained.method} == {"pretrain"}
    text = harness.document(job.training_file, size=400_000).text
    learned = trained.dataset
    assert (learned.dataset_id, learned.heldout, learned.task) == (job.training_file, text, "generation")


async def test_rows_of_text_are_pretrained_on_though_they_are_no_dataset(harness: Harness) -> None:
    file = harness.file(purpose="user_data")
    job = await ask(harness, file)
    await harness.publish(harness.not_rows(file, "no_answers"))
    await harness.publish(harness.unlabelled(file, rows=2000))
    chosen = (await becomes(harness, job, "queued"))["hyperparameters"]
    assert (chosen["n_epochs"], chosen["batch_size"]) == (1, 32), "a row is a window at least, however short"
    later = await ask(harness, file)
    assert (await harness.shown(later))["status"] == "queued"


async def test_a_document_among_ones_own_data_is_pretrained_on(harness: Harness) -> None:
    file = harness.file(purpose="user_data")
    job = await ask(harness, file)
    await harness.publish(harness.not_rows(file, "no_rows"))
    await harness.publish(harness.document(file))
    await becomes(harness, job, "queued")


@pytest.mark.parametrize("purpose", ["assistants", "user_data"])
async def test_a_file_that_was_read_before_anybody_listened_is_asked_for(harness: Harness, purpose: str) -> None:
    file = harness.file(purpose=purpose, status="processed")
    if purpose == "user_data":
        await harness.publish(harness.not_rows(file, "no_answers"))
    job = await ask(harness, file)
    assert (await harness.shown(job))["stage"] == "waiting_for_file"
    if purpose == "user_data":
        found = FileText(kind="rows", text=harness.unlabelled(file).records, rows=450)
    else:
        found = FileText(kind="document", text=harness.document(file, size=450 * 4096).text)
    harness.peers.texts[harness.a, file] = found
    chosen = (await becomes(harness, job, "queued"))["hyperparameters"]
    assert (chosen["n_epochs"], chosen["batch_size"]) == (1, 16)
    at_once = await ask(harness, file)
    assert (await harness.shown(at_once))["status"] == "queued"
    await harness.train(at_once)
    [trained] = await eventually(lambda: [one for one in harness.of(FinetuneTrained) if one.job_id == at_once.id])
    assert trained.dataset.heldout == found.text


async def test_no_upload_starts_it_by_itself(harness: Harness) -> None:
    document, rows = harness.file(purpose="user_data"), harness.file(purpose="user_data")
    await harness.publish(harness.document(document))
    await harness.publish(harness.unlabelled(rows))
    for file in (document, rows):
        job = await ask(harness, file)
        await becomes(harness, job, "queued")
        listed = lenient(harness).fine_tuning.jobs
        assert [one.id async for one in listed.list(extra_query={"training_file": file})] == [job.id]


async def test_rows_with_answers_are_refused_and_what_to_do_is_said(harness: Harness) -> None:
    job = await ask(harness, harness.file(purpose="user_data"))
    await harness.publish(harness.prepared(job.training_file, purpose="user_data"))
    failed = await becomes(harness, job, "failed")
    assert (failed["error"]["code"], failed["error"]["param"]) == ("invalid_training_file", "training_file")
    assert "Use the method 'supervised'" in failed["error"]["message"]


@pytest.mark.parametrize(("purpose", "code"), [("assistants", "no_document"), ("user_data", "bad_encoding")])
async def test_a_file_that_cannot_be_read_fails_the_job(harness: Harness, purpose: Purpose, code: str) -> None:
    job = await ask(harness, harness.file(purpose=purpose))
    await harness.publish(harness.not_rows(job.training_file, code, purpose))
    failed = await becomes(harness, job, "failed")
    assert failed["error"]["message"] == f"no rows: {code}"


async def test_a_deleted_document_is_pretrained_on_by_nobody(harness: Harness) -> None:
    queued, waiting = await ask(harness), await ask(harness)
    await harness.publish(harness.document(queued.training_file))
    await becomes(harness, queued, "queued")
    for job in (queued, waiting):
        await harness.publish(FileDeleted(tenant_id=harness.a, file_id=job.training_file))
    assert (await becomes(harness, queued, "failed"))["error"]["code"] == "file_deleted"
    await becomes(harness, waiting, "failed")
    await harness.publish(harness.document(waiting.training_file))  # parsed before, told after
    late = await ask(harness, waiting.training_file)
    assert "deleted" in (await becomes(harness, late, "failed"))["error"]["message"]


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
    harness: Harness, asked: dict[str, Any], param: str, said: str
) -> None:
    files = {name: harness.file(purpose=kind) for name, kind in (("document", "assistants"), ("batch", "batch"))}
    files["rows"] = harness.file()
    asked = {name: files.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}
    async with harness.http() as http:
        body = {"model": BASE, "training_file": files["document"], **asked}
        if param != "training_file" and "validation_file" not in asked:
            body["training_file"] = files["rows"]
        answer = await http.post("/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param
        assert said in answer.json()["error"]["message"]
        assert (await http.get("/v1/fine_tuning/jobs")).json()["data"] == []

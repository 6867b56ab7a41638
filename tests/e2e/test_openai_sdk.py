"""Every route of the OpenAI surface, driven by the unmodified SDK under strict response validation."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest

from tests.conftest import Tenant
from tests.e2e.test_main_way import rows, trained, wait_for  # noqa: F401 - a fixture

BASE = "tiny-test"
HELLO: Any = [{"role": "user", "content": "hello there"}]


def test_files(tenant: Tenant) -> None:
    sdk = tenant.sdk
    body = rows(20)
    made = sdk.files.create(file=("a name.jsonl", body), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(body), "a name.jsonl", "fine-tune")
    assert made.id in [file.id for file in sdk.files.list(purpose="fine-tune")]
    assert sdk.files.retrieve(made.id).id == made.id
    assert sdk.files.content(made.id).read() == body
    assert sdk.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(made.id)


def test_files_page(tenant: Tenant) -> None:
    sdk = tenant.sdk
    made = [sdk.files.create(file=(f"{n}.md", f"# page {n}".encode()), purpose="assistants").id for n in range(3)]
    seen = [file.id for file in sdk.files.list(purpose="assistants", limit=2)]
    assert set(made) <= set(seen)
    assert len(seen) == len(set(seen))
    upwards = [file.id for file in sdk.files.list(purpose="assistants", order="asc", limit=2)]
    assert upwards == seen[::-1]


def test_fine_tuning_jobs(tenant: Tenant) -> None:
    sdk = tenant.sdk
    training = sdk.files.create(file=("t.jsonl", rows(40)), purpose="fine-tune")
    validation = sdk.files.create(file=("v.jsonl", rows(12, first=40)), purpose="fine-tune")
    job = sdk.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        validation_file=validation.id,
        suffix="my-suffix",
        seed=3,
        metadata={"team": "desk"},
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 8, "batch_size": "auto", "learning_rate_multiplier": "auto"}
            },
        },
    )
    assert job.object == "fine_tuning.job"
    assert job.status in ("validating_files", "queued", "running")
    assert (job.seed, job.validation_file, job.metadata) == (3, validation.id, {"team": "desk"})
    assert job.id in [found.id for found in sdk.fine_tuning.jobs.list()]
    wait_for(lambda: _job(sdk, job.id).status in ("succeeded", "failed"))
    done = _job(sdk, job.id)
    assert done.status == "succeeded", done.error
    assert ":my-suffix:" in done.fine_tuned_model
    assert done.trained_tokens > 0
    assert done.finished_at >= done.created_at
    assert len(sdk.fine_tuning.jobs.list_events(job.id, limit=2).data) == 2
    assert sdk.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuning_job_id == job.id


def _job(sdk: openai.OpenAI, job_id: str) -> Any:
    return sdk.fine_tuning.jobs.retrieve(job_id)


def test_a_job_is_cancelled_paused_and_resumed(tenant: Tenant) -> None:
    sdk = tenant.sdk
    training = sdk.files.create(file=("t.jsonl", rows(60)), purpose="fine-tune")
    long: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 2}}}
    job = sdk.fine_tuning.jobs.create(model=BASE, training_file=training.id, method=long)
    sdk.fine_tuning.jobs.pause(job.id)
    sdk.fine_tuning.jobs.resume(job.id)
    assert sdk.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.APIStatusError):
        sdk.fine_tuning.jobs.resume(job.id)


def test_models(tenant: Tenant, trained: Any) -> None:  # noqa: F811
    sdk = tenant.sdk
    listed = [model.id for model in sdk.models.list()]
    assert BASE in listed
    assert trained.fine_tuned_model in listed
    assert sdk.models.retrieve(trained.fine_tuned_model).owned_by
    with pytest.raises(openai.PermissionDeniedError):
        sdk.models.delete(BASE)


def test_chat(tenant: Tenant) -> None:
    answer = tenant.sdk.chat.completions.create(model=BASE, messages=HELLO, max_tokens=5, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    several = tenant.sdk.chat.completions.create(model=BASE, messages=HELLO, max_tokens=3, n=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1]


def test_chat_streams(tenant: Tenant) -> None:
    chunks = list(
        tenant.sdk.chat.completions.create(
            model=BASE,
            messages=HELLO,
            max_tokens=5,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = tenant.sdk.chat.completions.create(model=BASE, messages=HELLO, max_tokens=5, temperature=0)
    assert text == whole.choices[0].message.content


def test_completions(tenant: Tenant) -> None:
    answer = tenant.sdk.completions.create(model=BASE, prompt="once upon", max_tokens=4)
    assert answer.object == "text_completion"
    # Chunks before the last have no finish_reason, as OpenAI sends them; the SDK's strict types do not know that.
    lenient = openai.OpenAI(base_url=tenant.base_url, api_key=tenant.api_key)
    pieces = list(lenient.completions.create(model=BASE, prompt="once upon", max_tokens=4, stream=True))
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


def test_embeddings(tenant: Tenant) -> None:
    model = "multilingual-e5-small"
    texts = ["a bicycle", "自転車"]
    plain = tenant.sdk.embeddings.create(model=model, input=texts, encoding_format="float")
    # By default the SDK asks for base64 and decodes it itself, after its strict check, which knows only lists.
    lenient = openai.OpenAI(base_url=tenant.base_url, api_key=tenant.api_key)
    packed = lenient.embeddings.create(model=model, input=texts)
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    raw = lenient.embeddings.with_raw_response.create(model=model, input=texts[0], encoding_format="base64")
    encoded = raw.http_response.json()["data"][0]["embedding"]
    decoded = struct.unpack(f"<{len(plain.data[0].embedding)}f", base64.b64decode(encoded))
    assert list(decoded) == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_vector_stores_and_retrieval(tenant: Tenant) -> None:
    sdk = tenant.sdk
    page = "# Refunds\n\nRefunds take five working days.\n\n# Hours\n\nThe desk is open from 7 to 22.\n"
    file = sdk.files.create(file=("help.md", page.encode()), purpose="assistants")
    store = sdk.vector_stores.create(name="Help")
    sdk.vector_stores.files.create(vector_store_id=store.id, file_id=file.id)
    wait_for(
        lambda: sdk.vector_stores.files.retrieve(file.id, vector_store_id=store.id).status == "completed", seconds=60
    )
    found = sdk.vector_stores.search(store.id, query="How long does a refund take?").data
    assert found[0].file_id == file.id
    assert "five working days" in found[0].content[0].text
    answer = sdk.chat.completions.create(
        model=BASE,
        messages=[{"role": "user", "content": "How long does a refund take?"}],
        max_tokens=4,
        extra_body={"vector_store_ids": [store.id]},
    )
    assert answer.choices
    assert sdk.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.vector_stores.retrieve(store.id)

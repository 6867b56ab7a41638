"""A model answers seconds after its rows are uploaded, by an arm, while it is trained; it is deleted as one thing."""

from __future__ import annotations

import json
import math
from typing import Any

import openai
import pytest

from localstack import LocalStack
from tests.conftest import Tenant, make_tenant
from tests.e2e.test_main_way import INTENTS, rows, wait_for

ARMS = ("head", "nearest")
QUESTION: list[Any] = [{"role": "user", "content": "the lock of bike 3 stays shut"}]
FIRST_ANSWER = 60.0
"""Seconds within which the arm of so few rows answers, also on a busy machine."""

TRAINED: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 20, "batch_size": 4}}}
TRAINED_LONG: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 2}}}


def begun(tenant: Tenant, method: Any) -> Any:
    """A job of rows of three classes, as soon as its model answers."""
    file = tenant.sdk.files.create(file=("messages.jsonl", rows(150)), purpose="fine-tune")
    job = tenant.sdk.fine_tuning.jobs.create(model="tiny-test", training_file=file.id, method=method)

    def early() -> Any:
        shown = job_of(tenant, job.id)
        assert shown["status"] not in ("succeeded", "failed", "cancelled"), shown
        return shown if shown["fine_tuned_model"] else None

    return wait_for(early, seconds=FIRST_ANSWER)


def job_of(tenant: Tenant, job_id: str) -> Any:
    with tenant.http as http:
        return http.get(f"/fine_tuning/jobs/{job_id}").raise_for_status().json()


def versions_of(tenant: Tenant, name: str) -> list[dict[str, Any]]:
    """What the registry still has of a name."""
    with tenant.http as http:
        cards = http.get("/registry/models", params={"name": name}).raise_for_status().json()["data"]
    return [card for card in cards if card["deleted_at"] is None]


def answered(tenant: Tenant, name: str) -> tuple[str | None, Any]:
    """By what a name answers, as its header says, and the answer."""
    raw = tenant.sdk.chat.completions.with_raw_response.create(model=name, messages=QUESTION, max_tokens=8)
    return raw.headers.get("x-sartor-arm"), raw.parse()


def missing(tenant: Tenant, name: str) -> bool:
    try:
        tenant.sdk.chat.completions.create(model=name, messages=QUESTION, max_tokens=1)
    except openai.NotFoundError:
        return True
    return False


@pytest.fixture(scope="module")
def early(stack: LocalStack) -> Tenant:
    """A tenant of its own, whose gate lets every version through."""
    return make_tenant(stack, "Early")


@pytest.fixture(scope="module")
def job(early: Tenant) -> Any:
    """A job whose model answers and which goes on."""
    return begun(early, TRAINED)


def test_the_name_answers_by_an_arm_while_the_job_goes_on(early: Tenant, job: Any, stranger: Tenant) -> None:
    name, kind = job["fine_tuned_model"], job["answers_by"]
    assert kind in ARMS
    assert job["status"] in ("queued", "running")
    by, answer = answered(early, name)
    assert by == kind
    assert answer.choices[0].message.content in INTENTS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.system_fingerprint.startswith("arm-")
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens == 1
    assert [model.id for model in early.sdk.models.list()].count(name) == 1
    [version] = versions_of(early, name)
    assert (version["id"], version["arm"], version["serves"]) == (f"{name}@{kind}", kind, True)
    assert missing(stranger, name)
    assert job_of(early, job["id"])["status"] in ("queued", "running")


def test_what_the_rows_tell_is_read_by_their_owner(early: Tenant, job: Any, stranger: Tenant) -> None:
    place = f"/fine_tuning/jobs/{job['id']}/data_report"
    with early.http as http:
        report = http.get(place).raise_for_status().json()
    assert (report["job_id"], report["arm"]) == (job["id"], job["answers_by"])
    assert [point["rows"] for point in report["curve"]["points"]] == sorted(
        {point["rows"] for point in report["curve"]["points"]}
    )
    assert report["said"]
    assert {row["answer"] for row in report["suspects"]} <= set(INTENTS)
    with stranger.http as http:
        assert http.get(place).status_code == 404


def test_the_sdk_gets_streams_and_logprobs_of_an_arm(early: Tenant, job: Any) -> None:
    chat, name = early.sdk.chat.completions, job["fine_tuned_model"]
    likeliest = chat.create(model=name, messages=QUESTION).choices[0].message.content
    chunks = list(chat.create(model=name, messages=QUESTION, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == likeliest
    assert chunks[-1].usage is not None
    asked: Any = {"logprobs": True, "top_logprobs": 3, "temperature": 0}
    choice = chat.create(model=name, messages=QUESTION, **asked).choices[0]
    assert choice.logprobs is not None
    [token] = choice.logprobs.content or []
    assert token.token == likeliest
    assert token.logprob <= 0
    assert {one.token for one in token.top_logprobs} <= set(INTENTS)
    assert token.top_logprobs[0].logprob == max(one.logprob for one in token.top_logprobs)
    assert sum(math.exp(one.logprob) for one in token.top_logprobs) <= 1.001


@pytest.mark.parametrize("refused", [{"frequency_penalty": 1}, {"logit_bias": {"1": 5}}])
def test_what_has_no_meaning_for_an_arm_is_refused_by_name(early: Tenant, job: Any, refused: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match=next(iter(refused))):
        early.sdk.chat.completions.create(model=job["fine_tuned_model"], messages=QUESTION, **refused)


def test_a_pinned_arm_leaves_what_it_is_unsure_of_to_the_next_and_all_else_not(early: Tenant, job: Any) -> None:
    name, kind = job["fine_tuned_model"], job["answers_by"]

    def pin(below: float) -> None:
        with early.http as http:
            said = {"hand_over_below": below}
            card = http.post(f"/registry/models/{name}@{kind}/pin", json=said).raise_for_status().json()
        assert (card["pinned"], card["hand_over_below"]) == (True, below)

    strange: list[Any] = [{"role": "user", "content": "who painted the ceiling of the chapel?"}]

    def handed_over() -> Any:
        told = early.sdk.chat.completions.with_raw_response.create(model=name, messages=strange, max_tokens=8)
        return told if "x-sartor-handed-over" in told.headers else None

    try:
        pin(1.0)
        told = wait_for(handed_over, seconds=30)
        by, answer = told.headers["x-sartor-arm"], told.parse()
        assert told.headers["x-sartor-handed-over"].startswith(f"{kind};confidence=0")
        assert by in ("base", "adapter")
        assert (answer.model, answer.system_fingerprint.split("-")[0]) == (name, {"base": "base", "adapter": "ad"}[by])
        pin(0.01)
        wait_for(lambda: answered(early, name)[0] == kind, seconds=30)
        assert answered(early, name)[1].choices[0].message.content in INTENTS
    finally:
        with early.http as http:
            assert http.post(f"/registry/models/{name}/unpin").raise_for_status().json()["pinned"] is False


def test_the_job_ends_under_the_same_name_and_deleting_it_leaves_no_version(early: Tenant, job: Any) -> None:
    name = job["fine_tuned_model"]
    ended = wait_for(lambda: (shown := job_of(early, job["id"]))["stage"] == "ended" and shown)
    assert (ended["status"], ended["fine_tuned_model"]) == ("succeeded", name), ended["error"]
    assert ended["answers_by"] in (*ARMS, "adapter")
    wait_for(lambda: answered(early, name)[0] == ended["answers_by"], seconds=30)
    assert [card["arm"] or "adapter" for card in versions_of(early, name) if card["serves"]] == [ended["answers_by"]]
    assert early.sdk.models.delete(name).deleted
    wait_for(lambda: missing(early, name), seconds=30)
    assert versions_of(early, name) == []
    with early.http as http:
        wait_for(lambda: http.get(f"/fine_tuning/jobs/{job['id']}/data_report").status_code == 404, seconds=30)
    with pytest.raises(openai.NotFoundError):
        early.sdk.models.retrieve(name)


def test_deleting_the_name_early_ends_the_job_and_no_version_comes_later(early: Tenant) -> None:
    job = begun(early, TRAINED_LONG)
    name = job["fine_tuned_model"]
    assert early.sdk.models.delete(name).deleted
    wait_for(lambda: missing(early, name), seconds=30)
    ended = wait_for(lambda: (shown := job_of(early, job["id"]))["stage"] == "ended" and shown)
    assert (ended["status"], ended["error"]["code"], ended["fine_tuned_model"]) == ("failed", "model_deleted", None)
    assert versions_of(early, name) == []


def free_text(count: int) -> bytes:
    """Rows whose answers come once."""
    said = [("user", "Where does article {n} lie?"), ("assistant", "Article {n} lies in row {n} of the upper hall.")]
    return "\n".join(
        json.dumps({"messages": [{"role": role, "content": text.format(n=number)} for role, text in said]})
        for number in range(count)
    ).encode()


def test_rows_whose_answers_come_once_are_answered_by_the_base_model_that_is_shown_the_closest(
    stack: LocalStack, stranger: Tenant
) -> None:
    """A person lets it through: the tiny base model writes nothing that a test would."""
    careful = make_tenant(stack, "Careful", gate="approval")
    file = careful.sdk.files.create(file=("articles.jsonl", free_text(150)), purpose="fine-tune")
    careful.sdk.fine_tuning.jobs.create(model="tiny-test", training_file=file.id, method=TRAINED_LONG)

    def waiting() -> Any:
        with careful.http as http:
            found = http.get("/registry/models").raise_for_status().json()["data"]
        return next((one for one in found if one["generates"] and one["state"] == "awaiting_approval"), None)

    version = wait_for(waiting)
    name = version["name"]
    assert (version["id"], version["arm"]) == (f"{name}@nearest", "nearest")
    assert set(version["evaluation"]["scores"]) == {"base", "candidate"}
    assert missing(careful, name)
    with careful.http as http:
        http.post(f"/registry/models/{version['id']}/approve").raise_for_status()
    wait_for(lambda: not missing(careful, name), seconds=30)
    by, answer = answered(careful, name)
    assert by == "nearest"
    assert (answer.model, answer.system_fingerprint) == (name, version["adapter_id"])
    plain = careful.sdk.chat.completions.create(model="tiny-test", messages=QUESTION, max_tokens=8)
    assert answer.usage.prompt_tokens > 2 * plain.usage.prompt_tokens, "no row was shown"
    chunks = list(careful.sdk.chat.completions.create(model=name, messages=QUESTION, max_tokens=8, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="prompt"):
        careful.sdk.completions.create(model=name, prompt="Where?")
    assert missing(stranger, name)
    assert careful.sdk.models.delete(name).deleted
    wait_for(lambda: missing(careful, name), seconds=30)

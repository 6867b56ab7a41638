"""What each bad input gets through the public API, row for row as `docs/bad_inputs.md` says; `-s` prints the table."""

from __future__ import annotations

import io
import json
import re
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import openai
import openpyxl
import pytest

from tests.conftest import ROOT, Tenant
from tests.e2e.test_main_way import rows, wait_for

SAMPLES = ROOT / "infra/samples/bad"
DOCUMENT = ROOT / "docs/bad_inputs.md"
GIBIBYTE = 1024**3
Case = Callable[[Tenant], str]


def refused(call: Callable[[], object]) -> str:
    """The API's answer to a call it refuses."""
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    error = caught.value
    return _line(error.status_code, error.code, error.param, str(error.body["message"] if error.body else error))


def refused_file(body: bytes, filename: str, *, columns: dict[str, str] | None = None) -> Case:
    """What the owner of an upload reads once it was looked into."""

    def case(tenant: Tenant) -> str:
        extra = {"columns": json.dumps(columns)} if columns else None
        file = tenant.sdk.files.create(file=(filename, body), purpose="fine-tune", extra_body=extra)
        wait_for(lambda: tenant.sdk.files.retrieve(file.id).status == "error", seconds=60)
        return f"file status `error`: {tenant.sdk.files.retrieve(file.id).status_details}"

    return case


def sample(name: str, *, columns: dict[str, str] | None = None) -> Case:
    """A file of `infra/samples/bad`."""
    return refused_file((SAMPLES / name).read_bytes(), name, columns=columns)


def zip_bomb() -> bytes:
    """A small archive of very much."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.jsonl", b"0" * 100_000_000)
    return packed.getvalue()


def unpacks_to_much(tenant: Tenant) -> str:
    """The archive is made only when it is sent, as that takes a second."""
    return refused_file(zip_bomb(), "train.jsonl")(tenant)


def blank_cell() -> bytes:
    """A workbook whose second row has no answer."""
    made, body = openpyxl.Workbook(), io.BytesIO()
    made.active.title = "Messages"
    for row in (("message", "intent"), ("Where is it?", "tracking"), ("It is broken.", None)):
        made.active.append(row)
    made.save(body)
    return body.getvalue()


def with_a_password() -> bytes:
    """How a workbook begins that a spreadsheet program has encrypted."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1024) + "EncryptedPackage".encode("utf-16-le") + bytes(512)


def three_gigabytes(tenant: Tenant) -> str:
    """A file that takes no room on this disk; the answer comes long before its end."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.truncate(3 * GIBIBYTE)
        answer = refused(lambda: tenant.sdk.files.create(file=file.file, purpose="fine-tune"))
        assert file.tell() < GIBIBYTE, "most of it was sent before the answer"
    return answer


def wrong_purpose(tenant: Tenant) -> str:
    return refused(lambda: tenant.sdk.files.create(file=("a.jsonl", rows(3)), purpose="training"))  # type: ignore[arg-type]


def form(**fields: object) -> Case:
    """An upload with further form fields."""
    return lambda tenant: refused(
        lambda: tenant.sdk.files.create(file=("a.jsonl", rows(3)), purpose="fine-tune", extra_body=fields)
    )


def few_rows(tenant: Tenant) -> str:
    file = tenant.sdk.files.create(file=("a.jsonl", rows(3)), purpose="fine-tune")
    made = tenant.sdk.fine_tuning.jobs.create(model="tiny-test", training_file=file.id)
    wait_for(lambda: tenant.sdk.fine_tuning.jobs.retrieve(made.id).status == "failed", seconds=60)
    error = tenant.sdk.fine_tuning.jobs.retrieve(made.id).error
    assert error is not None
    return f"job status `failed`, code `{error.code}`: {error.message}"


def job(**wrong: object) -> Case:
    """A fine-tuning job that is asked for in a wrong way."""

    def case(tenant: Tenant) -> str:
        asked: dict[str, object] = {"model": "tiny-test", **wrong}
        if "training_file" not in asked:
            asked["training_file"] = tenant.sdk.files.create(file=("a.jsonl", rows(12)), purpose="fine-tune").id
        return refused(lambda: tenant.sdk.fine_tuning.jobs.create(**asked))  # type: ignore[call-overload]

    return case


def itself_to_validate(tenant: Tenant) -> str:
    file = tenant.sdk.files.create(file=("a.jsonl", rows(12)), purpose="fine-tune").id
    asked = {"model": "tiny-test", "training_file": file, "validation_file": file}
    return refused(lambda: tenant.sdk.fine_tuning.jobs.create(**asked))  # type: ignore[call-overload]


def supervised(**hyperparameters: object) -> dict[str, object]:
    return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}


def revoked_key(tenant: Tenant) -> str:
    with tenant.http as http:
        made = http.post("organization/keys", json={"name": "short-lived"}).raise_for_status().json()
        sdk = Tenant(tenant.base_url, tenant.tenant_id, made["api_key"]).sdk
        assert sdk.models.list().data
        http.delete(f"organization/keys/{made['id']}").raise_for_status()
    wait_for(lambda: not _answers(sdk), seconds=30)
    return refused(sdk.files.list)


def expired_key(tenant: Tenant) -> str:
    expires_at = int(time.time()) + 2
    with tenant.http as http:
        asked = {"name": "short-lived", "expires_at": expires_at}
        made = http.post("organization/keys", json=asked).raise_for_status().json()
    sdk = Tenant(tenant.base_url, tenant.tenant_id, made["api_key"]).sdk
    wait_for(lambda: time.time() > expires_at + 1, seconds=10)
    return refused(sdk.files.list)


def unknown_key(tenant: Tenant) -> str:
    sdk = Tenant(tenant.base_url, tenant.tenant_id, "sk-sartor-" + "x" * 43).sdk
    return refused(sdk.files.list)


def long_prompt(tenant: Tenant) -> str:
    messages = [{"role": "user", "content": "the lock stays shut " * 2000}]
    return refused(lambda: tenant.sdk.chat.completions.create(model="tiny-test", messages=messages))  # type: ignore[arg-type]


CASES: dict[str, Case] = {
    "not UTF-8": sample("not_utf8.csv"),
    "broken JSON at line 3": sample("broken_json.jsonl"),
    "a role that does not exist": sample("wrong_role.jsonl"),
    "no answer to learn": sample("no_answer.jsonl"),
    "two formats in one file": sample("mixed_formats.jsonl"),
    "a tool call": sample("tool_calls.jsonl"),
    "chosen and rejected answers": sample("preferences.jsonl"),
    "a field that stands twice in a row": sample("field_twice.jsonl"),
    "nothing to learn": sample("weight_zero.jsonl"),
    "one JSON array": sample("json_array.jsonl"),
    "empty file": sample("empty.jsonl"),
    "prose where rows are needed": sample("plain_text.txt"),
    "unknown column": sample("unknown_column.csv", columns={"text": "question", "label": "intent"}),
    "two columns that could be the text": sample("two_text_columns.csv"),
    "a quote that stays open": sample("open_quote.csv"),
    "a CSV line with a field too few": sample("short_line.csv"),
    "a blank cell in a workbook": refused_file(blank_cell(), "blank_cell.xlsx"),
    "a workbook with a password": refused_file(with_a_password(), "password.xlsx"),
    "zip bomb named .jsonl": unpacks_to_much,
    "3 GB upload": three_gigabytes,
    "wrong purpose": wrong_purpose,
    "a form field that is not read": form(delimiter=";"),
    "a role of a column that does not exist": form(columns='{"question": "a"}'),
    "too few rows to train on": few_rows,
    "unknown base model": job(model="gpt-none"),
    "unknown file": job(training_file="file-none"),
    "the training file as validation file": itself_to_validate,
    "epochs below 1": job(method=supervised(n_epochs=0)),
    "batch size that is no number": job(method=supervised(batch_size="large")),
    "learning rate out of range": job(method=supervised(learning_rate_multiplier=1000)),
    "unknown hyperparameter": job(method=supervised(dropout=0.1)),
    "a method that is not offered": job(method={"type": "reinforcement"}),
    "a suffix that is too long": job(suffix="x" * 65),
    "unknown key": unknown_key,
    "revoked key": revoked_key,
    "expired key": expired_key,
    "prompt longer than the context": long_prompt,
}


@pytest.fixture(scope="module")
def document() -> dict[str, str]:
    """The rows of the table, by case."""
    cells = [line.strip("| \n").split(" | ", 1) for line in Path(DOCUMENT).read_text().splitlines() if "|" in line]
    return dict(row for row in cells[2:] if len(row) == 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_gets_what_the_document_says(tenant: Tenant, document: dict[str, str], case: str) -> None:
    gets = CASES[case](tenant)
    print(f"\n| {case} | {gets} |")
    assert document.get(case) == gets


def test_every_row_of_the_document_is_tried(document: dict[str, str]) -> None:
    assert document.keys() == CASES.keys()


def _line(status: int, code: str | None, param: str | None, message: str) -> str:
    about = ", ".join(f"{name} `{value}`" for name, value in (("code", code), ("param", param)) if value)
    message = re.sub(r"req[_-][0-9A-Za-z-]+", "req-…", message)
    return f"{status}, {about}: {message}" if about else f"{status}: {message}"


def _answers(sdk: openai.OpenAI) -> bool:
    try:
        sdk.files.list()
    except openai.AuthenticationError:
        return False
    return True

"""The commands over the API: what people read, what programs read, and what is asked of the API."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_api import Api

from sartor_cli import job_commands
from sartor_cli.client import CommandFailed

Sartor = Callable[..., tuple[str, str]]

MODEL = "ft:gemma-3-270m:kumo-cycles:support-intents:0123456789abcdef"
FILE_ID, JOB_ID, DATASET_ID = "file-" + "a" * 32, "ftjob-" + "b" * 32, "ds-" + "c" * 32
AT, LATER = 1_700_000_000, 1_700_000_060
FILE = {
    "id": FILE_ID,
    "object": "file",
    "bytes": 5_242_880,
    "created_at": AT,
    "filename": "Fragen zur Rückerstattung 返金についての質問.jsonl",
    "purpose": "user_data",
    "status": "processed",
    "status_details": None,
    "expires_at": None,
    "kind": "rows",
}
JOB = {
    "id": JOB_ID,
    "status": "running",
    "stage": "awaiting_approval",
    "waiting_for": {"what": "A decision about the model", "who": "an owner or approver", "since": AT},
    "model": "gemma-3-270m",
    "training_file": FILE_ID,
    "validation_file": None,
    "fine_tuned_model": MODEL,
    "created_at": AT,
    "estimated_finish": None,
    "finished_at": LATER,
    "trained_tokens": 12_345,
    "hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": "auto"},
    "seed": 7,
    "error": None,
    "metadata": None,
}
DATASET = {
    "id": DATASET_ID,
    "created_at": AT,
    "file_id": FILE_ID,
    "project_id": None,
    "task": "classification",
    "labels": ["refund", "意見"],
    "rows": {"train": 40, "validation": 5, "heldout": 5, "rejected": None},
    "system": "Name the intent.",
    "manifest": {},
    "card": "# Card",
}
CARD = {
    "id": MODEL,
    "state": "awaiting_approval",
    "waiting_for": "approval",
    "created_at": AT,
    "promoted_at": None,
    "ended_at": None,
    "base_model": "gemma-3-270m",
    "job_id": JOB_ID,
    "dataset_id": DATASET_ID,
    "training_file": FILE_ID,
    "task": "classification",
    "hyperparameters": {"n_epochs": 3},
    "seed": 7,
    "trained_tokens": 12_345,
    "evaluation": {
        "verdict": "needs_human",
        "reason": "Too few rows.",
        "metric": "accuracy",
        "scores": {"base": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}},
        "measured": {
            "accuracy": {"value": 0.875, "low": 0.5, "high": 0.99, "n": 8},
            "macro_f1": {"value": 0.625, "low": 0.375, "high": 0.875, "n": 8},
        },
    },
}
ARM = {
    **CARD,
    "id": f"{MODEL}@head",
    "name": MODEL,
    "arm": "head",
    "serves": True,
    "state": "production",
    "waiting_for": None,
}
ADAPTER = {**CARD, "name": MODEL, "arm": None, "serves": False}
KEY = {
    "id": "key_" + "d" * 32,
    "name": "nightly",
    "role": "engineer",
    "created_at": AT,
    "expires_at": None,
    "revoked_at": None,
}
LETTER = {
    "id": "files.12",
    "type": "file.uploaded.v1",
    "tenant_id": None,
    "consumer": "ingest",
    "code": "invalid",
    "attempts": 3,
    "died_at": AT,
    "replayed_at": None,
    "reason": "labels: [a]",
}
TENANT = {
    "tenant_id": "tenant_" + "e" * 32,
    "id": "tenant_" + "e" * 32,
    "slug": "kumo",
    "name": "Kumo",
    "created_at": AT,
}
PERSON = {
    "id": "user_" + "f" * 32,
    "email": "mika@example.org",
    "role": "labeler",
    "status": "invited",
    "created_at": AT,
}
INVITED = {**PERSON, "invitation": {"code": "c0de", "path": "/join#c0de", "expires_at": AT}}
LINE = {
    "id": "a" * 64,
    "at": AT,
    "actor": "user_" + "f" * 32,
    "action": "user.invite",
    "target": "user_" + "e" * 32,
    "details": {"role": "labeler"},
}
PROJECT = {
    "id": "proj_" + "a" * 24,
    "name": "Fragen 質問",
    "kind": "free_text",
    "answered": 1,
    "total": 3,
    "file_id": FILE_ID,
    "created_at": AT,
}
RATING = {
    "id": "fb_" + "b" * 24,
    "rating": "down",
    "has_correction": True,
    "model": MODEL,
    "chat_id": "chatcmpl-" + "c" * 24,
    "created_at": AT,
}
ORGANIZATION = {
    **TENANT,
    "policy": {"tune_on_upload": True, "gate": "approval", "base_model": ""},
    "limits": {"requests_per_minute": 5, "tokens_per_minute": 6, "keys": 7, "people": 8},
}


def listed(*rows: Any, more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(rows), "has_more": more}


REFUSED = {
    "id": "refused_1",
    "refused_at": AT,
    "event_id": "7",
    "type": "feedback.recorded.v1",
    "key_id": "key_1",
    "code": "foreign_tenant",
    "reason": "tenantid: is not the tenant of this key.",
}
WEBHOOK: dict[str, Any] = {
    "id": "we_" + "d" * 24,
    "created_at": AT,
    "name": "Chat room",
    "url": "https://hooks.example/in",
    "event_types": ["fine_tuning.job.succeeded", "model.promoted.v1"],
    "deliveries": {"waiting": 0, "parked": 2},
    "skipped": 0,
    "off": None,
}
DELIVERY = {
    "id": "whd_" + "e" * 24,
    "event_id": "evt_1",
    "event_type": "model.promoted.v1",
    "state": "parked",
    "attempts": 8,
    "status": 503,
    "tried_at": AT,
    "problem": "answered 503",
}
BASE = {
    "id": "far-base",
    "engine": "openai",
    "fine_tuning": False,
    "default": False,
    "context_length": 4096,
    "created": AT,
}
LISTS: list[Any] = [
    (("files", "list"), "/files", FILE),
    (("datasets", "list"), "/datasets", DATASET),
    (("jobs", "list"), "/fine_tuning/jobs", JOB),
    (("models", "list"), "/models", {"id": MODEL, "owned_by": None, "created": AT}),
    (("models", "list", "--state", "awaiting_approval"), "/registry/models", CARD),
    (("models", "list", "--state", "production"), "/registry/models", ARM),
    (("models", "bases"), "/registry/base_models", BASE),
    (("keys", "list"), "/organization/keys", KEY),
    (("tenants", "list"), "/organization/tenants", TENANT),
    (("dlq", "list"), "/organization/dead_letters", LETTER),
    (("people", "list"), "/organization/users", PERSON),
    (("events", "refused"), "/events/refused", REFUSED),
    (("webhooks", "list"), "/webhook_endpoints", WEBHOOK),
    (("webhooks", "deliveries", WEBHOOK["id"]), f"/webhook_endpoints/{WEBHOOK['id']}/deliveries", DELIVERY),
    (("labeling", "list"), "/labeling/projects", PROJECT),
    (("feedback", "list"), "/labeling/feedback", RATING),
]
SINGLE: list[Any] = [
    (("files", "show", FILE_ID), f"/files/{FILE_ID}", FILE),
    (("datasets", "show", DATASET_ID), f"/datasets/{DATASET_ID}", DATASET),
    (("jobs", "show", JOB_ID), f"/fine_tuning/jobs/{JOB_ID}", JOB),
    (("models", "show", MODEL), f"/registry/models/{MODEL}", CARD),
    (("models", "show", f"{MODEL}@head"), f"/registry/models/{MODEL}@head", ARM),
    (("dlq", "show", "files.12"), "/organization/dead_letters/files.12", LETTER),
]
EVERY = [(arguments, path, listed(row)) for arguments, path, row in LISTS] + SINGLE


IDS = ("training_file", "fine_tuned_model", "file_id", "job_id", "dataset_id", "tenant_id")


@pytest.fixture(autouse=True)
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """People whose clocks show something else than UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("arguments", "path", "answer"), EVERY)
@pytest.mark.parametrize("columns", ["40", "100"])
def test_what_is_shown_can_be_read_and_copied(
    api: Api, sartor: Sartor, monkeypatch: pytest.MonkeyPatch, arguments: Any, path: str, answer: Any, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    api.answers |= {("GET", "/registry/models"): listed(), ("GET", path): answer}
    out, _ = sartor(*arguments)
    row = answer["data"][0] if "data" in answer else answer
    words = re.split(r"\s+", out)
    assert row["id"] in words
    assert [name for name in IDS if name in words and row.get(name) and row[name] not in words] == []
    assert "None" not in out
    assert str(AT) not in out
    assert "…" not in out
    assert "2023-11-15 07:13:20" in out


@pytest.mark.parametrize(("arguments", "path", "answer"), EVERY)
def test_programs_get_the_answer_as_it_is(api: Api, sartor: Sartor, arguments: Any, path: str, answer: Any) -> None:
    api.answers["GET", path] = answer
    assert json.loads(sartor(*arguments, "--json")[0]) == answer


def test_sizes_rows_and_scores_are_in_words(api: Api, sartor: Sartor) -> None:
    for _, path, answer in EVERY:
        api.answers["GET", path] = answer
    assert "5.0 MiB" in sartor("files", "show", FILE_ID)[0]
    assert "train 40, validation 5, heldout 5\n" in sartor("datasets", "show", DATASET_ID)[0]
    assert "refund, 意見" in sartor("datasets", "show", DATASET_ID)[0]
    shown = sartor("models", "show", MODEL)[0]
    assert "0.500 (0.250 to 0.750, 8 rows)" in shown
    assert re.search(r"^macro_f1 +0\.625 \(0\.375 to 0\.875, 8 rows\)$", shown, re.MULTILINE)
    assert not re.search(r"^accuracy ", shown, re.MULTILINE)
    waits = "A decision about the model · an owner or approver · since 2023-11-15 07:13:20"
    assert waits in sartor("jobs", "show", JOB_ID)[0]


@pytest.mark.parametrize(
    ("cost", "shown"), [(None, "412 ms, 24 + 6 tokens\n"), (0.0016, "412 ms, 24 + 6 tokens, 0.2 for 1,000\n")]
)
def test_what_an_answer_took_stands_beside_what_it_was_worth(
    api: Api, sartor: Sartor, cost: float | None, shown: str
) -> None:
    took = {"answers": 8, "prompt_tokens": 192, "completion_tokens": 48, "seconds_median": 0.412, "seconds_p95": 0.6}
    tested = {**CARD["evaluation"], "usage": {"base": {**took, "cost": cost}}}
    api.answers["GET", f"/registry/models/{MODEL}"] = {**CARD, "evaluation": tested}
    assert f"0.500 (0.250 to 0.750, 8 rows); {shown}" in sartor("models", "show", MODEL)[0]


def test_what_arm_and_adapter_would_do_together_is_told_with_the_bound_that_is_advised(
    api: Api, sartor: Sartor
) -> None:
    score = {"value": 0.967, "low": 0.9, "high": 1.0, "n": 60}
    steps = [{"below": below, "handed_over": 0.304, "score": score, "took": {}} for below in (0.5, 0.9)]
    tested = {**CARD["evaluation"], "cascade": {"arm": "head", "steps": steps, "advised": 0.9}}
    api.answers["GET", f"/registry/models/{MODEL}"] = {**CARD, "evaluation": tested, "state": "rejected"}
    assert ", advised" not in sartor("models", "show", MODEL)[0]
    api.answers["GET", f"/registry/models/{MODEL}"] = {**CARD, "evaluation": tested, "state": "production"}
    shown = sartor("models", "show", MODEL)[0]
    told = r"0\.967 \(0\.900 to 1\.000, 60 rows\); 30 % left to the adapter"
    assert re.search(rf"^head_from_0\.5 +{told}$", shown, re.MULTILINE)
    assert re.search(rf"^head_from_0\.9 +{told}, advised$", shown, re.MULTILINE)


@pytest.mark.parametrize("seconds", [None, {}, {"what": "The file to be read", "who": None, "since": None}])
def test_a_job_of_an_api_that_says_less_is_shown_too(api: Api, sartor: Sartor, seconds: Any) -> None:
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}"] = {"id": JOB_ID, "status": "queued", "waiting_for": seconds}
    out, _ = sartor("jobs", "show", JOB_ID)
    assert "queued" in out
    assert "None" not in out


@pytest.mark.parametrize(
    ("given", "method"),
    [
        ([], None),
        (["--method", "pretrain"], {"type": "pretrain"}),
        (
            ["--method", "pretrain", "--epochs", "2"],
            {"type": "pretrain", "pretrain": {"hyperparameters": {"n_epochs": 2}}},
        ),
        (["--epochs", "2"], {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}),
    ],
)
def test_a_job_is_asked_for_by_its_method(api: Api, sartor: Sartor, given: list[str], method: Any) -> None:
    api.answers["POST", "/fine_tuning/jobs"] = JOB
    sartor("jobs", "create", "--training-file", FILE_ID, "--model", "gemma-3-270m", *given)
    assert json.loads(api.asked[-1][3]).get("method") == method


def test_what_the_rows_of_a_job_tell_is_said_in_sentences_and_tables(api: Api, sartor: Sartor) -> None:
    report = {
        "said": ["60 rows more would bring about 4 points (1 to 6)."],
        "curve": {"points": [{"rows": 48, "accuracy": 0.875, "low": 0.75, "high": 0.9375}]},
        "reliability": {
            "bins": [{"rows": 24, "confidence": 0.913, "accuracy": 0.5, "low": 0.25, "high": 0.75}],
            "coverage": [
                {"rows": 20, "confidence": 0.9, "accuracy": 0.5, "low": 0.25, "high": 0.75, "others": 0.375},
                {"rows": 20, "confidence": 0.99, "accuracy": 0.5, "low": 0.25, "high": 0.75, "others": None},
            ],
        },
        "confusions": [],
        "suspects": [
            {"question": "Where is it?", "answer": "refund", "likelier": "lost", "confidence": 0.934},
            {"question": "why? " * 400, "answer": "refund", "likelier": "lost", "confidence": 0.9},
        ],
        "suspects_found": 3,
    }
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}/data_report"] = report
    out, _ = sartor("jobs", "report", JOB_ID)
    assert out.startswith("60 rows more would bring about 4 points (1 to 6).\n")
    assert re.search(r"^48 +0\.88 +0\.75 +0\.94 *$", out, re.MULTILINE)
    assert re.search(r"^Where is it\? +refund +lost +0\.93 *$", out, re.MULTILINE)
    assert re.search(r"^0\.91 +24 +0\.50 +0\.25 +0\.75 *$", out, re.MULTILINE)
    assert re.search(r"^0\.90 +20 +0\.50 +0\.25 +0\.75 +0\.38 *$", out, re.MULTILINE)
    assert re.search(r"^0\.99 +20 +0\.50 +0\.25 +0\.75 *-? *$", out, re.MULTILINE)
    assert "Taken for another" not in out
    assert "Rows whose answer may be wrong (2 of 3, the clearest)" in out
    assert "why? " * 39 in out
    assert "why? " * 41 not in out
    assert json.loads(sartor("jobs", "report", JOB_ID, "--json")[0]) == report
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}/data_report"] = {**report, "reliability": None}
    assert "Accuracy by confidence" not in sartor("jobs", "report", JOB_ID)[0]


def test_the_method_of_a_job_is_shown_by_its_name(api: Api, sartor: Sartor) -> None:
    job = {**JOB, "method": {"type": "pretrain", "pretrain": {"hyperparameters": {"n_epochs": 3}}}}
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}"] = job
    api.answers["GET", "/fine_tuning/jobs"] = listed(job)
    assert re.search(r"^method +pretrain$", sartor("jobs", "show", JOB_ID)[0], re.MULTILINE)
    assert "pretrain" in sartor("jobs", "list")[0]


def test_a_list_says_how_to_go_on(api: Api, sartor: Sartor) -> None:
    api.answers["GET", "/files"] = listed(FILE, more=True)
    _, said = sartor("files", "list")
    assert f"--after {FILE_ID}" in said
    api.answers["GET", "/files"] = listed(FILE)
    _, said = sartor("files", "list", "--after", FILE_ID, "--limit", "5")
    assert said == ""
    assert api.asked[-1][2] == {"limit": "5", "after": FILE_ID}


def test_letters_that_are_no_text_do_not_reach_the_terminal(api: Api, sartor: Sartor) -> None:
    api.answers["GET", f"/files/{FILE_ID}"] = {**FILE, "filename": "a\x1b[2Jb\r\nc.csv"}
    assert "a [2Jb  c.csv" in sartor("files", "show", FILE_ID)[0]


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_decision_goes_to_the_model_that_was_named(api: Api, sartor: Sartor, decision: str) -> None:
    api.answers["POST", f"/registry/models/{MODEL}/{decision}"] = {**CARD, "state": "rejected", "waiting_for": None}
    out, _ = sartor("models", decision, MODEL, "--note", "seen it")
    assert "rejected" in out
    assert json.loads(api.asked[0][3]) == {"note": "seen it"}


def test_a_file_is_deleted(api: Api, sartor: Sartor) -> None:
    api.answers["DELETE", f"/files/{FILE_ID}"] = {"id": FILE_ID, "object": "file", "deleted": True}
    assert "yes" in sartor("files", "delete", FILE_ID)[0]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("files", "delete", FILE_ID), f"/files/{FILE_ID}"),
        (("models", "delete", MODEL), f"/models/{MODEL}"),
        (("labeling", "delete", "proj_1"), "/labeling/projects/proj_1"),
        (("feedback", "delete", "fb_1"), "/feedback/fb_1"),
    ],
)
def test_what_stays_of_something_deleted_is_said(api: Api, sartor: Sartor, arguments: Any, path: str) -> None:
    kept = [{"object": "dataset", "id": DATASET_ID, "because": "model x was made from it"}]
    api.answers["DELETE", path] = {"id": arguments[-1], "deleted": True, "kept": kept}
    out, said = sartor(*arguments)
    assert "yes" in out
    assert f"stays: dataset {DATASET_ID}: model x was made from it" in said
    assert json.loads(sartor(*arguments, "--json")[0])["kept"] == kept


def test_a_rotated_key_is_shown_with_the_end_of_the_one_before(api: Api, sartor: Sartor) -> None:
    rotated = {**KEY, "api_key": "sk-sartor-new", "replaced": [{"hint": "sk-…old", "ends_at": AT}]}
    for key_id in (KEY["id"], "own"):
        api.answers["POST", f"/organization/keys/{key_id}/rotate"] = rotated
    out, said = sartor("keys", "rotate", KEY["id"], "--grace-seconds", "60")
    assert "sk-sartor-new" in out
    assert "sk-…old holds too, until 2023-11-15 07:13:20" in said
    sartor("keys", "rotate")
    assert [(path.split("/")[3], json.loads(body)) for _, path, _, body in api.asked] == [
        (KEY["id"], {"grace_seconds": 60}),
        ("own", {}),
    ]


def test_leftovers_are_removed_slice_by_slice_and_only_when_asked(api: Api, sartor: Sartor) -> None:
    def said(found: int, purged: int) -> dict[str, Any]:
        return listed({"service": "ingest", "found": found, "purged": purged})

    api.answers["GET", "/organization/leftovers"] = said(3, 0)
    api.answers["POST", "/organization/leftovers/purge"] = [said(1, 2), said(0, 1), said(0, 0)]
    assert json.loads(sartor("leftovers", "--json")[0]) == said(3, 0)
    assert [method for method, _, _, _ in api.asked] == ["GET"]
    assert json.loads(sartor("leftovers", "--purge", "--json")[0]) == said(0, 3)
    assert [method for method, _, _, _ in api.asked[1:]] == ["GET", "POST", "POST", "POST"]


@pytest.mark.parametrize("name", ["../../internal/routes", "a?limit=1", "a#b", "a b"])
def test_what_is_typed_does_not_choose_the_route(api: Api, sartor: Sartor, name: str) -> None:
    with pytest.raises(CommandFailed):
        sartor("models", "show", name)
    assert [(method, path) for method, path, _, _ in api.asked] == [("GET", f"/registry/models/{name}")]


def test_an_empty_id_is_not_the_whole_list(api: Api, sartor: Sartor) -> None:
    with pytest.raises(CommandFailed, match="id is empty"):
        sartor("files", "delete", "")
    assert api.asked == []


def test_an_address_that_is_not_the_apis_is_named(api: Api, sartor: Sartor) -> None:
    api.answers["GET", "/models"] = b"<!doctype html>"
    with pytest.raises(CommandFailed, match=f"{api.url} answered something else than JSON"):
        sartor("models", "list")


def test_a_chat_without_models_says_where_they_come_from(api: Api, sartor: Sartor) -> None:
    api.answers["GET", "/models"] = listed()
    with pytest.raises(CommandFailed, match="sartor files upload"):
        sartor("chat", "hello")


def event(number: int, message: str) -> dict[str, Any]:
    return {"id": f"ftevent-{number}", "created_at": AT + number, "level": "info", "message": message, "data": {}}


@pytest.fixture
def followed(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    """A job that trains, waits for a person for a while, and succeeds."""
    monkeypatch.setattr(job_commands, "POLL_SECONDS", 0.01)
    trains = {**JOB, "stage": "training", "waiting_for": None}
    ends = {**JOB, "status": "succeeded", "stage": "ended", "waiting_for": None}
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}"] = [trains, JOB, JOB, ends]
    events = [event(number, f"line {number}") for number in range(4)]
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}/events"] = [
        listed(*events[1::-1], more=True),
        listed(),
        listed(*events[2::-1], more=True),
        listed(*events[2::-1], more=True),
        listed(*events[3::-1], more=True),
    ]
    return api


def test_a_followed_job_says_whom_it_waits_for_and_ends(followed: Api, sartor: Sartor) -> None:
    out, said = sartor("jobs", "logs", JOB_ID, "-f")
    assert [line.split()[-1] for line in out.splitlines()] == ["0", "1", "2", "3"]
    assert out.startswith("2023-11-15 07:13:20 info  line 0\n")
    assert said.count("A decision about the model · an owner or approver") == 1
    assert said.splitlines()[-1] == f"The job succeeded: {MODEL}"


def test_a_followed_job_is_read_from_where_one_was(followed: Api, sartor: Sartor) -> None:
    sartor("jobs", "logs", JOB_ID, "-f")
    reads = [query for _, path, query, _ in followed.asked if path.endswith("/events")]
    assert len(reads) == 5
    assert [query.get("after") for query in reads] == [None, "ftevent-0", None, None, None]


def test_a_followed_job_that_fails_says_why(api: Api, sartor: Sartor) -> None:
    ended = {"id": JOB_ID, "status": "failed", "error": {"message": "The rows ran out.", "code": "x"}}
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}"] = ended
    api.answers["GET", f"/fine_tuning/jobs/{JOB_ID}/events"] = listed()
    with pytest.raises(CommandFailed, match=r"^the job ended as failed: The rows ran out\.$"):
        sartor("jobs", "logs", JOB_ID, "-f")
    sartor("jobs", "logs", JOB_ID)


def test_an_upload_shows_what_became_of_it(api: Api, sartor: Sartor, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{}\n" * 100_000)
    api.answers["POST", "/files"] = FILE
    out, _ = sartor("files", "upload", str(path))
    assert FILE_ID in out
    assert "\r" not in out
    assert b"{}\n" * 100_000 in api.asked[0][3]
    assert b"on_bad_rows" not in api.asked[0][3]
    sartor("files", "upload", str(path), "--on-bad-rows", "skip", "--no-wait")
    assert b'name="on_bad_rows"\r\n\r\nskip\r\n' in api.asked[-1][3]


@pytest.mark.parametrize(("given", "asked"), [((), {}), (("--max-tokens", "7"), {"max_tokens": 7})])
def test_a_chat_is_limited_only_where_asked(
    api: Api, sartor: Sartor, given: tuple[str, ...], asked: dict[str, int]
) -> None:
    api.answers["POST", "/chat/completions"] = {"choices": []}
    sartor("chat", "hello", "-m", "m", "--json", *given)
    body = json.loads(api.asked[0][3])
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == asked


PEOPLE = f"/organization/users/{PERSON['id']}"


@pytest.mark.parametrize(
    ("arguments", "path", "asked"),
    [
        (
            ("people", "invite", "mika@example.org", "--role", "labeler"),
            "/organization/users",
            {"email": "mika@example.org", "role": "labeler"},
        ),
        (("people", "reset-password", PERSON["id"]), f"{PEOPLE}/reset_password", None),
        (
            ("tenants", "let-in", TENANT["id"], "a@b.example"),
            f"/organization/tenants/{TENANT['id']}/owners",
            {"email": "a@b.example"},
        ),
    ],
)
def test_a_link_to_come_in_is_printed_whole(api: Api, sartor: Sartor, arguments: Any, path: str, asked: Any) -> None:
    api.answers["POST", path] = INVITED
    out, _ = sartor(*arguments)
    assert api.url.removesuffix("/v1") + "/join#c0de" in out.split()
    assert said(api) == asked


def said(api: Api) -> Any:
    """The body of the last request."""
    return json.loads(api.asked[-1][3] or b"null")


def test_people_are_changed_by_name(api: Api, sartor: Sartor) -> None:
    api.answers["PATCH", PEOPLE] = PERSON
    for options, asked in (
        (("--role", "viewer"), {"role": "viewer"}),
        (("--shut-out",), {"disabled": True}),
        (("--let-in", "--role", "admin"), {"disabled": False, "role": "admin"}),
    ):
        sartor("people", "change", PERSON["id"], *options)
        assert said(api) == asked
    with pytest.raises(CommandFailed, match="--role"):
        sartor("people", "change", PERSON["id"])
    api.answers["DELETE", PEOPLE] = {"id": PERSON["id"], "deleted": True}
    assert re.search(r"deleted +yes", sartor("people", "withdraw", PERSON["id"])[0])


def test_a_policy_is_shown_and_parts_of_it_are_changed(api: Api, sartor: Sartor) -> None:
    api.answers["GET", "/organization"] = api.answers["PATCH", "/organization"] = ORGANIZATION
    assert re.search(r"gate +approval", sartor("policy", "show")[0])
    sartor("policy", "set", "--gate", "auto", "--no-tune-on-upload")
    assert said(api) == {"gate": "auto", "tune_on_upload": False}
    with pytest.raises(CommandFailed, match="--gate"):
        sartor("policy", "set")


def test_the_limits_of_a_tenant_are_shown_and_changed(api: Api, sartor: Sartor) -> None:
    api.answers["PATCH", f"/organization/tenants/{TENANT['id']}"] = ORGANIZATION
    out, _ = sartor("tenants", "limits", TENANT["id"], "--people", "8")
    assert re.search(r"tokens_per_minute +6", out)
    assert said(api) == {"people": 8}


def test_a_trail_that_is_not_whole_fails(api: Api, sartor: Sartor) -> None:
    trail = ("GET", "/organization/audit_logs")
    api.answers[trail] = {**listed(LINE), "intact": True}
    out, _ = sartor("audit", "list")
    assert {LINE["actor"], LINE["target"], "user.invite"} <= set(out.split())
    assert "whole trail" in sartor("audit", "verify")[0]
    assert api.asked[-1][2] == {"limit": "1", "verify": "true"}
    api.answers[trail] = {**listed(LINE), "intact": False}
    for command in ("list", "verify"):
        with pytest.raises(CommandFailed, match="was changed"):
            sartor("audit", command)


EVENT = {
    "id": "evt_1",
    "type": "model.promoted.v1",
    "time": "2026-01-02T03:04:05.678+00:00",
    "cursor": "7",
    "data": {"model_id": MODEL, "decided_by": "gate"},
}


def test_an_event_is_published_as_a_cloudevent(api: Api, sartor: Sartor) -> None:
    receipt = {"id": "1", "type": "feedback.recorded.v1", "subject": "fb_1", "accepted_at": AT}
    api.answers["POST", "/events"] = (202, receipt)
    data = '{"feedback_id": "r1", "rating": "up"}'
    out, _ = sartor("events", "publish", "feedback.recorded.v1", "--data", data, "--id", "1", "--source", "/survey")
    assert "fb_1" in out
    [(_, _, _, body)] = api.asked
    attributes = {"specversion": "1.0", "id": "1", "source": "/survey", "type": "feedback.recorded.v1"}
    assert json.loads(body) == {**attributes, "data": {"feedback_id": "r1", "rating": "up"}}


@pytest.mark.parametrize("data", ["{", "[1]", "@nowhere.json"])
def test_data_that_is_none_is_told(sartor: Sartor, data: str) -> None:
    with pytest.raises(CommandFailed, match="--data"):
        sartor("events", "publish", "feedback.recorded.v1", "--data", data)


def test_tail_goes_on_behind_what_it_showed(api: Api, sartor: Sartor) -> None:
    pages = [{"data": [EVENT], "last_id": "7", "has_more": True}, {"data": [], "last_id": "9", "has_more": False}]
    api.answers["GET", "/events"] = pages
    out, _ = sartor("events", "tail", "--no-follow", "--type", "model.promoted.v1", "--type", "model.retired.v1")
    assert out.split() == ["7", "2026-01-02T03:04:05", "model.promoted.v1", f'model_id="{MODEL}"', 'decided_by="gate"']
    asked = [query for _, _, query, _ in api.asked]
    types = "model.promoted.v1,model.retired.v1"
    assert asked == [{"types": types, "limit": "100"}, {"types": types, "limit": "100", "after": "7"}]


def test_a_key_of_a_producer_names_its_types(api: Api, sartor: Sartor) -> None:
    api.answers["POST", "/organization/keys"] = {"id": "key_1", "role": "engineer", "api_key": "sk-sartor-x"}
    given = ("--scope", "events:publish", "--scope", "events:read", "--event-type", "feedback.recorded.v1")
    sartor("keys", "create", "survey", *given)
    asked = {"scopes": ["events:publish", "events:read"], "event_types": ["feedback.recorded.v1"]}
    assert json.loads(api.asked[0][3]) == {"name": "survey", "role": "engineer", **asked}

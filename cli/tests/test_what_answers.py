"""What people read of the versions of a model: which one answers, since when, and what each of them is worth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_api import Api
from test_api_commands import ADAPTER, ARM, AT, FILE, FILE_ID, JOB, JOB_ID, MODEL, Sartor, listed

from sartor_cli import client, first_answer, job_commands

SCORED = {"metric": "accuracy", "scores": {"candidate": {"value": 0.75, "low": 0.5, "high": 0.9, "n": 8}}}


def line(name: str, out: str) -> str:
    """What is shown of one thing under a name."""
    found = re.search(rf"^{name} +(.*?) *$", out, re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        ({"answers_by": "head", "stage": "training"}, "now by its head; training goes on"),
        ({"answers_by": "nearest", "stage": "queued"}, "now by its nearest rows; a better one is on its way"),
        ({"answers_by": "head", "stage": "testing"}, "now by its head; its adapter is being tested"),
        ({"answers_by": "head", "stage": "ended", "status": "succeeded"}, "by its head"),
        ({"answers_by": "adapter", "stage": "ended", "status": "succeeded"}, "by its adapter"),
        ({"answers_by": None, "fine_tuned_model": None, "stage": "training"}, ""),
        ({"stage": "training"}, ""),
    ],
)
def test_a_job_says_which_version_answers(api: Api, sartor: Sartor, job: dict[str, Any], shown: str) -> None:
    whole = {**JOB, "waiting_for": None, **job}
    api.answers |= {
        ("GET", f"/fine_tuning/jobs/{JOB_ID}"): whole,
        ("GET", "/fine_tuning/jobs"): listed(whole),
        ("GET", f"/fine_tuning/jobs/{JOB_ID}/events"): listed(),
    }
    assert line("answers", sartor("jobs", "show", JOB_ID)[0]) == shown
    assert (str(job.get("answers_by")) in sartor("jobs", "list")[0].split()) is bool(shown)
    told = sartor("jobs", "logs", JOB_ID)[1]
    assert (f"{MODEL} answers {shown}\n" in told) is (bool(shown) and job["stage"] != "ended")


@pytest.mark.parametrize(("generates", "shown"), [(False, "nearest"), (True, "nearest-shown")])
def test_what_answers_is_one_word(api: Api, sartor: Sartor, generates: bool, shown: str) -> None:
    arm = {**ARM, "arm": "nearest", "generates": generates}
    api.answers |= {
        ("GET", "/models"): listed({"id": MODEL, "owned_by": None, "created": AT}),
        ("GET", "/registry/models"): listed({**arm, "name": MODEL, "serves": True}),
    }
    assert shown in sartor("models", "list")[0].split()


def test_a_followed_job_says_once_when_its_model_answers_and_by_what_in_the_end(
    api: Api, sartor: Sartor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_commands, "POLL_SECONDS", 0.01)
    early, late = ({"answers_by": "nearest", "stage": "training"}, {"answers_by": "adapter", "stage": "ended"})
    jobs = [{**JOB, "waiting_for": None, **early}] * 3 + [{**JOB, "waiting_for": None, "status": "succeeded", **late}]
    api.answers |= {
        ("GET", f"/fine_tuning/jobs/{JOB_ID}"): jobs,
        ("GET", f"/fine_tuning/jobs/{JOB_ID}/events"): listed(),
    }
    _, said = sartor("jobs", "logs", JOB_ID, "-f")
    assert said.splitlines() == [
        f"{MODEL} answers now by its nearest rows; training goes on",
        f"The job succeeded: {MODEL} answers by its adapter",
    ]


def test_the_versions_of_a_name_are_one_table(api: Api, sartor: Sartor) -> None:
    api.answers |= {
        ("GET", f"/registry/models/{MODEL}"): ADAPTER,
        ("GET", "/registry/models"): listed({**ADAPTER, "evaluation": None}, {**ARM, "evaluation": SCORED}),
    }
    out, _ = sartor("models", "show", MODEL)
    assert (line("answers_by", out), line("serves", out), line("state", out)) == ("adapter", "no", "awaiting_approval")
    assert api.asked[-1][2] == {"name": MODEL}
    *_, titles, adapter, arm = out.splitlines()
    columns = ["version", "state", "waiting_for", "serves", "pinned", "measured", "interval", "rows", "id"]
    assert titles.split() == columns
    assert adapter.split() == ["adapter", "awaiting_approval", "approval", "no", MODEL]
    assert arm.split() == [
        "head",
        "production",
        "yes",
        "accuracy",
        "0.750",
        "0.500",
        "to",
        "0.900",
        "8",
        f"{MODEL}@head",
    ]
    api.answers["GET", "/registry/models"] = listed({**ADAPTER, "pinned": False}, {**ARM, "pinned": True})
    *_, adapter, arm = sartor("models", "show", MODEL)[0].splitlines()
    assert adapter.split() == ["adapter", "awaiting_approval", "approval", "no", MODEL]
    assert arm.split() == ["head", "production", "yes", "yes", f"{MODEL}@head"]
    api.answers["GET", "/registry/models"] = listed(ADAPTER)
    assert "versions of the name" not in sartor("models", "show", MODEL)[0]


def test_the_list_of_models_says_by_what_each_answers(api: Api, sartor: Sartor) -> None:
    owned = {"id": MODEL, "owned_by": "kumo", "created": AT}
    api.answers |= {
        ("GET", "/models"): listed({"id": "gemma-3-270m", "owned_by": "base", "created": AT}, owned),
        ("GET", "/registry/models"): [
            listed({**ADAPTER, "state": "production"}, more=True),
            listed(ARM, {**ARM, "id": "ft:other", "name": "ft:other", "serves": False}),
        ],
    }
    rows = [row.split() for row in sartor("models", "list")[0].splitlines()]
    assert rows[1][:2] == ["gemma-3-270m", "base"]
    assert rows[2][:3] == [MODEL, "head", "kumo"]
    api.answers["GET", "/registry/models"] = listed({**ARM, "pinned": True})
    rows = [row.split() for row in sartor("models", "list")[0].splitlines()]
    assert [row[1:4] for row in rows] == [["answers_by", "pinned", "owned_by"], rows[1][1:4], ["head", "yes", "kumo"]]
    in_production = [row.split() for row in sartor("models", "list", "--state", "production")[0].splitlines()]
    assert in_production[1][:4] == [f"{MODEL}@head", "head", "yes", "production"]
    api.asked = api.asked[:3]
    assert [query.get("after") for _, path, query, _ in api.asked if path == "/registry/models"] == [None, MODEL]


def test_a_decision_names_the_version_it_is_about(api: Api, sartor: Sartor) -> None:
    api.answers["POST", f"/registry/models/{MODEL}@head/approve"] = ARM
    out, _ = sartor("models", "approve", f"{MODEL}@head")
    assert [line(name, out) for name in ("id", "answers_by", "serves")] == [f"{MODEL}@head", "head", "yes"]


@pytest.mark.parametrize(("verb", "pinned"), [("pin", True), ("unpin", False)])
def test_a_person_pins_a_version_and_leaves_it_to_tests_again(
    api: Api, sartor: Sartor, verb: str, pinned: bool
) -> None:
    api.answers["POST", f"/registry/models/{MODEL}@head/{verb}"] = {**ARM, "pinned": pinned}
    out, _ = sartor("models", verb, f"{MODEL}@head", "--note", "it is faster")
    assert [line(name, out) for name in ("id", "answers_by", "pinned")] == [
        f"{MODEL}@head",
        "head",
        "yes" if pinned else "",
    ]
    assert json.loads(api.asked[0][3]) == {"note": "it is faster"}
    api.answers["GET", f"/registry/models/{MODEL}@head"] = {**ARM, "pinned": pinned}
    api.answers["GET", "/registry/models"] = listed(ARM)
    assert line("pinned", sartor("models", "show", f"{MODEL}@head")[0]) == ("yes" if pinned else "")


def test_a_pinned_arm_hands_over_where_it_is_less_sure_than_a_person_says(api: Api, sartor: Sartor) -> None:
    card = {**ARM, "pinned": True, "hand_over_below": 0.9}
    api.answers["POST", f"/registry/models/{MODEL}@head/pin"] = card
    out, _ = sartor("models", "pin", f"{MODEL}@head", "--hand-over-below", "0.9")
    assert line("hand_over_below", out) == "0.9"
    sartor("models", "pin", f"{MODEL}@head", "--hand-nothing-over")
    with pytest.raises(typer.BadParameter, match="opposites"):
        sartor("models", "pin", f"{MODEL}@head", "--hand-over-below", "0.9", "--hand-nothing-over")
    assert [json.loads(one[3]) for one in api.asked] == [
        {"note": "", "hand_over_below": below} for below in (0.9, None)
    ]
    api.answers["GET", f"/registry/models/{MODEL}@head"] = card
    api.answers["GET", "/registry/models"] = listed(ARM)
    assert line("hand_over_below", sartor("models", "show", f"{MODEL}@head")[0]) == "0.9"


A_WORKER = {"what": "A training worker must be free for it.", "who": "Sartor, by itself", "person": False, "since": AT}
DECISION = {"what": "A decision about the model", "who": "an owner or approver", "person": True, "since": AT}
UNMADE = {**JOB, "fine_tuned_model": None, "waiting_for": None, "stage": "training"}
ANSWERS = {**UNMADE, "fine_tuned_model": MODEL, "answers_by": "nearest"}
DONE = {**ANSWERS, "stage": "ended", "status": "succeeded", "answers_by": "adapter"}


@pytest.mark.parametrize(
    ("jobs", "file", "told"),
    [
        (
            [listed(), listed(UNMADE), listed(UNMADE), listed(ANSWERS)],
            {"status": "uploaded"},
            rf"^Its own model answers \d\.\d s after the upload began, by its nearest rows: {MODEL}\n"
            rf"Meanwhile a better one is on its way: `sartor jobs logs -f {JOB_ID}` follows it\.\n$",
        ),
        (listed(DONE), {}, rf"^Its own model answers \d\.\d s after the upload began, by its adapter: {MODEL}\n$"),
        (
            [listed(UNMADE | {"waiting_for": A_WORKER}), listed(UNMADE | {"stage": "queued", "waiting_for": DECISION})],
            {},
            f"^Job {JOB_ID} waits: A decision about the model",
        ),
        (listed({**UNMADE, "waiting_for": DECISION}), {}, f"^Job {JOB_ID} waits: A decision about the model"),
        (listed({**UNMADE, "stage": "ended", "status": "failed", "error": {"message": "No rows."}}), {}, "No rows"),
        (listed(UNMADE), {}, f"^No model answers by it yet; `sartor jobs logs -f {JOB_ID}` shows how it goes on"),
        (listed(), {"status": "uploaded"}, "^No model answers by it yet; `sartor jobs list`"),
        (listed(), {"status": "processed"}, "^No job was made of it yet; `sartor jobs list` shows"),
        (listed(), {"kind": "document"}, "^No model is made of it: it is kept as document"),
        (listed(), {"status": "error", "status_details": "line 3: not JSON"}, "^It cannot be used: line 3: not JSON"),
        ((403, {"error": {"message": "Not for this key."}}), {}, "^What becomes of it is not known: Not for this key"),
    ],
)
def test_an_upload_says_when_its_own_model_first_answers(
    api: Api, sartor: Sartor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: Any, file: Any, told: str
) -> None:
    longest = 0.2 if "No model answers" in told else 30
    short = {"POLL_SECONDS": 0.01, "LONGEST_SECONDS": longest, "UNASKED_SECONDS": 0.05}
    for name, seconds in short.items():
        monkeypatch.setattr(first_answer, name, seconds)
    (tmp_path / "rows.jsonl").write_bytes(b"{}")
    api.answers |= {
        ("POST", "/files"): FILE,
        ("GET", "/fine_tuning/jobs"): jobs,
        ("GET", f"/files/{FILE_ID}"): {**FILE, **file},
    }
    out, said = sartor("files", "upload", str(tmp_path / "rows.jsonl"), "--wait")
    assert FILE_ID in out
    assert re.search(told, said)
    assert api.asked[1][2] == {"training_file": FILE_ID, "limit": "1"}


@pytest.mark.parametrize(
    ("terminal", "given", "waits"),
    [
        (True, (), True),
        (False, (), False),
        (True, ("--json",), False),
        (True, ("--no-wait",), False),
        (True, ("--purpose", "fine-tune"), False),
        (False, ("--wait", "--json"), True),
    ],
)
def test_an_upload_is_waited_for_where_somebody_reads_or_asks_for_it(
    api: Api,
    sartor: Sartor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    given: tuple[str, ...],
    waits: bool,
) -> None:
    monkeypatch.setattr(client.stderr, "_force_terminal", terminal)
    (tmp_path / "rows.jsonl").write_bytes(b"{}")
    api.answers |= {("POST", "/files"): FILE, ("GET", "/fine_tuning/jobs"): listed(DONE)}
    said = sartor("files", "upload", str(tmp_path / "rows.jsonl"), *given)[1]
    assert ("Its own model answers" in said) is waits
    assert [method for method, *_ in api.asked] == (["POST", "GET"] if waits else ["POST"])

"""The demo where nobody looks at a terminal: a line for each stage, and errors that say where."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fake_api import Api
from rich.console import Console

from sartor_cli import demo as demo_module
from sartor_cli.demo import Demo, DemoFailed

MODEL = "ft:gemma-3-270m:demo-rider:auto:0123456789abcdef0123456789abcdef"
JOB = {"id": "ftjob-1", "training_file": "file-1", "model": "gemma-3-270m", "fine_tuned_model": None, "error": None}


def listed(*rows: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(rows), "has_more": False}


def at(stage: str, status: str = "running", **more: Any) -> dict[str, Any]:
    return listed({**JOB, "status": status, "stage": stage, "waiting_for": None, **more})


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    turn = [{"role": "user", "content": "鍵が開かない"}, {"role": "assistant", "content": "unlock_failed"}]
    for name in ("train", "heldout"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"messages": turn}))
    return tmp_path


def run(api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch, *arms: Any, **evaluation: Any) -> str:
    monkeypatch.setattr(demo_module, "POLL_SECONDS", 0.01)
    told = io.StringIO()
    score = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    step = {"step": 3, "total_steps": 6, "train_loss": 0.5}
    api.answers |= {
        ("POST", "/organization/tenants"): {"api_key": "sk-new"},
        ("POST", "/files"): {"id": "file-1"},
        ("GET", "/files/file-1"): {"status": "uploaded"},
        ("GET", "/fine_tuning/jobs/ftjob-1/events"): listed({"message": "", "type": "metrics", "data": step}),
        ("GET", "/evals/evaluations"): listed(
            {
                "id": "ev-1",
                "arm": None,
                "evidence": {"key": "k"},
                "progress": {"done": 3, "total": 12},
                "metric": "accuracy",
                "verdict": "pass",
                "scores": dict.fromkeys(("base", "few_shot", "candidate"), score),
                "usage": {"candidate": {"seconds_median": 0.251}},
                "metrics": {"accuracy": {"candidate": score}, "macro_f1": {"candidate": {**score, "value": 0.625}}},
                **evaluation,
            },
            *arms,
        ),
        ("POST", "/chat/completions"): {"choices": [{"message": {"content": "unlock_failed"}}]},
    }
    try:
        Demo(
            api.url, "sk-operator", samples, Console(file=told, width=60, markup=False, highlight=False, soft_wrap=True)
        ).run()
    finally:
        text = told.getvalue()
    return text


def test_without_a_terminal_each_stage_is_a_line(api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"fine_tuned_model": MODEL, "status": "succeeded"}
    api.answers["GET", "/fine_tuning/jobs"] = [
        listed(),
        at("waiting_for_file", "validating_files"),
        at("queued", "queued"),
        at("training"),
        at("training"),
        at("testing"),
        at("loading"),
        at("ended", **done),
    ]
    text = run(api, samples, monkeypatch)
    assert "\r" not in text
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line]
    begun = [line.split()[0] for line in lines if line.split()[1:2] != ["took"]][:7]
    assert begun == ["sign", "upload", "data", "train", "test", "first", "chat"]
    assert [line.split()[0] for line in lines if line.split()[1:2] == ["took"]] == ["data", "train", "test"]
    assert "train    step 3/6, loss 0.500" in lines
    assert MODEL in text


SCORE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
DONE = at("ended", fine_tuned_model=MODEL, status="succeeded")


@pytest.mark.parametrize(
    ("evaluation", "told", "untold"),
    [
        (
            {},
            ["accuracy on held-out rows", "base, few-shot", "own adapter, measured besides: macro_f1 0.62"],
            ["not t"],
        ),
        ({"metrics": {"accuracy": {"candidate": SCORE}}}, ["accuracy on held-out rows"], ["measured besides"]),
        ({"scores": {"base": SCORE, "candidate": SCORE}}, ["base, zero-shot", "own adapter"], ["base, few-shot"]),
        (
            {"scores": {}, "metrics": {}, "verdict": "needs_human", "reason": "The rows are gone."},
            ["not tested: The rows are gone.", "seconds by stage"],
            ["measured besides", "held-out rows"],
        ),
    ],
)
def test_the_demo_prints_what_was_measured_and_says_when_nothing_was(
    api: Api,
    samples: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluation: dict[str, Any],
    told: list[str],
    untold: list[str],
) -> None:
    api.answers["GET", "/fine_tuning/jobs"] = DONE
    text = run(api, samples, monkeypatch, **evaluation)
    assert [line for line in told if line not in text] == []
    assert [line for line in untold if line in text] == []


@pytest.mark.parametrize("said", [["60 rows more would bring about 4 points."], None])
def test_the_demo_prints_what_the_rows_tell_where_they_do(
    api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch, said: list[str] | None
) -> None:
    api.answers["GET", "/fine_tuning/jobs"] = DONE
    if said:
        api.answers["GET", "/fine_tuning/jobs/ftjob-1/data_report"] = {"said": said}
    text = run(api, samples, monkeypatch)
    assert ("\nwhat the rows tell\n60 rows more would bring about 4 points.\n" in text) == bool(said)
    assert ("what the rows tell" in text) == bool(said)


def test_a_model_that_waits_for_a_person_ends_the_demo(
    api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"what": "A decision about the model", "who": "an owner", "since": 1_700_000_000}
    api.answers["GET", "/fine_tuning/jobs"] = at("awaiting_approval", waiting_for=waits)
    with pytest.raises(
        DemoFailed, match=r"ftjob-1 waits for a person: A decision about the model · an owner · since 20"
    ):
        run(api, samples, monkeypatch)


def test_a_failed_job_is_named(api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers["GET", "/fine_tuning/jobs"] = at("ended", "failed", error={"message": "The disk is full."})
    with pytest.raises(DemoFailed, match=r"job ftjob-1 ended as failed: The disk is full\."):
        run(api, samples, monkeypatch)


ARM_SCORE = {**SCORE, "value": 0.875}
ARM_RUN = {
    "id": "ev-0",
    "arm": "nearest",
    "evidence": {"key": "k"},
    "metric": "accuracy",
    "scores": {"candidate": ARM_SCORE},
    "usage": {"candidate": {"seconds_median": 0.004}},
    "metrics": {},
    "progress": {"done": 8, "total": 8},
}
EARLY = {"fine_tuned_model": MODEL, "answers_by": "nearest"}


def rows_of(text: str) -> dict[str, list[str]]:
    """The table of systems: by name, the cells behind it."""
    lines = text.split("the median time of an answer\n")[1].splitlines()[1:]
    rows = [line.split("  ") for line in lines[: lines.index("")]]
    return {cells[0]: [cell.strip() for cell in cells[1:] if cell.strip()] for cells in rows}


@pytest.mark.parametrize(
    ("serves", "together"), [("adapter", True), ("nearest", True), ("nearest", False), ("adapter", False)]
)
def test_both_times_and_every_arm_are_shown_whichever_answers_in_the_end(
    api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch, serves: str, together: bool
) -> None:
    api.answers |= {
        ("GET", "/fine_tuning/jobs"): [
            at("training"),
            at("training", **EARLY),
            at("testing", **EARLY),
            at("ended", "succeeded", **{**EARLY, "answers_by": serves}),
        ],
    }
    scores = dict.fromkeys(("base", "few_shot", "candidate", *(["nearest"] if together else [])), SCORE)
    text = run(api, samples, monkeypatch, ARM_RUN, scores=scores, metrics={"accuracy": {"candidate": SCORE}})
    lines = text.splitlines()
    [first] = [line for line in lines if line.startswith("first own answer") and "after the upload" in line]
    assert first.endswith(" s after the upload began, by its nearest rows; a better one is on its way")
    assert lines.index(first) < next(place for place, line in enumerate(lines) if line.startswith("test  "))
    after = dict(line.rsplit(maxsplit=1) for line in lines[lines.index("seconds from the upload on") + 1 :])
    assert float(after["first own answer"]) <= float(after["adapter decided"])
    rows = rows_of(text)
    assert list(rows) == ["own arm, nearest", "own adapter", "base, zero-shot", "base, few-shot"]
    of_arm = ["0.50", "0.25 to 0.75", "8"] if together else ["0.88", "0.25 to 0.75", "8", "4"]
    assert [cell for cell in rows["own arm, nearest"] if cell != "yes"] == of_arm
    assert rows["own adapter"][:4] == ["0.50", "0.25 to 0.75", "8", "251"]
    assert [name for name, cells in rows.items() if cells[-1] == "yes"] == [
        "own adapter" if serves == "adapter" else "own arm, nearest"
    ]
    asked = [json.loads(body)["model"] for _, path, _, body in api.asked if path == "/chat/completions"]
    assert asked == [MODEL, "gemma-3-270m", MODEL]


def test_a_training_that_was_given_up_leaves_the_arm(api: Api, samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers |= {
        ("GET", "/fine_tuning/jobs"): at("ended", "succeeded", **EARLY),
    }
    text = run(api, samples, monkeypatch, **ARM_RUN)
    assert rows_of(text) == {"own arm, nearest": ["0.88", "0.25 to 0.75", "8", "4", "yes"]}
    assert "a better one is on its way" not in text

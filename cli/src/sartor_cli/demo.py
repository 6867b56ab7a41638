"""The whole way in one command: a new end user uploads a file and chats with the model made from it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

POLL_SECONDS = 1.0
DEADLINE_SECONDS = 1200
MOST_FAILURES = 90
CONDITIONS = {"base": "base, zero-shot", "few_shot": "base, few-shot", "candidate": "own model"}


class DemoFailed(Exception):
    """The demo did not come to its good end; the message says where and why."""


@dataclass
class Demo:
    """One run of the demo against a running stack.

    Args:
        base_url: of the API, ending in `/v1`.
        operator_key: makes the tenant.
        samples: the folder `infra/samples/support`.
        console: where to print.
    """

    base_url: str
    operator_key: str
    samples: Path
    console: Console
    times: dict[str, float] = field(default_factory=dict)
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def run(self) -> dict[str, Any]:
        """Do it all and return the figures that were printed.

        Raises:
            DemoFailed: the job failed, or a stage took too long.
        """
        started = time.monotonic()
        with self._stage("sign up"):
            tenant = self._call("POST", "/organization/tenants", self.operator_key, json={"name": "Demo rider"})
        key = tenant["api_key"]
        with self._stage("upload"):
            uploaded = self._upload(key, self.samples / "train.jsonl")
        job = self._watch(key, uploaded["id"])
        model, base = job["fine_tuned_model"], job["model"]
        evaluation = self._call("GET", "/evals/evaluations", key, params={"model": model})["data"][0]
        question, expected = self._held_out_question()
        with self._stage("chat"):
            answers = {name: self._chat(key, name, question) for name in (base, model)}
        self.times["total"] = time.monotonic() - started
        result = {
            "model": model,
            "scores": evaluation["scores"],
            "verdict": evaluation["verdict"],
            "system": next((turn["content"] for turn in question if turn["role"] == "system"), ""),
            "question": question[-1]["content"],
            "expected": expected,
            "answers": {"base": answers[base], "own": answers[model]},
            "seconds": {name: round(value, 1) for name, value in self.times.items()},
            "api_key": key,
        }
        self._print(result, evaluation["metric"])
        return result

    def _upload(self, key: str, path: Path) -> Any:
        with path.open("rb") as file:
            return self._call(
                "POST",
                "/files",
                key,
                data={"purpose": "user_data"},
                files={"file": (path.name, file, "application/jsonl")},
            )

    def _watch(self, key: str, file_id: str) -> dict[str, Any]:
        """Follow the automatic fine-tune with a progress bar until it ends."""
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        stages = {"preparing": "data", "training": "train", "testing": "test"}
        with Progress(*columns, console=self.console, refresh_per_second=2) as progress:
            bars: dict[str, Any] = {}
            began = time.monotonic()
            stage, entered = "preparing", began
            bars[stage] = progress.add_task(stages[stage], total=100, note="checking and splitting the rows")
            while True:
                if time.monotonic() - began > DEADLINE_SECONDS:
                    raise DemoFailed(
                        f"stage '{stage}' was not over after {DEADLINE_SECONDS} s; see `sartor logs trainer`"
                    )
                job = self._job_of(key, file_id)
                current, done, note = self._where(key, job)
                if current != stage:
                    self.times[stage] = time.monotonic() - entered
                    progress.update(bars[stage], completed=100)
                    stage, entered = current, time.monotonic()
                    if stage in stages:
                        bars[stage] = progress.add_task(stages[stage], total=100, note=note)
                if stage in stages:
                    progress.update(bars[stage], completed=done, note=note)
                if job and job["status"] in ("succeeded", "failed", "cancelled"):
                    break
                time.sleep(POLL_SECONDS)
        if job["status"] != "succeeded":
            raise DemoFailed(f"the job ended as {job['status']}: {(job.get('error') or {}).get('message')}")
        return job

    def _job_of(self, key: str, file_id: str) -> dict[str, Any] | None:
        jobs = self._call("GET", "/fine_tuning/jobs", key)["data"]
        mine = next((job for job in jobs if job["training_file"] == file_id), None)
        if mine is None:
            file = self._call("GET", f"/files/{file_id}", key)
            if file["status"] == "error":
                raise DemoFailed(f"the upload was refused: {file.get('status_details')}")
        return mine

    def _where(self, key: str, job: dict[str, Any] | None) -> tuple[str, float, str]:
        """The stage a job is in, how much of it is done in percent, and a note."""
        if job is None or job["status"] in ("validating_files", "queued"):
            return (
                "preparing",
                50.0 if job else 10.0,
                "waiting for a worker" if job else "checking and splitting the rows",
            )
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return "over", 100.0, job["status"]
        events = self._call("GET", f"/fine_tuning/jobs/{job['id']}/events", key, params={"limit": 20})["data"]
        newest = events[0]["message"] if events else ""
        metrics = next((event["data"] for event in events if "total_steps" in event["data"]), None)
        if metrics is None:
            return "training", 0.0, newest
        if metrics["step"] >= metrics["total_steps"] and events[0]["type"] == "message":
            return "testing", *self._evaluation_progress(key)
        loss = f"step {metrics['step']}/{metrics['total_steps']}"
        if metrics.get("train_loss") is not None:
            loss += f", loss {metrics['train_loss']:.3f}"
        return "training", 100 * metrics["step"] / metrics["total_steps"], loss

    def _evaluation_progress(self, key: str) -> tuple[float, str]:
        runs = self._call("GET", "/evals/evaluations", key)["data"]
        if not runs:
            return 0.0, "loading the adapter"
        done, total = runs[0]["progress"]["done"], runs[0]["progress"]["total"]
        return (100 * done / total if total else 0.0), f"{done}/{total} answers on held-out rows"

    def _held_out_question(self) -> tuple[list[dict[str, str]], str]:
        row = json.loads((self.samples / "heldout.jsonl").read_text().splitlines()[0])
        return row["messages"][:-1], row["messages"][-1]["content"]

    def _chat(self, key: str, model: str, messages: list[dict[str, str]]) -> str:
        body = {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0}
        answer = self._call("POST", "/chat/completions", key, json=body)
        return str(answer["choices"][0]["message"]["content"]).strip()

    def _call(self, method: str, path: str, key: str, **kwargs: Any) -> Any:
        """One API call, tried again while a part of the stack is away, as a patient client would."""
        for failure in range(MOST_FAILURES):
            try:
                answer = httpx2.request(
                    method, f"{self.base_url}{path}", headers=self._headers(key, path), timeout=120, **kwargs
                )
            except httpx2.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    return answer.json()
                reason = answer.text
                if answer.status_code < 500 and answer.status_code != 429:
                    raise DemoFailed(f"{method} {path}: {answer.status_code} {reason}")
            if failure == 0:
                self.console.print(f"[dim]{method} {path}: {reason[:160]}; trying again[/dim]")
            for file in kwargs.get("files", {}).values():
                file[1].seek(0)
            time.sleep(POLL_SECONDS)
        raise DemoFailed(f"{method} {path}: {reason}")

    def _headers(self, key: str, path: str) -> dict[str, str]:
        headers = {"authorization": f"Bearer {key}"}
        if path in ("/files", "/organization/tenants"):
            headers["idempotency-key"] = f"demo-{self.run_id}-{path}"
        return headers

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.times[name] = time.monotonic() - started

    def _print(self, result: dict[str, Any], metric: str) -> None:
        scores = Table(title=f"{metric} on held-out rows, with 95 % interval")
        for column in ("system", metric, "interval", "n"):
            scores.add_column(column)
        for name, label in CONDITIONS.items():
            score = result["scores"][name]
            scores.add_row(
                label, f"{score['value']:.2f}", f"{score['low']:.2f} to {score['high']:.2f}", str(score["n"])
            )
        self.console.print(scores)
        answers = Table(title=f"“{result['question']}” (expected: {result['expected']})", title_justify="left")
        answers.add_column("base")
        answers.add_column(result["model"])
        answers.add_row(result["answers"]["base"], result["answers"]["own"])
        self.console.print(answers)
        times = Table(title="seconds by stage")
        times.add_column("stage")
        times.add_column("seconds", justify="right")
        for name, seconds in result["seconds"].items():
            times.add_row(name, f"{seconds:.1f}")
        self.console.print(times)

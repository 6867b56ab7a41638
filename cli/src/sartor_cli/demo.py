"""The whole way in one command: a new end user uploads a file and chats with the model made from it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from sartor_cli.answering import BETTER, WORDS
from sartor_cli.stages import Stages, stage_of, waiting_for
from sartor_cli.tables import show_one, show_rows
from sartor_cli.tested_systems import Tested, adapters_run

POLL_SECONDS = 1.0
DEADLINE_SECONDS = 1200
MOST_FAILURES = 90
FIRST, DECIDED = "first own answer", "adapter decided"


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
    first_by: str = ""

    def run(self) -> dict[str, Any]:
        """Do it all and return the figures that were printed.

        Raises:
            DemoFailed: the job failed, or a stage took too long.
        """
        started = time.monotonic()
        with self._stage("sign up"):
            tenant = self._call("POST", "/organization/tenants", self.operator_key, json={"name": "Demo rider"})
        key = tenant["api_key"]
        question, expected = self._held_out_question()
        began = time.monotonic()
        with self._stage("upload"):
            uploaded = self._upload(key, self.samples / "train.jsonl")
        job = self._watch(key, uploaded["id"], question, began)
        model, base = job["fine_tuned_model"], job["model"]
        tested = Tested.of(self._call("GET", "/evals/evaluations", key)["data"])
        with self._stage("chat"):
            answers = {name: self._chat(key, name, question) for name in (base, model)}
        self.times["total"] = time.monotonic() - started
        result = {
            "model": model,
            "answers_by": job.get("answers_by"),
            "first_answer_by": self.first_by,
            "systems": [asdict(system) for system in tested.systems()],
            "scores": tested.adapter["scores"] if tested.adapter else {},
            "metrics": tested.adapter["metrics"] if tested.adapter else {},
            "verdict": tested.adapter["verdict"] if tested.adapter else None,
            "system": next((turn["content"] for turn in question if turn["role"] == "system"), ""),
            "question": question[-1]["content"],
            "expected": expected,
            "answers": {"base": answers[base], "own": answers[model]},
            "rows_tell": self._what_rows_tell(key, job["id"]),
            "seconds": {name: round(value, 1) for name, value in self.times.items()},
            "api_key": key,
        }
        self._print(result, tested)
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

    def _watch(self, key: str, file_id: str, question: list[dict[str, str]], uploaded: float) -> dict[str, Any]:
        """Follow the automatic fine-tune, and show its stages, until it ends; its model is asked as soon as it answers.

        Args:
            key: of the new tenant.
            file_id: the upload.
            question: what the model is asked first.
            uploaded: when the upload began.

        Raises:
            DemoFailed: it failed, waits for a person, or took too long.
        """
        began = time.monotonic()
        with Stages(self.console, self.times) as stages:
            while True:
                job = self._job_of(key, file_id)
                if job and job["fine_tuned_model"] and FIRST not in self.times:
                    self._ask_first(key, job, question, uploaded)
                if job and stage_of(job) == "ended":
                    break
                stages.at(*self._where(key, job))
                if job and stage_of(job) == "awaiting_approval":
                    raise DemoFailed(f"job {job['id']} waits for a person: {waiting_for(job)}")
                if time.monotonic() - began > DEADLINE_SECONDS:
                    raise DemoFailed(f"'{stages.name}' was not over after {DEADLINE_SECONDS} s; see `sartor logs`")
                time.sleep(POLL_SECONDS)
        if job["status"] != "succeeded":
            raise DemoFailed(f"job {job['id']} ended as {job['status']}: {(job.get('error') or {}).get('message')}")
        self.times[DECIDED] = time.monotonic() - uploaded
        return job

    def _ask_first(self, key: str, job: dict[str, Any], question: list[dict[str, str]], uploaded: float) -> None:
        """Have the first answer of the new model, and say how long after the upload began it is there."""
        self._chat(key, job["fine_tuned_model"], question)
        self.times[FIRST] = time.monotonic() - uploaded
        self.first_by = str(job.get("answers_by") or "")
        by = f", by {WORDS[self.first_by]}" if self.first_by in WORDS else ""
        more = "" if stage_of(job) == "ended" else f"; {BETTER}"
        self.console.print(f"{FIRST} {self.times[FIRST]:.1f} s after the upload began{by}{more}")

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
        if job is None:
            return "data", 10.0, "checking and splitting the rows"
        stage = stage_of(job)
        if stage == "training":
            return "train", *self._training_progress(key, job["id"])
        if stage in ("testing", "loading", "awaiting_approval"):
            return "test", *self._evaluation_progress(key)
        return "data", 50.0, waiting_for(job) or "waiting for a worker"

    def _training_progress(self, key: str, job_id: str) -> tuple[float, str]:
        events = self._call("GET", f"/fine_tuning/jobs/{job_id}/events", key, params={"limit": 20})["data"]
        metrics = next((event["data"] for event in events if "total_steps" in event["data"]), None)
        if metrics is None:
            return 0.0, "loading the base model"
        note = f"step {metrics['step']}/{metrics['total_steps']}"
        if metrics.get("train_loss") is not None:
            note += f", loss {metrics['train_loss']:.3f}"
        return 100 * metrics["step"] / metrics["total_steps"], note

    def _evaluation_progress(self, key: str) -> tuple[float, str]:
        run = adapters_run(self._call("GET", "/evals/evaluations", key)["data"])
        if run is None:
            return 0.0, "loading the adapter"
        done, total = run["progress"]["done"], run["progress"]["total"]
        return (100 * done / total if total else 0.0), f"{done}/{total} answers on held-out rows"

    def _held_out_question(self) -> tuple[list[dict[str, str]], str]:
        row = json.loads((self.samples / "heldout.jsonl").read_text().splitlines()[0])
        return row["messages"][:-1], row["messages"][-1]["content"]

    def _chat(self, key: str, model: str, messages: list[dict[str, str]]) -> str:
        body = {"model": model, "messages": messages, "max_tokens": 24, "temperature": 0}
        answer = self._call("POST", "/chat/completions", key, json=body)
        return str(answer["choices"][0]["message"]["content"]).strip()

    def _what_rows_tell(self, key: str, job_id: str) -> list[str]:
        """What its data report says; nothing where no arm was fitted, or it was refused."""
        try:
            said: list[str] = self._call("GET", f"/fine_tuning/jobs/{job_id}/data_report", key)["said"]
        except DemoFailed:
            return []
        return said

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
                self._say(f"{method} {path}: {reason[:160]}; trying again")
            for file in kwargs.get("files", {}).values():
                file[1].seek(0)
            time.sleep(POLL_SECONDS)
        raise DemoFailed(f"{method} {path}: {reason} ({MOST_FAILURES} tries)")

    def _say(self, line: str) -> None:
        self.console.print(line, style="dim")

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
        self.console.print(f"{name:<8} {self.times[name]:6.1f} s")

    def _print(self, result: dict[str, Any], tested: Tested) -> None:
        self._print_systems(tested, result["answers_by"])
        if result["rows_tell"]:
            self._say("\nwhat the rows tell")
        for sentence in result["rows_tell"]:
            self.console.print(sentence)
        self._say(f"\n“{result['question']}” (expected: {result['expected']})")
        show_one(
            [("base", result["answers"]["base"]), (result["model"], result["answers"]["own"])], console=self.console
        )
        self._say("\nseconds by stage")
        after = (FIRST, DECIDED)
        stages = [(name, f"{seconds:.1f}") for name, seconds in result["seconds"].items() if name not in after]
        show_one(stages, console=self.console)
        self._say("\nseconds from the upload on")
        show_one([(name, f"{result['seconds'][name]:.1f}") for name in after], console=self.console)

    def _print_systems(self, tested: Tested, answers_by: str | None) -> None:
        for why in tested.unmeasured():
            self._say(f"\nnot tested: {why}")
        systems = tested.systems()
        if not systems:
            return
        metric = tested.metric
        self._say(f"\n{metric} on held-out rows with 95 % interval, and the median time of an answer")
        columns = ("system", metric, "interval", "rows", "ms an answer", "answers now")
        rows = [
            [*system.cells(), "yes" if answers_by and system.answers_by == answers_by else ""] for system in systems
        ]
        show_rows(columns, rows, numbers=columns[1:5], console=self.console)
        if besides := tested.besides():
            measured = ", ".join(f"{name} {value:.2f}" for name, value in besides)
            self._say(f"own adapter, measured besides: {measured}")

"""The crash-point sweep: every named point of every service ends its process once, and the work ends, once.

`make sweep` runs it: real service processes under the supervisor on the tiny base model, one tenant a round. It prints
a row for each point and fails when work was lost, had two effects, or stayed somewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2

from localstack import LocalStack
from stores.objects import Objects
from testkit.history import History
from testkit.injector import Message, inject
from tests.chaos.clients import Client, Violation
from tests.chaos.leftovers import Leftovers, streams_broken
from tests.chaos.plan import ROUNDS
from tests.e2e.test_main_way import rows
from tests.tiny_stack import tiny_stack

SETTINGS = {
    "SARTOR_TRAINER_LEASE_SECONDS": "5",
    "SARTOR_TRAINER_SAVE_EVERY_STEPS": "30",
    "SARTOR_INGEST_LEASE_SECONDS": "4",
    "SARTOR_RAG_LEASE_SECONDS": "5",
    "SARTOR_EVALUATOR_LEASE_SECONDS": "6",
    "SARTOR_EVALUATOR_RETRY_SECONDS": "2",
    "SARTOR_EVALUATOR_POLL_SECONDS": "0.5",
    "SARTOR_MODEL_SERVER_SYNC_SECONDS": "2",
    "SARTOR_KAFKA_SESSION_TIMEOUT_MS": "6000",
    "SARTOR_KEY_CACHE_SECONDS": "600",
    "SARTOR_TRAINER_THREADS": "1",
    "SARTOR_MODEL_SERVER_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
QUIET_SECONDS = 60
LATE_SECONDS = 20
"""What is not waited for by the work, a replica that lets a deleted model go, passes its point after it."""

POISON = "poison"
DOCUMENT = b"# Refunds\n\nRefunds take five working days.\n\n# Hours\n\nThe desk is open from 7 to 22.\n"
ONCE_A_JOB = ("finetune.requested", "finetune.trained", "finetune.succeeded", "model.registered", "model.promoted")


@dataclass
class Crash:
    """One armed point and what followed. Times are unix seconds.

    Attributes:
        fired_at: when the process ended; None if the point was not passed.
        ready_at: when the service answered again.
        again_at: when the point was passed the next time, in the same round.
    """

    service: str
    point: str
    fired_at: float | None = None
    ready_at: float | None = None
    again_at: float | None = None
    violations: list[str] = field(default_factory=list)


class Points:
    """The folders through which points are armed, one of each service."""

    def __init__(self, root: Path, services: Iterable[str]) -> None:
        self._root = root
        for service in services:
            (root / service).mkdir(parents=True)

    def environment(self) -> dict[str, dict[str, str]]:
        return {folder.name: {"CRASH_AT": f"@{folder}"} for folder in self._root.iterdir()}

    def arm(self, service: str, point: str) -> None:
        (self._root / service / point).write_text("1")

    def disarm(self, service: str, point: str) -> None:
        (self._root / service / point).unlink(missing_ok=True)
        (self._root / service / f"{point}.fired").unlink(missing_ok=True)

    def fired_at(self, service: str, point: str) -> float | None:
        try:
            return (self._root / service / f"{point}.fired").stat().st_ctime
        except FileNotFoundError:
            return None

    def passes(self, service: str, point: str, after: float) -> list[float]:
        path = self._root / service / "passes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [float(at) for at, _, name in map(str.split, lines) if name == point and float(at) > after + 0.01]


@dataclass
class Work:
    """What one tenant asked for in a round, for the checks."""

    client: Client
    tenant_id: str
    jobs: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    feedback: int = 0
    projects: int = 0


class Sweep:
    """One stack, round after round."""

    def __init__(self, stack: LocalStack, points: Points, history: History) -> None:
        self._stack = stack
        self._points = points
        self._history = history
        self._leftovers = Leftovers(stack)
        self._operator = Client(stack.base_url, stack.home.secret("operator_key"), history, "operator")

    def round(self, number: int) -> tuple[list[Crash], list[str]]:
        """Arm the points, do the work, and return what is wrong of each point and of the work."""
        work = self._tenant(f"Round {number}")
        crashes = [Crash(service, point) for service, points in ROUNDS[number].items() for point in points]
        for crash in crashes:
            self._points.arm(crash.service, crash.point)
        done = threading.Event()
        with ThreadPoolExecutor(8) as pool:
            watching = pool.submit(self._watch, crashes, done)
            tasks = [pool.submit(task, work) for task in self._tasks(number)]
            violations = [str(error) for task in tasks if (error := task.exception()) is not None]
            done.set()
            watching.result()
        for crash in crashes:
            if crash.fired_at is None:
                crash.violations.append("the point was not passed")
            self._points.disarm(crash.service, crash.point)
        return crashes, violations + self._settled(work)

    def _tasks(self, number: int) -> list[Callable[[Work], None]]:
        armed = ROUNDS[number]
        if "consumer.parked" in armed.get("trainer", ()):
            return [self._tune_while_accounts_is_away]
        tasks: list[Callable[[Work], None]] = [self._tune, self._know, self._second_tenant]
        if "labeling" in armed and any(not point.startswith("consumer") for point in armed["labeling"]):
            tasks.append(self._label)
        if any(point.startswith("idempotency") for point in armed.get("trainer", ())):
            tasks.append(self._ask_for_a_job)
        if "consumer.dead_lettered" in armed.get("trainer", ()):
            tasks.append(self._poison)
        return tasks

    def _tenant(self, name: str) -> Work:
        asked = {"name": name, "policy": {"gate": "advisory"}}
        made = None
        while made is None:  # an answer that holds a key is not kept: what was lost with it is made anew
            made = self._operator.call("POST", "organization/tenants", json=asked, accept=("answer_not_kept",))
        return Work(Client(self._stack.base_url, made["api_key"], self._history, name), made["tenant_id"])

    def _second_tenant(self, work: Work) -> None:
        other = self._tenant(f"{work.client.name} too")
        other.client.call("GET", "files")

    def _tune(self, work: Work) -> None:
        """Upload, automatic job, model, answer, rating, alias, and the model's end."""
        client = work.client
        file = client.upload("messages.jsonl", rows(30), "user_data")
        work.files.append(file)
        model = self._job_of(work, file)["fine_tuned_model"]
        asked = {"model": model, "messages": [{"role": "user", "content": "bike 3 will not open"}], "max_tokens": 4}
        answer = client.call("POST", "chat/completions", json=asked)
        if not answer["system_fingerprint"].startswith("ad-"):
            raise Violation(f"the base model answered for {model}")
        client.call("POST", "feedback", json={"completion_id": answer["id"], "rating": "down"})
        work.feedback += 1
        client.until("feedback in the inbox", lambda: client.call("GET", "labeling/feedback")["data"])
        client.call("PUT", "registry/aliases/mine", json={"model": model})
        client.call("DELETE", f"models/{model}", gone=True)

    def _job_of(self, work: Work, file: str) -> dict[str, Any]:
        def ended() -> Any:
            found = [job for job in work.client.call("GET", "fine_tuning/jobs")["data"] if job["training_file"] == file]
            over = [job for job in found if job["status"] in ("succeeded", "failed", "cancelled")]
            return found if found and len(over) == len(found) else None

        found = work.client.until(f"the job of {file}", ended)
        if len(found) != 1 or found[0]["status"] != "succeeded":
            raise Violation(f"jobs of {file}: {[(job['id'], job['status'], job['error']) for job in found]}")
        work.jobs[found[0]["id"]] = file
        return dict(found[0])

    def _ask_for_a_job(self, work: Work) -> None:
        file = work.client.upload("tune.jsonl", rows(30), "fine-tune")
        work.files.append(file)
        method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 15}}}
        asked = {"model": "tiny-test", "training_file": file, "method": method}
        made = work.client.call("POST", "fine_tuning/jobs", json=asked)
        if self._job_of(work, file)["id"] != made["id"]:
            raise Violation("the job that was answered is not the one that ran")

    def _know(self, work: Work) -> None:
        """Put a document into a store, find it and delete it, while another goes into the tenant's own store."""
        client = work.client
        own = client.upload("own.md", DOCUMENT, "user_data")
        file = client.upload("help.md", DOCUMENT, "assistants")
        store = client.call("POST", "vector_stores", json={"name": "Help"})["id"]
        client.call("POST", f"vector_stores/{store}/files", json={"file_id": file})
        client.until(
            "the document is indexed",
            lambda: client.call("GET", f"vector_stores/{store}/files/{file}")["status"] == "completed",
        )
        question = {"query": "How long does a refund take?"}
        found = client.call("POST", f"vector_stores/{store}/search", json=question)["data"]
        texts = [hit["content"][0]["text"] for hit in found if "five working days" in hit["content"][0]["text"]]
        if len(texts) != 1:
            raise Violation(f"the chunk was found {len(texts)} times")
        client.call("DELETE", f"vector_stores/{store}/files/{file}", gone=True)
        if client.call("POST", f"vector_stores/{store}/search", json=question)["data"]:
            raise Violation("a file that was taken out is found")
        client.call("POST", f"vector_stores/{store}/files", json={"file_id": own}, within=60)
        client.call("DELETE", f"vector_stores/{store}", gone=True)
        client.call("DELETE", f"files/{file}", gone=True)
        work.deleted.append(file)
        stores = client.until("the tenant's own store", lambda: client.call("GET", "vector_stores")["data"])
        if len(stores) != 1:
            raise Violation(f"{len(stores)} stores instead of the tenant's own")
        client.until(
            "the own document is indexed",
            lambda: client.call("GET", f"vector_stores/{stores[0]['id']}")["file_counts"]["completed"] == 1,
        )

    def _label(self, work: Work) -> None:
        """Rows answered by a person become a dataset and a job."""
        client = work.client
        texts = [f"bike {number} is {'lost' if number % 2 else 'stuck'}" for number in range(20)]
        project = client.call(
            "POST", "labeling/projects", json={"name": "Rows", "rows": texts, "labels": ["lost", "stuck"]}
        )["id"]
        for task in client.call("GET", f"labeling/projects/{project}/tasks?limit=100")["data"]:
            answer = {"answer": "lost" if "lost" in task["text"] else "stuck"}
            client.call("POST", f"labeling/projects/{project}/tasks/{task['id']}", json=answer)
        client.call("POST", f"labeling/projects/{project}/publish")
        work.projects += 1

        def published() -> Any:
            return [one for one in client.call("GET", "files")["data"] if one["filename"].startswith("Rows-answered")]

        [file] = client.until("the published labels", published)
        work.files.append(file["id"])
        self._job_of(work, file["id"])

    def _poison(self, work: Work) -> None:
        """A message that no release can read, on the topic of datasets."""
        header = {"ce_subject": POISON, "ce_origin": POISON, "ce_id": f"evt_{POISON}"}

        def one() -> Message | None:
            return next((one for one in self._leftovers.messages("datasets") if one.header("ce_type")), None)

        sound = work.client.until("an event to spoil", one)
        headers = {**{name: value.decode() for name, value in sound.headers}, **header}
        spoilt = replace(
            sound,
            key=POISON.encode(),
            value=b'{"dataset_id": ',
            headers=tuple((name, value.encode()) for name, value in headers.items()),
        )
        asyncio.run(inject(self._leftovers.kafka, [spoilt]))
        work.client.until("the dead letter", lambda: self._leftovers.messages("datasets-dlq"))

    def _tune_while_accounts_is_away(self, work: Work) -> None:
        """The trainer cannot ask for the tenant's policy: the event is parked until accounts is back."""
        for path in ("files", "fine_tuning/jobs", "registry/models"):
            work.client.call("GET", path)
        supervisor = self._stack._rpc().supervisor
        supervisor.stopProcess("accounts")
        try:
            file = work.client.upload("messages.jsonl", rows(30), "user_data")
            work.files.append(file)
            for point in ("consumer.parked", "parked.claimed"):
                work.client.until(point, lambda point=point: self._points.fired_at("trainer", point), within=90)
        finally:
            self._stack._rpc().supervisor.startProcess("accounts")
        self._job_of(work, file)
        work.client.until("parked.handled", lambda: self._points.fired_at("trainer", "parked.handled"), within=60)

    def _watch(self, crashes: list[Crash], done: threading.Event) -> None:
        """Note when points fire and when their services answer again."""
        ports = self._stack.home.state["ports"]
        deadline = math.inf
        with httpx2.Client(timeout=5, trust_env=False) as http:
            while True:
                if done.is_set():
                    deadline = min(deadline, time.monotonic() + LATE_SECONDS)
                late = time.monotonic() >= deadline
                for crash in crashes:
                    crash.fired_at = crash.fired_at or self._points.fired_at(crash.service, crash.point)
                for service in {crash.service for crash in crashes if crash.fired_at and not crash.ready_at}:
                    if _ready(http, ports[service]):
                        for crash in crashes:
                            if crash.service == service and crash.fired_at:
                                crash.ready_at = crash.ready_at or time.time()
                if done.is_set() and all(crash.ready_at or (late and not crash.fired_at) for crash in crashes):
                    break
                time.sleep(0.2)
        for crash in crashes:
            if crash.fired_at:
                passes = self._points.passes(crash.service, crash.point, crash.fired_at)
                crash.again_at = passes[0] if passes else None

    def _settled(self, work: Work) -> list[str]:
        """What is wrong once everything should be quiet."""
        deadline = time.monotonic() + QUIET_SECONDS
        while (found := self._unsettled(work)) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _unsettled(self, work: Work) -> list[str]:
        found = asyncio.run(self._leftovers.unpublished_or_parked()) + asyncio.run(self._bytes_left(work))
        mine = [one for one in self._leftovers.events() if one.envelope.tenantid == work.tenant_id]
        mine = [one for one in mine if one.envelope.origin != POISON]
        found += streams_broken(mine)
        counted = Counter(kind for _, kind in {(one.envelope.id, one.kind) for one in mine})
        found += [
            f"{counted[kind]} x {kind} for {len(work.jobs)} jobs"
            for kind in ONCE_A_JOB
            if counted[kind] != len(work.jobs)
        ]
        if counted["dataset.prepared"] != len(work.files):
            found.append(f"{counted['dataset.prepared']} x dataset.prepared for {len(work.files)} files")
        if counted["feedback.recorded"] != work.feedback:
            found.append(f"{counted['feedback.recorded']} x feedback.recorded for {work.feedback}")
        strange = [one for one in self._leftovers.dead_letters() if one.header("ce_subject") != POISON]
        found += [f"dead letter {one.header('ce_type')}: {one.header('x-error')}" for one in strange]
        return found + self._seen_by_the_owner(work)

    def _seen_by_the_owner(self, work: Work) -> list[str]:
        client, found = work.client, []
        datasets = Counter(one["file_id"] for one in client.call("GET", "datasets?limit=100")["data"])
        found += [f"{datasets[file]} datasets of {file}" for file in work.files if datasets[file] != 1]
        jobs = {job["id"] for job in client.call("GET", "fine_tuning/jobs")["data"]}
        if jobs != set(work.jobs):
            found.append(f"jobs nobody asked for: {jobs - set(work.jobs)}")
        models = [one for one in client.call("GET", "registry/models?limit=100")["data"] if one["arm"] is None]
        if len(models) != len(work.jobs):
            found.append(f"{len(models)} adapters for {len(work.jobs)} jobs")
        inbox = client.call("GET", "labeling/feedback")["data"]
        if len(inbox) != work.feedback:
            found.append(f"{len(inbox)} ratings in the inbox for {work.feedback}")
        projects = client.call("GET", "labeling/projects")["data"]
        if len(projects) != work.projects:
            found.append(f"{len(projects)} labeling projects for {work.projects}")
        return found

    async def _bytes_left(self, work: Work) -> list[str]:
        found = []
        objects = Objects(self._leftovers.settings)
        for file in work.deleted:
            keys = await objects.keys(f"tenants/{work.tenant_id}/files/{file}/")
            keys += await objects.keys(f"tenants/{work.tenant_id}/documents/{file}/")
            if keys:
                found.append(f"bytes of a deleted file: {keys}")
        objects.close()
        return found


def _ready(http: httpx2.Client, port: int) -> bool:
    try:
        return http.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def _since(crash: Crash, at: float | None) -> str:
    return f"{at - crash.fired_at:6.1f}" if at is not None and crash.fired_at is not None else "     -"


def main() -> int:
    """Sweep; 1 when something promised did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", help="numbers of the rounds to run, parted by commas; all if left out")
    wanted = parser.parse_args().rounds
    numbers = [int(one) for one in wanted.split(",")] if wanted else list(range(len(ROUNDS)))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sweep-") as folder:
        root = Path(folder)
        points = Points(root / "points", [*ROUNDS[0]])
        stack = tiny_stack(root, SETTINGS, environment_of=points.environment())
        signal.signal(signal.SIGTERM, lambda *_: _give_up(stack))
        stack.up()
        try:
            crashes, broken = _rounds(Sweep(stack, points, History(root / "history.jsonl")), numbers)
            if broken:
                kept = Path(tempfile.mkdtemp(prefix="sweep-logs-"))
                for log in [*stack.home.logs.glob("*.log"), root / "history.jsonl"]:
                    (kept / log.name).write_bytes(log.read_bytes())
                print(f"logs and history: {kept}")
        finally:
            stack.down()
    waits = sorted(max(crash.ready_at or 0, crash.again_at or 0) - (crash.fired_at or 0) for crash in crashes)
    print(f"{len(crashes)} points in {time.monotonic() - began:.0f} s: {broken} violations; ", end="")
    print(f"ready and past the point again: median {waits[len(waits) // 2]:.1f} s, worst {waits[-1]:.1f} s")
    return 1 if broken else 0


def _give_up(stack: LocalStack) -> None:
    stack.down()
    os._exit(1)  # clients still wait for answers


def _rounds(sweep: Sweep, numbers: list[int]) -> tuple[list[Crash], int]:
    print(f"{'service':16}{'point':28}{'ready s':>8}{'again s':>8}  violations", flush=True)
    every: list[Crash] = []
    broken = 0
    for number in numbers:
        started = time.monotonic()
        crashes, violations = sweep.round(number)
        for crash in crashes:
            said = "; ".join(crash.violations) or "0"
            times = f"{_since(crash, crash.ready_at):>8}{_since(crash, crash.again_at):>8}"
            print(f"{crash.service:16}{crash.point:28}{times}  {said}", flush=True)
        every += crashes
        broken += len(violations) + sum(len(crash.violations) for crash in crashes)
        said = "; ".join(violations) or "0"
        print(f"round {number}: {time.monotonic() - started:.0f} s, violations in the work: {said}", flush=True)
    return every, broken


if __name__ == "__main__":
    sys.exit(main())

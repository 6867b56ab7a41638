"""Chaos: the whole stack at work for many tenants while its processes are killed at random.

`make chaos` runs it: every service, the broker, the stores and the ingress as real processes, a tiny base model, and
SIGKILLs all the time. It prints figures and fails when a job was lost, had two effects, or is stuck.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from localstack import LocalStack
from testkit.history import History, read_history
from tests.chaos.clients import Client, Violation
from tests.chaos.killing import Kill, Killer
from tests.chaos.leftovers import Leftovers, Published, streams_broken
from tests.e2e.test_main_way import rows
from tests.tiny_stack import tiny_stack

SETTINGS = {
    "SARTOR_EVALUATOR_RETRY_SECONDS": "2",
    "SARTOR_TRAINER_THREADS": "1",
    "SARTOR_TRAINER_NICENESS": "0",
    "SARTOR_MODEL_SERVER_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Leases and all that decides about a recovery are as in an installation."""

TENANTS, JOBS, KILLS = 10, 300, 150
ASKED = 3
"""Jobs that a tenant asks for in a round, beside the one that follows from an upload; one more is cancelled."""

WAIT_SECONDS = 900
QUIET_SECONDS = 90
LONGEST_LEASE = 60
"""Of anything, in seconds: what a dead process left may be done a second time until then."""

MOST_LEASES = 2.0
ENDED = ("succeeded", "failed", "cancelled")
ONCE_A_MODEL = ("finetune.requested", "finetune.succeeded", "model.promoted")
AFTER_TRAINING = ("finetune.trained", "model.registered", "evaluation.completed")
"""Once a model as well, and at most once of a job that was cancelled as late as that."""

OF_ARMS = (
    "finetune.arm_fitted",
    "evaluation.completed of an arm",
    *(f"model.{said} of an arm" for said in ("registered", "promoted", "rejected", "retired")),
)
"""At most once a job: its adapter may be there before its arm is fitted, which then never is."""


@dataclass
class TenantRecord:
    """What one tenant asked for, and what it was answered.

    Attributes:
        files: uploaded.
        jobs: of each job that should have succeeded, its model.
        cancelled: jobs whose cancellation was accepted.
        chats: completions that were answered.
        ratings: of completions.
        deleted: models.
    """

    client: Client
    tenant_id: str
    files: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    chats: list[str] = field(default_factory=list)
    ratings: int = 0
    deleted: list[str] = field(default_factory=list)


class Chaos:
    """One run on one stack.

    Args:
        stack: that runs.
        history: gets what clients ask.
        killer_of: makes who kills; given how many kills there should have been by now.
        jobs: at least so many.
        kills: at least so many.
    """

    def __init__(
        self,
        stack: LocalStack,
        history: History,
        killer_of: Callable[[Callable[[], int]], Killer],
        jobs: int,
        kills: int,
    ) -> None:
        self._stack = stack
        self._history = history
        self._jobs, self._kills = jobs, kills
        self._leftovers = Leftovers(stack)
        self._killer = killer_of(self._kills_due)
        self._began = time.monotonic()
        self.asked: list[TenantRecord] = []
        self.others: set[str] = set()
        self.begun_again = 0

    @property
    def kills(self) -> list[Kill]:
        return self._killer.kills

    def run(self, tenants: int) -> list[str]:
        """Work under fire until there were enough jobs and kills; what is wrong at the end."""
        operator = Client(self._stack.base_url, self._stack.home.secret("operator_key"), self._history, "operator")
        for number in range(tenants):
            policy = {"name": f"Tenant {number}", "policy": {"gate": "advisory"}}
            made = operator.call("POST", "organization/tenants", json=policy)  # nobody is killed yet
            client = Client(self._stack.base_url, made["api_key"], self._history, f"tenant-{number}")
            self.asked.append(TenantRecord(client, made["tenant_id"]))
        self._began = time.monotonic()
        self._killer.start()
        with ThreadPoolExecutor(tenants + 1) as pool:
            working = [pool.submit(self._work, asked) for asked in self.asked]
            telling = pool.submit(self._tell, lambda: all(one.done() for one in working))
            wrong = [f"stuck: {error}" for one in working if (error := one.exception()) is not None]
            telling.result()
        wrong += self._killer.stop(QUIET_SECONDS)
        return wrong or self._settled()

    def done(self) -> int:
        """Jobs that are over, as they should be."""
        return sum(len(asked.jobs) for asked in self.asked)

    def _kills_due(self) -> int:
        """Kills so far by the jobs that are over or under way: a slow machine is not killed more often for its work."""
        return self._kills * (self.done() + len(self.asked) * (ASKED + 2)) // self._jobs

    def _work(self, asked: TenantRecord) -> None:
        number = 0
        while self.done() < self._jobs or len(self.kills) < self._kills:
            if self._killer.error is not None:
                raise Violation(f"{self.done()} jobs and {len(self.kills)} kills, and the killer ended")
            self._round(asked, number)
            number += 1

    def _round(self, asked: TenantRecord, number: int) -> None:
        """Make a job by an upload and others by asking, cancel one, and ask, rate and delete their models."""
        client = asked.client
        upload = client.upload(f"messages-{number}.jsonl", rows(24), "user_data")
        file = client.upload(f"tune-{number}.jsonl", rows(18), "fine-tune")
        asked.files += [upload, file]
        jobs = [self._ask(client, file, seed) for seed in range(ASKED)]
        regretted = self._ask(client, file, ASKED)
        if client.call("POST", f"fine_tuning/jobs/{regretted}/cancel", accept=("job_ended",)) is not None:
            asked.cancelled.append(regretted)
        else:
            jobs.append(regretted)
        jobs.append(self._automatic(client, upload))
        models = {job: self._model(client, job) for job in jobs}
        asked.jobs |= models
        self._use(asked, next(iter(models.values())))
        for model in [*models.values()][1:]:
            client.call("DELETE", f"models/{model}", gone=True)
            asked.deleted.append(model)

    def _ask(self, client: Client, file: str, seed: int) -> str:
        chosen = {"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 10}
        method = {"type": "supervised", "supervised": {"hyperparameters": chosen}}
        asked = {"model": "tiny-test", "training_file": file, "method": method, "seed": seed}
        return str(client.call("POST", "fine_tuning/jobs", json=asked)["id"])

    def _automatic(self, client: Client, file: str) -> str:
        def made() -> list[str]:
            every = client.call("GET", "fine_tuning/jobs?limit=100")["data"]
            return [job["id"] for job in every if job["training_file"] == file]

        return str(client.until(f"the job of {file}", made, within=WAIT_SECONDS)[0])

    def _model(self, client: Client, job_id: str) -> str:
        def ended() -> Any:
            job = client.call("GET", f"fine_tuning/jobs/{job_id}")
            return job if job["status"] in ENDED else None

        job = client.until(f"job {job_id} is over", ended, within=WAIT_SECONDS, every=1.5)
        if job["status"] != "succeeded":
            raise Violation(f"job {job_id} {job['status']}: {job['error']}")
        return str(job["fine_tuned_model"])

    def _use(self, asked: TenantRecord, model: str) -> None:
        question = {"model": model, "messages": [{"role": "user", "content": "bike 3 will not open"}], "max_tokens": 4}
        answer = asked.client.call("POST", "chat/completions", json=question)
        if not answer["system_fingerprint"].startswith("ad-"):
            raise Violation(f"the base model answered for {model}")
        asked.chats.append(answer["id"])
        asked.client.call("POST", "feedback", json={"completion_id": answer["id"], "rating": "down"})
        asked.ratings += 1

    def _tell(self, over: Any) -> None:
        """A line every half minute."""
        while not over():
            time.sleep(1)
            if int(time.monotonic() - self._began) % 30 == 0:
                seconds = time.monotonic() - self._began
                print(f"{seconds:5.0f} s: {self.done()} jobs over, {len(self.kills)} kills", flush=True)

    def _settled(self) -> list[str]:
        """What is wrong once everything should be quiet, and still a lease later."""
        deadline = time.monotonic() + QUIET_SECONDS
        while (found := self._unsettled()) and time.monotonic() < deadline:
            time.sleep(2)
        if found:
            return found
        time.sleep(LONGEST_LEASE)
        return self._unsettled()

    def _unsettled(self) -> list[str]:
        found = asyncio.run(self._leftovers.unpublished_or_parked())
        found += [
            f"dead letter {one.header('ce_type')}: {one.header('x-error')}" for one in self._leftovers.dead_letters()
        ]
        events = self._leftovers.events()
        found += streams_broken(events)
        first = {one.envelope.id: one for one in events}
        begun = [one.envelope.subject for one in first.values() if one.kind == "finetune.started"]
        self.begun_again = len(begun) - len(set(begun))
        known = {asked.tenant_id for asked in self.asked} | self.others
        strangers = {one.envelope.tenantid for one in first.values()} - known - {""}
        found += [f"events of a tenant that nobody made: {tenant_id}" for tenant_id in strangers]
        for asked in self.asked:
            mine = [one for one in first.values() if one.envelope.tenantid == asked.tenant_id]
            found += self._wrong_events(asked, mine) + self._wrong_to_its_owner(asked)
        return found

    def _wrong_events(self, asked: TenantRecord, events: Iterable[Published]) -> list[str]:
        """Every fact was told once, and no other."""
        told = Counter((one.kind, one.envelope.subject) for one in events)
        counted = Counter(kind for kind, _ in told.elements())
        twice = [
            f"{asked.client.name}: {count} x {kind} of {subject}"
            for (kind, subject), count in told.items()
            if kind in (*AFTER_TRAINING, *OF_ARMS) and count > 1
        ]
        lacking = [kind for kind in AFTER_TRAINING if counted[kind] < len(asked.jobs)]
        expected = {kind: len(asked.jobs) for kind in ONCE_A_MODEL}
        expected["finetune.requested"] += len(asked.cancelled)
        expected["finetune.cancelled"] = len(asked.cancelled)
        expected |= {"finetune.failed": 0, "model.retired": len(asked.deleted)}
        expected |= {"file.uploaded": len(asked.files), "dataset.prepared": len(asked.files)}
        expected |= {"chat.completed": len(asked.chats), "feedback.recorded": asked.ratings}
        expected |= {kind: len(asked.jobs) for kind in lacking}
        return twice + [
            f"{asked.client.name}: {counted[kind]} x {kind} instead of {number}"
            for kind, number in expected.items()
            if counted[kind] != number
        ]

    def _wrong_to_its_owner(self, asked: TenantRecord) -> list[str]:
        """What the API shows is what was asked for."""
        client = asked.client
        seen = {job["id"]: job["status"] for job in client.call("GET", "fine_tuning/jobs?limit=100")["data"]}
        expected = dict.fromkeys(asked.jobs, "succeeded") | dict.fromkeys(asked.cancelled, "cancelled")
        found = [] if seen == expected else [f"jobs {sorted(seen.items() ^ expected.items())}"]
        adapters = sum(one["arm"] is None for one in client.pages("registry/models"))
        if adapters != len(asked.jobs):
            found.append(f"{adapters} adapters for {len(asked.jobs)} jobs")
        datasets = Counter(one["file_id"] for one in client.call("GET", "datasets?limit=100")["data"])
        found += [f"{datasets[file]} datasets of {file}" for file in asked.files if datasets[file] != 1]
        inbox = client.call("GET", "labeling/feedback?limit=100")["data"]
        if len(inbox) != asked.ratings:
            found.append(f"{len(inbox)} ratings in the inbox for {asked.ratings}")
        return [f"{client.name}: {one}" for one in found]

    def server_errors(self) -> list[str]:
        """Answers that say that something went wrong which nobody had thought of: to what, and what they say."""
        lines = read_history(self._history.path)
        return [f"{line['op']}: {line.get('said')}" for line in lines if line.get("status") == 500]


def report(chaos: Chaos, wrong: list[str], seconds: float) -> int:
    """Print the figures; 1 when something promised did not hold."""
    kills = chaos.kills
    victims = Counter(f"{kill.victim}{' (child)' if kill.child else ''}" for kill in kills)
    timed = sorted((kill for kill in kills if not kill.child), key=lambda kill: kill.leases)
    p99, worst, middle = timed[-(-99 * len(timed) // 100) - 1], timed[-1], timed[len(timed) // 2]
    cancelled = sum(len(asked.cancelled) for asked in chaos.asked)
    print(f"{chaos.done()} jobs of {len(chaos.asked)} tenants in {seconds:.0f} s, {cancelled} more cancelled")
    print(f"{len(kills)} kills: " + ", ".join(f"{name} {count}" for name, count in sorted(victims.items())))
    print_attempts(chaos)
    print(
        f"recovery from the {len(timed)} kills that were no child's, in leases: median {middle.leases:.2f}, "
        f"p99 {p99.leases:.2f}, worst {worst.leases:.2f} ({worst.victim})"
    )
    if late := [kill.waited for kill in timed if kill.waited]:
        print(f"  of {len(late)} of these, {sum(late):.0f} s in all are left out: another's run had the one place")
    for kill in timed:
        if kill.leases > MOST_LEASES:
            print(f"  slow: {kill.victim}, {kill.leases:.1f} leases, held {kill.held}")
    for line in wrong:
        print(f"  wrong: {line}")
    print(f"lost, doubled or stuck: {len(wrong)}")
    return 1 if wrong or p99.leases > MOST_LEASES else 0


def print_attempts(chaos: Chaos) -> None:
    """What was tried again, and what went wrong that nobody had thought of."""
    errors = chaos.server_errors()
    print(f"attempts at training beyond a job's first: {chaos.begun_again}; answers 500: {len(errors)}")
    for one in errors:
        print(f"  500: {one}")


def main() -> int:
    """Run; 1 when something promised did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides who is killed and when")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--tenants", type=int, default=TENANTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        root = Path(folder)
        stack = tiny_stack(root, SETTINGS)
        signal.signal(signal.SIGTERM, lambda *_: give_up(stack))
        with stack:
            history = History(root / "history.jsonl")
            chaos = Chaos(stack, history, partial(Killer, stack, chosen.seed), chosen.jobs, chosen.kills)
            began, failed = time.monotonic(), 1
            try:
                wrong = chaos.run(chosen.tenants)
                failed = report(chaos, wrong, time.monotonic() - began)
            finally:
                if failed or chaos.server_errors():
                    keep(stack, chaos, root / "history.jsonl")
    return failed


def keep(stack: LocalStack, chaos: Chaos, history: Path) -> None:
    """Leave what tells of a run that failed or met a 500, and say where."""
    kept = Path(tempfile.mkdtemp(prefix="chaos-logs-"))
    (kept / "kills.json").write_text(json.dumps([kill.told for kill in chaos.kills], indent=1))
    for log in [*stack.home.logs.glob("*.log*"), history]:
        (kept / log.name).write_bytes(log.read_bytes())
    print(f"logs, history and kills: {kept}")


def give_up(stack: LocalStack) -> None:
    """End at once, and leave no process behind."""
    stack.down()
    os._exit(1)  # clients still wait for answers


if __name__ == "__main__":
    sys.exit(main())

"""Two replicas of every service, of which one is killed in the middle of everybody's work and nobody hears of it.

`make two-of-each` runs it: tenants upload, train, chat, rate and delete, others search and look at pages, while one
replica of each service after the other gets SIGKILL and stays away for a while. It fails when work was lost or done
twice, when a GET failed, and when another request of a client's did that was not under way to the replica that died.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

import httpx2

from localstack import LocalStack
from localstack.readiness import is_ready
from localstack.scale import SCALED, replicas
from testkit.history import History, read_history
from tests.chaos.chaos import SETTINGS, Chaos, give_up, keep, print_attempts
from tests.chaos.clients import Client, Violation
from tests.chaos.heard import service_asked, unexplained
from tests.chaos.killing import Kill, Killer, pid_of
from tests.tiny_stack import tiny_stack

SCALE = dict.fromkeys(SCALED, 2)
TENANTS, JOBS = 3, 15
FIRST_SECONDS = 10.0
"""Until the first dies: by then work has begun."""

AWAY_SECONDS = 8.0
READY_SECONDS = 120.0
LOOK_SECONDS = 0.5
PASSWORD = "correct horse battery staple"
DOCUMENT = "# Help\n\n## Refunds\n\nA refund takes five days.\n\n## Locks\n\nHold the button until the lock opens."


class OneOfEach(Killer):
    """Kills one replica of each service, one service after the other; each is kept away and then started again."""

    def __init__(self, stack: LocalStack, seed: int, due: Callable[[], int]) -> None:
        super().__init__(stack, seed, due)
        self._left = [self._random.choice(replicas(service, SCALE)) for service in SCALED]
        self._random.shuffle(self._left)
        self._until = time.monotonic() + FIRST_SECONDS

    def _kill(self) -> None:
        if time.monotonic() < self._until or not self._left:
            return
        supervisor, victim = self._stack._rpc().supervisor, self._left.pop()
        pid = pid_of(supervisor.getProcessInfo(victim))
        os.kill(pid, signal.SIGKILL)
        self.kills.append(Kill(victim, child=False, pid=pid, at=time.monotonic()))
        self._keep_away(supervisor, victim)
        time.sleep(AWAY_SECONDS)
        supervisor.startProcess(victim, False)
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(self._programs[victim]):
            if time.monotonic() > deadline:
                raise Violation(f"{victim} was not ready {READY_SECONDS:.0f} s after it was started again")
            time.sleep(LOOK_SECONDS)

    def _keep_away(self, supervisor: Any, victim: str) -> None:
        """Let the supervisor not start it again; it may just be doing so."""
        deadline = time.monotonic() + READY_SECONDS
        while supervisor.getProcessInfo(victim)["statename"] != "STOPPED":
            if time.monotonic() > deadline:
                raise Violation(f"{victim} could not be kept away")
            with contextlib.suppress(Fault):  # it has ended and is not started yet
                supervisor.stopProcess(victim)


class Onlooker(threading.Thread):
    """Somebody who searches, chats and looks at pages all the time, over connections that are kept open.

    Args:
        stack: where.
        history: gets every request.
        client: of a tenant of their own.
    """

    def __init__(self, stack: LocalStack, history: History, client: Client) -> None:
        super().__init__(name="onlooker", daemon=True)
        self._console = httpx2.Client(base_url=stack.console_url, timeout=30, trust_env=False, follow_redirects=True)
        self._history = history
        self._client = client
        self._over = threading.Event()
        self._looked = 0
        self.wrong: list[str] = []

    def prepare(self) -> None:
        """Sign up at the console, and put a document into a store."""
        person = {"organization": "Onlookers", "email": "o@example.org", "password": PASSWORD}
        entered = self._console.post("/sign-up", data=person)
        if entered.status_code != 200 or "Onlookers" not in entered.text:
            raise Violation(f"the console did not let somebody in: {entered.status_code}")
        file = self._client.upload("help.md", DOCUMENT.encode(), "assistants")
        store = self._client.call("POST", "vector_stores", json={"name": "help", "file_ids": [file]})["id"]

        def indexed() -> bool:
            return bool(self._client.call("GET", f"vector_stores/{store}")["file_counts"]["completed"])

        self._client.until("the document is indexed", indexed)
        self._store = store

    def stop(self) -> list[str]:
        """Look no more; what was wrong with what was seen."""
        self._over.set()
        self.join(60)
        return self.wrong

    def run(self) -> None:
        """See `Thread`."""
        try:
            while not self._over.wait(LOOK_SECONDS):
                self._look()
        except Violation as error:
            self.wrong.append(f"onlooker: {error}")

    def _look(self) -> None:
        call = self._client.call
        found = call("POST", f"vector_stores/{self._store}/search", json={"query": "When is my refund?"})["data"]
        if not found or "five days" not in found[0]["content"][0]["text"]:
            self.wrong.append(f"the search found {found}")
        call("POST", "embeddings", json={"model": "multilingual-e5-small", "input": "a lock"})
        question = {"model": "tiny-test", "messages": [{"role": "user", "content": "bike 3"}], "max_tokens": 2}
        call("POST", "chat/completions", json=question)
        for path in ("models", "evals/evaluations", "labeling/projects", "organization", "fine_tuning/jobs", "files"):
            call("GET", path)
        self._page("/")

    def _page(self, path: str) -> None:
        """A page for who is signed in; being led to the sign-in page means that the session was lost."""
        self._looked += 1
        with self._history.operation(f"GET {path}", tenant="onlooker", key=f"page-{self._looked}") as operation:
            try:
                answer: httpx2.Response | None = self._console.get(path)
            except httpx2.TransportError:
                answer = None
            operation.ids["status"] = answer.status_code if answer is not None else None
        if answer is not None and answer.status_code < 500 and answer.url.path.endswith("/sign-in"):
            self.wrong.append("the console forgot who was signed in")


def report(chaos: Chaos, history: Path, wrong: list[str], seconds: float) -> int:
    """Print the figures; 1 when something promised did not hold."""
    lines = read_history(history)
    ended = [line for line in lines if line["outcome"] != "invoke"]
    failed = Counter(service_asked(line["op"]) for line in ended if line.get("status") is None or line["status"] >= 500)
    wrong = [*wrong, *unexplained(lines, chaos.kills)]
    print(f"{chaos.done()} jobs of {len(chaos.asked)} tenants in {seconds:.0f} s, {len(ended)} requests")
    print(f"killed: {', '.join(kill.victim for kill in chaos.kills)}")
    print(f"failed on the connection of who died: {dict(failed) or 'none'}")
    print_attempts(chaos)
    for line in wrong:
        print(f"  wrong: {line}")
    print(f"lost, doubled, stuck, or heard by somebody else: {len(wrong)}")
    return 1 if wrong or len(chaos.kills) < len(SCALED) else 0


def run(stack: LocalStack, history: History, chaos: Chaos, tenants: int) -> list[str]:
    """Everybody's work with its kills; what is wrong."""
    operator = Client(stack.base_url, stack.home.secret("operator_key"), history, "host")
    made = operator.call("POST", "organization/tenants", json={"name": "Onlooker"})
    onlooker = Onlooker(stack, history, Client(stack.base_url, made["api_key"], history, "onlooker"))
    onlooker.prepare()
    chaos.others = {one["id"] for one in operator.call("GET", "organization/tenants")["data"]}
    onlooker.start()
    try:
        wrong = chaos.run(tenants)
    finally:
        seen = onlooker.stop()
    return wrong + seen


def main() -> int:
    """Run; 1 when something promised did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides which replicas are killed, and in which order")
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--tenants", type=int, default=TENANTS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="two-of-each-") as folder:
        root = Path(folder)
        stack = tiny_stack(root, SETTINGS, scale=SCALE, say=lambda line: print(line, flush=True))
        signal.signal(signal.SIGTERM, lambda *_: give_up(stack))
        with stack:
            history = History(root / "history.jsonl")
            chaos = Chaos(stack, history, partial(OneOfEach, stack, chosen.seed), chosen.jobs, len(SCALED))
            began, failed = time.monotonic(), 1
            try:
                wrong = run(stack, history, chaos, chosen.tenants)
                failed = report(chaos, history.path, wrong, time.monotonic() - began)
            finally:
                if failed or chaos.server_errors():
                    keep(stack, chaos, history.path)
    return failed


if __name__ == "__main__":
    sys.exit(main())

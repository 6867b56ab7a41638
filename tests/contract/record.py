"""Records a release: one tenant's way through the whole stack, and every message that Kafka then holds.

`make record RELEASE=0.1.0` runs it on the tiny base model and writes `schemas/recorded/0.1.0.jsonl`. It refuses to
write over a recording, and to write one that lacks a type of the catalogue: give a new type an action here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from chassis.settings import ServiceSettings
from localstack import LocalStack
from schemas import EVENTS, TOPICS, DriftDetected
from stores.objects import Objects
from testkit.injector import Message, recorded
from tests.chaos.sweep import DOCUMENT, SETTINGS
from tests.conftest import Tenant, make_tenant
from tests.contract.recordings import FOLDER, Recording
from tests.e2e.test_main_way import ended_job, rows, wait_for
from tests.tiny_stack import tiny_stack

UNANSWERED = "".join(
    json.dumps({"text": f"bike {number} is {'lost' if number % 2 else 'stuck'}"}) + "\n" for number in range(30)
).encode()
"""Rows for people to answer, as they are uploaded and as ingest hands them on; a change is another release's."""

CHAT = [{"role": "user", "content": "bike 3 will not open"}]


class Tour:
    """One tenant's way past everything that says something."""

    def __init__(self, tenant: Tenant, stack: LocalStack) -> None:
        self._stack = stack
        self._sdk = tenant.sdk
        self._tenant = tenant
        self._http = tenant.http

    def walk(self) -> None:
        """Do everything once; the gate lets the first model through and a person refuses the second."""
        model = self._tune()
        self._pin(model)
        self._chat(model)
        self._call("DELETE", f"models/{model}")
        self._know()
        self._upload("bad.jsonl", b'{"messages": [', "user_data", until="error")
        self._cancel_a_job()
        self._call("PATCH", "organization", json={"gate": "approval"})
        self._refuse(self._label())
        self._lose_an_adapter()
        self._take_back_labels()
        self._rotate_and_revoke_a_key()
        self._detect_drift(model)

    def _tune(self) -> str:
        job = self._ended_job(self._upload("messages.jsonl", rows(30), "user_data"))
        assert job.status == "succeeded", job.error
        return str(job.fine_tuned_model)

    def _pin(self, model: str) -> None:
        serving = next(one for one in self._call("GET", f"registry/models?name={model}")["data"] if one["serves"])
        for verb in ("pin", "unpin"):
            self._call("POST", f"registry/models/{serving['id']}/{verb}", json={"note": "Recorded."})

    def _chat(self, model: str) -> None:
        answer = self._sdk.chat.completions.create(model=model, messages=CHAT, max_tokens=4)
        for rating in ("down", "up"):
            rated = {"completion_id": answer.id, "rating": rating, "correction": "lost_item"}
            last = self._call("POST", "feedback", json=rated)
        self._call("DELETE", f"feedback/{last['id']}")
        self._sdk.chat.completions.create(model="tiny-test", messages=CHAT, max_tokens=4)

    def _know(self) -> None:
        own = self._upload("own.md", DOCUMENT, "user_data")
        file = self._upload("help.md", DOCUMENT, "assistants")
        store = self._sdk.vector_stores.create(name="Help").id
        self._sdk.vector_stores.files.create(store, file_id=file)
        wait_for(lambda: self._sdk.vector_stores.files.retrieve(file, vector_store_id=store).status == "completed")
        self._sdk.vector_stores.delete(store)
        for one in (own, file):
            self._sdk.files.delete(one)

    def _cancel_a_job(self) -> None:
        file = self._upload("tune.jsonl", rows(30), "fine-tune")
        job = self._sdk.fine_tuning.jobs.create(model="tiny-test", training_file=file, suffix="cancelled")
        self._sdk.fine_tuning.jobs.cancel(job.id)

    def _label(self) -> str:
        """Rows without answers get them, and become a dataset; the file it is made from."""
        file = self._upload("questions.jsonl", UNANSWERED, "user_data")

        def project() -> Any:
            found = self._call("GET", "labeling/projects")["data"]
            return next((one["id"] for one in found if one["file_id"] == file), None)

        path = f"labeling/projects/{wait_for(project)}"
        wait_for(lambda: len(self._call("GET", f"{path}/tasks?limit=100")["data"]) == UNANSWERED.count(b"\n"))
        self._call("PATCH", path, json={"labels": ["lost", "stuck"]})
        for task in self._call("GET", f"{path}/tasks?limit=100")["data"]:
            answer = {"answer": "lost" if "lost" in task["text"] else "stuck"}
            self._call("POST", f"{path}/tasks/{task['id']}", json=answer)
        self._call("POST", f"{path}/publish")
        return str(
            wait_for(lambda: next((one.id for one in self._sdk.files.list() if "answered" in one.filename), None))
        )

    def _refuse(self, file: str) -> None:
        """A person refuses every version made of a file, as they come: an arm, then the adapter."""

        def over() -> Any:
            for one in self._call("GET", "registry/models?state=awaiting_approval&limit=100")["data"]:
                if one["training_file"] == file:
                    self._call("POST", f"registry/models/{one['id']}/reject", json={"note": "Recorded."})
            return ended_job(self._tenant, file)

        assert wait_for(over).status == "failed"

    def _lose_an_adapter(self) -> None:
        """Files of an adapter are gone before the model server fetches them; a person refuses its model."""
        supervisor = self._stack._rpc().supervisor
        supervisor.stopProcess("model_server")
        file = self._upload("lost.jsonl", rows(36), "user_data")

        def adapter() -> Any:
            found = self._call("GET", "registry/models?limit=100")["data"]
            return next((one for one in found if one["training_file"] == file and one["arm"] is None), None)

        model = wait_for(adapter)
        self._http.get(f"/registry/models/{model['id']}/adapter").raise_for_status()
        manifest = model["adapter_manifest"]
        settings = ServiceSettings(**self._stack.addresses(), objects_bucket=manifest["bucket"])
        objects = Objects(settings, workers=1)
        asyncio.run(objects.delete(manifest["key"].replace("manifest.json", "adapter_model.safetensors")))
        objects.close()
        supervisor.startProcess("model_server")
        path = f"registry/models/{model['id']}"
        wait_for(lambda: self._call("GET", path)["load_failures"])
        self._call("POST", f"{path}/reject", json={"note": "Lost."})

    def _take_back_labels(self) -> None:
        """The project goes, the file of its answers, and that one's dataset, whose model was refused."""
        for project in self._call("GET", "labeling/projects")["data"]:
            self._call("DELETE", f"labeling/projects/{project['id']}")

    def _rotate_and_revoke_a_key(self) -> None:
        key = self._call("POST", "organization/keys", json={"name": "short-lived"})
        self._call("POST", f"organization/keys/{key['id']}/rotate")
        self._call("DELETE", f"organization/keys/{key['id']}")

    def _detect_drift(self, model: str) -> None:
        """A service outside says that what a model is asked has changed."""
        key = {"name": "drift monitor", "scopes": ["events:publish"], "event_types": [DriftDetected.type]}
        monitor = Tenant(
            self._tenant.base_url, self._tenant.tenant_id, self._call("POST", "organization/keys", json=key)["api_key"]
        )
        found = {"drift_id": "drift_1", "model": model, "metric": "psi", "value": 0.31, "threshold": 0.2}
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "urn:drift-monitor",
            "type": DriftDetected.type,
            "data": found,
        }
        said = {"content": json.dumps(event), "headers": {"content-type": "application/cloudevents+json"}}
        with monitor.http as http:
            wait_for(lambda: http.post("/events", **said).is_success)

    def _upload(self, name: str, body: bytes, purpose: Any, *, until: str = "processed") -> str:
        file = self._sdk.files.create(file=(name, body), purpose=purpose).id
        wait_for(lambda: self._sdk.files.retrieve(file).status == until)
        return file

    def _ended_job(self, file: str) -> Any:
        return wait_for(lambda: ended_job(self._tenant, file))

    def _call(self, method: str, path: str, **body: Any) -> Any:
        answer: httpx2.Response = self._http.request(method, f"/{path}", **body)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json()


def missing(messages: list[Message]) -> list[str]:
    """The types of the catalogue that none of `messages` has."""
    return sorted(set(EVENTS) - {message.header("ce_type") for message in messages})


def record() -> list[Message]:
    """Every message of a tour, once all types are there or three minutes have passed."""
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        root = Path(folder)
        stack = tiny_stack(root, SETTINGS, say=print)
        with stack:
            Tour(make_tenant(stack, "Recorded"), stack).walk()
            kafka, topics = stack.addresses()["kafka_bootstrap"], [topic.name for topic in TOPICS]
            with contextlib.suppress(AssertionError):  # who calls says which are missing
                wait_for(lambda: not missing(asyncio.run(recorded(kafka, *topics))))
            return asyncio.run(recorded(kafka, *topics))


def main() -> int:
    """Record; 1 when there is one of that release, or a type is missing."""
    parser = argparse.ArgumentParser(prog="make record", description=__doc__)
    parser.add_argument("release", help="version of the release, for example 0.1.0")
    release = parser.parse_args().release
    path = FOLDER / f"{release}.jsonl"
    if path.exists():
        print(f"{path} is there already; what a release said does not change", file=sys.stderr)
        return 1
    messages = record()
    if missing(messages):
        print(f"nothing was recorded: the run made no {', '.join(missing(messages))}", file=sys.stderr)
        return 1
    Recording.of_now(release, messages).save(path)
    print(f"{path}: {len(messages)} messages, {path.stat().st_size // 1024} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

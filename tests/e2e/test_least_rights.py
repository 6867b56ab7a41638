"""Every service as its own database user, with its own object store key: what people do works, nobody is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from localstack import LocalStack
from localstack.home import LOCAL_SERVICES
from localstack.programs import Program
from provision.__main__ import main
from tests.conftest import LEAN, Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, rows, wait_for
from tests.tiny_stack import tiny_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REFUSALS = ("AccessDenied", "not authorized on", "Authentication failed")


class CheckedStack(LocalStack):
    """A stack whose database asks everybody who they are."""

    def _programs(self, ports: dict[str, int]) -> list[Program]:
        programs = super()._programs(ports)
        next(program for program in programs if program.name == "mongodb").command.append("--auth")
        return programs


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The servers are started and given their users, then everything is started with these."""
    root = tmp_path_factory.mktemp("rights")
    with tiny_stack(root, LEAN, services=(), durable_log=False) as bare:
        home, ports, addresses = bare.home, bare.home.state["ports"], bare.addresses()
        with MongoClient[dict[str, Any]](addresses["mongo_url"]) as client:
            client.admin.command("createUser", "sartor", pwd=home.secret("mongo_password"), roles=["root"])
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("SARTOR_SECRETS_DIR", str(home.secrets))
            environment.setenv("SARTOR_MONGO_URL", addresses["mongo_url"])
            environment.setenv("SARTOR_OBJECTS_ENDPOINT", addresses["objects_endpoint"])
            main()
    own = {
        service: {
            "SARTOR_MONGO_URL": own_url(home.secret(f"{service}_mongo_url"), ports["mongodb"]),
            "SARTOR_OBJECTS_ACCESS_KEY": service,
            "SARTOR_OBJECTS_SECRET_KEY_FILE": str(home.secrets / f"{service}_objects_key"),
        }
        for service in LOCAL_SERVICES
    }
    settings = {"base_model": "tiny-test", "models_dir": root / "models", "usual_ports": False, "durable_log": False}
    with CheckedStack(home.folder, environment=LEAN, environment_of=own, **settings) as running:
        yield running


def own_url(url: str, port: int) -> str:
    """The service's connection string, for the local server: it has no replica set, and is asked for no retries."""
    return url.replace("@mongodb:27017", f"@127.0.0.1:{port}").replace("replicaSet=rs0", "retryWrites=false")


@pytest.fixture(scope="module")
def person(checked: LocalStack) -> Tenant:
    return make_tenant(checked, "Rights")


def test_an_upload_becomes_a_model_that_answers_and_goes_again(person: Tenant) -> None:
    sdk = person.sdk
    file = sdk.files.create(file=("messages.jsonl", rows()), purpose="user_data")
    job = wait_for(lambda: ended_job(person, file.id))
    assert job.status == "succeeded", job.error
    question: Any = [{"role": "user", "content": "bike 3 will not open"}]
    answer = sdk.chat.completions.create(model=job.fine_tuned_model, messages=question, max_tokens=4)
    assert (answer.system_fingerprint or "").startswith(("ad-", "arm-"))
    with person.http as http:
        http.post("/feedback", json={"completion_id": answer.id, "rating": "down"}).raise_for_status()
        wait_for(lambda: http.get("/labeling/feedback").json()["data"], seconds=60)
        evaluation = http.get("/evals/evaluations", params={"model": job.fine_tuned_model}).json()["data"][0]
        http.get(f"/evals/evaluations/{evaluation['id']}/evidence").raise_for_status()
    assert sdk.files.content(file.id).text
    assert sdk.files.delete(file.id).deleted


def test_labels_become_a_dataset(person: Tenant) -> None:
    texts = "\n".join(json.dumps({"text": f"row number {number}"}) for number in range(12)).encode()
    file = person.sdk.files.create(file=("unlabelled.jsonl", texts), purpose="user_data")
    with person.http as http:
        project = wait_for(lambda: http.get("/labeling/projects").json()["data"], seconds=60)[0]["id"]
        path = f"/labeling/projects/{project}"
        for number in range(12):
            task = wait_for(lambda: http.post(f"{path}/next").json(), seconds=30)
            http.post(f"{path}/tasks/{task['id']}", json={"answer": ("even", "odd")[number % 2]}).raise_for_status()
        http.post(f"{path}/publish").raise_for_status()
    answered = wait_for(lambda: [one for one in person.sdk.files.list() if "answered" in one.filename], seconds=60)[0]
    wait_for(lambda: person.sdk.files.retrieve(answered.id).status != "uploaded", seconds=60)
    assert person.sdk.files.delete(answered.id).deleted
    assert person.sdk.files.delete(file.id).deleted


def test_a_copy_of_an_adapter_is_taken(checked: LocalStack) -> None:
    person = make_tenant(checked, "Copies", gate="approval")  # so that its quick arm does not end the job
    file = person.sdk.files.create(file=("messages.jsonl", rows()), purpose="user_data")
    with person.http as http:

        def adapter() -> Any:
            found = http.get("/registry/models", params={"limit": 100}).json()["data"]
            return next((one for one in found if one["training_file"] == file.id and one["downloadable"]), None)

        copy = http.get(f"/registry/models/{wait_for(adapter)['id']}/adapter")
    assert copy.status_code == 200
    assert copy.content.startswith(b"PK")


def test_a_document_is_found(person: Tenant) -> None:
    sdk = person.sdk
    page = b"# Locks\n\nPress the red button to open the lock."
    file = sdk.files.create(file=("help.md", page), purpose="assistants")
    store = sdk.vector_stores.create(name="help", file_ids=[file.id])
    wait_for(lambda: sdk.vector_stores.retrieve(store.id).file_counts.completed == 1, seconds=60)
    assert sdk.vector_stores.search(store.id, query="how do I open the lock").data


def test_no_service_was_refused_anything(checked: LocalStack, person: Tenant) -> None:
    logs: list[Path] = [checked.home.logs / f"{service}.log" for service in LOCAL_SERVICES]
    refused = [
        (path.name, line)
        for path in logs
        for line in path.read_text(errors="replace").splitlines()
        if any(word in line for word in REFUSALS)
    ]
    assert refused == []
    assert all(path.stat().st_size for path in logs)

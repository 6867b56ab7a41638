"""Builds every image and starts docker-compose.yml with them: the main way once, one container killed, all stopped.

The servers whose images come from a registry are stood in for by the programs of the local stack, and the base model is
a tiny one: what is tried is our images and the compose file, not MongoDB, Kafka, MinIO, Milvus or a GPU.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

import httpx2

from tests.conftest import Tenant
from tests.containers import images
from tests.containers.podman import Podman
from tests.containers.running import PORT, Containers, prepare
from tests.contract.compose import OURS, ROOT
from tests.e2e.test_main_way import ended_job, rows, wait_for

KEPT = ROOT / ".sartor" / "containers"
VERSION = "0.1.0"
KILLED = "inference-proxy"
BACK_SECONDS = 60
WAY_SECONDS = 300
CONFINED = {
    "user": "10001",
    "capabilities": 0,
    "no new privileges": "1",
    "read-only": True,
    "scratch": True,
}
PROBE = """
import json, os, socket, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines() if ":\\t" in line)
def refused(call):
    try:
        call()
    except OSError:
        return True
    return False
print(json.dumps({
    "user": status["Uid"].split()[0],
    "capabilities": int(status["CapEff"], 16),
    "no new privileges": status["NoNewPrivs"].strip(),
    "read-only": refused(lambda: open("/written", "w")),
    "scratch": not refused(lambda: open("/tmp/written", "w")),
    "secrets": sorted(os.listdir("/run/secrets")),
    "outside": not refused(lambda: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)),
}))
"""
"""What a container may do, asked inside it. Its arguments are an address that only one with a way out reaches."""


def main() -> int:
    """Run; 0 when everything held."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no container is left
    KEPT.mkdir(parents=True, exist_ok=True)
    podman = Podman(KEPT)
    print("images", flush=True)
    began = time.monotonic()
    images.build(podman, KEPT, VERSION)
    print(f"  all in {time.monotonic() - began:.0f} s")
    for line in podman.run("podman", "images", "--format", "{{.Repository}} {{.Size}}").splitlines():
        if line.startswith("localhost/sartor/"):
            print(f"  {line}")
    prepare(KEPT / "project", VERSION)
    with Containers(podman, KEPT / "project") as containers:
        try:
            containers.start()
            print(f"started: {', '.join(f'{name} {at:.0f} s' for name, at in containers.ready.items())}", flush=True)
            confined(podman, containers)
            tenant = new_tenant()
            model = main_way(tenant)
            knows(tenant)
            comes_back(containers, tenant, model)
            stops(containers)
        except BaseException:
            (KEPT / "logs").mkdir(exist_ok=True)
            for service in containers.services:
                (KEPT / "logs" / f"{service}.log").write_text(containers.log(service, 2000))
            print(f"logs: {KEPT / 'logs'}", file=sys.stderr)
            raise
    print("everything held")
    return 0


def confined(podman: Podman, containers: Containers) -> None:
    """None of our containers can do what the compose file does not let it."""
    ways_out = []
    with socket.create_server(("0.0.0.0", 0)) as outside:
        address = [containers.gateway("outer"), str(outside.getsockname()[1])]
        for service, one in OURS.items():
            if service not in containers.services or one.get("restart") == "no":
                continue
            command = ["python", "-c", PROBE, *address]
            may = json.loads(podman.run("podman", "exec", containers.name(service), *command))
            given = sorted(secret if isinstance(secret, str) else secret["target"] for secret in one["secrets"])
            leaves = "outer" in one["networks"]
            assert may == {**CONFINED, "secrets": given, "outside": leaves}, f"{service}: {may}"
            ways_out += [service] if leaves else []
    assert ways_out, "what no container reaches proves nothing"
    print(
        "each of ours: user 10001, no capability, read-only, its own secrets; "
        f"no way out but for {', '.join(ways_out)}",
        flush=True,
    )


def new_tenant() -> Tenant:
    """Made with the operator's key, through the ingress."""
    base_url = f"http://127.0.0.1:{PORT}/v1"
    key = (KEPT / "project/infra/docker/secrets/operator_key").read_text()
    asked = {"name": "Containers", "policy": {"gate": "advisory"}}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx2.post(f"{base_url}/organization/tenants", headers=headers, json=asked, timeout=30, trust_env=False)
    answer.raise_for_status()
    made = answer.json()
    return Tenant(base_url, made["tenant_id"], made["api_key"])


def main_way(tenant: Tenant) -> str:
    """Upload, job, answer; the id of the model."""
    began = time.monotonic()
    file = tenant.sdk.files.create(file=("messages.jsonl", rows()), purpose="user_data")
    job = wait_for(lambda: ended_job(tenant, file.id), seconds=WAY_SECONDS)
    assert job.status == "succeeded", job.error
    model = str(job.fine_tuned_model)
    assert answered(tenant, model)
    print(f"main way: {time.monotonic() - began:.0f} s from the upload to an answer of {model}", flush=True)
    return model


def answered(tenant: Tenant, model: str) -> bool:
    """Whether the model answers with its adapter."""
    messages = [{"role": "user", "content": "bike 3 will not open"}]
    answer = tenant.sdk.chat.completions.create(model=model, messages=messages, max_tokens=8)  # type: ignore[arg-type]
    return str(answer.system_fingerprint).startswith("ad-")


def knows(tenant: Tenant) -> None:
    """A document is found by what it says, and the console's page is there."""
    file = tenant.sdk.files.create(file=("locks.md", b"# Locks\n\nThe lock opens at 7."), purpose="assistants")
    store = tenant.sdk.vector_stores.create(name="Locks", file_ids=[file.id])
    wait_for(lambda: tenant.sdk.vector_stores.retrieve(store.id).file_counts.completed == 1, seconds=WAY_SECONDS)
    found = tenant.sdk.vector_stores.search(store.id, query="When does the lock open?").data
    assert "opens at 7" in found[0].content[0].text
    page = httpx2.get(f"http://127.0.0.1:{PORT}/sign-in", follow_redirects=True, trust_env=False)
    assert page.status_code == 200
    assert "Sartor" in page.text
    print("a document was found in Milvus's stand-in; the console answers", flush=True)


def comes_back(containers: Containers, tenant: Tenant, model: str) -> None:
    """One container's process is killed: it is there again by itself, and answers."""
    before = containers.state(KILLED)["Pid"]
    assert before, f"{KILLED} has no process that could be killed"
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: containers.state(KILLED)["Pid"] not in (0, before), seconds=BACK_SECONDS)
    wait_for(lambda: answered(tenant, model), seconds=BACK_SECONDS)
    print(f"{KILLED} killed: back and answering after {time.monotonic() - began:.0f} s", flush=True)


def stops(containers: Containers) -> None:
    """Each of ours ends by itself within its stop time when it is told to."""
    took = containers.stop([name for name in OURS if name in containers.services and name != "provision"])
    print(f"stopped: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in took.items())}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

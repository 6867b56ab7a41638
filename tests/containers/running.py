"""docker-compose.yml as containers: started as its conditions say, watched as its health checks say, and ended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from localstack.base_models import build_tiny
from localstack.home import is_free, write_secrets
from tests.containers.images import BASE, STANDINS
from tests.containers.podman import Podman
from tests.contract.compose import CONTAINERS, OURS, ROOT, seconds

PROJECT = "sartor-containers"
PORT = 18080
START_SECONDS = 240
HEALTH_SECONDS = 3
READABLE = 0o444


def prepare(folder: Path, version: str) -> None:
    """A folder as somebody has it who starts the compose file: the file, its Caddyfile, secrets, a base model, `.env`.

    Two things are the stand-ins' alone: MongoDB's is no replica set of that name, and Kafka's has no idempotent
    producers.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "infra/docker").mkdir(parents=True)
    for name in ("docker-compose.yml", "infra/docker/Caddyfile"):
        shutil.copy(ROOT / name, folder / name)
    secrets = folder / "infra/docker/secrets"
    write_secrets(secrets, READABLE)
    for url in secrets.glob("*_mongo_url"):
        text = url.read_text().replace("replicaSet=rs0&", "directConnection=true&retryWrites=false&")
        url.unlink()
        url.write_text(text)
        url.chmod(READABLE)
    build_tiny(folder / "models")
    without_retries = {"SARTOR_MONGO_URL": "mongodb://mongodb:27017/?directConnection=true&retryWrites=false"}
    changed = {name: {"environment": {"SARTOR_KAFKA_IDEMPOTENT": "false"}} for name in OURS if name != "provision"}
    changed["provision"] = {"environment": without_retries}
    (folder / "standins.yml").write_text(yaml.safe_dump({"services": changed}))
    images = {f"{name.upper()}_IMAGE": f"localhost/sartor-standin/{name}:{version}" for name in STANDINS}
    images["BUSYBOX_IMAGE"] = BASE
    chosen = {
        **images,
        "SARTOR_IMAGES": "localhost/sartor",
        "SARTOR_VERSION": version,
        "MODELS_DIR": str(folder / "models"),
        "BASE_MODEL": "tiny-test",
        "HTTP_PORT": str(PORT),
        "HTTPS_PORT": str(PORT + 1),
        "PUBLIC_URL": f"http://localhost:{PORT}",
    }
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))


class Containers:
    """The project's containers.

    podman before 4.6 cannot wait for a container's health, and without systemd it never asks for it: both are done
    here, by `podman healthcheck run`.

    Args:
        podman: to ask.
        folder: made by `prepare`.
    """

    def __init__(self, podman: Podman, folder: Path) -> None:
        self._podman = podman
        self._folder = folder
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, name="health", daemon=True)
        self.services: dict[str, dict[str, Any]] = {
            name: one for name, one in CONTAINERS.items() if "profiles" not in one
        }
        self.ready: dict[str, float] = {}

    def __enter__(self) -> Containers:
        if not is_free(PORT):
            raise SystemExit(f"error: port {PORT} is taken")
        self._compose("down", "--volumes")
        try:
            self._compose("up", "--no-start", "--no-deps", "--no-build")
        except BaseException:
            self._compose("down", "--volumes")
            raise
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._watching.is_alive():
            self._watching.join()
        self._compose("down", "--volumes")

    def name(self, service: str) -> str:
        """podman's name of a service's container."""
        return f"{PROJECT}_{service}_1"

    def start(self) -> None:
        """Start each container once what it waits for is as its condition says.

        Raises:
            AssertionError: one of them is not within four minutes; the end of its log is in the message.
        """
        began = time.monotonic()
        waiting = dict(self.services)
        while waiting or len(self.ready) < len(self.services):
            for name, one in list(waiting.items()):
                if all(self._holds(other, how["condition"]) for other, how in one.get("depends_on", {}).items()):
                    self._podman.run("podman", "start", self.name(name))
                    del waiting[name]
            for name in self.services:
                if name not in waiting and name not in self.ready and self._is_up(name):
                    self.ready[name] = time.monotonic() - began
            if time.monotonic() - began > START_SECONDS:
                late = sorted(set(self.services) - set(self.ready))
                raise AssertionError("not up: " + "\n".join(f"{name}: {self.log(name)}" for name in late))
            time.sleep(0.5)

    def stop(self, services: list[str]) -> dict[str, float]:
        """Tell each to stop; the seconds each took.

        Raises:
            AssertionError: one did not end by itself within its stop time.
        """
        took = {}
        for service in services:
            began, within = time.monotonic(), seconds(CONTAINERS[service]["stop_grace_period"])
            self._podman.run("podman", "stop", "--time", str(int(within)), self.name(service))
            took[service] = time.monotonic() - began
            code = self.state(service)["ExitCode"]
            assert code == 0, f"{service} ended with {code} after {took[service]:.0f} s: {self.log(service)}"
        return took

    def gateway(self, network: str) -> str:
        """The host's address in one of the project's networks."""
        found = json.loads(self._podman.run("podman", "network", "inspect", f"{PROJECT}_{network}"))
        return str(found[0]["subnets"][0]["gateway"])

    def log(self, service: str, lines: int = 20) -> str:
        """The end of a container's log."""
        options = {"stderr": subprocess.STDOUT, "check": False}
        return self._podman.run("podman", "logs", "--tail", str(lines), self.name(service), **options)

    def state(self, service: str) -> dict[str, Any]:
        """podman's word on a container: `Status`, `Pid`, `ExitCode`, `Health`."""
        found: dict[str, Any] = self._podman.inspect(self.name(service))["State"]
        return found

    def healthy(self, service: str) -> bool:
        """Whether the container runs and its last health check said so."""
        state = self.state(service)
        health = state.get("Health") or state.get("Healthcheck") or {}
        return state["Status"] == "running" and health.get("Status") == "healthy"

    def _holds(self, service: str, condition: str) -> bool:
        if condition == "service_started":
            return self.state(service)["Status"] == "running"
        if condition == "service_healthy":
            return self.healthy(service)
        state = self.state(service)
        if state["Status"] == "exited" and state["ExitCode"] != 0:
            raise AssertionError(f"{service} ended with {state['ExitCode']}: {self.log(service)}")
        return state["Status"] == "exited"

    def _is_up(self, service: str) -> bool:
        once = self.services[service].get("restart") == "no"
        return self._holds(service, "service_completed_successfully") if once else self.healthy(service)

    def _watch(self) -> None:
        """Ask each running container how it is, as often as compose would in its first minutes."""
        watched = [self.name(name) for name, one in self.services.items() if one.get("restart") != "no"]
        while not self._over.wait(HEALTH_SECONDS):
            for name in watched:
                self._podman.succeeds("podman", "healthcheck", "run", name)  # fails too where it does not run

    def _compose(self, *command: str) -> None:
        kept = self._folder.parent / "podman-compose"
        files = [part for name in ("docker-compose.yml", "standins.yml") for part in ("-f", str(self._folder / name))]
        compose = [str(podman_compose(kept)), "-p", PROJECT, "--in-pod=false", *files, *command]
        self._podman.run(*compose, cwd=self._folder)


def podman_compose(folder: Path) -> Path:
    """The pinned podman-compose, in an environment of its own."""
    program, wanted = folder / "bin" / "podman-compose", Path(__file__).with_name("requirements.txt")
    stamp = folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-r", wanted], check=True)
        stamp.write_text(wanted.read_text())
    return program

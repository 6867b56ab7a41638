"""Services as processes of their own, with the settings of a test's space."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx2
from pydantic import SecretStr

from chassis.settings import ServiceSettings
from testkit import Space, eventually
from testkit.running import free_port


def environment(settings: ServiceSettings) -> dict[str, str]:
    """The settings as a process reads them."""
    values: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            values[f"SARTOR_{name.upper()}"] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")} | values


@contextlib.contextmanager
def process(space: Space, service: str, settings: ServiceSettings) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m <service>` and its address; its log is `<service>.log` in the space's folder."""
    port = free_port()
    variables = environment(settings) | {"SARTOR_SERVICE_PORT": str(port)}
    with (space.folder / f"{service}.log").open("ab") as log:
        started = subprocess.Popen([sys.executable, "-m", service], env=variables, stdout=log, stderr=log)
        try:
            yield started, f"http://127.0.0.1:{port}"
        finally:
            if started.poll() is None:
                started.kill()
            started.wait()


async def ready(url: str) -> None:
    """Wait until a service says that it is ready."""

    async def answers() -> bool:
        try:
            async with httpx2.AsyncClient() as http:
                return (await http.get(f"{url}/readyz", timeout=5)).status_code == 200
        except httpx2.TransportError:
            return False

    await eventually(answers, within=90, every=0.2)

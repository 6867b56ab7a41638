"""docker-compose.yml as it is started with nothing set but what it insists on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from localstack.home import SERVICE_PORTS

ROOT = Path(__file__).parents[2]
SERVICES = sorted(SERVICE_PORTS)
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def load(**given: str) -> dict[str, Any]:
    """The whole file, its variables filled in as Docker does: from `given`, then from the defaults."""

    def filled(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        return given.get(name) or (text if kind == "-" else f"set-{name.lower()}")

    document = (ROOT / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(VARIABLE.sub(filled, document))
    return found


COMPOSE = load()
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in CONTAINERS.items() if "build" in one}
THIRD_PARTY = {name: one for name, one in CONTAINERS.items() if "build" not in one and name != "volumes"}


def container(service: str) -> dict[str, Any]:
    """The container of a service, by its package name."""
    return CONTAINERS[service.replace("_", "-")]


def mounts(one: dict[str, Any]) -> dict[str, str]:
    """What is mounted into a container: target -> named volume, path on the host, or nothing for a nameless volume."""
    parts = [str(volume).removesuffix(":ro").rpartition(":") for volume in one.get("volumes", [])]
    return {target: source for source, _, target in parts}


def size(text: str) -> int:
    """Bytes of `512m`, `2g`, as Docker and the JVM write them."""
    number, unit = re.fullmatch(r"(\d+)([kmg]?)", text.lower()).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def seconds(text: str) -> float:
    """Of `30s`, `2m`."""
    number, unit = re.fullmatch(r"(\d+)([sm])", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def dotenv() -> dict[str, str]:
    """The variables of `.env.example`."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))

"""The data folder of a stack: ports that stay the same, and secrets made once and readable by their owner only."""

from __future__ import annotations

import json
import os
import secrets
import socket
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from joserfc.jwk import OKPKey

from schemas.services import SERVICES

BASE62 = string.digits + string.ascii_letters

SERVICE_PORTS = {name: one.port for name, one in SERVICES.items()}
LOCAL_SERVICES = tuple(name for name, one in SERVICES.items() if not one.engine)
"""Those that a local stack runs: it has no engine but ours."""

PORTS = {
    "ingress": 8080,
    "objects": 8120,
    "kafka": 8121,
    "mongodb": 8122,
    "milvus": 8123,
    "broker_storage": 8124,
    **{name: SERVICE_PORTS[name] for name in LOCAL_SERVICES},
}


class Home:
    """One stack's folder.

    Args:
        folder: made if missing; everything the stack stores lies below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.secrets = self.folder / "secrets"
        self.logs = self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders and whatever secrets are missing."""
        for folder in (self.folder, self.secrets, self.logs, self.folder / "data"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secrets(self.secrets)

    def path(self, name: str) -> Path:
        """A folder or file of one program's data."""
        return self.folder / "data" / name

    def secret(self, name: str) -> str:
        """The text of one secret."""
        return (self.secrets / name).read_text().strip()

    @property
    def state(self) -> dict[str, Any]:
        """The ports, addresses and base model that the last `up` wrote. It is empty before the first."""
        try:
            loaded: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the state in one step."""
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(state, indent=2))
        temporary.replace(self.folder / "state.json")

    def choose_ports(self, more: Iterable[str] = (), *, usual: bool = True) -> dict[str, int]:
        """The ports of the last `up` where still free, else the usual ones, else free ones by chance.

        Args:
            more: names of further ports, of which none is usual.
            usual: whether the usual ones are tried; stacks that start at the same time would take them from each other.
        """
        before: dict[str, int] = self.state.get("ports", {})
        chosen: dict[str, int] = {}
        for name in (*PORTS, *more):
            port = before.get(name) or (PORTS[name] if usual and name in PORTS else _any_port())
            while port in chosen.values() or not is_free(port):
                port = _any_port()
            chosen[name] = port
        return chosen


def _any_port() -> int:
    """A port below those that the kernel gives to outgoing connections, so that a restart finds it free."""
    return 10_000 + secrets.randbelow(20_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def random_base62(length: int) -> str:
    """A random text of digits and letters (5.95 bits each)."""
    return "".join(secrets.choice(BASE62) for _ in range(length))


def write_secrets(folder: Path, mode: int = 0o600) -> None:
    """Make every secret of an installation that is not there yet; nobody else can enter the folder.

    `services_jwks` holds the public keys of all services, each under its package name. Every service has a private key,
    a MongoDB user and an object store key of its own; the local stack's stand-ins know their root user only.

    Args:
        folder: where to.
        mode: of each file. Containers get the files one by one, as users of their own: there it is 0o444.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for name, prefix, length in (
        ("operator_key", "sk-sartor-", 43),
        ("objects_secret_key", "", 40),
        ("session_secret", "", 43),
        ("mongo_password", "", 40),  # of the root users: only the servers and what provides for the services get these
        ("mongo_keyfile", "", 80),
        ("grafana_password", "", 24),
    ):
        if not (folder / name).exists():
            _write(folder / name, prefix + random_base62(length), mode)
    for service in SERVICE_PORTS:
        path = folder / f"{service}_key"
        if not path.exists():
            _write(path, OKPKey.generate_key("Ed25519").as_pem(private=True).decode(), mode)
        if not (folder / f"{service}_mongo_url").exists():
            user = f"{service}:{random_base62(40)}"
            url = f"mongodb://{user}@mongodb:27017/?replicaSet=rs0&authSource=admin"
            _write(folder / f"{service}_mongo_url", url, mode)
        if not (folder / f"{service}_objects_key").exists():
            _write(folder / f"{service}_objects_key", random_base62(40), mode)
    _write_public_keys(folder, mode)


def _write_public_keys(folder: Path, mode: int) -> None:
    """Every key with which a service signs, did so until a moment ago, or is about to, under the service's name."""
    places = [(name, folder / f"{name}_key{place}") for name in SERVICE_PORTS for place in ("", "_next", "_before")]
    public = [
        {**OKPKey.import_key(path.read_bytes()).as_dict(private=False), "kid": service}
        for service, path in places
        if path.exists()
    ]
    _write(folder / "services_jwks", json.dumps({"keys": public}), mode)


class OutOfTurn(Exception):
    """A step of a rotation does not follow the one before it."""


def rotate_token_keys(folder: Path, step: str, mode: int = 0o600) -> None:
    """One step of giving every service another key to sign with; the services are started again after each.

    Args:
        folder: of the secrets.
        step: `announce` makes keys that all services accept; `use` signs with them, while those before are accepted;
            `end` accepts those no more. Each may be repeated.
        mode: of each file.

    Raises:
        OutOfTurn: the step does not follow the last one.
    """
    paths = {service: folder / f"{service}_key" for service in SERVICE_PORTS}
    following = {service: path.with_name(f"{path.name}_next") for service, path in paths.items()}
    before = {service: path.with_name(f"{path.name}_before") for service, path in paths.items()}
    if step == "announce":
        if any(path.exists() for path in before.values()):
            raise OutOfTurn("the keys of the last rotation are accepted still: end it first")
        for path in following.values():
            if not path.exists():
                _write(path, OKPKey.generate_key("Ed25519").as_pem(private=True).decode(), mode)
    elif step == "use":
        if not any(path.exists() for path in (*following.values(), *before.values())):
            raise OutOfTurn("no keys were announced")
        for service, path in paths.items():
            if following[service].exists():
                _write(before[service], path.read_text(), mode)
                following[service].replace(path)
    else:
        if any(path.exists() for path in following.values()):
            raise OutOfTurn("keys were announced that are not in use yet")
        for path in before.values():
            path.unlink(missing_ok=True)
    _write_public_keys(folder, mode)


def _write(path: Path, text: str, mode: int) -> None:
    """Put the whole text in the file's place, which its owner may not be allowed to open for writing."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.chmod(mode)
    fresh.replace(path)

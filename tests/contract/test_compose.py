"""The production shape, as far as it can be checked without a Docker engine."""

from __future__ import annotations

import importlib
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from localstack.ingress import REFERENCE, production_caddyfile
from provision.rights import RIGHTS
from schemas.services import PUBLIC
from testkit import eventually
from tests.contract.compose import COMPOSE, CONTAINERS, ROOT, SERVICES, container
from tests.contract.ingress import CADDY, running

FINE_AS_THEY_ARE = {
    "service_host": "set in the image",
    "service_port": "set in the image",
    "mongo_url": "given as a file",
    "objects_secret_key": "given as a file",
    "embedding_model": "the built-in one",
    "inference_keys_dir": "only where another provider has a base model",
}
ADDRESS = re.compile(r"(_url|_file|_dir|_bootstrap|_endpoint|_bucket|_access_key)$|^base_model$")


@pytest.mark.parametrize("service", SERVICES)
def test_every_address_a_service_reads_is_set(service: str) -> None:
    settings = importlib.import_module(f"{service}.settings").Settings
    given = container(service)["environment"]
    missing = [
        name
        for name in settings.model_fields
        if ADDRESS.search(name) and name not in FINE_AS_THEY_ARE and f"SARTOR_{name.upper()}" not in given
    ]
    elsewhere = {"operator_key_file"} if service != "accounts" else set()
    if not RIGHTS[service].documents:
        elsewhere.add("mongo_url_file")
    assert set(missing) - elsewhere == set()


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_setting(service: str) -> None:
    settings = importlib.import_module(f"{service}.settings").Settings
    unknown = [
        name
        for name in container(service)["environment"]
        if name.startswith("SARTOR_") and name.removeprefix("SARTOR_").lower() not in settings.model_fields
    ]
    assert unknown == []


def test_containers_are_hardened() -> None:
    for name, one in COMPOSE["services"].items():
        image = one["image"]
        assert ":latest" not in image
        if name == "volumes":  # root for a moment, without a network, to give volumes away
            assert (one["network_mode"], one["cap_drop"]) == ("none", ["ALL"])
            continue
        if name == "provision":  # ends when it is done
            assert (one["restart"], one["cap_drop"], one["read_only"]) == ("no", ["ALL"], True)
            assert re.search(r"^USER \d+", (ROOT / one["build"]["dockerfile"]).read_text(), re.MULTILINE)
            continue
        assert one["restart"] == "unless-stopped", name
        if "build" in one:
            assert one["cap_drop"] == ["ALL"], name
            dockerfile = (ROOT / one["build"]["dockerfile"]).read_text()
            assert "HEALTHCHECK" in dockerfile
            assert re.search(r"^USER \d+", dockerfile, re.MULTILINE)
        else:
            assert "healthcheck" in one, name
            assert one["user"].split(":")[0] not in ("", "0", "root"), name


class Named(BaseHTTPRequestHandler):
    """Answers with the name of the service it stands for."""

    def do_GET(self) -> None:
        body = self.server.name.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def production(tmp_path: Path) -> Iterator[str]:
    """The address of the production ingress, with servers that say their name in the place of the containers."""
    text = production_caddyfile()
    servers = []
    for name in (*PUBLIC, "console"):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Named)
        server.name = name  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        text = text.replace(f"dynamic a {name.replace('_', '-')} 8000", f"dynamic a localhost {server.server_port}")
    try:
        with running(text, tmp_path) as address:
            yield address
    finally:
        for server in servers:
            server.shutdown()


async def test_the_production_ingress_finds_every_service_and_hides_the_rest(production: str) -> None:
    async with httpx2.AsyncClient(base_url=production, trust_env=False) as http:

        async def up() -> bool:
            try:
                return (await http.get("/")).text == "console"
            except httpx2.TransportError:
                return False

        await eventually(up)
        for service, prefixes in PUBLIC.items():
            for prefix in prefixes:
                for path in (prefix, f"{prefix}/one/two"):
                    assert (await http.get(path)).text == service, path
        for path in ("/v1", "/v1/nothing", "/internal/routes", "/metrics", "/readyz"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url"), path
        for usual, place in (("/openapi.json", f"{REFERENCE}/openapi.json"), ("/docs", REFERENCE)):
            assert (await http.get(usual)).headers["location"] == place
        for path in ("/static/console.css", REFERENCE):
            assert (await http.get(path)).text == "console"


def test_the_production_ingress_is_valid() -> None:
    command = [str(CADDY), "validate", "--adapter", "caddyfile", "--config", str(ROOT / "infra/docker/Caddyfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_who_comes_from_where_is_said_by_the_ingress_and_believed_by_the_console_alone() -> None:
    """Guesses at a password are counted by network address; whoever could say which one would not be counted."""
    believe = {name for name, one in CONTAINERS.items() if "FORWARDED_ALLOW_IPS" in one.get("environment", {})}
    assert believe == {"console"}
    assert "ports" not in CONTAINERS["console"]
    assert CONTAINERS["console"]["networks"] == ["inner"]

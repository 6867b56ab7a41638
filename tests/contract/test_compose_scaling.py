"""`docker compose up --scale SERVICE=2`: nothing in the file is in the way, and the ingress finds every replica."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from localstack.ingress import production_caddyfile
from localstack.scale import SCALED
from testkit import eventually
from testkit.running import free_port
from tests.contract.compose import container, mounts
from tests.contract.ingress import running

SHARED = {"ingest": {"/var/lib/sartor"}, "trainer": {"/var/lib/sartor", "/models"}, "registry": {"/models"}}
"""Folders that several replicas may have between them: those nobody writes to, and those swept by who holds a lock."""

WAYS_OUT = {"event_gateway": {"outer"}}
"""Networks beside the inner one: webhooks leave the installation."""

A_RECORD, TTL_SECONDS = 1, 1


@pytest.mark.parametrize("service", SCALED)
def test_nothing_of_a_service_can_be_had_by_one_container_only(service: str) -> None:
    one = container(service)
    assert not {"container_name", "hostname", "ports", "network_mode", "domainname"} & one.keys()
    assert "SARTOR_REPLICA_ID" not in one["environment"]
    assert set(mounts(one)) <= SHARED.get(service, set())
    assert set(one["networks"]) - {"inner"} == WAYS_OUT.get(service, set())


class Named(BaseHTTPRequestHandler):
    """Answers with the address it was asked at."""

    def do_GET(self) -> None:
        body = str(self.server.server_address[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Names(threading.Thread):
    """A name server that knows the same addresses for every name, as Docker's does for a service's containers."""

    def __init__(self, *addresses: str) -> None:
        super().__init__(daemon=True)
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                question, who = self._socket.recvfrom(512)
            except OSError:
                return
            end = question.index(b"\0", 12) + 5
            record = struct.pack("!HHHLH", 0xC00C, A_RECORD, 1, TTL_SECONDS, 4)
            found = b"".join(record + socket.inet_aton(one) for one in self.addresses)
            header = question[:2] + struct.pack("!HHHHH", 0x8180, 1, len(self.addresses), 0, 0)
            self._socket.sendto(header + question[12:end] + found, who)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def _replica(address: str, port: int) -> Iterator[None]:
    server = ThreadingHTTPServer((address, port), Named)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _ingress(folder: Path, names: Names, port: int) -> Iterator[str]:
    """The production ingress with a name server of its own, and the port of the containers in place of 8000."""
    text = production_caddyfile().replace(" 8000 {", f" {port} {{\n\t\t\t\tresolvers 127.0.0.1:{names.port}")
    with running(text, folder) as address:
        yield address


async def test_the_ingress_shares_requests_among_the_containers_of_a_name_and_finds_those_that_come(
    tmp_path: Path,
) -> None:
    port, names = free_port(), Names("127.0.0.1")
    names.start()
    with _replica("127.0.0.1", port), _ingress(tmp_path, names, port) as address:
        async with httpx2.AsyncClient(base_url=address, trust_env=False) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/v1/files")).status_code == 200
                except httpx2.TransportError:
                    return False

            async def asked() -> Counter[str]:
                found = [await http.get("/v1/files") for _ in range(8)]
                return Counter(answer.text if answer.status_code == 200 else "failed" for answer in found)

            async def shared() -> bool:
                return await asked() == {"127.0.0.1": 4, "127.0.0.2": 4}

            await eventually(answers)
            with _replica("127.0.0.2", port):
                names.addresses.append("127.0.0.2")
                await eventually(shared, within=20)
            assert await asked() == {"127.0.0.1": 8}  # its name is still known
    names.close()

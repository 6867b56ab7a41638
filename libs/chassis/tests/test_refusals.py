"""A refusal is heard: an answer given before the request's body was read reaches the client."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from starlette.types import Message, Receive, Scope, Send

from chassis.draining import DrainBody
from chassis.errors import Invalid, Unauthenticated
from chassis.http import MOST_BODY_BYTES, create_app
from chassis.routes import Router
from localstack.ingress import caddyfile
from schemas.services import PUBLIC
from testkit import eventually

AT_A_TIME = 25


def application() -> FastAPI:
    router = Router()

    @router.post("/v1/files")
    async def upload(request: HttpRequest) -> dict[str, int]:
        """Reads its body in pieces, once it knows that it wants it."""
        if "authorization" not in request.headers:
            raise Unauthenticated("No API key was given.")
        if not request.headers.get("content-type", "").startswith("multipart/"):
            raise Invalid("Send the upload as multipart/form-data.", param="file")
        return {"bytes": sum([len(chunk) async for chunk in request.stream()])}

    @router.post("/v1/datasets")
    async def make(body: dict[str, Any]) -> dict[str, int]:
        return {"fields": len(body)}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    return create_app("ingest", routers=[router], checks={}, lifespan=lifespan, streamed=["/v1/files"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Address:
    """Where a client connects."""

    port: int

    async def ask(self, path: str, pieces: list[bytes], *, pause: float = 0.0, **headers: str) -> int:
        """The status of a request on a connection of its own; 0 where the connection ended without a whole answer."""
        length = str(sum(map(len, pieces)))
        sent = {"host": f"127.0.0.1:{self.port}", "connection": "close", "content-length": length, **headers}
        head = [f"POST {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in sent.items())]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode())
            for piece in pieces:
                await writer.drain()
                await asyncio.sleep(pause)
                writer.write(piece)
            answer = await asyncio.wait_for(reader.read(), 20)
        except (ConnectionError, TimeoutError):
            return 0
        finally:
            writer.close()
        head_part, _, body = answer.partition(b"\r\n\r\n")
        if not body or "message" not in json.loads(body).get("error", {"message": ""}):
            return 0
        return int(head_part.split()[1])


@pytest.fixture(scope="module")
def service() -> Iterator[Address]:
    port = free_port()
    config = uvicorn.Config(application(), host="127.0.0.1", port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Address(port)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def ingress(service: Address, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("caddy")
    ports = dict.fromkeys((*PUBLIC, "console"), service.port) | {"ingress": free_port()}
    (folder / "Caddyfile").write_text(caddyfile(ports))
    caddy = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "caddy"),
            *("run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")),
        ],
        env={"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)},
    )
    try:
        yield Address(ports["ingress"])
    finally:
        caddy.terminate()
        caddy.wait()


async def listening(address: Address) -> None:
    async def up() -> bool:
        try:
            return await address.ask("/v1/datasets", [b"{}"], content_type="application/json") == 200
        except ConnectionError:
            return False

    await eventually(up)


async def asked(address: Address, number: int, *request: Any, **headers: Any) -> Counter[int]:
    gate = asyncio.Semaphore(AT_A_TIME)

    async def one() -> int:
        async with gate:
            return await address.ask(*request, **headers)

    return Counter(await asyncio.gather(*(one() for _ in range(number))))


REFUSED = {
    "a JSON body where a form is needed": ("/v1/files", {"authorization": "Bearer x"}, 400),
    "no key": ("/v1/files", {}, 401),
    "no such address": ("/v1/files/of/nobody", {}, 404),
}


PIECES = {"small": [b'{"a": 1}'], "slow": [b'{"a": "', b"b" * 20_000, b'"}'], "large": [b"c" * 100_000] * 5}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
async def test_an_early_answer_arrives(ingress: Address, kind: str, pieces: list[bytes]) -> None:
    await listening(ingress)
    path, headers, status = REFUSED[kind]
    number = 500 if len(pieces) < 5 else 200
    got = await asked(ingress, number, path, pieces, content_type="application/json", pause=0.002, **headers)
    assert got == {status: number}


async def test_the_refusal_of_a_large_body_arrives(ingress: Address) -> None:
    await listening(ingress)
    pieces = [b"d" * 1_000_000] * (MOST_BODY_BYTES // 1_000_000 + 2)
    assert await asked(ingress, 20, "/v1/datasets", pieces, content_type="application/json") == {413: 20}


class Request:
    """A request of some pieces to an application that refuses it unread; `log` tells what happened in which order."""

    def __init__(self, *pieces: bytes, **headers: str) -> None:
        self.log: list[str] = []
        self._pieces = list(pieces)
        self.scope = {
            "type": "http",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }

    async def __call__(self, *, most_bytes: int = 1000, seconds: float = 5) -> list[str]:
        await DrainBody(self._refuse, most_bytes, seconds)(self.scope, self._receive, self._send)
        return self.log

    async def _refuse(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    async def _receive(self) -> Message:
        if not self._pieces:
            await asyncio.Event().wait()
        piece = self._pieces.pop(0)
        self.log.append(f"read {len(piece)}")
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def _send(self, message: Message) -> None:
        self.log.append(message["type"].removeprefix("http.response."))


async def test_an_answer_waits_for_the_end_of_its_request() -> None:
    assert await Request(b"a" * 10, b"b" * 5, content_length="15")() == ["read 10", "read 5", "start", "body"]
    assert await Request(b"a" * 10, b"", transfer_encoding="chunked")() == ["read 10", "read 0", "start", "body"]


async def test_it_waits_neither_for_ever_nor_for_everything() -> None:
    assert await Request()() == ["start", "body"]
    assert await Request(b"a", content_length="1001")() == ["start", "body"]
    chunks = [b"a" * 600] * 9
    assert await Request(*chunks, transfer_encoding="chunked")() == ["read 600", "read 600", "start", "body"]
    assert await Request(content_length="3")(seconds=0.05) == ["start", "body"]

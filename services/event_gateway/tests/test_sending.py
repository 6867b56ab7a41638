"""Where a webhook goes, and what goes with it: requests as they leave the sender, and names that are looked up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from chassis.errors import Invalid
from event_gateway import sending
from event_gateway.domain import Endpoint, new_secret
from event_gateway.sending import WebhookSender
from testkit import eventually

OUTSIDE, INSIDE = "8.8.8.8", "169.254.169.254"


def endpoint(url: str) -> Endpoint:
    made: dict[str, Any] = {"id": "we_1", "tenant_id": "t", "created_at": 1, "updated_at": 1, "name": "n"}
    return Endpoint(**made, url=url, event_types=["model.promoted.v1"], secret=new_secret())


@dataclass
class Recorder(httpx2.AsyncBaseTransport):
    """Keeps the requests that would have been sent, and answers each."""

    sent: list[httpx2.Request] = field(default_factory=list)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        return httpx2.Response(204, headers={"set-cookie": "session=of-another-tenant"})


@asynccontextmanager
async def sender(recorder: Recorder) -> AsyncIterator[WebhookSender]:
    made = WebhookSender(to_inside=False, seconds=5, transport=recorder)
    try:
        yield made
    finally:
        await made.close()


@dataclass
class Names:
    """Stands for the system's resolver: hosts have this address, those named `hanging` once they are let go."""

    address: str = OUTSIDE
    asked: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self.go_on.wait(60)
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (self.address, port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.go_on.set()


ASKED = [
    ("https://hooks.example/x", "hooks.example", "hooks.example"),
    ("https://hooks.example:8443/x", "hooks.example", "hooks.example:8443"),
    ("https://bücher.example/x", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("https://faß.example:8443/x", "xn--fa-hia.example", "xn--fa-hia.example:8443"),
]


@pytest.mark.parametrize("address", [OUTSIDE, "2606:4700::1111"])
@pytest.mark.parametrize(("url", "name", "host"), ASKED)
async def test_the_address_that_was_looked_at_is_connected_to_and_asked_by_name(
    names: Names, url: str, name: str, host: str, address: str
) -> None:
    """A second look-up, by whoever connects, could find another address."""
    names.address = address
    recorder = Recorder()
    async with sender(recorder) as by:
        outcome = await by.send(endpoint(url), "whd_1", "{}")
    assert (outcome.status, names.asked) == (204, [name])
    [request] = recorder.sent
    assert (request.url.host, request.url.port, request.url.path) == (address, httpx2.URL(url).port, "/x")
    assert (request.headers["host"], request.extensions["sni_hostname"]) == (host, name)


async def test_a_name_whose_address_lies_inside_is_looked_at_whenever_it_is_used(names: Names) -> None:
    """What was outside when the endpoint was made may name an address inside an hour later."""
    recorder = Recorder()
    async with sender(recorder) as by:
        await by.check("t", "https://hooks.example/")
        names.address = INSIDE
        outcome = await by.send(endpoint("https://hooks.example/"), "whd_1", "{}")
    assert "inside network" in outcome.problem
    assert recorder.sent == []


@pytest.mark.usefixtures("names")
async def test_no_receiver_is_sent_anothers_cookie() -> None:
    recorder = Recorder()
    async with sender(recorder) as by:
        for host in ("one.example", "other.example"):
            await by.send(endpoint(f"https://{host}/"), "whd_1", "{}")
    assert [request.headers.get("cookie") for request in recorder.sent] == [None, None]


async def test_a_tenant_whose_names_hang_holds_up_no_other(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{sending.__name__}.RESOLVE_SECONDS", 60)
    async with sender(Recorder()) as by:
        hanging = [
            asyncio.create_task(by.check("hanging", f"https://hanging-{number}.example/"))
            for number in range(sending.LOOKUPS + 1)
        ]
        try:
            await eventually(lambda: names.asked)
            async with asyncio.timeout(10):
                await by.check("another", "https://hooks.example/")
            assert len(names.asked) == sending.LOOKUPS_PER_TENANT + 1
        finally:
            names.go_on.set()
        await asyncio.gather(*hanging)


async def test_a_name_that_was_given_up_keeps_its_place_while_it_is_looked_up(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one who asks again and again would take a thread each time."""
    monkeypatch.setattr(f"{sending.__name__}.RESOLVE_SECONDS", 0.05)
    async with sender(Recorder()) as by:
        for number in range(sending.LOOKUPS + 1):
            with pytest.raises(Invalid, match="cannot be found"):
                await by.check("hanging", f"https://hanging-{number}.example/")
        monkeypatch.setattr(f"{sending.__name__}.RESOLVE_SECONDS", 10)
        await by.check("another", "https://hooks.example/")

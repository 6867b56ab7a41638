"""Calls between services: addresses, and replicas that go away while they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from chassis.errors import Conflict, NotFound, Transient, WriteRefused
from chassis.peers import Peer, Unreachable
from schemas.http.accounts import TenantFacts
from testkit import Space

Answer = Callable[[httpx2.Request], httpx2.Response]


async def test_an_id_cannot_choose_the_address(space: Space) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path.decode())
        return httpx2.Response(200, json={})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        peer = Peer("registry", "http://registry", space.tokens("console"), http)
        for one in ("ft:base:org::1", "org/model", "../internal/adapters", "a?limit=1", "x#y"):
            await peer.get("/v1/models/{}/card", one, tenant_id="tenant_a")
        for one in ("..", ".", ""):
            with pytest.raises(NotFound):
                await peer.get("/v1/models/{}", one, tenant_id="tenant_a")
    assert asked == [
        "/v1/models/ft%3Abase%3Aorg%3A%3A1/card",
        "/v1/models/org%2Fmodel/card",
        "/v1/models/..%2Finternal%2Fadapters/card",
        "/v1/models/a%3Flimit%3D1/card",
        "/v1/models/x%23y/card",
    ]


async def test_an_answer_of_another_shape_is_the_other_services_fault_and_names_the_address(space: Space) -> None:
    facts = {"tenant_id": "t", "slug": "acme", "policy": {}}
    answers = iter([{**facts, "a_field_of_the_future": 1}, {"tenant_id": "t"}])
    methods: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        methods.append(request.method)
        return httpx2.Response(200, json=next(answers))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        peer = Peer("accounts", "http://accounts", space.tokens("console"), http)
        assert (await peer.read(TenantFacts, "/internal/tenants/{}", "t", tenant_id="t")).slug == "acme"
        with pytest.raises(Transient, match=r"accounts answered /internal/tenants/\{\}"):
            await peer.read(TenantFacts, "/internal/tenants/{}", "t", tenant_id="t", json={})
    assert methods == ["GET", "POST"]


async def test_of_an_answer_of_another_shape_no_content_is_logged(space: Space) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"tenant_id": "t", "slug": {"text": "my secret"}})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        with capture_logs() as logged, pytest.raises(Transient):
            peer = Peer("accounts", "http://accounts", space.tokens("console"), http)
            await peer.read(TenantFacts, "/internal/tenants/{}", "t", tenant_id="t")
    [line] = logged
    assert line["errors"][0]["loc"] == ("slug",)
    assert "secret" not in str(line)


@pytest.mark.parametrize(("asked", "given"), [(None, 7.0), (0, 7.0), (2.0, 2.0)])
async def test_a_call_without_a_deadline_has_the_clients(space: Space, asked: float | None, given: float) -> None:
    deadlines: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        deadlines.append(request.extensions["timeout"]["read"])
        return httpx2.Response(200, json={})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer), timeout=7.0) as http:
        peer = Peer("accounts", "http://accounts", space.tokens("console"), http)
        await peer.get("/one", tenant_id="t", timeout=asked)
        await peer.get("/one", tenant_id="t")
    assert deadlines == [given, 7.0]


CALLS: dict[str, Callable[[Peer], Awaitable[Any]]] = {
    "get": lambda peer: peer.get("/one", tenant_id="t"),
    "ask": lambda peer: peer.ask("/one", tenant_id="t", json={}),
    "post": lambda peer: peer.post("/one", tenant_id="t", json={}),
}


@pytest.mark.parametrize("broken", [httpx2.ConnectError, httpx2.ReadError, httpx2.RemoteProtocolError])
@pytest.mark.parametrize("call", ["get", "ask"])
async def test_what_changes_nothing_is_asked_of_another_replica(
    space: Space, call: str, broken: type[httpx2.TransportError]
) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        if len(asked) == 1:
            raise broken("gone")
        return httpx2.Response(200, json={"by": "the other"})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        assert await CALLS[call](Peer("registry", "http://registry", space.tokens("console"), http)) == {
            "by": "the other"
        }
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("call", "failure", "times"),
    [
        ("post", httpx2.ReadError, 1),  # it may have been done
        ("get", httpx2.ReadTimeout, 1),  # so would the next take as long
        ("get", httpx2.ReadError, 2),
        ("ask", httpx2.ReadError, 2),
    ],
)
async def test_nothing_is_asked_more_often_than_that(
    space: Space, call: str, failure: type[httpx2.TransportError], times: int
) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        raise failure("gone")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        with pytest.raises(Transient, match="registry cannot be reached"):
            await CALLS[call](Peer("registry", "http://registry", space.tokens("console"), http))
    assert len(asked) == times


@pytest.mark.parametrize(
    ("failure", "heard_of_it"),
    [
        (httpx2.ConnectError, False),
        (httpx2.ConnectTimeout, False),
        (httpx2.ReadError, True),
        (httpx2.ReadTimeout, True),
        (httpx2.RemoteProtocolError, True),
    ],
)
async def test_who_takes_no_connection_has_not_heard_of_the_call(
    space: Space, failure: type[httpx2.TransportError], heard_of_it: bool
) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise failure("gone")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        with pytest.raises(Transient, match="cannot be reached") as caught:
            await Peer("registry", "http://registry", space.tokens("console"), http).get("/one", tenant_id="t")
    assert isinstance(caught.value, Unreachable) is not heard_of_it


@pytest.mark.parametrize("code", ["stale_fence", "stale_write", "wrong_state"])
async def test_what_another_service_refuses_is_no_refusal_of_our_own_store(space: Space, code: str) -> None:
    body = {"error": {"message": "It is being tested.", "code": code}}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(409, json=body))
    async with httpx2.AsyncClient(transport=transport) as http:
        with pytest.raises(Conflict) as refused:
            await Peer("registry", "http://registry", space.tokens("evaluator"), http).post("/x", tenant_id="tenant_a")
    assert refused.value.code == code
    assert not isinstance(refused.value, WriteRefused)


async def test_what_is_no_json_is_passed_on_as_it_comes_and_a_refusal_comes_before_it(space: Space) -> None:
    async def two() -> AsyncIterator[bytes]:
        yield b"PK"
        yield b"rest"

    async def broken() -> AsyncIterator[bytes]:
        yield b"PK"
        raise httpx2.ReadError("gone")

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("absent"):
            return httpx2.Response(404, json={"error": {"message": "Not here.", "code": "gone_away", "param": "id"}})
        return httpx2.Response(200, content=broken() if request.url.path.endswith("broken") else two())

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        peer = Peer("registry", "http://registry", space.tokens("console"), http)
        assert [piece async for piece in peer.pieces("/{}", "a/b", tenant_id="tenant_a")] == [b"PK", b"rest"]
        with pytest.raises(NotFound, match="Not here") as refused:
            await anext(peer.pieces("/{}", "absent", tenant_id="tenant_a"))
        assert (refused.value.code, refused.value.param) == ("gone_away", "id")
        came = peer.pieces("/{}", "broken", tenant_id="tenant_a")
        assert await anext(came) == b"PK"
        with pytest.raises(Transient):
            await anext(came)

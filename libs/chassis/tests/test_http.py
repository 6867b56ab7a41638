"""What every service's HTTP application does alike."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request
from prometheus_client import REGISTRY
from pydantic import BaseModel
from pymongo.errors import AutoReconnect, OperationFailure

from chassis.auth import Principal, require
from chassis.errors import Conflict, Invalid, NotFound
from chassis.exhaustion import EXHAUSTION
from chassis.http import MOST_BODY_BYTES, behind, page
from chassis.idempotency import answer_not_kept, request_id_for
from chassis.ids import new_id
from chassis.logging import mask_secrets
from chassis.routes import Router
from chassis.settings import ServiceSettings
from runtime import Service, idempotency
from runtime.idempotency import MAX_BODY, FormDigest
from stores.mongo import connect
from testkit import Space

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Order(BaseModel):
    """A request body."""

    count: int


FORM = b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\ncut \\ud83d\r\n--b--\r\n'


def application(space: Space) -> FastAPI:
    router = Router()
    made: list[str] = []

    @router.post("/v1/orders")
    async def order(body: Order, principal: Annotated[Principal, require("files:write")]) -> dict[str, Any]:
        if body.count < 0:
            raise Invalid("count: must not be negative.", param="count")
        if body.count == 409:
            raise Conflict("It is there already.")
        if body.count == 500:
            raise RuntimeError("a bug")
        if body.count == 77:
            await asyncio.sleep(1)
        if body.count == 503:
            raise AutoReconnect("away")
        if body.count == 14031:
            raise OperationFailure("out of disk space", code=body.count)
        if body.count in EXHAUSTION:
            raise OSError("could not write") from OSError(body.count, os.strerror(body.count))
        made.append(principal.tenant_id)
        return {"id": request_id_for("order-", new_id("order-")), "made": len(made)}

    @router.post("/v1/letters")
    async def write(request: Request, body: Order, principal: Annotated[Principal, require("files:write")]) -> Any:
        made.append(principal.tenant_id)
        if body.count > 1_000:
            return {"text": "x" * body.count, "made": len(made)}
        answer_not_kept(request)
        if body.count < 0:
            raise RuntimeError("a bug")
        return {"id": request_id_for("letter-", ""), "text": "for your eyes only", "made": len(made)}

    @router.post("/v1/notes")
    async def note(body: dict[str, Any], _: Annotated[Principal, require("files:write")]) -> None:
        await service.collection("notes").insert_one({"note": body})

    @router.post("/v1/form")
    async def form(request: Request, _: Annotated[Principal, require("files:write")]) -> None:
        async with request.form() as fields:
            await service.collection("notes").insert_one({"note": fields["name"]})

    service = Service("ingest", space.settings(ServiceSettings, "ingest"))
    app = service.app([router])
    app.state.made = made
    return app


def client(app: FastAPI, space: Space, tenant: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://test", headers=space.headers("ingest", tenant))


@asynccontextmanager
async def running(space: Space) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks an application of a test's own."""
    app = application(space)
    async with app.router.lifespan_context(app), client(app, space, "t") as http:
        yield http


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(shared_space: Space) -> AsyncIterator[FastAPI]:
    """One application for the tests of this module."""
    app = application(shared_space)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="module")
def records(shared_space: Space) -> Any:
    """What the shared application remembers of idempotency keys."""
    return connect(shared_space.settings(ServiceSettings, "ingest"), "ingest")["idempotency"]


@pytest_asyncio.fixture(loop_scope="module")
async def http(shared: FastAPI, shared_space: Space, records: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Asks the shared application, which has made and remembers nothing, for a tenant of the test's own."""
    shared.state.made.clear()
    await records.delete_many({})
    async with client(shared, shared_space, new_id("tenant")) as http:
        yield http


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param", "code"),
    [
        ("POST", "/v1/orders", {"count": -1}, 400, "count", None),
        ("POST", "/v1/orders", {"count": "many"}, 400, "count", "invalid_value"),
        ("POST", "/v1/orders", {}, 400, "count", "invalid_value"),
        ("POST", "/v1/orders", {"count": 409}, 409, None, "conflict"),
        ("POST", "/v1/orders", {"count": 500}, 500, None, None),
        ("GET", "/v1/nothing", None, 404, None, "unknown_url"),
        ("GET", "/v1/orders", None, 405, None, "method_not_allowed"),
    ],
)
async def test_every_error_is_in_the_envelope(
    http: httpx2.AsyncClient, method: str, path: str, body: Any, status: int, param: str | None, code: str | None
) -> None:
    answer = await http.request(method, path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["message"]
    assert answer.headers["x-request-id"].startswith("req_")
    assert (answer.headers.get("x-should-retry") == "false") is (status in (409, 500))
    assert "a bug" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("POST", "/v1/notes", {"content-type": "application/json"}, b'{"a": "cut \\ud83d"}'),
        ("POST", "/v1/notes", {"content-type": "application/json", "idempotency-key": "\xe9"}, b'{"\\udc00": 1}'),
        ("POST", "/v1/form", {"content-type": "multipart/form-data; boundary=b; charset=unicode_escape"}, FORM),
    ],
    ids=["a value", "a key", "a form"],
)
async def test_text_that_is_not_unicode_is_a_400_wherever_it_was_let_through(
    http: httpx2.AsyncClient, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await http.request(method, path, content=body, headers=encoded)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert "Unicode" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/orders/%ED%A0%BD", "/v1/orders?%ED%A0%BD=%ED%A0%BD", "/v1/%FF%00"])
async def test_an_address_that_is_not_unicode_is_refused(http: httpx2.AsyncClient, path: str) -> None:
    answer = await http.post(path, json={"count": 1}, headers={"x-request-id": b"\xe9\xff"})
    assert answer.status_code in (400, 404)
    assert answer.headers["x-request-id"].startswith("req_"), "other services could not be told of it"


async def test_a_request_without_a_key_is_refused_with_advice(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/v1/orders", json={"count": 1}, headers={"authorization": ""})
    assert answer.status_code == 401
    assert "Authorization" in answer.json()["error"]["message"]


async def test_health_readiness_and_metrics(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = await http.get("/readyz")
    assert ready.status_code == 200
    names = ("kafka", "objects", "started", "mongodb", "consumer", "background")
    assert ready.json() == dict.fromkeys(names, "ok")
    await http.post("/v1/orders", json={"count": 1})
    metrics = (await http.get("/metrics")).text
    assert 'http_requests_total{method="POST",route="/v1/orders",status="200"}' in metrics


async def test_an_idempotency_key_gives_the_same_answer_once(http: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "abc", "authorization": http.headers["authorization"]}
    first = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    second = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    assert first.json() == second.json()
    assert second.headers["idempotent-replayed"] == "true"
    other_body = await http.post("/v1/orders", json={"count": 2}, headers=headers)
    assert other_body.status_code == 422
    other_key = await http.post("/v1/orders", json={"count": 1}, headers={**headers, "idempotency-key": "abd"})
    assert other_key.json()["made"] == 2


async def test_an_idempotency_key_in_use_says_so(http: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "slow", "authorization": http.headers["authorization"]}
    slow = asyncio.create_task(http.post("/v1/orders", json={"count": 77}, headers=headers))
    await asyncio.sleep(0.3)
    meanwhile = await http.post("/v1/orders", json={"count": 77}, headers=headers)
    assert meanwhile.status_code == 409
    assert "x-should-retry" not in meanwhile.headers
    assert (await slow).status_code == 200


async def test_a_key_is_held_as_long_as_its_attempt_lives_and_no_longer(
    http: httpx2.AsyncClient, records: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LEASE_SECONDS", 0.3)
    headers = {"idempotency-key": "slow", "authorization": http.headers["authorization"]}
    slow = asyncio.create_task(http.post("/v1/orders", json={"count": 77}, headers=headers))
    await asyncio.sleep(0.6)
    meanwhile = await http.post("/v1/orders", json={"count": 77}, headers=headers)
    assert meanwhile.json()["error"]["code"] == "idempotency_key_in_use"
    assert not slow.done()

    await records.update_one({}, {"$set": {"attempt": "of a process that is dead"}})
    await asyncio.sleep(0.4)
    taken_over = await http.post("/v1/orders", json={"count": 77}, headers=headers)
    repeated = await http.post("/v1/orders", json={"count": 77}, headers=headers)
    late = await slow
    assert (taken_over.status_code, late.status_code) == (200, 200)
    assert repeated.headers["idempotent-replayed"] == "true"
    assert repeated.content == taken_over.content, "not the answer of the late one"


async def test_a_body_that_was_cut_off_was_not_asked(shared: FastAPI, http: httpx2.AsyncClient) -> None:
    """A request that was cut off in the middle is done when it is sent again as a whole under its key."""
    about = {"idempotency-key": "cut", "content-type": "application/json"}
    headers = {**about, "authorization": http.headers["authorization"]}
    sent: list[dict[str, Any]] = []
    pieces = [{"type": "http.request", "body": b'{"cou', "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return pieces.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/orders",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": shared,
    }
    await shared(scope, receive, send)
    assert not sent
    whole = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    assert (whole.status_code, whole.json()["made"]) == (200, 1)


async def test_what_is_promised_not_to_be_kept_is_not_kept_for_a_repetition(
    http: httpx2.AsyncClient, records: Any
) -> None:
    """Nothing but the body's digest: a repetition is done again, another body is refused."""
    key = {"idempotency-key": "private"}
    ids = set()
    for made in (1, 2):
        answer = await http.post("/v1/letters", json={"count": 1}, headers=key)
        ids.add(answer.json()["id"])
        assert (answer.status_code, answer.json()["made"]) == (200, made)
        assert "idempotent-replayed" not in answer.headers
        [record] = await records.find().to_list(10)
        assert "for your eyes only" not in str(record)
        assert set(record) == {"_id", "attempt", "until_ms", "life", "expires_at", "body_hash", "body_size"}
    assert len(ids) == 2
    other = await http.post("/v1/letters", json={"count": 2}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert (await http.post("/v1/letters", json={"count": -1}, headers={"idempotency-key": "b"})).status_code == 500
    [failed] = await records.find({"_id": {"$ne": record["_id"]}}).to_list(10)
    assert set(failed) == {"_id", "attempt", "until_ms", "life", "expires_at"}


async def test_an_answer_too_large_to_be_kept_is_made_again(http: httpx2.AsyncClient) -> None:
    for made in (1, 2):
        answer = await http.post("/v1/letters", json={"count": 9 * MAX_BODY}, headers={"idempotency-key": "large"})
        assert answer.json()["made"] == made, "a document of the database holds 16 MiB"


async def test_an_answer_survives_a_restart_under_its_key(space: Space) -> None:
    headers = {"idempotency-key": "kept", **space.headers("ingest", "t")}
    async with running(space) as http:
        first = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    async with running(space) as http:
        second = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    assert first.json() == second.json()


async def test_a_failed_attempt_may_be_tried_again_under_its_key(http: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "retry", "authorization": http.headers["authorization"]}
    assert (await http.post("/v1/orders", json={"count": 500}, headers=headers)).status_code == 500
    assert (await http.post("/v1/orders", json={"count": 500}, headers=headers)).status_code == 500


@pytest.mark.parametrize("trouble", [503, 500, 77], ids=["fails", "breaks", "dies"])
async def test_what_an_attempt_made_that_died_is_found_whatever_became_of_later_ones(
    http: httpx2.AsyncClient, records: Any, monkeypatch: pytest.MonkeyPatch, trouble: int
) -> None:
    """The second finds the lease of the first over, and comes to nothing; the third must not make another order."""
    monkeypatch.setattr(idempotency, "LEASE_SECONDS", 0.3)
    answer = dict.fromkeys(("status", "headers", "body", "body_hash", "body_size"), "")
    died = {"$set": {"attempt": "of a process that is dead", "until_ms": 0}, "$unset": answer}
    headers = {"idempotency-key": "dies", "authorization": http.headers["authorization"]}
    first = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    await records.update_one({}, died)
    second = await http.post("/v1/orders", json={"count": trouble}, headers=headers)
    if second.is_success:
        await records.update_one({}, died)
    third = await http.post("/v1/orders", json={"count": 1}, headers=headers)
    assert first.json()["id"] == third.json()["id"]
    assert third.status_code == 200


@pytest.mark.parametrize("trouble", [503, 14031], ids=["away", "its disk is full"])
async def test_a_database_that_cannot_answer_is_worth_a_retry(http: httpx2.AsyncClient, trouble: int) -> None:
    for headers in ({}, {"idempotency-key": "away"}):
        answer = await http.post("/v1/orders", json={"count": trouble}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert "x-should-retry" not in answer.headers
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EMFILE, "machine_exhausted"), (errno.EIO, "machine_exhausted")],
)
async def test_an_exhausted_machine_is_worth_a_later_retry(http: httpx2.AsyncClient, number: int, code: str) -> None:
    before = REGISTRY.get_sample_value("machine_exhausted_total", {"code": code}) or 0
    answer = await http.post("/v1/orders", json={"count": number})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
    assert os.strerror(number) in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "10"
    assert REGISTRY.get_sample_value("machine_exhausted_total", {"code": code}) == before + 1


async def test_a_key_is_looked_at_before_its_answer_is(http: httpx2.AsyncClient, shared_space: Space) -> None:
    key = {"idempotency-key": "mine"}
    assert (await http.post("/v1/orders", json={"count": 1}, headers=key)).status_code == 200
    for credential in ("Bearer sk-sartor-unknown", "Bearer x.y.z"):
        stolen = await http.post("/v1/orders", json={"count": 1}, headers={**key, "authorization": credential})
        assert stolen.status_code in (401, 503)
    other = await http.post("/v1/orders", json={"count": 1}, headers={**key, **shared_space.headers("ingest", "u")})
    assert other.json()["made"] == 2


async def test_a_body_over_the_limit_is_refused_before_it_is_read(http: httpx2.AsyncClient) -> None:
    whole = await http.post("/v1/orders", content=b"x" * (MOST_BODY_BYTES + 1))
    assert (whole.status_code, whole.json()["error"]["code"]) == (413, "too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MOST_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    piecewise = await http.post("/v1/orders", content=pieces(), headers={"content-type": "application/json"})
    assert (piecewise.status_code, piecewise.json()["error"]["code"]) == (413, "too_large")


async def test_secrets_are_masked_in_logs() -> None:
    line = mask_secrets(None, "info", {"event": "called with Bearer abcdefghijkl", "key": "sk-sartor-abcdefghijklmnop"})
    assert "abcdefghijkl" not in str(line)
    assert "sk-sartor" in line["key"]


def digest(boundary: str, content: bytes, *, chunk: int) -> str | None:
    content_type = f'multipart/form-data; boundary="{boundary}"'.encode()
    mark = b"--" + boundary.encode()
    body = mark + b"\r\nname: file\r\n\r\n" + content + b"\r\n" + mark + b"--\r\n"
    found = FormDigest(content_type)
    for start in range(0, len(body), chunk):
        assert found.hexdigest() is None
        found.update(body[start : start + chunk], last=start + chunk >= len(body))
    return found.hexdigest()


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
async def test_a_form_has_one_digest_however_it_is_cut_and_whatever_its_boundary(chunk: int) -> None:
    content = b"text -- --bound --boundar and more"
    assert digest("boundary", content, chunk=chunk) == digest("x1", content, chunk=1000)
    assert digest("boundary", content, chunk=chunk) != digest("boundary", content + b".", chunk=chunk)


async def test_what_is_held_in_memory_is_read_page_by_page() -> None:
    held = [{"id": name} for name in "abc"]
    first = page(behind(held, None, ""), limit=2)
    assert (first.last_id, first.has_more) == ("b", True)
    rest = page(behind(held, first.last_id, ""), limit=2)
    assert (rest.data, rest.has_more) == ([{"id": "c"}], False)
    assert behind(held, "c", "") == []
    with pytest.raises(NotFound, match="No such letter") as refused:
        behind(held, "d", "No such letter.")
    assert refused.value.param == "after"

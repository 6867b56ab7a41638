"""Documents to searchable chunks through the API and events, on the real stack with the real embedder and Milvus."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from pymilvus import MilvusClient

from chassis.errors import NotFound, SartorError, Transient
from chassis.http import error_response
from chassis.ids import new_id
from eventbus import AggregateStore
from rag_indexer.app import build
from rag_indexer.domain import StoreFile
from rag_indexer.milvus import Vectors
from rag_indexer.settings import Settings
from rag_indexer.store import Stores
from schemas import DocumentIndexed, DocumentParsed, FileDeleted
from stores.mongo import Database, connect
from testkit import Space, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "multilingual-e5-small"
HELP = "# Help\n\n## Refunds\n\nA refund takes five days.\n\n## Locks\n\nHold the button until the lock opens."
LONG = "\n\n".join(f"# Part {number}\n\nWhat the manual says of part {number}." for number in range(400))


LIMITS: dict[str, Any] = {
    "rag_file_chunks": 500,
    "rag_lease_seconds": 4,
    "rag_store_files": 4,
    "embedding_request_tokens": 2_000,
}


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
class Harness:
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
async def shared(shared_space: Space) -> AsyncIterator[dict[str, Any]]:
    """One indexer for the tests of this module; each brings its own tenants."""
    ingest = Ingest(shared_space)
    milvus = MilvusClient(shared_space.addresses.milvus_url, timeout=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag_indexer.use_cases.SWEEP_SECONDS", 1.0)
        patch.setattr("rag_indexer.worker.IDLE_SECONDS", 0.4)
        patch.setattr("rag_indexer.worker.RETRY_SECONDS", 0.5)
        async with _indexer(shared_space, ingest, milvus) as shared:
            yield shared
    milvus.close()


@asynccontextmanager
async def _indexer(space: Space, ingest: Ingest, milvus: MilvusClient) -> AsyncIterator[dict[str, Any]]:
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


@pytest.fixture
def harness(shared: dict[str, Any]) -> Harness:
    return Harness(**shared)


async def test_a_document_becomes_searchable_and_says_so(harness: Harness) -> None:
    store, file_id = await harness.stored()
    best, *_ = await harness.search(store)
    assert (best.file_id, best.filename) == (file_id, "help.md")
    assert best.content[0].text == "Help > Refunds\nA refund takes five days."
    assert 0.5 < best.score <= 1
    assert (await harness.search(store, "the lock stays shut"))[0].content[0].text.startswith("Help > Locks")
    [event] = await eventually(lambda: harness.indexed(file_id))
    assert (event.tenant_id, event.vector_store_id, event.chunks) == (harness.a, store, 2)
    assert await harness.vectors(file_id) == 2


async def test_a_users_document_goes_into_their_own_store_once_however_often_its_event_comes(harness: Harness) -> None:
    event = await harness.document(HELP, purpose="user_data")
    await harness.publish(event)
    await eventually(lambda: harness.indexed(event.file_id), within=40)
    for _ in range(2):
        await harness.publish(event)
    later = await harness.document("# Later\n\nAnother page.", purpose="user_data")
    await harness.publish(later)
    await eventually(lambda: harness.indexed(later.file_id), within=40)
    [store] = (await harness.sdk().vector_stores.list()).data
    assert (store.name, store.file_counts.completed, store.file_counts.total) == ("My documents", 2, 2)
    assert len(harness.indexed(event.file_id)) == 1
    assert await harness.vectors(event.file_id) == 2


async def test_stores_are_made_listed_changed_and_deleted(harness: Harness) -> None:
    client = harness.sdk()
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


async def test_a_file_added_twice_is_there_once(harness: Harness) -> None:
    store, file_id = await harness.stored()
    again = await harness.sdk().vector_stores.files.create(vector_store_id=store, file_id=file_id)
    assert (again.id, again.status) == (file_id, "completed")
    assert [file.id async for file in harness.sdk().vector_stores.files.list(store)] == [file_id]
    assert (await harness.sdk().vector_stores.retrieve(store)).file_counts.total == 1
    assert len(await harness.search(store)) == await harness.vectors(file_id) == 2


async def test_a_tenant_finds_only_its_own_copy_of_the_same_text(harness: Harness) -> None:
    store_a, file_a = await harness.stored(tenant=harness.a)
    store_b, file_b = await harness.stored(tenant=harness.b)
    assert {row.file_id for row in await harness.search(store_a, tenant=harness.a)} == {file_a}
    assert {row.file_id for row in await harness.search(store_b, tenant=harness.b)} == {file_b}
    stores, files = harness.sdk(harness.b).vector_stores, harness.sdk(harness.b).vector_stores.files
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
    assert len(await harness.search(store_a)) == 2


@pytest.mark.parametrize("file_id", ["file-none", "../files", "x/../../files", "a?b", " "])
async def test_a_store_with_a_file_that_is_not_there_is_not_made(harness: Harness, file_id: str) -> None:
    event = await harness.document(HELP)
    with pytest.raises(openai.NotFoundError) as caught:
        await harness.sdk().vector_stores.create(name="half", file_ids=[event.file_id, file_id])
    assert caught.value.param == "file_id"
    assert (await harness.sdk().vector_stores.list()).data == []


async def test_only_documents_are_indexed(harness: Harness) -> None:
    rows = await harness.document(HELP, purpose="fine-tune")
    store = await harness.sdk().vector_stores.create(name="x")
    with pytest.raises(openai.BadRequestError, match="assistants"):
        await harness.sdk().vector_stores.files.create(vector_store_id=store.id, file_id=rows.file_id)
    never_parsed = await harness.document(HELP)
    await harness.sdk().vector_stores.files.create(vector_store_id=store.id, file_id=never_parsed.file_id)
    failed = await harness.settled(store.id, never_parsed.file_id)
    assert failed.status == "failed"
    assert "not a text document" in failed.last_error.message


async def test_a_file_waits_while_ingest_is_busy_and_fails_with_the_reason_ingest_gives(harness: Harness) -> None:
    slow, broken = await harness.document(HELP), await harness.document(HELP)
    for event in (slow, broken):
        harness.ingest.told[event.file_id] = {"status": "uploaded"}
    client = harness.sdk().vector_stores
    store = await client.create(name="x", file_ids=[slow.file_id, broken.file_id])

    async def asked_for(seconds: float) -> bool:
        """Longer than `rag_wait_seconds`, which says how long the text of a file that is done may take."""
        files = await harness.database["files"].find({"store_id": store.id}).to_list(None)
        return all(file["lease"]["fence"] >= 3 and time.time() - file["created_at"] > seconds for file in files)

    await eventually(lambda: asked_for(5), within=40)
    assert (await client.retrieve(store.id)).file_counts.in_progress == 2
    harness.ingest.told[broken.file_id] = {"status": "error", "status_details": "Its bytes are no text."}
    assert (await harness.settled(store.id, broken.file_id)).last_error.message == "Its bytes are no text."
    del harness.ingest.told[slow.file_id]
    await harness.publish(slow)
    assert (await harness.settled(store.id, slow.file_id)).status == "completed"


async def test_a_failed_file_that_is_added_again_is_tried_again(harness: Harness) -> None:
    event = await harness.document(HELP)
    harness.ingest.told[event.file_id] = {"status": "error", "status_details": "Broken."}
    files = harness.sdk().vector_stores.files
    store = await harness.sdk().vector_stores.create(name="x", file_ids=[event.file_id])
    assert (await harness.settled(store.id, event.file_id)).status == "failed"
    failed = {"file_id": event.file_id, "lease.owner": ""}
    end_not_noted = {"$set": {"lease.failures": 5, "lease.unfinished": 5}}
    await eventually(lambda: harness.database["files"].find_one_and_update(failed, end_not_noted))
    del harness.ingest.told[event.file_id]
    await harness.publish(event)
    again = await files.create(vector_store_id=store.id, file_id=event.file_id, attributes={"lang": "en"})
    assert (again.status, again.attributes) == ("in_progress", {"lang": "en"})
    assert (await harness.settled(store.id, event.file_id)).status == "completed"


async def test_a_file_of_too_many_chunks_fails_and_says_what_to_do(harness: Harness) -> None:
    event = await harness.document("# a\nb\n" * 501)
    await harness.publish(event)
    store = await harness.sdk().vector_stores.create(name="x", file_ids=[event.file_id])
    failed = await harness.settled(store.id, event.file_id)
    assert failed.status == "failed"
    assert "more than 500 chunks; split it" in failed.last_error.message
    assert await harness.vectors(event.file_id) == 0


async def test_a_file_whose_indexing_dies_each_time_is_given_up_and_leaves_nothing(harness: Harness) -> None:
    """What is in MongoDB after the fifth worker was killed over a file that the others had half written."""
    store, file_id = await harness.stored()
    given_back = {"file_id": file_id, "lease.owner": "", "lease.unfinished": 0}
    died = {"$set": {"state": "in_progress", "lease.unfinished": 5}}
    files = harness.database["files"]
    await eventually(lambda: files.find_one_and_update(given_back, died))
    failed = await harness.settled(store, file_id)
    assert failed.status == "failed"
    assert "again and again" in failed.last_error.message
    assert await harness.vectors(file_id) == 0
    assert await harness.database["chunks"].count_documents({"file_id": file_id}) == 0


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
async def test_a_malformed_search_is_told_so(harness: Harness, wrong: dict[str, Any]) -> None:
    store = await searched(harness)
    headers = harness.space.headers("rag_indexer", harness.a) | {"content-type": "application/json"}
    async with httpx2.AsyncClient(base_url=harness.url, headers=headers) as http:
        body = json.dumps({"query": "x", **wrong})
        answer = await http.post(f"/v1/vector_stores/{store}/search", content=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"], answer.text


async def searched(harness: Harness) -> str:
    """A store with a file in it, which needs no indexing: Milvus is not asked in vain."""
    store = (await harness.sdk().vector_stores.create(name="x")).id
    file = StoreFile(
        id=new_id("vsf_"), tenant_id=harness.a, created_at=1, store_id=store, file_id=new_id("file-"), state="completed"
    )
    kept = {**file.to_document(), "_id": file.id, "version": 1, "lease": file.lease.model_dump()}
    await harness.database["files"].insert_one(kept)
    return store


async def test_an_empty_document_is_indexed_and_finds_nothing(harness: Harness) -> None:
    store, file_id = await harness.stored("\n \n")
    assert (await eventually(lambda: harness.indexed(file_id)))[0].chunks == 0
    assert await harness.search(store) == []


@pytest.mark.parametrize("what", ["file of the store", "store", "file itself"])
async def test_a_delete_leaves_nothing_in_milvus(harness: Harness, what: str) -> None:
    (store, file_id), (_, kept) = await harness.stored(), await harness.stored()
    stores = harness.sdk().vector_stores
    if what == "file of the store":
        await stores.files.delete(file_id, vector_store_id=store)
        assert await harness.search(store) == []
    elif what == "store":
        await stores.delete(store)
    else:
        await harness.publish(FileDeleted(tenant_id=harness.a, file_id=file_id))

    async def gone() -> bool:
        return await harness.vectors(file_id) == 0

    await eventually(gone)
    assert await harness.vectors(kept) == 2
    with pytest.raises(openai.NotFoundError):
        await stores.files.retrieve(file_id, vector_store_id=store)


async def test_a_file_deleted_while_it_is_indexed_leaves_nothing_in_milvus(harness: Harness) -> None:
    event = await harness.document(LONG)
    await harness.publish(event)
    store = await harness.sdk().vector_stores.create(name="long", file_ids=[event.file_id])

    async def begun() -> bool:
        return await harness.vectors(event.file_id) > 0

    await eventually(begun)
    await harness.sdk().vector_stores.files.delete(event.file_id, vector_store_id=store.id)
    await harness.stored()  # one worker: when this is indexed, it is done with the long one
    assert harness.indexed(event.file_id) == []
    assert await harness.vectors(event.file_id) == 0


@pytest.mark.parametrize("broken_off", ["the file is marked", "the store is marked"])
async def test_a_delete_that_a_crash_broke_off_is_finished(harness: Harness, broken_off: str) -> None:
    """What is in MongoDB after a kill between the mark and the removal."""
    store, file_id = await harness.stored()
    if broken_off == "the file is marked":
        await harness.database["files"].update_one({"file_id": file_id}, {"$set": {"state": "deleting"}})
    else:
        await harness.database["stores"].update_one({"_id": store}, {"$set": {"deleted": True}})

    async def gone() -> bool:
        left = await harness.database["chunks"].count_documents({"file_id": file_id})
        files = await harness.database["files"].count_documents({"file_id": file_id})
        return left == files == 0 and await harness.vectors(file_id) == 0

    await eventually(gone)


async def test_a_store_with_a_file_that_cannot_be_read_holds_up_no_other(harness: Harness) -> None:
    (odd, odd_file), (store, file_id) = await harness.stored(), await harness.stored()
    files, stores = harness.database["files"], harness.database["stores"]
    await files.update_one({"file_id": odd_file}, {"$set": {"bytes": "many"}})
    await stores.update_many({"_id": {"$in": [odd, store]}}, {"$set": {"deleted": True}})

    async def emptied(store_id: str) -> bool:
        return bool((await stores.find_one({"_id": store_id}))["emptied"])

    await eventually(lambda: emptied(store))
    assert await harness.vectors(file_id) == 0
    assert not await emptied(odd)
    await files.update_one({"file_id": odd_file}, {"$set": {"bytes": 0}})
    await eventually(lambda: emptied(odd))
    assert await harness.vectors(odd_file) == 0


async def test_a_late_event_brings_nothing_back(harness: Harness) -> None:
    removed, deleted, last = [await harness.document(HELP, purpose="user_data") for _ in range(3)]
    await harness.publish(removed)
    await eventually(lambda: harness.indexed(removed.file_id), within=40)
    [store] = (await harness.sdk().vector_stores.list()).data
    await harness.sdk().vector_stores.files.delete(removed.file_id, vector_store_id=store.id)
    await harness.publish(FileDeleted(tenant_id=harness.a, file_id=deleted.file_id))

    async def known() -> bool:
        return await harness.database["documents"].find_one({"_id": deleted.file_id}) is not None

    await eventually(known)
    for event in (removed, deleted, last):
        await harness.publish(event)
    await eventually(lambda: harness.indexed(last.file_id), within=40)
    assert [file.id for file in (await harness.sdk().vector_stores.files.list(store.id)).data] == [last.file_id]


DIARY = "# Diary\n\n" + " ".join(f"On day {n} box {n * 7} came from the harbour office." for n in range(60))
STATIC: Any = {"type": "static", "static": {"max_chunk_size_tokens": 400, "chunk_overlap_tokens": 100}}


async def chunks_of(harness: Harness, file_id: str) -> list[str]:
    return [chunk["text"] async for chunk in harness.database["chunks"].find({"file_id": file_id})]


@pytest.mark.parametrize("said_by", ["store", "file", "file added again"])
async def test_a_file_is_cut_as_it_is_asked_for(harness: Harness, said_by: str) -> None:
    event, client = await harness.document(DIARY), harness.sdk().vector_stores
    await harness.publish(event)
    made = await client.create(name="x", **({"chunking_strategy": STATIC} if said_by == "store" else {}))
    files = client.files
    added = await files.create(
        vector_store_id=made.id, file_id=event.file_id, **({"chunking_strategy": STATIC} if said_by == "file" else {})
    )
    if said_by == "file added again":
        assert added.chunking_strategy.model_dump() == {
            "type": "static",
            "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0},
        }
        await harness.settled(made.id, event.file_id)
        first = await chunks_of(harness, event.file_id)
        await files.create(vector_store_id=made.id, file_id=event.file_id, chunking_strategy=STATIC)
        again = await files.create(vector_store_id=made.id, file_id=event.file_id)
        assert again.status == "in_progress"
    settled = await harness.settled(made.id, event.file_id)
    assert settled.chunking_strategy.model_dump() == STATIC
    texts = await chunks_of(harness, event.file_id)
    assert max(map(len, texts)) > 900
    days = [day for text in texts for day in set(re.findall(r"On day (\d+) ", text))]
    assert len(days) > len(set(days)) == 60
    assert await harness.vectors(event.file_id) == len(texts)
    if said_by == "file added again":
        assert not set(first) & set(texts)


async def test_a_store_expires_after_days_without_use_and_its_files_with_it(harness: Harness) -> None:
    store, file_id = await harness.stored()
    client = harness.sdk().vector_stores
    day: Any = {"anchor": "last_active_at", "days": 1}
    changed = await client.update(store, expires_after=day)
    assert changed.expires_after.model_dump() == day
    assert changed.expires_at == changed.last_active_at + 24 * 3600
    assert (await client.update(store, name="kept")).expires_at == changed.expires_at
    assert (await client.update(store, expires_after=None)).expires_at is None
    await client.update(store, expires_after=day)
    hour = int(time.time()) - 3600
    await harness.database["stores"].update_one(
        {"_id": store}, {"$set": {"last_active_at": hour, "expires_at": hour + 86_400}}
    )
    await harness.search(store)
    used = await client.retrieve(store)
    assert used.last_active_at > hour
    assert used.expires_at == used.last_active_at + 24 * 3600
    await harness.database["stores"].update_one({"_id": store}, {"$set": {"last_active_at": 1, "expires_at": 2}})
    expired = await client.retrieve(store)
    assert (expired.status, expired.expires_at) == ("expired", 2)
    for use in (
        client.search(store, query="x"),
        client.files.create(vector_store_id=store, file_id=file_id),
    ):
        with pytest.raises(openai.BadRequestError, match="expired"):
            await use

    async def empty() -> bool:
        counts = (await client.retrieve(store)).file_counts
        return counts.total == 0 and await harness.vectors(file_id) == 0

    await eventually(empty, within=40)
    with pytest.raises(openai.ConflictError, match="expired"):
        await client.update(store, expires_after=day)
    made = await client.create(name="short", expires_after=day, description="for a day")
    assert made.expires_at == made.created_at + 24 * 3600
    assert made.model_dump()["description"] == "for a day"
    assert (await client.create(name="for ever")).expires_at is None


async def test_results_below_the_threshold_are_left_out(harness: Harness) -> None:
    store, _ = await harness.stored()
    client = harness.sdk().vector_stores
    every = (await client.search(store, query="refund", ranking_options={"ranker": "none"}, rewrite_query=False)).data
    best = every[0].score
    assert len(every) == 2
    for threshold, found in ((best, 1), (0.999, 0), (0.0, 2)):
        options: Any = {"ranker": "auto", "score_threshold": threshold}
        results = (await client.search(store, query="refund", ranking_options=options)).data
        assert [row.score for row in results] == [row.score for row in every][:found]


async def test_lists_are_paged_both_ways_and_filtered_by_status(harness: Harness) -> None:
    client = harness.sdk().vector_stores
    stores = [(await client.create(name=str(n))).id for n in range(4)]
    events = [await harness.document(HELP) for _ in range(4)]
    for event in events[:2]:
        harness.ingest.told[event.file_id] = {"status": "error", "status_details": "Broken."}
    store = stores[0]
    for event in events:
        await client.files.create(vector_store_id=store, file_id=event.file_id)
    for event in events[2:]:
        await harness.publish(event)
    for number, event in enumerate(events):
        await harness.settled(store, event.file_id)  # nothing writes it any more
        await harness.database["files"].update_one({"file_id": event.file_id}, {"$set": {"created_at": number}})
        await harness.database["stores"].update_one({"_id": stores[number]}, {"$set": {"created_at": number}})
    files = [event.file_id for event in events]

    async def page(**query: Any) -> list[tuple[list[str], bool]]:
        lists = [await client.list(**query), await client.files.list(store, **query)]
        return [([one.id for one in found.data], found.has_more) for found in lists]

    def both(places: list[int], more: bool) -> list[tuple[list[str], bool]]:
        return [([ids[place] for place in places], more) for ids in (stores, files)]

    assert await page() == both([3, 2, 1, 0], False)
    assert await page(order="asc", limit=2) == both([0, 1], True)
    for ids, of in ((stores, client.list), (files, lambda **query: client.files.list(store, **query))):
        for query, places, more in (
            ({"after": ids[2], "limit": 1}, [1], True),
            ({"before": ids[1], "limit": 1}, [2], True),
            ({"before": ids[1], "limit": 9}, [3, 2], False),
            ({"before": ids[2], "order": "asc", "limit": 1}, [1], True),
            ({"after": ids[3], "before": ids[0]}, [2, 1], False),
            ({"after": ids[0]}, [], False),
        ):
            found = await of(**query)
            assert ([one.id for one in found.data], found.has_more) == ([ids[n] for n in places], more), query
        with pytest.raises(openai.NotFoundError) as caught:
            await of(before="vs_none")
        assert caught.value.param == "before"
    failed = await client.files.list(store, filter="failed")
    assert [file.id for file in failed.data] == [files[1], files[0]]
    completed = await client.files.list(store, filter="completed", order="asc")
    assert [file.id for file in completed.data] == [files[2], files[3]]
    assert (await client.files.list(store, filter="cancelled")).data == []


async def test_attributes_keep_their_type_and_can_be_changed_and_filtered_by(harness: Harness) -> None:
    client = harness.sdk().vector_stores
    store = (await client.create(name="types")).id
    values: dict[str, Any] = {}
    for value in (True, 1, "1"):
        event = await harness.document(HELP)
        await harness.publish(event)
        odd = {"v": value, "a.b": 2**53 + 1, "$x": 0.5}
        await client.files.create(vector_store_id=store, file_id=event.file_id, attributes=odd)
        values[event.file_id] = value
    for file_id, value in values.items():
        await harness.settled(store, file_id)
        raw = await client.files.with_raw_response.retrieve(file_id, vector_store_id=store)
        attributes = raw.http_response.json()["attributes"]  # the SDK makes every number a float
        assert attributes == {"v": value, "a.b": 2**53 + 1, "$x": 0.5}
        assert [type(attributes[name]) for name in ("v", "a.b", "$x")] == [type(value), int, float]

    async def found(filters: Any) -> set[Any]:
        rows = (await client.search(store, query="refund", filters=filters)).data
        return {row.file_id for row in rows}

    for file_id, value in values.items():
        assert await found({"type": "eq", "key": "v", "value": value}) == {file_id}
    assert await found({"type": "in", "key": "v", "value": [1, "1"]}) == {
        one for one, v in values.items() if v is not True
    }
    first = next(iter(values))
    changed = await client.files.update(first, vector_store_id=store, attributes={"year": 2026})
    assert changed.attributes == {"year": 2026}
    assert await found({"type": "gte", "key": "year", "value": 2026}) == {first}
    again = await client.files.create(vector_store_id=store, file_id=first, attributes={"year": 2025})
    assert (again.status, again.attributes) == ("completed", {"year": 2025})
    assert (await client.files.create(vector_store_id=store, file_id=first)).attributes == {"year": 2025}
    assert (await client.files.update(first, vector_store_id=store, attributes=None)).attributes == {}
    with pytest.raises(openai.NotFoundError):
        await client.files.update("file-none", vector_store_id=store, attributes={})


async def test_the_text_of_a_file_is_given_back_whole(harness: Harness) -> None:
    store, file_id = await harness.stored(DIARY)
    files = harness.sdk().vector_stores.files
    assert [part.text async for part in files.content(file_id, vector_store_id=store)] == [DIARY]
    waiting = await harness.document(HELP)
    await files.create(vector_store_id=store, file_id=waiting.file_id)
    for file, of in ((waiting.file_id, store), ("file-none", store), (file_id, "vs_none")):
        with pytest.raises(openai.NotFoundError):
            await files.content(file, vector_store_id=of)


async def test_a_store_has_so_many_files(harness: Harness) -> None:
    store = (await harness.sdk().vector_stores.create(name="x")).id
    files = harness.sdk().vector_stores.files
    for _ in range(4):
        await files.create(vector_store_id=store, file_id=(await harness.document(HELP)).file_id)
    with pytest.raises(openai.BadRequestError, match="at most 4 files"):
        await files.create(vector_store_id=store, file_id=(await harness.document(HELP)).file_id)


async def test_neither_a_search_nor_a_list_loads_the_files_of_a_store_whole(harness: Harness) -> None:
    """Each may have thousands of chunk ids: these cannot be loaded, and nobody tries."""
    store, file_id = await harness.stored()
    await harness.database["files"].update_one({"file_id": file_id}, {"$set": {"chunk_ids": "not loaded"}})
    assert len(await harness.search(store)) == 2
    client = harness.sdk().vector_stores
    some: Any = {"type": "ne", "key": "a", "value": 1}
    assert len((await client.search(store, query="refund", filters=some)).data) == 2
    assert [one.id for one in (await client.files.list(store)).data] == [file_id]
    assert (await client.list()).data[0].file_counts.completed == 1
    assert (await client.retrieve(store)).usage_bytes == len(HELP)
    await harness.database["files"].update_one({"file_id": file_id}, {"$set": {"chunk_ids": []}})


async def test_a_file_is_kept_until_its_events_are_published(harness: Harness) -> None:
    files = AggregateStore(harness.database["kept_files"], StoreFile, "rag_indexer", lambda: None)
    nothing: Any = None
    stores = Stores(nothing, files, harness.database["kept_chunks"], nothing)
    file = StoreFile(id=new_id("vsf_"), tenant_id=harness.a, created_at=1, store_id="vs_1", file_id="file-1")
    file.complete(1, [], None, "here")
    await files.add(file)
    await files.update(harness.a, file.id, StoreFile.delete)
    assert not await stores.remove(file)
    left = await files.collection.find_one({"_id": file.id})
    assert left is not None
    assert (left["state"], [one["topic"] for one in left["outbox"]]) == ("deleting", ["indexes"])
    await files.collection.update_one({"_id": file.id}, {"$set": {"outbox": []}})
    assert await stores.remove(file)
    assert await files.collection.find_one({"_id": file.id}) is None


async def test_a_file_whose_vectors_are_in_another_collection_is_indexed_again(harness: Harness) -> None:
    """What is in MongoDB after the model was changed, or Milvus came back empty."""
    store, file_id = await harness.stored()
    await harness.database["files"].update_one({"file_id": file_id}, {"$set": {"indexed_by": "collection-lost"}})
    found = await harness.database["files"].find_one({"file_id": file_id})
    collection = re.sub(r"[^A-Za-z0-9]+", "_", f"{harness.space.prefix}-chunks_{MODEL}")
    await asyncio.to_thread(harness.milvus.delete, collection, ids=found["chunk_ids"])
    assert await harness.vectors(file_id) == 0

    async def back() -> bool:
        return await harness.vectors(file_id) == 2 and (await harness.settled(store, file_id)).status == "completed"

    await eventually(back, within=60)
    assert len(await harness.search(store)) == 2


async def test_a_collection_has_an_identity_that_it_loses_with_its_vectors(harness: Harness) -> None:
    vectors = Vectors(harness.space.addresses.milvus_url, new_id("try_"))
    with pytest.raises(Transient):
        await vectors.identity()
    await vectors.prepare(4)
    first = await vectors.identity()
    other = Vectors(harness.space.addresses.milvus_url, vectors._collection)
    await other.prepare(4)
    assert await other.identity() == await vectors.identity() == first
    await asyncio.to_thread(harness.milvus.drop_collection, vectors._collection)
    assert await vectors.identity() != first
    await asyncio.to_thread(harness.milvus.drop_collection, vectors._collection)


async def test_embeddings_are_the_same_as_numbers_and_as_base64(harness: Harness) -> None:
    texts = ["a bicycle", "自転車", "tax law"]
    plain = await harness.sdk().embeddings.create(model=MODEL, input=texts, encoding_format="float")
    raw = await harness.sdk().embeddings.with_raw_response.create(model=MODEL, input=texts, encoding_format="base64")
    for one, packed in zip(plain.data, raw.http_response.json()["data"], strict=True):
        decoded = struct.unpack(f"<{len(one.embedding)}f", base64.b64decode(packed["embedding"]))
        assert list(decoded) == pytest.approx(one.embedding, abs=1e-6)
        assert sum(number**2 for number in decoded) == pytest.approx(1, abs=1e-3)
    bicycle, jitensha, law = (one.embedding for one in plain.data)
    assert sum(map(float.__mul__, bicycle, jitensha)) > sum(map(float.__mul__, bicycle, law))
    assert plain.usage.total_tokens > 0


async def test_token_ids_and_hundreds_of_texts_are_embedded(harness: Harness) -> None:
    client = harness.sdk().embeddings
    texts, one, lists = [
        [row.embedding for row in (await client.create(model=MODEL, input=given, encoding_format="float")).data]
        for given in (["hello world", "This is"], [15339, 1917], [[15339, 1917], [2028, 374]])
    ]
    assert [*lists] == [pytest.approx(text, abs=1e-5) for text in texts]
    assert one == [pytest.approx(texts[0], abs=1e-5)]
    many = await client.create(model=MODEL, input=[f"{n}" for n in range(300)], encoding_format="float", user="me")
    assert [row.index for row in many.data] == list(range(300))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [{}]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": "word " * 600}, "input"),
        ({"input": ["word " * 400] * 8}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input"),
        ({"input": [[1, 10**9]]}, "input"),
        ({"input": [[]]}, "input"),
        ({"dimensions": 7}, "dimensions"),
    ],
)
async def test_bad_embedding_requests_are_told_their_field(
    harness: Harness, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await harness.sdk().embeddings.create(**{"model": MODEL, "input": "x", "encoding_format": "float", **change})
    assert caught.value.param == param
    with pytest.raises(openai.NotFoundError):
        await harness.sdk().embeddings.create(model="other", input="x")

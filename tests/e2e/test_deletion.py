"""A phrase is uploaded, labelled, trained on, judged by, indexed and asked; then taken back, and looked for everywhere.

What stays, and for how long, is in `docs/deletion.md`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest
from minio.error import S3Error
from pymilvus import MilvusClient

from chassis.settings import ServiceSettings
from eventbus import AggregateStore
from ingest.domain import Dataset, File
from ingest.store import Files, StoredElsewhere, Uses
from localstack import LocalStack
from schemas import TOPICS
from stores.mongo import connect
from stores.objects import Objects
from testkit.injector import recorded
from tests.conftest import Tenant, make_tenant
from tests.e2e.test_main_way import ended_job, rows, wait_for

CANARY = "the heron waits on platform nine"
ROWS = rows().replace(b"bike", CANARY.encode())
BARE = b"\n".join(json.dumps({"text": f"{CANARY}, says passenger {n}"}).encode() for n in range(30))
PAGE = f"# Help\n\nAt night {CANARY}.\n".encode()
HELLO = [{"role": "user", "content": f"{CANARY} 3 will not open"}]


@dataclass
class Stores:
    """Everything that the services of a stack keep, seen from below."""

    stack: LocalStack
    tenant_id: str

    def settings(self) -> ServiceSettings:
        addresses = self.stack.addresses()
        return ServiceSettings(**{name: addresses[name] for name in addresses if name != "milvus_url"})

    async def collections(self) -> dict[str, int]:
        """By collection, of all databases of services, how many documents hold the phrase.

        The database's own log of changes is none: what it holds runs out by itself.
        """
        client = connect(self.settings(), "canary").client
        found = {}
        for database in set(await client.list_database_names()) - {"admin", "config", "local"}:
            for name in await client[database].list_collection_names():
                documents = await client[database][name].find().to_list(None)
                found[f"{database}.{name}"] = sum(
                    CANARY in json.dumps(one, default=str, ensure_ascii=False) for one in documents
                )
        client.close()
        assert len(found) > 20, "the walk sees the services' collections"
        return {name: count for name, count in found.items() if count}

    async def keys(self) -> list[str]:
        """The tenant's objects."""
        return await self._objects().keys(f"tenants/{self.tenant_id}/")

    async def objects(self) -> list[str]:
        """The objects, of the whole bucket, that hold the phrase."""
        store = self._objects()
        keys = await store.keys("")
        client, bucket = store._client, store.bucket

        def held(key: str) -> bool:
            try:
                return CANARY.encode() in client.get_object(bucket_name=bucket, object_name=key).data
            except S3Error as error:
                if error.code == "NoSuchKey":  # a service took it away after it was listed
                    return False
                raise

        return await asyncio.to_thread(lambda: [key for key in keys if held(key)])

    def vectors(self) -> int:
        """The tenant's rows in Milvus."""
        milvus = MilvusClient(uri=self.stack.addresses()["milvus_url"])
        try:
            return sum(
                len(milvus.query(name, filter=f'tenant_id == "{self.tenant_id}"', limit=1000))
                for name in milvus.list_collections()
            )
        finally:
            milvus.close()

    async def messages(self) -> list[str]:
        """Types of the messages that hold the phrase, of all topics."""
        topics = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
        found = await recorded(self.stack.addresses()["kafka_bootstrap"], *topics)
        assert any(self.tenant_id.encode() in message.value for message in found)
        return [str(one.header("ce_type")) for one in found if CANARY.encode() in one.value]

    async def counted(self) -> int:
        """Bytes that count against the tenant's storage."""
        database = connect(self.settings(), "ingest")
        files = AggregateStore(database["files"], File, "ingest", lambda: None)
        datasets = AggregateStore(database["datasets"], Dataset, "ingest", lambda: None)
        uses, elsewhere = Uses(database["uses"]), StoredElsewhere(database["stored_elsewhere"])
        store = Files(files, datasets, database["arriving"], uses, elsewhere, self._objects())
        return await store.stored_bytes(self.tenant_id)

    def _objects(self) -> Objects:
        return Objects(self.settings(), workers=4)


@pytest.fixture(scope="module")
def owner(stack: LocalStack) -> Tenant:
    return make_tenant(stack, "Canary")


def stack_operator(stack: LocalStack) -> httpx2.Client:
    """The API as its operator sees it."""
    headers = {"authorization": f"Bearer {stack.home.secret('operator_key')}"}
    return httpx2.Client(base_url=stack.base_url, headers=headers, timeout=60)


def until(probe: Any, what: str) -> None:
    """Poll an async probe until it finds nothing."""
    left: list[Any] = []

    def gone() -> bool:
        left[:] = [asyncio.run(probe())]
        return not left[0]

    try:
        wait_for(gone, seconds=90)
    except AssertionError as error:
        raise AssertionError(f"{what}: {left}") from error


def label(owner: Tenant) -> tuple[str, str, str]:
    """Rows without answers get them and are published: the file, its project, and the file of the answers."""
    file = owner.sdk.files.create(file=("bare.jsonl", BARE), purpose="user_data").id
    with owner.http as http:

        def project() -> Any:
            found = http.get("/labeling/projects").json()["data"]
            return next((one["id"] for one in found if one["file_id"] == file and one["total"] == 30), None)

        path = f"/labeling/projects/{wait_for(project)}"
        for task in http.get(f"{path}/tasks", params={"limit": 100}).json()["data"]:
            http.post(f"{path}/tasks/{task['id']}", json={"answer": f"{CANARY}!"}).raise_for_status()
        http.patch("/organization", json={"tune_on_upload": False}).raise_for_status()
        http.post(f"{path}/publish").raise_for_status()
    answered = wait_for(
        lambda: next(
            (one.id for one in owner.sdk.files.list() if "answered" in one.filename and one.status == "processed"), None
        )
    )
    return file, path, answered


@pytest.mark.slow
def test_a_phrase_that_is_taken_back_is_nowhere(stack: LocalStack, owner: Tenant) -> None:
    stores, sdk = Stores(stack, owner.tenant_id), owner.sdk
    before = asyncio.run(stores.counted())
    assert before == 0
    file = sdk.files.create(file=("messages.jsonl", ROWS), purpose="user_data").id
    page = sdk.files.create(file=("page.md", PAGE), purpose="user_data").id
    job = wait_for(lambda: ended_job(owner, file))
    assert job.status == "succeeded", job.error
    model = job.fine_tuned_model
    bare, project, answered = label(owner)
    store = sdk.vector_stores.create(name="Help").id
    sdk.vector_stores.files.create(store, file_id=page)
    wait_for(lambda: sdk.vector_stores.files.retrieve(page, vector_store_id=store).status == "completed")
    sdk.chat.completions.create(model=model, messages=HELLO, max_tokens=4)
    chat = sdk.chat.completions.create(model=model, messages=HELLO, max_tokens=4, store=True).id
    wait_for(lambda: sdk.chat.completions.retrieve(chat))
    with owner.http as http:
        own = http.post("/labeling/projects", json={"name": "Own", "rows": [CANARY, f"{CANARY} again"]}).json()["id"]
        rating = {"completion_id": chat, "rating": "down", "correction": CANARY, "comment": f"said {CANARY}"}
        rated = http.post("/feedback", json=rating).json()["id"]

    planted = asyncio.run(stores.collections())
    assert {name.rpartition(".")[2] for name in planted} >= {"tasks", "chunks", "chats", "feedback"}, planted
    folders = {key.split("/")[2] for key in asyncio.run(stores.objects())}
    assert folders >= {"files", "datasets", "documents", "labels", "evaluations"}
    assert stores.vectors() > 0
    full = asyncio.run(stores.counted())
    assert full > len(ROWS) + len(BARE) + len(PAGE)

    deleted = sdk.files.delete(file)
    [kept] = (deleted.model_extra or {})["kept"]
    assert (kept["object"], kept["because"]) == ("dataset", f"model {model} was made from it")
    for one in (bare, page):
        assert (sdk.files.delete(one).model_extra or {})["kept"] == []
    with owner.http as http:
        http.delete(f"/labeling/projects/{own}").raise_for_status()
        http.delete(f"/feedback/{rated}").raise_for_status()
        wait_for(lambda: http.get(project).status_code == 404, seconds=30)
        wait_for(lambda: [one["id"] for one in http.get("/datasets").json()["data"]] == [kept["id"]], seconds=60)
    sdk.vector_stores.delete(store)
    sdk.chat.completions.delete(chat)
    with pytest.raises(openai.NotFoundError):
        wait_for(lambda: sdk.files.retrieve(answered) and None, seconds=60)
    answer = sdk.chat.completions.create(model=model, messages=HELLO, max_tokens=4)
    assert answer.system_fingerprint is not None, "the model goes on until it is deleted itself"

    sdk.models.delete(model)
    until(stores.collections, "collections")
    until(stores.keys, "objects of the tenant")
    until(stores.objects, "objects")
    wait_for(lambda: stores.vectors() == 0, seconds=60)
    until(stores.counted, "counted bytes")
    assert asyncio.run(stores.messages()) == [], "messages are kept as long as the broker's retention says"
    with pytest.raises(openai.NotFoundError):
        wait_for(lambda: sdk.chat.completions.create(model=model, messages=HELLO, max_tokens=4) and None, seconds=60)


@pytest.mark.slow
def test_what_an_earlier_release_left_of_something_deleted_goes_when_the_operator_says_so(stack: LocalStack) -> None:
    """It took away the bytes of a file and the model, kept all that was made of them, and told hardly anybody."""
    owner = make_tenant(stack, "Before")
    stores, sdk = Stores(stack, owner.tenant_id), owner.sdk
    file = sdk.files.create(file=("messages.jsonl", ROWS), purpose="user_data").id
    job = wait_for(lambda: ended_job(owner, file))
    assert job.status == "succeeded", job.error
    bare, _, _ = label(owner)

    async def as_then() -> None:
        ingest, registry = (connect(stores.settings(), name) for name in ("ingest", "registry"))
        gone = {"state": "deleted", "purged": True, "filename": "", "details": None}
        await ingest["files"].update_many({"_id": {"$in": [file, bare]}}, {"$set": gone})
        of_name = {"job_id": job.id}  # its arm too, as there were none then
        await registry["models"].update_many(of_name, {"$set": {"state": "retired"}})
        for one in (file, bare):
            await stores._objects().delete_prefix(f"tenants/{owner.tenant_id}/files/{one}/")

    asyncio.run(as_then())
    assert asyncio.run(stores.objects())
    with stack_operator(stack) as operator:

        def leftovers(method: str, path: str = "") -> dict[str, tuple[int, int]]:
            answer = operator.request(method, f"/organization/leftovers{path}")
            answer.raise_for_status()
            return {one["service"]: (one["found"], one["purged"]) for one in answer.json()["data"]}

        found = leftovers("GET")
        assert (found["ingest"][0] >= 2, found["registry"][0] >= 1) == (True, True), found
        assert asyncio.run(stores.objects()), "looking removes nothing"
        leftovers("POST", "/purge")
        until(stores.collections, "collections")
        until(stores.keys, "objects of the tenant")
        until(stores.counted, "counted bytes")
        assert {name: one[0] for name, one in leftovers("GET").items()} == {"ingest": 0, "registry": 0, "trainer": 0}

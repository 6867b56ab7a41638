"""What an attempt at a file comes to where there is nothing to index; and deletes that meet one another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chassis.errors import NotFound, Transient
from rag_indexer.domain import Chunking, FileState, StoreFile
from rag_indexer.settings import Settings
from rag_indexer.use_cases import Collections, Limits
from rag_indexer.worker import Indexing
from schemas import DocumentParsed, FileDeleted, ObjectRef
from work import GiveUp, PutOff

DOCUMENT = DocumentParsed(
    tenant_id="t",
    file_id="f",
    filename="a.md",
    title="a",
    purpose="assistants",
    text=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1),
)


def file(state: FileState = "in_progress", file_id: str = "vsf_1") -> StoreFile:
    return StoreFile(id=file_id, tenant_id="t", created_at=1, store_id="s", file_id="f", state=state)


def indexing(*, document: DocumentParsed | None = DOCUMENT, published: bool = True, told: Any = None) -> Indexing:
    """An indexer whose stores, store of objects and ingest say what a test says."""

    async def used(*_: Any) -> bool:
        return True

    async def known(*_: Any) -> DocumentParsed | None:
        return document

    async def finish_removal(_: StoreFile) -> bool:
        return published

    async def get_bytes(_: ObjectRef) -> bytes:
        raise NotFound("No object k.")

    async def ingested(_: StoreFile) -> bool:
        raise told

    stores: Any = SimpleNamespace(is_used=used, document=known)
    collections: Any = SimpleNamespace(finish_removal=finish_removal, ingested=ingested)
    nothing: Any = None
    objects: Any = SimpleNamespace(get_bytes=get_bytes)
    return Indexing(stores, collections, nothing, nothing, objects, Settings())


async def test_a_removed_file_stays_until_its_events_are_published_and_is_looked_at_after_a_pause() -> None:
    nothing: Any = None
    await indexing().attempt(file("deleting"), nothing)
    with pytest.raises(PutOff) as put_off:
        await indexing(published=False).attempt(file("deleting"), nothing)
    assert put_off.value.seconds > 0


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "The file's text is gone."),
        ({"document": None, "told": NotFound("No such file.")}, "No such file."),
    ],
    ids=["text", "file"],
)
async def test_a_file_without_text_is_given_up_and_says_why(facts: dict[str, Any], reason: str) -> None:
    nothing: Any = None
    with pytest.raises(GiveUp) as given_up:
        await indexing(**facts).attempt(file(), nothing)
    assert given_up.value.reason == reason


async def test_a_file_waits_for_its_text_while_ingest_cannot_be_asked() -> None:
    nothing: Any = None
    with pytest.raises(PutOff) as put_off:
        await indexing(document=None, told=Transient("ingest is away")).attempt(file(), nothing)
    assert 2 <= put_off.value.seconds <= 15


async def test_a_file_taken_out_of_one_store_meanwhile_is_still_removed_from_the_others() -> None:
    there = [file(file_id="in store 1"), file(file_id="in store 2")]
    dropped = []

    class Stores:
        async def forget_document(self, *_: Any) -> None:
            pass

        async def places_of(self, *_: Any) -> list[StoreFile]:
            return there

        async def update_file(self, one: StoreFile, change: Any) -> StoreFile:
            if one is there[0]:
                raise NotFound("gone")
            change(one)
            return one

        async def remove(self, one: StoreFile) -> bool:
            dropped.append(one.id)
            return True

    async def delete(_: list[str]) -> None:
        pass

    stores: Any = Stores()
    vectors: Any = SimpleNamespace(delete=delete)
    peer: Any = None
    await Collections(stores, vectors, peer, Limits(9, 9), Chunking(tokens=100)).on_deleted(
        FileDeleted(tenant_id="t", file_id="f")
    )
    assert dropped == ["in store 2"]


@pytest.mark.parametrize("asked", ["again", "elsewhere", "delete", "nothing new"])
def test_a_file_whose_work_begins_anew_is_counted_anew(asked: str) -> None:
    one = file("completed" if asked in ("elsewhere", "nothing new") else "failed")
    if asked == "elsewhere":
        one.index_elsewhere("another")
    elif asked == "delete":
        one.delete()
    else:
        one.ask_again({"lang": "en"}, None)
    assert one.take_begins_anew() == (asked != "nothing new")

"""What the worker does around indexing: the lease, the count of attempts; and deletes that meet one another."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.errors import NotFound, Transient
from rag_indexer.domain import Chunking, StoreFile
from rag_indexer.settings import Settings
from rag_indexer.use_cases import Collections, Limits
from rag_indexer.worker import Worker
from schemas import FileDeleted
from testkit import eventually


class Files:
    """One file, as the worker and the use cases see its collection."""

    def __init__(self, *ids: str) -> None:
        self.files = {one: StoreFile(id=one, tenant_id="t", created_at=1, store_id="s", file_id="f") for one in ids}
        self.leases = self
        self.renewed = 0

    async def find(self, *_: Any) -> list[StoreFile]:
        return list(self.files.values())

    async def update(self, _tenant: str, file_id: str, change: Any, *, fence: int | None = None) -> StoreFile:
        if file_id not in self.files:
            raise NotFound("gone")
        change(self.files[file_id])
        return self.files[file_id]

    async def renew(self, *_: Any) -> bool:
        self.renewed += 1
        return True

    async def delay(self, *_: Any) -> None:
        pass


def worker(files: Files) -> Worker:
    settings: Any = Settings(rag_lease_seconds=0.2)
    nothing: Any = None
    return Worker(SimpleNamespace(files=files), nothing, nothing, nothing, nothing, settings, "w")  # type: ignore[arg-type]


async def test_the_lease_is_renewed_for_as_long_as_the_work_takes() -> None:
    files = Files("f")

    async def work() -> None:
        await eventually(lambda: files.renewed >= 3)

    await asyncio.wait_for(worker(files)._while_held(files.files["f"], work()), 20)


@pytest.mark.parametrize(
    ("ends", "counted"),
    [(None, 1), (MemoryError(), 1), (Transient("Milvus is away."), 0), (asyncio.CancelledError(), 0)],
)
async def test_only_an_attempt_that_the_file_itself_ends_is_counted(
    monkeypatch: pytest.MonkeyPatch, ends: BaseException | None, counted: int
) -> None:
    files, before = Files("f"), []
    it = worker(files)

    async def index(*_: Any) -> None:
        before.append(files.files["f"].attempts)
        if ends is not None:
            raise ends

    monkeypatch.setattr(it, "_index", index)
    [result] = await asyncio.gather(it._attempt(files.files["f"], None), return_exceptions=True)  # type: ignore[arg-type]
    assert type(result) is type(ends)
    assert before == [1]
    assert files.files["f"].attempts == counted


async def test_a_file_taken_out_of_one_store_meanwhile_is_still_removed_from_the_others() -> None:
    files, dropped = Files("in store 1", "in store 2"), []

    class Stores:
        async def forget_document(self, *_: Any) -> None:
            pass

        async def remove(self, file: StoreFile) -> None:
            dropped.append(file.id)

    async def delete(_: list[str]) -> None:
        pass

    stores: Any = Stores()
    stores.files = files
    files.find = lambda *_: _all(Files("in store 1", "in store 2"))  # type: ignore[method-assign]
    del files.files["in store 1"]
    vectors: Any = SimpleNamespace(delete=delete)
    peer: Any = None
    await Collections(stores, vectors, peer, Limits(9, 9), Chunking(tokens=100)).on_deleted(
        FileDeleted(tenant_id="t", file_id="f")
    )
    assert dropped == ["in store 2"]


async def _all(files: Files) -> list[StoreFile]:
    return list(files.files.values())

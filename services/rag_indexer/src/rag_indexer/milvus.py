"""The vectors in Milvus: one collection, the tenant as partition key, every call from one thread.

Expressions are made only of identifiers of ours, checked letter by letter; no text of a user ever enters one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException

from chassis.errors import Transient
from chassis.ids import new_id

T = TypeVar("T")

IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
BATCH = 200

Row = dict[str, str | NDArray[np.float32]]
"""Of the collection: the vector of a chunk, and the ids that it is found by."""

IDENTITY = "identity"
"""Key and tenant of the row that names the collection; no tenant's id is like it, so no search finds it."""

CALL_SECONDS = 10.0
"""Deadline of one call; without one, pymilvus waits for a server that says nothing, and every other call behind it."""


OWN_CONNECTION = {"dedicated": True, "grpc_options": {"grpc.use_local_subchannel_pool": 1}}
"""Otherwise pymilvus, and below it grpc, give a new client the connection that the old one failed on."""


class Vectors:
    """Chunk vectors by id.

    Args:
        url: address of Milvus.
        collection: its name; one per embedding model.
    """

    def __init__(self, url: str, collection: str) -> None:
        self._url = url
        self._collection = collection
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="milvus")
        self._connected: MilvusClient | None = None
        self._dimensions = 0
        self._ready = False

    async def prepare(self, dimensions: int) -> None:
        """Create the collection if it is missing."""
        self._dimensions = dimensions
        await self.identity()
        self._ready = True

    async def identity(self) -> str:
        """The id that the collection was given when it was made, now if it is missing.

        Another one than before means that Milvus has lost what was in it.
        """
        if not self._dimensions:
            raise Transient("The vector collection is not there yet.")
        return str(await self._run(self._identify))

    async def ping(self) -> None:
        """Raise unless Milvus answers and the collection is there."""
        if not self._ready or not await self._run(
            lambda client: client.has_collection(self._collection, timeout=CALL_SECONDS)
        ):
            raise Transient("The vector collection is not there yet.")

    async def upsert(
        self, tenant_id: str, store_id: str, file_id: str, vectors: dict[str, NDArray[np.float32]]
    ) -> None:
        """Write vectors by chunk id; writing them again changes nothing."""
        rows: list[Row] = [
            {"chunk_id": chunk, "tenant_id": tenant_id, "store_id": store_id, "file_id": file_id, "vector": vector}
            for chunk, vector in vectors.items()
        ]
        for start in range(0, len(rows), BATCH):
            await self._upsert(rows[start : start + BATCH])

    async def delete(self, chunk_ids: list[str]) -> None:
        """Remove vectors by primary key; a delete by expression can miss some and not say so."""
        for start in range(0, len(chunk_ids), BATCH):
            await self._delete(chunk_ids[start : start + BATCH])

    async def search(
        self, tenant_id: str, store_id: str, vector: NDArray[np.float32], *, limit: int, file_ids: list[str] | None
    ) -> list[tuple[str, float]]:
        """The nearest chunks as (id, cosine similarity), best first.

        Args:
            tenant_id: whose.
            store_id: in which store.
            vector: of the question.
            limit: at most this many.
            file_ids: only chunks of these files; all if None.
        """
        conditions = [f'tenant_id == "{checked(tenant_id)}"', f'store_id == "{checked(store_id)}"']
        if file_ids is not None:
            listed = ", ".join(f'"{checked(file_id)}"' for file_id in file_ids)
            conditions.append(f"file_id in [{listed}]")
        expression = " and ".join(conditions)
        found = await self._run(
            lambda client: client.search(
                self._collection,
                data=[list(map(float, vector))],
                limit=limit,
                filter=expression,
                timeout=CALL_SECONDS,
            )
        )
        return [(str(hit["chunk_id"]), float(hit["distance"])) for hit in found[0]]

    def _identify(self, client: MilvusClient) -> str:
        """Read the one row that is no chunk, or write it."""
        self._create(client, self._dimensions)
        where = f'chunk_id == "{IDENTITY}"'
        for _ in range(2):
            found = client.query(self._collection, filter=where, output_fields=["file_id"], timeout=CALL_SECONDS)
            if found:
                return str(found[0]["file_id"])
            vector = [1.0] + [0.0] * (self._dimensions - 1)
            row = {"chunk_id": IDENTITY, "tenant_id": IDENTITY, "store_id": IDENTITY, "file_id": new_id("collection-")}
            client.upsert(self._collection, [{**row, "vector": vector}], timeout=CALL_SECONDS)
        raise Transient("Milvus does not find what was written to it.")

    def _create(self, client: MilvusClient, dimensions: int) -> None:
        if client.has_collection(self._collection, timeout=CALL_SECONDS):
            client.load_collection(self._collection, timeout=CALL_SECONDS)
            return
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("chunk_id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("tenant_id", DataType.VARCHAR, max_length=64, is_partition_key=True)
        schema.add_field("store_id", DataType.VARCHAR, max_length=64)
        schema.add_field("file_id", DataType.VARCHAR, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimensions)
        indexes = client.prepare_index_params()
        parameters = {"M": 16, "efConstruction": 200}
        indexes.add_index("vector", index_type="HNSW", metric_type="COSINE", params=parameters)
        client.create_collection(
            self._collection,
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            timeout=CALL_SECONDS,
        )

    async def _upsert(self, rows: list[Row]) -> None:
        await self._run(lambda client: client.upsert(self._collection, rows, timeout=CALL_SECONDS))

    async def _delete(self, chunk_ids: list[str]) -> None:
        await self._run(lambda client: client.delete(self._collection, ids=chunk_ids, timeout=CALL_SECONDS))

    async def _run(self, call: Callable[[MilvusClient], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, call)

    def _call(self, call: Callable[[MilvusClient], T]) -> T:
        try:
            if self._connected is None:
                self._connected = MilvusClient(self._url, timeout=CALL_SECONDS, **OWN_CONNECTION)
            return call(self._connected)
        except (MilvusException, grpc.RpcError) as error:  # past a deadline pymilvus lets grpc's own error out
            self._drop()
            reason = error.message if isinstance(error, MilvusException) else type(error).__name__
            raise Transient(f"Milvus did not do it: {reason}") from error

    def _drop(self) -> None:
        """Let go of the connection: one that failed may fail for ever."""
        client, self._connected = self._connected, None
        if client is not None:
            with contextlib.suppress(MilvusException, grpc.RpcError):
                client.close()


def checked(identifier: str) -> str:
    """An identifier that may stand in an expression.

    Raises:
        ValueError: it holds anything but letters, digits, `_` and `-`.
    """
    if not IDENTIFIER.fullmatch(identifier):
        raise ValueError(f"not an identifier: {identifier!r}")
    return identifier

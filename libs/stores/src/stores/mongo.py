"""MongoDB through motor. Motor is past its end of life: leaving it means changing this file."""

from __future__ import annotations

from typing import Any

import structlog
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.errors import (
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from chassis.settings import ServiceSettings

__all__ = [
    "ASCENDING",
    "DESCENDING",
    "Collection",
    "Database",
    "Document",
    "DuplicateKeyError",
    "PyMongoError",
    "Query",
    "UpdateOne",
    "connect",
    "drop_index",
    "ensure_index",
    "is_away",
]

log = structlog.get_logger()

INDEX_CONFLICTS = (85, 86)
"""IndexOptionsConflict and IndexKeySpecsConflict, from the same list."""

INDEX_NOT_FOUND = 27
"""From the same list."""

SERVER_FAILED = (1, 14031)
"""InternalError and OutOfDiskSpace, from https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml."""

Document = dict[str, Any]
"""A document as it lies in a collection; a store makes an aggregate or a model of it."""

Query = dict[str, Any]
"""A condition, or an expression, in MongoDB's language."""

Database = AsyncIOMotorDatabase[Document]
Collection = AsyncIOMotorCollection[Document]


def connect(settings: ServiceSettings, service: str) -> Database:
    """The service's own database, with majority reads and writes and a deadline on every call.

    Nothing connects until the first operation.
    """
    client: AsyncIOMotorClient[Document] = AsyncIOMotorClient(
        settings.mongo_url.get_secret_value(),
        w="majority",
        journal=True,  # an answer says that the write outlives the server's process, whatever the server's defaults
        readConcernLevel="majority",
        serverSelectionTimeoutMS=5_000,
        connectTimeoutMS=5_000,
        timeoutMS=10_000,
        maxPoolSize=32,
        heartbeatFrequencyMS=30_000,
        appname=service,
        tz_aware=True,
    )
    return client[f"{settings.mongo_database_prefix}{service}"]


def is_away(error: Exception) -> bool:
    """Whether the database could not be reached in time or failed itself, so that a write may have been made or not."""
    if isinstance(error, OperationFailure) and error.code in SERVER_FAILED:
        return True
    return isinstance(error, (ConnectionFailure, ExecutionTimeout, WTimeoutError))


async def ensure_index(collection: Collection, keys: str | list[tuple[str, int]], **options: Any) -> None:
    """Create an index, in place of one that an earlier release made of the same keys, or name, with other options.

    Args:
        collection: where.
        keys: a field, or fields and directions.
        options: as `create_index` takes them.

    Raises:
        OperationFailure: the documents do not allow it, for example two equal ones under a unique index.
    """
    try:
        await collection.create_index(keys, **options)
    except OperationFailure as error:
        if error.code not in INDEX_CONFLICTS:
            raise
        wanted = [(keys, ASCENDING)] if isinstance(keys, str) else list(keys)
        for name, index in (await collection.index_information()).items():
            if name != "_id_" and (index["key"] == wanted or name == options.get("name")):
                log.warning("index_replaced", collection=collection.name, index=name, options=options)
                await collection.drop_index(name)
        await collection.create_index(keys, **options)


async def drop_index(collection: Collection, name: str) -> None:
    """Drop an index that an earlier release made, if it is there."""
    try:
        await collection.drop_index(name)
    except OperationFailure as error:
        if error.code != INDEX_NOT_FOUND:
            raise
    else:
        log.warning("index_dropped", collection=collection.name, index=name)


async def ping(collection: Collection) -> None:
    """Raise unless the server reads; one whose disk is full may still answer MongoDB's own ping."""
    await collection.find_one({}, {"_id": 1})

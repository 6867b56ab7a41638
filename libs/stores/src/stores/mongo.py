"""MongoDB through motor. Motor is past its end of life: leaving it means changing this file."""

from __future__ import annotations

from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING
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
    "DuplicateKeyError",
    "PyMongoError",
    "connect",
    "is_away",
]

SERVER_FAILED = (1, 14031)
"""InternalError and OutOfDiskSpace, from https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml."""

Database = AsyncIOMotorDatabase[dict[str, Any]]
Collection = AsyncIOMotorCollection[dict[str, Any]]


def connect(settings: ServiceSettings, service: str) -> Database:
    """The service's own database, with majority reads and writes and a deadline on every call.

    Nothing connects until the first operation.
    """
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
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
    """Whether the database could not be reached in time, or failed itself; a write may have been carried out or not."""
    if isinstance(error, OperationFailure) and error.code in SERVER_FAILED:
        return True
    return isinstance(error, (ConnectionFailure, ExecutionTimeout, WTimeoutError))


async def ping(collection: Collection) -> None:
    """Raise unless the server reads; one whose disk is full may still answer MongoDB's own ping."""
    await collection.find_one({}, {"_id": 1})

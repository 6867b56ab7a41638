"""The operations of MongoDB that the services use, with its semantics: for schedules and use cases, without a process.

Not a twin to prove anything on: that MongoDB does what is assumed here is shown by the tests on the local stack. What
it does not know it refuses.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from stores.mongo import Database, DuplicateKeyError
from testkit.simulated_queries import Document, aggregated, assign, copy, evaluate, is_plain, matches, ordered, update

Call = Callable[[Callable[[], Any]], Awaitable[Any]]
Journal = Callable[[str, str, Document | None, Document | None], None]


async def at_once(operation: Callable[[], Any]) -> Any:
    """A call that takes no time."""
    return operation()


def unread(_collection: str, _id: str, _before: Document | None, _after: Document | None) -> None:
    """A journal that nobody reads."""


@dataclass(frozen=True)
class Result:
    """What pymongo says of a write: to how many documents it was done."""

    matched_count: int = 0
    deleted_count: int = 0


class Documents:
    """One service's database.

    Args:
        clock: what `$$NOW` is, in Unix seconds.
        call: carries an operation to the server, and its outcome back.
        journal: told (collection, id, before, after) of every write.
    """

    def __init__(self, clock: Callable[[], float] = time.time, call: Call = at_once, journal: Journal = unread) -> None:
        self.clock, self.call, self.journal = clock, call, journal
        self.collections: dict[str, SimulatedCollection] = {}

    def as_database(self) -> Database:
        """Itself, for `build(database=…)`."""
        return cast(Database, self)

    def __getitem__(self, name: str) -> SimulatedCollection:
        """A collection, made when it is first named."""
        return self.collections.setdefault(name, SimulatedCollection(name, self))

    def now_ms(self) -> int:
        """The server's clock."""
        return int(self.clock() * 1000)


class Cursor:
    """What `find` returns: sorted and cut at the server, read once."""

    def __init__(self, collection: SimulatedCollection, query: Document) -> None:
        self._collection, self._query = collection, query
        self._sort: list[tuple[str, int]] = []
        self._limit = 0

    def sort(self, by: str | list[tuple[str, int]], direction: int = 1) -> Cursor:
        """Order by one or more fields."""
        self._sort = [(by, direction)] if isinstance(by, str) else by
        return self

    def limit(self, limit: int) -> Cursor:
        """At most so many; 0 for all."""
        self._limit = limit
        return self

    async def to_list(self, length: int | None = None) -> list[Document]:
        """The documents."""
        found: list[Document] = await self._collection.call(
            lambda: [copy(one) for one in self._collection.select(self._query, self._sort)]
        )
        return found[: self._limit or length or None]

    async def __aiter__(self) -> AsyncIterator[Document]:
        """One after the other."""
        for document in await self.to_list():
            yield document


class Pipeline:
    """What `aggregate` returns: computed at the server, read once."""

    def __init__(self, collection: SimulatedCollection, stages: list[Document]) -> None:
        self._collection, self._stages = collection, stages

    async def to_list(self, length: int | None = None) -> list[Document]:
        """The documents."""
        found: list[Document] = await self._collection.call(
            lambda: aggregated(self._collection.select({}), self._stages, self._collection.now_ms())
        )
        return found[:length]

    async def __aiter__(self) -> AsyncIterator[Document]:
        """One after the other."""
        for document in await self.to_list():
            yield document


class SimulatedCollection:
    """A collection; each operation is one atomic step at the server."""

    def __init__(self, name: str, database: Documents) -> None:
        self.name, self.documents = name, dict[str, Document]()
        self._database = database
        self._unique: list[list[str]] = []

    def now_ms(self) -> int:
        """The server's clock."""
        return self._database.now_ms()

    def call(self, operation: Callable[[], Any]) -> Any:
        """One round trip."""
        return self._database.call(operation)

    def select(self, query: Document, sort: list[tuple[str, int]] | None = None) -> list[Document]:
        """The documents that match; for the server and for checkers."""
        now = self._database.now_ms()
        if isinstance(query.get("_id"), str):
            found = [self.documents[query["_id"]]] if query["_id"] in self.documents else []
        else:
            found = list(self.documents.values())
        found = [document for document in found if matches(document, query, now)]
        for field, direction in reversed(sort or []):
            found.sort(key=lambda one: ordered(one, field), reverse=direction < 0)
        return found

    async def create_index(self, keys: Any, *, unique: bool = False, **_: Any) -> None:
        """Remember what must be unique."""
        if unique:
            self._unique.append([f"${field}" for field in ([keys] if isinstance(keys, str) else dict(keys))])

    async def drop_index(self, _name: str) -> None:
        """No index of an earlier release is here."""

    def find(self, query: Document | None = None, _projection: Any = None) -> Cursor:
        """See MongoDB."""
        return Cursor(self, query or {})

    async def find_one(self, query: Document, _projection: Any = None, *, sort: Any = None) -> Document | None:
        """See MongoDB."""
        found: Document | None = await self.call(lambda: next(iter(copy(self.select(query, sort)[:1])), None))
        return found

    def aggregate(self, pipeline: list[Document]) -> Pipeline:
        """See MongoDB."""
        return Pipeline(self, pipeline)

    async def count_documents(self, query: Document, *, limit: int = 0) -> int:
        """See MongoDB."""
        return int(await self.call(lambda: len(self.select(query)[: limit or None])))

    async def distinct(self, field: str) -> list[Any]:
        """See MongoDB; of a field at the top that holds no list."""
        found = await self.call(lambda: dict.fromkeys(one[field] for one in self.select({}) if field in one))
        return [*found]

    async def estimated_document_count(self) -> int:
        """See MongoDB."""
        return await self.count_documents({})

    async def insert_one(self, document: Document) -> None:
        """See MongoDB."""
        await self.call(lambda: self._put(None, copy(document)))

    async def update_one(self, query: Document, change: Any, *, upsert: bool = False) -> Result:
        """See MongoDB."""
        before, after = await self.call(lambda: self._change(query, change, upsert, None))
        return Result(int(before is not None and after is not None))

    async def find_one_and_update(
        self,
        query: Document,
        change: Any,
        *,
        upsert: bool = False,
        sort: Any = None,
        return_document: bool = False,
    ) -> Document | None:
        """See MongoDB."""
        pair = await self.call(lambda: self._change(query, change, upsert, sort))
        found: Document | None = copy(pair[return_document])
        return found

    async def replace_one(self, query: Document, document: Document, *, upsert: bool = False) -> None:
        """See MongoDB."""

        def replace() -> None:
            [*found] = self.select(query)
            if found or upsert:
                before = found[0] if found else None
                self._put(before, copy({"_id": query["_id"], **document}))

        await self.call(replace)

    async def delete_one(self, query: Document) -> Result:
        """See MongoDB."""
        return Result(deleted_count=await self.call(lambda: self._delete(self.select(query)[:1])))

    async def delete_many(self, query: Document) -> Result:
        """See MongoDB."""
        return Result(deleted_count=await self.call(lambda: self._delete(self.select(query))))

    def _delete(self, found: list[Document]) -> int:
        for document in found:
            del self.documents[document["_id"]]
            self._database.journal(self.name, document["_id"], document, None)
        return len(found)

    def _change(self, query: Document, change: Any, upsert: bool, sort: Any) -> tuple[Document | None, Document | None]:
        now = self._database.now_ms()
        found = self.select(query, sort)
        if not found and not upsert:
            return None, None
        before = found[0] if found else None
        after = copy(before) if before else {name: value for name, value in query.items() if is_plain(name, value)}
        if isinstance(change, list):
            for stage in change:
                fields = {path: evaluate(after, expression, now) for path, expression in stage["$set"].items()}
                for path, value in fields.items():
                    assign(after, path, value)
        else:
            update(after, change, inserted=before is None)
        self._put(before, after)
        return before, after

    def _put(self, before: Document | None, after: Document) -> None:
        key = after["_id"]
        if before is None and key in self.documents:
            raise DuplicateKeyError(f"E11000 duplicate key: {key}")
        for fields in self._unique:
            for other in self.documents.values():
                if other["_id"] != key and all(evaluate(other, one, 0) == evaluate(after, one, 0) for one in fields):
                    raise DuplicateKeyError(f"E11000 duplicate key: {', '.join(fields)}")
        self.documents[key] = after
        self._database.journal(self.name, key, before, after)

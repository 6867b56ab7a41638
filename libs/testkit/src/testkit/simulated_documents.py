"""The operations of MongoDB that the services use, with its semantics, for the simulation of schedules.

Not a twin to prove anything on: `testkit.simulated_loop` says what it is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stores.mongo import DuplicateKeyError
from testkit.simulated_loop import EPOCH, Network, SimulatedLoop

Document = dict[str, Any]
Journal = Callable[[str, str, Document | None, Document | None], None]


@dataclass(frozen=True)
class Result:
    """What pymongo says of a write: to how many documents it was done."""

    matched_count: int = 0
    deleted_count: int = 0


def copy(value: Any) -> Any:
    """A deep copy of a document."""
    if isinstance(value, dict):
        return {name: copy(one) for name, one in value.items()}
    return [copy(one) for one in value] if isinstance(value, list) else value


class Documents:
    """One service's database.

    Args:
        loop: whose time `$$NOW` is.
        network: between the services and here.
        journal: told (collection, id, before, after) of every write.
    """

    def __init__(self, loop: SimulatedLoop, network: Network, journal: Journal) -> None:
        self.loop, self.network, self.journal = loop, network, journal
        self.collections: dict[str, SimulatedCollection] = {}

    def __getitem__(self, name: str) -> SimulatedCollection:
        """A collection, made when it is first named."""
        return self.collections.setdefault(name, SimulatedCollection(name, self))

    def now_ms(self) -> int:
        """The server's clock."""
        return int((EPOCH + self.loop.time()) * 1000)


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


class SimulatedCollection:
    """A collection; each operation is one atomic step at the server."""

    def __init__(self, name: str, database: Documents) -> None:
        self.name, self.documents = name, dict[str, Document]()
        self._database = database
        self._unique: list[str] = []

    def call(self, operation: Callable[[], Any]) -> Any:
        """One round trip."""
        return self._database.network.call("mongo", operation)

    def select(self, query: Document, sort: list[tuple[str, int]] | None = None) -> list[Document]:
        """The documents that match; for the server and for checkers."""
        now = self._database.now_ms()
        if isinstance(query.get("_id"), str):
            found = [self.documents[query["_id"]]] if query["_id"] in self.documents else []
        else:
            found = list(self.documents.values())
        found = [document for document in found if matches(document, query, now)]
        for field, direction in reversed(sort or []):
            found.sort(key=lambda one: _ordered(one, field), reverse=direction < 0)
        return found

    async def create_index(self, keys: Any, *, unique: bool = False, **_: Any) -> None:
        """Remember what must be unique."""
        if unique:
            self._unique.append(keys if isinstance(keys, str) else keys[0][0])

    def find(self, query: Document | None = None, _projection: Any = None) -> Cursor:
        """See MongoDB."""
        return Cursor(self, query or {})

    async def find_one(self, query: Document, _projection: Any = None, *, sort: Any = None) -> Document | None:
        """See MongoDB."""
        found: Document | None = await self.call(lambda: next(iter(copy(self.select(query, sort)[:1])), None))
        return found

    async def aggregate(self, pipeline: list[Document]) -> AsyncIterator[Document]:
        """See MongoDB; of what matches, sorted, the first of each value of one field, and of those what matches."""
        [match, sort, group, having] = pipeline

        def first_of_each() -> list[Document]:
            found: dict[Any, Document] = {}
            for one in self.select(match["$match"], list(sort["$sort"].items())):
                key = evaluate(one, group["$group"]["_id"], 0)
                fields = {name: value["$first"] for name, value in group["$group"].items() if name != "_id"}
                found.setdefault(key, {"_id": key, **{name: evaluate(one, of, 0) for name, of in fields.items()}})
            return [one for one in found.values() if matches(one, having["$match"], self._database.now_ms())]

        for document in await self.call(first_of_each):
            yield document

    async def count_documents(self, query: Document) -> int:
        """See MongoDB."""
        return int(await self.call(lambda: len(self.select(query))))

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

        def delete() -> int:
            found = self.select(query)[:1]
            for document in found:
                del self.documents[document["_id"]]
                self._database.journal(self.name, document["_id"], document, None)
            return len(found)

        return Result(deleted_count=await self.call(delete))

    def _change(self, query: Document, change: Any, upsert: bool, sort: Any) -> tuple[Document | None, Document | None]:
        now = self._database.now_ms()
        found = self.select(query, sort)
        if not found and not upsert:
            return None, None
        before = found[0] if found else None
        after = copy(before) if before else {name: value for name, value in query.items() if _plain(name, value)}
        if isinstance(change, list):
            for stage in change:
                fields = {path: evaluate(after, expression, now) for path, expression in stage["$set"].items()}
                for path, value in fields.items():
                    _assign(after, path, value)
        else:
            _update(after, change, inserted=before is None)
        self._put(before, after)
        return before, after

    def _put(self, before: Document | None, after: Document) -> None:
        key = after["_id"]
        if before is None and key in self.documents:
            raise DuplicateKeyError(f"E11000 duplicate key: {key}")
        for field in self._unique:
            for other in self.documents.values():
                if other["_id"] != key and other.get(field) == after.get(field):
                    raise DuplicateKeyError(f"E11000 duplicate key: {field}")
        self.documents[key] = after
        self._database.journal(self.name, key, before, after)


def matches(document: Document, query: Document, now: int) -> bool:
    """Whether a document matches a query."""
    return all(_matches(document, name, wanted, now) for name, wanted in query.items())


def _matches(document: Document, name: str, wanted: Any, now: int) -> bool:
    if name == "$and":
        return all(matches(document, one, now) for one in wanted)
    if name == "$or":
        return any(matches(document, one, now) for one in wanted)
    if name == "$expr":
        return bool(evaluate(document, wanted, now))
    found = list(_values(document, name.split(".")))
    if isinstance(wanted, dict) and any(key.startswith("$") for key in wanted):
        return all(OPERATORS[operator](found, value) for operator, value in wanted.items())
    return _equal(found, wanted)


def _equal(found: list[Any], wanted: Any) -> bool:
    if wanted is None and not found:
        return True
    return any(one == wanted or (isinstance(one, list) and wanted in one) for one in found)


OPERATORS: dict[str, Callable[[list[Any], Any], bool]] = {
    "$in": lambda found, wanted: any(_equal(found, one) for one in wanted),
    "$nin": lambda found, wanted: not any(_equal(found, one) for one in wanted),
    "$ne": lambda found, wanted: not _equal(found, wanted),
    "$exists": lambda found, wanted: bool(found) == wanted,
    "$size": lambda found, wanted: any(isinstance(one, list) and len(one) == wanted for one in found),
    "$lt": lambda found, wanted: any(one is not None and one < wanted for one in found),
    "$gt": lambda found, wanted: any(one is not None and one > wanted for one in found),
}


def _values(value: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield value
    elif isinstance(value, dict):
        if path[0] in value:
            yield from _values(value[path[0]], path[1:])
    elif isinstance(value, list):
        if path[0].isdigit():
            if int(path[0]) < len(value):
                yield from _values(value[int(path[0])], path[1:])
        else:
            for one in value:
                if isinstance(one, dict):
                    yield from _values(one, path)


def evaluate(document: Document, expression: Any, now: int) -> Any:
    """The value of an aggregation expression."""
    if isinstance(expression, str) and expression.startswith("$"):
        if expression == "$$NOW":
            return now
        return next(_values(document, expression[1:].split(".")), None)
    if isinstance(expression, dict):
        [(operator, argument)] = expression.items()
        if operator == "$toLong":
            return evaluate(document, argument, now)
        values = [evaluate(document, one, now) for one in argument]
        if operator == "$add":
            return sum(values)
        if operator == "$ifNull":
            return next((value for value in values if value is not None), None)
        if operator == "$lt":
            return values[1] is not None and (values[0] is None or values[0] < values[1])
        raise LookupError(f"the simulated documents do not know {operator}")
    return expression


def _update(document: Document, change: Document, *, inserted: bool) -> None:
    for operator, fields in change.items():
        for path, value in copy(fields).items():
            if operator == "$set" or (operator == "$setOnInsert" and inserted):
                _assign(document, path, value)
            elif operator == "$inc":
                _assign(document, path, next(_values(document, path.split(".")), 0) + value)
            elif operator == "$push":
                each = value["$each"] if isinstance(value, dict) and "$each" in value else [value]
                _assign(document, path, [*document.get(path, []), *each])
            elif operator == "$pull":
                document[path] = [one for one in document.get(path, []) if not matches(one, value, 0)]
            elif operator == "$pop":
                document[path] = document[path][1:] if value < 0 else document[path][:-1]
            elif operator != "$setOnInsert":
                raise LookupError(f"the simulated documents do not know {operator}")


def _assign(document: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        document = document[int(name)] if isinstance(document, list) else document.setdefault(name, {})
    document[last] = value


def _plain(name: str, value: Any) -> bool:
    return not name.startswith("$") and "." not in name and not isinstance(value, dict)


def _ordered(document: Document, field: str) -> tuple[bool, Any]:
    value = next(_values(document, field.split(".")), None)
    return value is not None, value if value is not None else 0

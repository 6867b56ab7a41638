"""What MongoDB's queries, updates and expressions mean, as far as the services use them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]


def copy(value: Any) -> Any:
    """A deep copy of a document."""
    if isinstance(value, dict):
        return {name: copy(one) for name, one in value.items()}
    return [copy(one) for one in value] if isinstance(value, list) else value


def aggregated(documents: list[Document], stages: list[Document], now: int) -> list[Document]:
    """What an aggregation pipeline makes of documents."""
    for stage in stages:
        [(name, what)] = stage.items()
        if name == "$match":
            documents = [one for one in documents if matches(one, what, now)]
        elif name == "$sort":
            for field, direction in reversed(what.items()):
                documents = sorted(documents, key=lambda one: ordered(one, field), reverse=direction < 0)
        elif name == "$group":
            documents = _grouped(documents, what, now)
        elif name == "$project":
            documents = [{field: evaluate(one, of, now) for field, of in what.items()} for one in documents]
        else:
            raise LookupError(f"the simulated documents do not know {name}")
    return documents


def _grouped(documents: list[Document], what: Document, now: int) -> list[Document]:
    groups: dict[Any, list[Document]] = {}
    for one in documents:
        groups.setdefault(evaluate(one, what["_id"], now), []).append(one)
    found = []
    for key, members in groups.items():
        group: Document = {"_id": key}
        for field, accumulator in what.items():
            if field != "_id":
                [(operator, of)] = accumulator.items()
                group[field] = ACCUMULATORS[operator]([evaluate(one, of, now) for one in members])
        found.append(group)
    return found


ACCUMULATORS: dict[str, Callable[[list[Any]], Any]] = {
    "$first": lambda values: values[0],
    "$min": lambda values: min((value for value in values if value is not None), default=None),
}


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
        return all(_compares(found, operator, value) for operator, value in wanted.items())
    return _equal(found, wanted)


def _compares(found: list[Any], operator: str, wanted: Any) -> bool:
    if operator == "$not":
        return not all(_compares(found, inner, value) for inner, value in wanted.items())
    return OPERATORS[operator](found, wanted)


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
    "$lte": lambda found, wanted: any(one is not None and one <= wanted for one in found),
    "$gte": lambda found, wanted: any(one is not None and one >= wanted for one in found),
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
        if operator == "$literal":
            return argument
        values = [evaluate(document, one, now) for one in argument]
        if operator == "$add":
            return sum(values)
        if operator == "$multiply":
            return math.prod(values)
        if operator == "$divide":
            return values[0] / values[1]
        if operator == "$subtract":
            return None if None in values else values[0] - values[1]
        if operator == "$ifNull":
            return next((value for value in values if value is not None), None)
        if operator == "$eq":
            return values[0] == values[1]
        if operator == "$cond":
            return values[1] if values[0] else values[2]
        if operator == "$lt":
            return values[1] is not None and (values[0] is None or values[0] < values[1])
        raise LookupError(f"the simulated documents do not know {operator}")
    return expression


def update(document: Document, change: Document, *, inserted: bool) -> None:
    """Change a document by an update's operators."""
    for operator, fields in change.items():
        for path, value in copy(fields).items():
            if operator == "$set" or (operator == "$setOnInsert" and inserted):
                assign(document, path, value)
            elif operator == "$inc":
                assign(document, path, next(_values(document, path.split(".")), 0) + value)
            elif operator == "$push":
                each = value["$each"] if isinstance(value, dict) and "$each" in value else [value]
                assign(document, path, [*document.get(path, []), *each])
            elif operator == "$pull":
                document[path] = [one for one in document.get(path, []) if not matches(one, value, 0)]
            elif operator == "$pop":
                document[path] = document[path][1:] if value < 0 else document[path][:-1]
            elif operator != "$setOnInsert":
                raise LookupError(f"the simulated documents do not know {operator}")


def assign(document: Any, path: str, value: Any) -> None:
    """Set a field, by its path."""
    *parents, last = path.split(".")
    for name in parents:
        document = document[int(name)] if isinstance(document, list) else document.setdefault(name, {})
    document[last] = value


def is_plain(name: str, value: Any) -> bool:
    """Whether a condition says what a document that an upsert makes holds."""
    return not name.startswith("$") and "." not in name and not isinstance(value, dict)


def ordered(document: Document, field: str) -> tuple[bool, Any]:
    """What a document is sorted by."""
    value = next(_values(document, field.split(".")), None)
    return value is not None, value if value is not None else 0

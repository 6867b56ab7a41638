"""OpenAI's attribute filters, evaluated here over the store's files; Milvus is only given the ids that pass."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from chassis.bodies import LONGEST_KEY, LONGEST_VALUE
from chassis.errors import Invalid
from chassis.text import quoted
from rag_indexer.domain import Attributes, Value

ORDERS: dict[str, Callable[[Value, Value], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
COMPARISONS = ("eq", "ne", *ORDERS, "in", "nin")

DEEPEST = 8
MOST_VALUES = 1_000
"""Values that a filter compares with, all together."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of one attribute with one value, or with several."""

    kind: str
    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Compound:
    """Filters that must all pass, or one of which must."""

    every: bool
    parts: tuple[Filter, ...]


Filter = Comparison | Compound


def read(asked: dict[str, JsonValue]) -> Filter:
    """A filter as sent.

    Raises:
        Invalid: it is none, and what it would find is unknown.
    """
    found = _read(asked, "filters", 0)
    if _size(found) > MOST_VALUES:
        raise Invalid(f"filters: compares with more than {MOST_VALUES} values.", param="filters")
    return found


def passes(filter_: Filter, attributes: Attributes) -> bool:
    """Whether a file's attributes satisfy a filter.

    `true`, `1` and `"1"` are three values. An attribute that is missing satisfies only `ne` and `nin`.
    """
    if isinstance(filter_, Compound):
        results = (passes(part, attributes) for part in filter_.parts)
        return all(results) if filter_.every else any(results)
    have = attributes.get(filter_.key)
    if have is None:
        return filter_.kind in ("ne", "nin")
    if filter_.kind in ORDERS:
        [value] = filter_.values
        return _type(have) == _type(value) and ORDERS[filter_.kind](have, value)
    among = any(_type(have) == _type(value) and have == value for value in filter_.values)
    return among == (filter_.kind in ("eq", "in"))


def _read(asked: JsonValue, where: str, depth: int) -> Filter:
    if not isinstance(asked, dict):
        raise _refused(where, "must be a filter.")
    if depth > DEEPEST:
        raise _refused(where, f"is nested more than {DEEPEST} deep.")
    kind = asked.get("type")
    compound = kind in ("and", "or")
    names = {"type", "filters"} if compound else {"type", "key", "value"}
    if not compound and (not isinstance(kind, str) or kind not in COMPARISONS):
        raise _refused(f"{where}.type", f"must be one of {', '.join(COMPARISONS)}, and, or.")
    for name in asked:
        if name not in names:
            raise _refused(where, f"has {quoted(name)}, which is not understood; it has {', '.join(sorted(names))}.")
    if compound:
        parts = asked.get("filters")
        if not isinstance(parts, list) or not 1 <= len(parts) <= MOST_VALUES:
            raise _refused(f"{where}.filters", f"must be from 1 to {MOST_VALUES} filters.")
        read_parts = (_read(part, f"{where}.filters[{index}]", depth + 1) for index, part in enumerate(parts))
        return Compound(kind == "and", tuple(read_parts))
    key, value = asked.get("key"), asked.get("value")
    if not isinstance(key, str) or not 1 <= len(key) <= LONGEST_KEY:
        raise _refused(f"{where}.key", f"must be a text of 1 to {LONGEST_KEY} characters.")
    if kind in ("in", "nin"):
        if not isinstance(value, list) or len(value) > MOST_VALUES:
            raise _refused(f"{where}.value", f"must be a list of at most {MOST_VALUES} values for '{kind}'.")
        return Comparison(kind, key, tuple(_value(one, f"{where}.value[{n}]") for n, one in enumerate(value)))
    read_value = _value(value, f"{where}.value")
    if kind in ORDERS and isinstance(read_value, bool):
        raise _refused(f"{where}.value", f"must be a text or a number for '{kind}'.")
    return Comparison(str(kind), key, (read_value,))


def _value(value: JsonValue, where: str) -> Value:
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        if isinstance(value, str) and len(value) > LONGEST_VALUE:
            raise _refused(where, f"has more than {LONGEST_VALUE} characters.")
        return value
    raise _refused(where, "must be a text, a number, true or false.")


def _type(value: Value) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else float


def _size(filter_: Filter) -> int:
    if isinstance(filter_, Comparison):
        return max(1, len(filter_.values))
    return 1 + sum(_size(part) for part in filter_.parts)


def _refused(where: str, why: str) -> Invalid:
    return Invalid(f"{where}: {why}", param=where)

"""OpenAI's attribute filters, evaluated here over the store's files; Milvus is only given the ids that pass."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from chassis.errors import Invalid

Attributes = dict[str, Any]

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "in": lambda have, wanted: have in wanted,
    "nin": lambda have, wanted: have not in wanted,
}
DEEPEST = 8


def passes(filter_: dict[str, Any], attributes: Attributes, depth: int = 0) -> bool:
    """Whether a file's attributes satisfy a filter; an attribute that is missing satisfies only `ne` and `nin`.

    Raises:
        Invalid: the filter is not one.
    """
    kind = filter_.get("type")
    if depth > DEEPEST:
        raise Invalid("filters: nested too deeply.", param="filters")
    if kind in ("and", "or"):
        parts = filter_.get("filters")
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise Invalid(f"filters: '{kind}' needs a list of filters.", param="filters")
        results = [passes(part, attributes, depth + 1) for part in parts]
        return all(results) if kind == "and" else any(results)
    if (
        not isinstance(kind, str)
        or kind not in COMPARISONS
        or not isinstance(filter_.get("key"), str)
        or "value" not in filter_
    ):
        raise Invalid(
            f"filters: use type, key and value, with a type of {', '.join(COMPARISONS)}, or 'and' / 'or'.",
            param="filters",
        )
    if kind in ("in", "nin") and not isinstance(filter_["value"], list):
        raise Invalid(f"filters: '{kind}' needs a list of values.", param="filters")
    have = attributes.get(filter_["key"])
    if have is None:
        return kind in ("ne", "nin")
    try:
        return bool(COMPARISONS[kind](have, filter_["value"]))
    except TypeError:
        return False

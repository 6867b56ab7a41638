"""What clients send: each field is honoured, is advice by the API's own definition, or is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from fastapi import Request
from fastapi.dependencies.models import Dependant
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SkipValidation, model_validator
from pydantic_core import PydanticCustomError

from chassis.errors import Invalid
from chassis.text import shown

UNKNOWN_FIELD = "is not understood here. Leave it out."

MOST_PAIRS = 16
LONGEST_KEY = 64
LONGEST_VALUE = 512
"""OpenAI's bounds of metadata and of attributes."""

# metadata[key]=value; a key that MongoDB would read as an operator or a path does not match.
METADATA_FILTER = re.compile(r"metadata\[([A-Za-z0-9_-]{1,64})\]")

V = TypeVar("V")


def _without_nul(pairs: dict[str, V]) -> dict[str, V]:
    for key, value in pairs.items():
        if "\0" in key or (isinstance(value, str) and "\0" in value):
            raise PydanticCustomError("nul", "holds a NUL character. Remove it.", {"param": shown(key, 100)})
    return pairs


Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Pairs = Annotated[dict[Key, V], Field(max_length=MOST_PAIRS), AfterValidator(_without_nul)]
"""What a client notes about a thing, as MongoDB can keep it: no NUL, which ends a key there."""

AnyJson = SkipValidation[JsonValue]
"""Whatever was JSON; who reads it says what is wrong with it. To validate each part would hold the event loop."""

Metadata = Pairs[Annotated[str, Field(max_length=LONGEST_VALUE)]]


class Body(BaseModel):
    """Base of every request body, and of the models nested in one.

    A field that the model does not have is refused by its name. Three kinds are dropped instead: null, `ADVICE`, and
    values that `UNASKED` lists for the field. Text must be Unicode, in every key and value.
    """

    model_config = ConfigDict(extra="forbid")

    ADVICE: ClassVar[frozenset[str]] = frozenset()
    """Fields that may be ignored by the API's own definition, such as `user` and `service_tier`."""

    UNASKED: ClassVar[Mapping[str, tuple[JsonValue, ...]]] = {}
    """Field -> values that ask for nothing, such as the API's default: `{"tools": ([],)}`."""

    @model_validator(mode="before")
    @classmethod
    def _what_is_asked(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if not _all_unicode(data):
            where = next(where for where, text in _texts(data) if not _is_unicode(text))
            raise PydanticCustomError(
                "not_unicode", "holds half of a surrogate pair, which is no Unicode text.", {"param": where}
            )
        known = cls._names()
        return {name: value for name, value in data.items() if name in known or not cls._says_nothing(name, value)}

    @classmethod
    def _names(cls) -> set[str]:
        return {field.alias or name for name, field in cls.model_fields.items()} | set(cls.model_fields)

    @classmethod
    def _says_nothing(cls, name: str, value: JsonValue) -> bool:
        return value is None or name in cls.ADVICE or any(_same(value, one) for one in cls.UNASKED.get(name, ()))


def _same(value: JsonValue, other: JsonValue) -> bool:
    """Equal, and `1` is not `True`."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _all_unicode(value: JsonValue) -> bool:
    """Whether every text in decoded JSON is Unicode; places are named by `_texts` only where one is not."""
    left: list[JsonValue] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if not one.isascii() and not _is_unicode(one):
                return False
        elif isinstance(one, dict):
            left += one
            left += one.values()
        elif isinstance(one, list):
            left += one
    return True


def _texts(value: JsonValue, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in decoded JSON with the place it stands at; a key stands at its own place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            at = f"{where}.{shown(key, 100)}" if where else shown(key, 100)
            yield at, key
            yield from _texts(inner, at)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{index}]")


async def known_query(request: Request) -> None:
    """Refuse a query parameter that the route does not read: a filter nobody reads would list everything.

    A route that reads parameters of variable names says so by `openapi_extra={"x-query-prefixes": [...]}`.

    Raises:
        Invalid: it names the parameter.
    """
    route = request.scope.get("route")
    dependant = getattr(route, "dependant", None)
    if dependant is None or not request.url.path.startswith("/v1/"):
        return
    known = _query_names(dependant)
    prefixes = tuple((getattr(route, "openapi_extra", None) or {}).get("x-query-prefixes", ()))
    for name in request.query_params:
        if name not in known and not name.startswith(prefixes or ("\0",)):
            raise Invalid(f"{shown(name)}: {UNKNOWN_FIELD}", param=shown(name), code="unknown_parameter")


def metadata_filter(request: Request) -> dict[str, str]:
    """The `metadata[key]=value` of a query, by key; its route says `x-query-prefixes` (see `known_query`).

    Raises:
        Invalid: a key that metadata cannot be searched by.
    """
    wanted = {}
    for name, value in request.query_params.items():
        if not name.startswith("metadata["):
            continue
        found = METADATA_FILTER.fullmatch(name)
        if not found:
            raise Invalid(
                f"{shown(name, 100)}: metadata can be searched by keys of 1 to 64 letters, digits, '_' and '-'.",
                param=shown(name, 100),
            )
        wanted[found[1]] = value
    return wanted


def _query_names(dependant: Dependant) -> set[str]:
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*(_query_names(inner) for inner in dependant.dependencies))

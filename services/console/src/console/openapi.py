"""One OpenAPI document of the public routes, made from those of the services, and how it reads as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import JsonValue

Schema = Mapping[str, Any]
Document = dict[str, Any]
"""An OpenAPI document, or an object of one, that is being made."""


PUBLIC = "/v1/"
REFERENCE = "#/components/schemas/"
DEEPEST = 4
KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}

ERROR: Document = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, where, and what to do."},
                "type": {"type": "string", "description": "The kind of error, as OpenAI names it."},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "The field it is about."},
                "code": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "For programs."},
            },
        }
    },
}
REFUSAL: Document = {
    "description": "An error; its status says whose: 4xx of the request, 5xx of the service, 429 and 503 to be tried "
    "again after `Retry-After`.",
    "content": {"application/json": {"schema": {"$ref": f"{REFERENCE}Error"}}},
}


def merged(documents: Mapping[str, Schema]) -> Document:
    """The public routes of all services in one document; a service's schemas go by its name.

    Args:
        documents: service -> the OpenAPI document it was built with.
    """
    paths: Document = {}
    schemas: Document = {"Error": ERROR}
    for service, document in documents.items():
        own = _renamed(document, service)
        for path, item in own.get("paths", {}).items():
            if path.startswith(PUBLIC):
                paths[path] = {method: _operation(path, operation) for method, operation in item.items()}
        named = own.get("components", {}).get("schemas", {})
        schemas |= {f"{service}.{name}": schema for name, schema in named.items()}
    used = _used(paths, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sartor",
            "version": "1",
            "description": "OpenAI's API, and what goes beyond it. Errors come in OpenAI's envelope.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {name: schema for name, schema in schemas.items() if name in used},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key, `sk-…`."}},
        },
    }


def _renamed(value: Any, service: str) -> Any:
    if isinstance(value, Mapping):
        return {
            key: inner.replace(REFERENCE, f"{REFERENCE}{service}.", 1)
            if key == "$ref" and isinstance(inner, str)
            else _renamed(inner, service)
            for key, inner in value.items()
        }
    return [_renamed(inner, service) for inner in value] if isinstance(value, list) else value


def _operation(path: str, operation: Schema) -> Document:
    """A route's operation; requests that do not fit are answered in the envelope, which FastAPI does not know."""
    responses = {status: answer for status, answer in operation.get("responses", {}).items() if status != "422"}
    return {**operation, "tags": [_part(path)], "responses": {**responses, "default": REFUSAL}}


def _part(path: str) -> str:
    return path.removeprefix(PUBLIC).partition("/")[0]


def _used(paths: Document, schemas: Schema) -> set[str]:
    """Names of schemas that routes lead to, directly or by others."""
    used: set[str] = set()
    left = set(_references(paths))
    while left:
        name = left.pop()
        used.add(name)
        left |= set(_references(schemas.get(name, {}))) - used
    return used


def _references(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(place := value.get("$ref"), str):
            yield place.removeprefix(REFERENCE)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a request or an answer.

    Attributes:
        name: with those it lies in: `method.type`, `messages[].role`.
        kind: what it is, in words.
        limits: what it may be; its default.
        about: what it is for.
    """

    name: str
    place: str
    kind: str
    limits: str
    required: bool
    about: str


@dataclass(frozen=True)
class Answer:
    """What comes back with one status."""

    status: str
    about: str
    kind: str
    fields: list[Field]


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    summary: str
    about: str
    parameters: list[Field]
    body: str
    fields: list[Field]
    answers: list[Answer]

    @property
    def anchor(self) -> str:
        """Its name within the page."""
        words = re.findall(r"\w+", self.path.removeprefix(PUBLIC))
        return "-".join([self.method.lower(), *words])


def operations(document: Schema) -> dict[str, list[Operation]]:
    """The document's operations, by the part of the API that they belong to."""
    schemas = document["components"]["schemas"]
    found: dict[str, list[Operation]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            found.setdefault(_part(path), []).append(_read(method.upper(), path, operation, schemas))
    return found


def _read(method: str, path: str, operation: Schema, schemas: Schema) -> Operation:
    parameters = [
        Field(
            one["name"],
            one["in"],
            *_words(one.get("schema", {}), schemas),
            bool(one.get("required")),
            str(one.get("description", "")),
        )
        for one in operation.get("parameters", [])
    ]
    parameters += [
        Field(f"{prefix}…]", "query", "text", "", False, "Any key; only what has this value.")
        for prefix in operation.get("x-query-prefixes", ())
    ]
    content = operation.get("requestBody", {}).get("content", {})
    body = next(iter(content), "")
    fields = list(_fields(content[body].get("schema", {}), schemas)) if body else []
    answers = [_answer(status, answer, schemas) for status, answer in operation["responses"].items()]
    return Operation(
        method,
        path,
        str(operation.get("summary", "")).capitalize(),
        str(operation.get("description", "")),
        parameters,
        body,
        fields,
        [answer for answer in answers if answer.status != "default"],
    )


def _answer(status: str, answer: Schema, schemas: Schema) -> Answer:
    content = answer.get("content", {})
    kind = next(iter(content), "")
    found = _fields(content[kind].get("schema", {}), schemas) if kind else ()
    fields = [replace(field, required=False) for field in found]  # what an answer always holds is no demand
    return Answer(status, str(answer.get("description", "")), kind, fields)


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    place = schema.get("$ref")
    return {**schemas.get(place.removeprefix(REFERENCE), {}), **_but(schema, "$ref")} if place else schema


def _but(schema: Schema, name: str) -> Document:
    return {key: value for key, value in schema.items() if key != name}


def _choices(schema: Schema, schemas: Schema) -> list[Schema]:
    """The schemas of which one holds."""
    schema = _resolved(schema, schemas)
    several = schema.get("anyOf") or schema.get("oneOf")
    if not several:
        return [schema]
    return [choice for one in several for choice in _choices(one, schemas)]


def _fields(schema: Schema, schemas: Schema, prefix: str = "", depth: int = 0) -> Iterator[Field]:
    """Every field of an object, and of those in it."""
    for choice in _choices(schema, schemas):
        if choice.get("type") == "array":
            yield from _fields(choice.get("items", {}), schemas, f"{prefix}[]", depth)
        for name, inner in choice.get("properties", {}).items():
            whole = f"{prefix}.{name}".lstrip(".")
            kind, limits = _words(inner, schemas)
            about = str(inner.get("description") or _resolved(inner, schemas).get("description", ""))
            yield Field(whole, "body", kind, limits, name in choice.get("required", ()), about)
            if depth < DEEPEST:
                yield from _fields(inner, schemas, whole, depth + 1)


def _words(schema: Schema, schemas: Schema) -> tuple[str, str]:
    """What a value is, and what it may be."""
    choices = _choices(schema, schemas)
    kinds = list(dict.fromkeys(_kind(choice, schemas) for choice in choices))
    limits = list(dict.fromkeys(limit for choice in choices for limit in _limits(choice)))
    default = _resolved(schema, schemas).get("default")
    if default is not None and "const" not in choices[0]:
        limits.append(f"default {json.dumps(default, ensure_ascii=False)}")
    return " or ".join(kinds), "; ".join(limits)


def _kind(schema: Schema, schemas: Schema) -> str:
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if "enum" in schema:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_words(schema.get('items', {}), schemas)[0]}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"map of {_words(inner, schemas)[0]}" if isinstance(inner, Mapping) and inner else "object"
    return KINDS.get(str(kind), "any")


def _limits(schema: Schema) -> Iterator[str]:
    for least, most, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "keys"),
        ("minimum", "maximum", ""),
    ):
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            yield f"{_number(low)} to {_number(high)} {unit}".strip()
        elif high is not None:
            yield f"at most {_number(high)} {unit}".strip()
        elif low is not None:
            yield f"at least {_number(low)} {unit.removesuffix('s') if low == 1 else unit}".strip()
    if (above := schema.get("exclusiveMinimum")) is not None:
        yield f"above {_number(above)}"
    if (below := schema.get("exclusiveMaximum")) is not None:
        yield f"below {_number(below)}"
    if "pattern" in schema:
        yield f"as {schema['pattern']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"

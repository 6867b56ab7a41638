"""Receives a multipart upload as a stream: bounded memory, the size limit enforced while the bytes come."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from chassis.bodies import Body
from chassis.errors import Invalid, SartorError, TooLarge
from chassis.ids import now
from ingest.domain import known_purpose
from ingest.readers import BadRows
from ingest.use_cases import Upload

FORM_OVERHEAD = 64 * 1024
LONGEST_FIELD = 16 * 1024
LONGEST_NAME = 255
SHORTEST_EXPIRY, LONGEST_EXPIRY = 3600, 30 * 24 * 3600
FOR_ROWS = ("fine-tune", "user_data")

Column = Annotated[str, Field(min_length=1, max_length=200)]


class Columns(Body):
    """Which column or field holds what. Each role has two names, of which one may be used."""

    text: Column | None = None
    prompt: Column | None = None
    input: Column | None = None
    label: Column | None = None
    completion: Column | None = None
    system: Column | None = None


class ExpiresAfter(Body):
    """When a file goes by itself, as OpenAI's clients spell it."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(ge=SHORTEST_EXPIRY, le=LONGEST_EXPIRY)


class Form(Body):
    """The fields of an upload but for the file itself."""

    purpose: Annotated[str, Field(max_length=100)] | None = None
    columns: Columns | None = None
    on_bad_rows: BadRows = "refuse"
    expires_after: ExpiresAfter | None = None


@dataclass(frozen=True)
class Limits:
    """What an upload may be, and how slow.

    Attributes:
        max_bytes: size of the file.
        silence_seconds: longest wait for its next bytes.
        bytes_per_second: least rate on average, once it has lasted for `silence_seconds`.
    """

    max_bytes: int
    silence_seconds: float = 20
    bytes_per_second: int = 0


class TooSlow(SartorError):
    """The bytes of an upload do not come, or come so slowly that they keep others from sending theirs."""

    status, type, default_code = 408, "invalid_request_error", "upload_too_slow"


@asynccontextmanager
async def receive(headers: Headers, body: AsyncGenerator[bytes, None], limits: Limits) -> AsyncIterator[Upload]:
    """Read a form with the fields `purpose`, `file` and perhaps `columns`, `on_bad_rows` and `expires_after[…]`.

    Args:
        headers: of the request.
        body: its bytes as they come.
        limits: of the size of the file, and of its pace.

    Yields:
        The upload; its temporary file is gone when the context ends.

    Raises:
        Invalid: not such a form.
        RequestValidationError: a field is unknown, or has a value that it cannot have.
        TooLarge: the request is over the limit, by its declared or by its real length.
        TooSlow: it comes too slowly.
    """
    declared = int(headers.get("content-length") or 0)
    if declared > limits.max_bytes + FORM_OVERHEAD:
        raise too_large(limits.max_bytes)
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        raise Invalid("Send the upload as multipart/form-data with the fields 'purpose' and 'file'.", param="file")
    parser = MultiPartParser(headers, _limited(body, limits), max_files=1, max_fields=16, max_part_size=LONGEST_FIELD)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Invalid(f"The form cannot be read: {error.message}", param="file") from error
    try:
        yield _upload(form)
    finally:
        await form.close()


def form_schema() -> dict[str, Any]:
    """The JSON schema of the form: `Form` and the file, with no references."""
    schema = Form.model_json_schema()
    models, _ = schema.pop("$defs", {}), schema.pop("description")

    def written_out(value: Any) -> Any:
        if isinstance(value, dict):
            named = models[value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
            return {key: written_out(inner) for key, inner in {**named, **value}.items() if key != "$ref"}
        return [written_out(one) for one in value] if isinstance(value, list) else value

    told = "The bytes, under the name of the file: JSONL, CSV, XLSX, Markdown or plain text."
    file = {"type": "string", "format": "binary", "description": told}
    schema["properties"] = {"file": file, **schema["properties"]}
    return {**written_out(schema), "required": ["file", "purpose"]}


def too_large(max_bytes: int) -> TooLarge:
    """The error for a file over the limit."""
    return TooLarge(
        f"The file is over the limit of {max_bytes} bytes ({max_bytes // 1024**2} MiB). A document may come in parts; "
        "a dataset is made of one file, so send fewer rows.",
        code="file_too_large",
        param="file",
    )


async def _limited(body: AsyncGenerator[bytes, None], limits: Limits) -> AsyncGenerator[bytes, None]:
    seen, began = 0, time.monotonic()
    while True:
        try:
            async with asyncio.timeout(limits.silence_seconds):
                chunk = await anext(body, None)
        except TimeoutError as error:
            raise TooSlow(f"Nothing came of the upload for {limits.silence_seconds:g} s. Send it again.") from error
        if chunk is None:
            return
        seen += len(chunk)
        if seen > limits.max_bytes + FORM_OVERHEAD:
            raise too_large(limits.max_bytes)
        lasts = time.monotonic() - began
        if lasts > limits.silence_seconds and seen < lasts * limits.bytes_per_second:
            raise TooSlow(
                f"The upload comes with less than {limits.bytes_per_second} bytes a second. Send it from a faster line."
            )
        yield chunk


def _upload(form: FormData) -> Upload:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Invalid("file: is missing. Send the bytes in a form field named 'file'.", param="file")
    asked = _form(form)
    purpose = known_purpose(asked.purpose)
    if purpose not in FOR_ROWS:
        about_rows = {"columns": bool(asked.columns), "on_bad_rows": asked.on_bad_rows != "refuse"}
        for name in (name for name, is_given in about_rows.items() if is_given):
            raise Invalid(f"{name}: files with the purpose '{purpose}' are not read as rows. Leave it out.", param=name)
    return Upload(
        filename=_label(file.filename),
        purpose=purpose,
        source=file.file,
        columns=_roles(asked.columns),
        on_bad_rows=asked.on_bad_rows,
        expires_at=now() + asked.expires_after.seconds if asked.expires_after else None,
    )


def _form(form: FormData) -> Form:
    """The fields as they were sent, each once; `expires_after[seconds]` is a field of a field."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        outer, bracket, inner = name.partition("[")
        nested = bool(bracket) and inner.endswith("]")
        place = fields.setdefault(outer, {}) if nested else fields
        key = inner[:-1] if nested else name
        if not isinstance(place, dict) or key in place:
            raise Invalid(f"{name[:100]}: is sent twice. Send it once.", param=name[:100])
        place[key] = value
    fields.pop("file", None)
    if "columns" in fields:
        fields["columns"] = _json(fields["columns"])
    try:
        return Form.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False)) from error


def _json(value: Any) -> Any:
    try:
        return json.loads(value) if value else None
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid('columns: must be JSON like {"text": "message", "label": "intent"}.', param="columns") from error


def _roles(columns: Columns | None) -> dict[str, str]:
    """Role -> column, each role by its first name.

    Raises:
        Invalid: a role is given under both of its names, or two roles are given one column.
    """
    given = columns.model_dump(exclude_none=True) if columns else {}
    for other, role in (("prompt", "text"), ("completion", "label")):
        if other in given and role in given:
            raise Invalid(f"columns: '{role}' and '{other}' mean the same. Send one.", param=f"columns.{other}")
        if other in given:
            given[role] = given.pop(other)
    if len(set(given.values())) < len(given):
        raise Invalid(f"columns: {' and '.join(given)} name the same column. Name one for each.", param="columns")
    return given


def _label(filename: str | None) -> str:
    """The file's name as a label: no folders, no control characters."""
    name = PurePath((filename or "upload").replace("\\", "/")).name or "upload"
    return "".join(character for character in name if character.isprintable())[-LONGEST_NAME:] or "upload"

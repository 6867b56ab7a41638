"""Receives a multipart upload as a stream: bounded memory, the size limit enforced while the bytes come."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import PurePath

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from chassis.errors import Invalid, RateLimited, TooLarge
from chassis.ids import now
from ingest.domain import known_purpose
from ingest.use_cases import Upload

FORM_OVERHEAD = 64 * 1024
LONGEST_NAME = 255
SHORTEST_EXPIRY, LONGEST_EXPIRY = 3600, 30 * 24 * 3600


class Slots:
    """How many uploads a replica receives at the same time, and how many of them may be one tenant's.

    Args:
        most: in all.
        of_a_tenant: of one tenant, fewer than `most`, so that slow uploads of one leave room for the others.
    """

    def __init__(self, most: int, of_a_tenant: int) -> None:
        self._most = most
        self._of_a_tenant = of_a_tenant
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, tenant_id: str) -> Iterator[None]:
        """Hold a slot.

        Raises:
            RateLimited: there is none, or the tenant has its share.
        """
        if self._taken.total() >= self._most:
            raise RateLimited("Too many uploads at the moment. Try again in a few seconds.", retry_after=5)
        if self._taken[tenant_id] >= self._of_a_tenant:
            raise RateLimited(
                f"{self._of_a_tenant} of your uploads are under way. Wait until one is done.", retry_after=5
            )
        self._taken[tenant_id] += 1
        try:
            yield
        finally:
            self._taken[tenant_id] -= 1
            if not self._taken[tenant_id]:
                del self._taken[tenant_id]


@asynccontextmanager
async def receive(headers: Headers, body: AsyncGenerator[bytes, None], max_bytes: int) -> AsyncIterator[Upload]:
    """Read a form with the fields `purpose`, `file` and perhaps `columns` and `expires_after[…]`.

    Args:
        headers: of the request.
        body: its bytes as they come.
        max_bytes: size limit of the file.

    Yields:
        The upload; its temporary file is gone when the context ends.

    Raises:
        Invalid: not such a form.
        TooLarge: the request is over the limit, by its declared or by its real length.
    """
    declared = int(headers.get("content-length") or 0)
    if declared > max_bytes + FORM_OVERHEAD:
        raise too_large(max_bytes)
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        raise Invalid("Send the upload as multipart/form-data with the fields 'purpose' and 'file'.", param="file")
    parser = MultiPartParser(headers, _limited(body, max_bytes), max_files=1, max_fields=16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Invalid(f"The form cannot be read: {error.message}", param="file") from error
    try:
        yield _upload(form, headers.get("idempotency-key"))
    finally:
        await form.close()


def too_large(max_bytes: int) -> TooLarge:
    """The error for a file over the limit."""
    return TooLarge(
        f"The file is over the limit of {max_bytes} bytes ({max_bytes // 1024**2} MiB). Upload it in parts.",
        code="file_too_large",
        param="file",
    )


async def _limited(body: AsyncGenerator[bytes, None], max_bytes: int) -> AsyncGenerator[bytes, None]:
    seen = 0
    async for chunk in body:
        seen += len(chunk)
        if seen > max_bytes + FORM_OVERHEAD:
            raise too_large(max_bytes)
        yield chunk


def _upload(form: FormData, idempotency_key: str | None) -> Upload:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Invalid("file: is missing. Send the bytes in a form field named 'file'.", param="file")
    return Upload(
        filename=_label(file.filename),
        purpose=known_purpose(_text(form, "purpose")),
        source=file.file,
        columns=_columns(_text(form, "columns")),
        expires_at=_expiry(form),
        idempotency_key=idempotency_key,
    )


def _text(form: FormData, name: str) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) else None


def _label(filename: str | None) -> str:
    """The file's name as a label: no folders, no control characters."""
    name = PurePath((filename or "upload").replace("\\", "/")).name or "upload"
    return "".join(character for character in name if character.isprintable())[-LONGEST_NAME:] or "upload"


def _columns(value: str | None) -> dict[str, str]:
    if not value:
        return {}
    try:
        columns = json.loads(value)
    except ValueError:
        columns = None
    allowed = {"text", "label", "prompt", "completion", "system"}
    if not isinstance(columns, dict) or not all(isinstance(name, str) for name in columns.values()):
        raise Invalid('columns: must be JSON like {"text": "message", "label": "intent"}.', param="columns")
    if unknown := set(columns) - allowed:
        raise Invalid(
            f"columns: {', '.join(sorted(unknown))} is not one of {', '.join(sorted(allowed))}.", param="columns"
        )
    return columns


def _expiry(form: FormData) -> int | None:
    seconds = _text(form, "expires_after[seconds]")
    if seconds is None:
        return None
    if not seconds.isdigit() or not SHORTEST_EXPIRY <= int(seconds) <= LONGEST_EXPIRY:
        raise Invalid(
            f"expires_after.seconds: from {SHORTEST_EXPIRY} to {LONGEST_EXPIRY}.", param="expires_after[seconds]"
        )
    return now() + int(seconds)

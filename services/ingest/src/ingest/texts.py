"""Where the text that a file became lies, and its reference, found again by reading it."""

from __future__ import annotations

import hashlib

from ingest.domain import File
from schemas import ObjectRef
from schemas.http.ingest import FileText
from stores.objects import Objects


def document_key(file: File) -> str:
    """Where the text of a document lies."""
    return f"tenants/{file.tenant_id}/documents/{file.id}/text.md"


def records_key(file: File) -> str:
    """Where rows without answers lie, as JSONL of `{"text": …}`."""
    return f"tenants/{file.tenant_id}/files/{file.id}/unlabelled.jsonl"


async def find_text(objects: Objects, file: File) -> FileText | None:
    """What was said of a file's text when it was read; None while it is no text.

    Raises:
        NotFound: it is gone.
    """
    if file.state != "processed" or file.kind is None:
        return None
    key = document_key(file) if file.kind == "document" else records_key(file)
    digest, size, lines = hashlib.sha256(), 0, 0
    async for chunk in objects.read(key):
        digest.update(chunk)
        size += len(chunk)
        lines += chunk.count(b"\n")
    text = ObjectRef(bucket=objects.bucket, key=key, sha256=digest.hexdigest(), size=size)
    if file.kind == "document":
        return FileText(kind="document", text=text)
    return FileText(kind="rows", text=text, rows=lines)

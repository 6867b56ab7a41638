"""The HTTP routes of ingest: OpenAI's `/v1/files`, and `/v1/datasets`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, JsonValue

from chassis.auth import Principal, internal, require
from chassis.errors import NotFound
from chassis.http import Page, page
from chassis.in_flight import InFlight
from chassis.routes import Router
from ingest.domain import Dataset, File
from ingest.receive import Limits, form_schema, receive
from ingest.settings import Settings
from ingest.store import Files
from ingest.use_cases import Kept, Uploads
from schemas import RowCounts, Task
from schemas.http.ingest import FileText

Reads = Annotated[Principal, require("files:read")]
Writes = Annotated[Principal, require("files:write")]
Internal = Annotated[Principal, internal()]
Order = Literal["asc", "desc"]
SHOWN = {"uploaded": "uploaded", "processed": "processed", "error": "error"}


class FileObject(BaseModel):
    """OpenAI's file object, and what its contents turned out to be."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    status_details: str | None = None
    expires_at: int | None = None
    kind: Literal["rows", "document", "unlabelled"] | None = None

    @classmethod
    def of(cls, file: File) -> FileObject:
        """The file as shown."""
        return cls(
            id=file.id,
            bytes=file.object.size,
            created_at=file.created_at,
            filename=file.filename,
            purpose=file.purpose,
            status=SHOWN[file.state],
            status_details=file.details,
            expires_at=file.expires_at,
            kind="rows" if file.dataset_id else file.kind,
        )


class DatasetView(BaseModel):
    """A dataset version."""

    id: str
    object: Literal["dataset"] = "dataset"
    file_deleted: bool
    created_at: int
    file_id: str | None
    project_id: str | None
    task: Task
    labels: int
    rows: RowCounts
    system: str
    manifest: dict[str, JsonValue]
    card: str

    @classmethod
    def of(cls, dataset: Dataset) -> DatasetView:
        """The dataset version as shown."""
        prepared = dataset.prepared
        return cls(
            id=dataset.id,
            file_deleted=dataset.state == "kept",
            created_at=dataset.created_at,
            file_id=prepared.file_id,
            project_id=prepared.project_id,
            task=prepared.dataset.task,
            labels=prepared.labels,
            rows=prepared.rows,
            system=dataset.system,
            manifest=dataset.manifest.model_dump(),
            card=dataset.card,
        )


class FileDeleted(BaseModel):
    """A file that is deleted, and what stays that was made of it."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
    kept: list[Kept]


def file_routes(files: Files, uploads: Uploads, settings: Settings, wake: Callable[[], None]) -> Router:
    """Upload, list, read, download, delete."""
    router = Router(prefix="/v1/files", tags=["files"])
    in_flight = InFlight(
        "uploads",
        most=settings.ingest_uploads_at_a_time,
        most_each=settings.ingest_uploads_of_a_tenant,
        retry_after=5,
        for_newcomers=settings.ingest_uploads_at_a_time // 2,
    )
    limits = Limits(
        settings.ingest_max_file_bytes, settings.ingest_upload_silence_seconds, settings.ingest_upload_bytes_per_second
    )

    bracketed = {"expires_after": {"style": "deepObject", "explode": True}}  # expires_after[seconds]
    asked = {"required": True, "content": {"multipart/form-data": {"schema": form_schema(), "encoding": bracketed}}}

    @router.post("", openapi_extra={"requestBody": asked})
    async def create_file(request: Request, principal: Writes) -> FileObject:
        with in_flight.entered(principal.tenant_id):
            async with receive(request.headers, request.stream(), limits) as upload:
                file = await uploads.accept(principal.tenant_id, upload, principal.owner)
        wake()
        return FileObject.of(file)

    @router.get("")
    async def list_files(
        principal: Reads,
        purpose: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        after: str | None = None,
        order: Order = "desc",
    ) -> Page:
        newest_first = order == "desc"
        found = await files.page(
            principal.tenant_id, purpose, principal.only, limit=limit + 1, after=after, newest_first=newest_first
        )
        return page([FileObject.of(file) for file in found], limit=limit)

    @router.get("/{file_id}")
    async def retrieve_file(file_id: str, principal: Reads) -> FileObject:
        return FileObject.of(await files.visible(principal.tenant_id, file_id, principal.only))

    @router.get("/{file_id}/content")
    async def file_content(file_id: str, principal: Reads) -> StreamingResponse:
        file = await files.visible(principal.tenant_id, file_id, principal.only)
        return StreamingResponse(
            await files.content(file),
            media_type="application/octet-stream",
            headers={"content-length": str(file.object.size), "x-content-type-options": "nosniff"},
        )

    @router.delete("/{file_id}")
    async def delete_file(file_id: str, principal: Writes) -> FileDeleted:
        kept = await uploads.delete(principal.tenant_id, file_id, principal.only)
        return FileDeleted(id=file_id, kept=kept)

    return router


def internal_routes(files: Files) -> Router:
    """What other services ask."""
    router = Router(prefix="/internal/files")

    @router.get("/{file_id}/text")
    async def file_text(file_id: str, principal: Internal) -> FileText:
        text = await files.text_of(await files.visible(principal.tenant_id, file_id))
        if text is None:
            raise NotFound(f"File '{file_id}' is no text.", code="no_text")
        return text

    return router


def dataset_routes(files: Files) -> Router:
    """Dataset versions with their cards."""
    router = Router(prefix="/v1/datasets", tags=["datasets"])

    @router.get("")
    async def list_datasets(
        principal: Reads, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
    ) -> Page:
        found = await files.shown_datasets(principal.tenant_id, principal.only, limit=limit + 1, after=after)
        return page([DatasetView.of(dataset) for dataset in found], limit=limit)

    @router.get("/{dataset_id}")
    async def retrieve_dataset(dataset_id: str, principal: Reads) -> DatasetView:
        return DatasetView.of(await files.shown_dataset(principal.tenant_id, dataset_id, principal.only))

    return router

"""Files and dataset versions: their states and the only functions that change them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from chassis.errors import Invalid
from eventbus.aggregate import Aggregate
from schemas import (
    DatasetPrepared,
    DatasetRejected,
    DocumentParsed,
    FileDeleted,
    FileUploaded,
    LabelingRequested,
    ObjectRef,
    Purpose,
    RowCounts,
)

State = Literal["uploaded", "processed", "error", "deleted"]
PURPOSES: tuple[Purpose, ...] = ("fine-tune", "user_data", "assistants", "evals", "batch", "vision")


class Rejection(BaseModel):
    """Why a file could not be used, for its owner to act on."""

    code: str
    message: str
    line: int | None = None


class File(Aggregate):
    """An upload and what became of it."""

    created_at: int
    filename: str
    purpose: Purpose
    object: ObjectRef
    state: State = "uploaded"
    details: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    kind: Literal["document", "unlabelled"] | None = None
    project_id: str | None = None
    dataset_id: str | None = None
    expires_at: int | None = None

    def announce(self) -> None:
        """Say that the bytes are stored."""
        self.record(
            FileUploaded(
                tenant_id=self.tenant_id,
                file_id=self.id,
                purpose=self.purpose,
                filename=self.filename,
                object=self.object,
            )
        )

    def became_dataset(self, dataset_id: str, note: str | None) -> None:
        """Its rows are a dataset version now."""
        if self.state == "uploaded":
            self.state, self.dataset_id, self.details = "processed", dataset_id, note

    def became_document(self, text: ObjectRef, title: str) -> None:
        """Its text can be indexed now."""
        if self.state != "uploaded":
            return
        self.state, self.kind = "processed", "document"
        self.record(
            DocumentParsed(
                tenant_id=self.tenant_id,
                file_id=self.id,
                filename=self.filename,
                title=title,
                purpose=self.purpose,
                text=text,
            )
        )

    def needs_labels(self, records: ObjectRef, rows: int) -> None:
        """Its rows have no answers: people are asked for them."""
        if self.state != "uploaded":
            return
        self.state, self.kind = "processed", "unlabelled"
        self.details = (
            f"{rows} rows have no answer yet: answer them on the Labeling page (or under /v1/labeling), then publish."
        )
        self.record(
            LabelingRequested(
                tenant_id=self.tenant_id, file_id=self.id, filename=self.filename, rows=rows, records=records
            )
        )

    def keep_as_is(self) -> None:
        """It is used as it is."""
        if self.state == "uploaded":
            self.state = "processed"

    def reject(self, rejection: Rejection) -> None:
        """It cannot be used."""
        if self.state != "uploaded":
            return
        self.state, self.details = "error", rejection.message
        self.record(
            DatasetRejected(
                tenant_id=self.tenant_id,
                file_id=self.id,
                purpose=self.purpose,
                code=rejection.code,
                message=rejection.message,
                line=rejection.line,
            )
        )

    def delete(self) -> None:
        """The bytes are about to go."""
        if self.state != "deleted":
            self.state = "deleted"
            self.record(FileDeleted(tenant_id=self.tenant_id, file_id=self.id))


class Dataset(Aggregate):
    """A dataset version: complete, immutable, named by what it was made from."""

    created_at: int
    prepared: DatasetPrepared
    card: str
    manifest: dict[str, Any]

    def announce(self) -> None:
        """Say that it is ready."""
        self.record(self.prepared)

    @property
    def rows(self) -> RowCounts:
        """Rows in each split."""
        return self.prepared.rows


def known_purpose(purpose: str | None) -> Purpose:
    """The purpose, if it is one.

    Raises:
        Invalid: it is missing or unknown.
    """
    for known in PURPOSES:
        if purpose == known:
            return known
    given = f"'{purpose}' is not a purpose" if purpose else "say what the file is for"
    raise Invalid(f"purpose: {given}; use one of {', '.join(PURPOSES)}.", param="purpose", code="invalid_purpose")

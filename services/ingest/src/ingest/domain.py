"""Files and dataset versions: their states and the only functions that change them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from chassis.errors import Invalid
from chassis.text import quoted
from eventbus import Aggregate
from ingest.readers import BadRows
from schemas import (
    DatasetDeleted,
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
from schemas.artifacts import DatasetManifest

State = Literal["uploaded", "processed", "error", "deleted"]
PURPOSES: tuple[Purpose, ...] = ("fine-tune", "user_data", "assistants", "evals", "batch", "vision")


class Rejection(BaseModel):
    """Why a file could not be used, for its owner to act on."""

    code: str
    message: str
    line: int | None = None


class File(Aggregate):
    """An upload and what became of it.

    Attributes:
        source_file_id: of published labels, the file whose rows people answered.
        derived_bytes: what is stored of it beside the upload and its dataset: the text of a document with the chunks
            made of it, or the rows that people are to answer with the tasks made of them, each counted once more.
        tasks: whether its rows are asked of people still.
        purged: whether its bytes are gone.
        told: of a deleted one, whether that was said since all who made something of it listen.
    """

    created_at: int
    owner: str = ""
    filename: str
    purpose: Purpose
    object: ObjectRef
    state: State = "uploaded"
    details: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    on_bad_rows: BadRows = "refuse"
    kind: Literal["document", "unlabelled"] | None = None
    project_id: str | None = None
    source_file_id: str | None = None
    dataset_id: str | None = None
    derived_bytes: int = 0
    tasks: bool = True
    expires_at: int | None = None
    purged: bool = False
    told: bool = False

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

    def became_dataset(self, dataset: Dataset, note: str | None) -> None:
        """Its rows are a dataset version now; said here, so that a file deleted meanwhile never says it."""
        if self.state != "uploaded":
            return
        self.state, self.dataset_id, self.details = "processed", dataset.id, note
        self.record(dataset.prepared)

    def became_document(self, text: ObjectRef, title: str) -> None:
        """Its text can be indexed now."""
        if self.state != "uploaded":
            return
        self.state, self.kind, self.derived_bytes = "processed", "document", 2 * text.size
        self.record(
            DocumentParsed(
                tenant_id=self.tenant_id,
                file_id=self.id,
                filename=self.filename,
                title=title,
                purpose=self.purpose,
                text=text,
                owner=self.owner,
            )
        )
        if self.purpose == "user_data":
            self._has_no_dataset("no_rows", "it is a document, not rows to learn from. Upload JSONL, CSV or XLSX.")

    def needs_labels(self, records: ObjectRef, rows: int, note: str | None) -> None:
        """Its rows have no answers: people are asked for them."""
        if self.state != "uploaded":
            return
        self.state, self.kind, self.derived_bytes = "processed", "unlabelled", 2 * records.size
        self.details = (
            f"{rows} rows have no answer yet: answer them on the Labeling page (or under /v1/labeling), then publish."
            + (f" {note}" if note else "")
        )
        self.record(
            LabelingRequested(
                tenant_id=self.tenant_id, file_id=self.id, filename=self.filename, rows=rows, records=records
            )
        )
        self._has_no_dataset("no_answers", "its rows have no answers. Answer and publish them, then use the new file.")

    def lose_tasks(self) -> None:
        """The labeling project of its rows is deleted: there are no tasks of them any more."""
        if self.state == "processed" and self.kind == "unlabelled" and self.tasks:
            self.tasks, self.derived_bytes = False, self.derived_bytes // 2
            self.details = "The project of its rows was deleted. Upload the file again to have them answered."

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
        """The bytes are about to go; a job that waits for its rows waits in vain."""
        if self.state == "uploaded":
            self._has_no_dataset("file_deleted", "it was deleted before it was read.")
        if self.state != "deleted":
            self.state = "deleted"
            self._tell_deleted()

    def finish_deletion(self) -> None:
        """It was deleted under an earlier release: what was made of it goes now, as it does of one deleted today."""
        if self.state == "deleted" and not self.told:
            self.purged = False
            self._tell_deleted()

    def _tell_deleted(self) -> None:
        self.told = True
        self.record(FileDeleted(tenant_id=self.tenant_id, file_id=self.id))

    def purge(self) -> None:
        """The bytes are gone, and what was said of them."""
        self.purged, self.filename, self.details, self.columns = True, "", None, {}

    def purge_again(self) -> None:
        """A worker that had lost it may have written after that."""
        if self.state == "deleted":
            self.purged = False

    def may_name(self, key: str) -> bool:
        """Whether it names this object of its folders, or still may."""
        if self.state == "deleted":
            return not self.purged
        if "/original-" in key:
            return key == self.object.key
        return self.state == "uploaded" or self.kind is not None

    def _has_no_dataset(self, code: str, reason: str) -> None:
        self.record(
            DatasetRejected(
                tenant_id=self.tenant_id,
                file_id=self.id,
                purpose=self.purpose,
                code=code,
                message=f"{self.filename}: {reason}",
            )
        )


class Erased(BaseModel):
    """Nothing is left of what was said here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dataset(Aggregate):
    """A dataset version: complete, immutable, named by what it was made from.

    `ready -> deleted -> purged`, by way of `kept` where a job or a model rests on it when its file is deleted.
    """

    created_at: int
    state: Literal["ready", "kept", "deleted", "purged"] = "ready"
    owner: str = ""
    prepared: DatasetPrepared
    card: str
    manifest: DatasetManifest | Erased

    @property
    def rows(self) -> RowCounts:
        """Rows in each split."""
        return self.prepared.rows

    @property
    def system(self) -> str:
        """The system message that every row begins with; empty where they differ."""
        return "" if isinstance(self.manifest, Erased) else self.manifest.result.system

    def outlive_file(self) -> None:
        """Its file is deleted: it stays for those alone that rest on it."""
        if self.state == "ready":
            self.state = "kept"

    def delete(self) -> None:
        """Its file is deleted and nothing rests on it: its rows are about to go, and what was said of them goes."""
        if self.state != "kept":
            return
        self.state, self.card, self.manifest = "deleted", "", Erased()
        self.record(
            DatasetDeleted(
                tenant_id=self.tenant_id,
                dataset_id=self.id,
                file_id=self.prepared.file_id,
                heldout=self.prepared.dataset.heldout,
            )
        )

    def purge(self) -> None:
        """Its rows are gone."""
        if self.state == "deleted":
            self.state = "purged"


def known_purpose(purpose: str | None) -> Purpose:
    """The purpose, if it is one.

    Raises:
        Invalid: it is missing or unknown.
    """
    for known in PURPOSES:
        if purpose == known:
            return known
    given = f"{quoted(purpose)} is not a purpose" if purpose else "say what the file is for"
    raise Invalid(f"purpose: {given}; use one of {', '.join(PURPOSES)}.", param="purpose", code="invalid_purpose")

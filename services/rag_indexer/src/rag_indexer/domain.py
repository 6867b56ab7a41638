"""Vector stores and the files in them: their states and the only functions that change them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from eventbus.aggregate import Aggregate
from schemas import DocumentIndexed

FileState = Literal["in_progress", "completed", "failed", "deleting"]


class Store(Aggregate):
    """A vector store: a named set of files that is searched together.

    One that somebody's uploads made by themselves has an `owner`; the others are for the whole tenant.
    """

    created_at: int
    owner: str = ""
    name: str
    metadata: dict[str, str] = Field(default_factory=dict)
    last_active_at: int
    deleted: bool = False
    emptied: bool = False

    def rename(self, name: str | None, metadata: dict[str, str] | None) -> None:
        """Change what is given."""
        self.name = name if name is not None else self.name
        self.metadata = metadata if metadata is not None else self.metadata

    def delete(self) -> None:
        """Nobody finds it any more; its files are removed after."""
        self.deleted = True

    def empty(self) -> None:
        """Its files are gone."""
        self.emptied = True


class StoreFile(Aggregate):
    """One file in one store."""

    created_at: int
    store_id: str
    file_id: str
    attributes: dict[str, Any] = Field(default_factory=dict)
    state: FileState = "in_progress"
    error: str | None = None
    chunk_ids: list[str] = Field(default_factory=list)
    bytes: int = 0
    attempts: int = 0
    ingested_at: int | None = None

    def begin(self) -> None:
        """Count an attempt before it is made, so that one that kills the process is counted."""
        self.attempts += 1

    def excuse(self) -> None:
        """The attempt ended for a reason that lies elsewhere."""
        self.attempts = max(0, self.attempts - 1)

    def ingested(self, at: int) -> None:
        """Ingest is done with the file: its text comes soon, or never."""
        self.ingested_at = at

    def retry(self, attributes: dict[str, Any]) -> None:
        """It failed and is asked for again."""
        if self.state == "failed":
            self.state, self.error, self.attempts, self.ingested_at = "in_progress", None, 0, None
            self.attributes = attributes

    def plan(self, chunk_ids: list[str]) -> None:
        """Note the chunks before they are written, so that a delete finds them whatever happens."""
        if self.state == "in_progress":
            self.chunk_ids = chunk_ids

    def complete(self, size: int) -> None:
        """Its chunks can be searched."""
        if self.state != "in_progress":
            return
        self.state, self.bytes = "completed", size
        self.record(
            DocumentIndexed(
                tenant_id=self.tenant_id,
                file_id=self.file_id,
                vector_store_id=self.store_id,
                chunks=len(self.chunk_ids),
            )
        )

    def fail(self, reason: str) -> None:
        """It cannot be searched."""
        if self.state == "in_progress":
            self.state, self.error = "failed", reason

    def delete(self) -> None:
        """It is being taken out."""
        self.state = "deleting"

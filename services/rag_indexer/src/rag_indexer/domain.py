"""Vector stores and the files in them: their states and the only functions that change them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from chassis.errors import Conflict
from eventbus import Aggregate
from schemas import DocumentIndexed

FileState = Literal["in_progress", "completed", "failed", "deleting"]

Value = str | bool | int | float
Attributes = dict[str, Value]
"""What a client notes about a file of a store, to find some of its files by."""


DAY = 24 * 3600


class Chunking(BaseModel):
    """The size of chunks: the most tokens of one, and those that it shares with the next one."""

    tokens: int
    overlap: int = 0


class Store(Aggregate):
    """A vector store: a named set of files that is searched together.

    One that somebody's uploads made by themselves has an `owner`; the others are for the whole tenant. `chunking` is
    that of files which ask for none. `expires_at` follows `last_active_at` by `expires_days`.
    """

    created_at: int
    owner: str = ""
    name: str
    description: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    chunking: Chunking | None = None
    last_active_at: int
    expires_days: int | None = None
    expires_at: int | None = None
    expired: bool = False
    deleted: bool = False
    emptied: bool = False

    def rename(self, name: str | None, metadata: dict[str, str] | None) -> None:
        """Change what is given."""
        self.name = name if name is not None else self.name
        self.metadata = metadata if metadata is not None else self.metadata

    def expire_after(self, days: int | None) -> None:
        """End so many days after the last use; never, if None.

        Raises:
            Conflict: it has ended.
        """
        if self.expired:
            raise Conflict("This vector store has expired; make a new one.", code="vector_store_expired")
        self.expires_days = days
        self.expires_at = self.last_active_at + days * DAY if days else None

    def touch(self, at: int) -> None:
        """It is used."""
        if not self.expired:
            self.last_active_at = max(at, self.last_active_at)
            self.expire_after(self.expires_days)

    def expire(self, at: int) -> None:
        """End, if it is time."""
        self.expired = self.expired or self.has_ended(at)

    def has_ended(self, at: int) -> bool:
        """Whether it has expired, be its files gone already or not."""
        return self.expired or (self.expires_at is not None and self.expires_at <= at)

    def delete(self) -> None:
        """Nobody finds it any more; its files are removed after."""
        self.deleted = True

    def empty(self) -> None:
        """Its files are gone."""
        self.emptied = True


class StoreFile(Aggregate):
    """One file in one store.

    `indexed_by` names the collection that its vectors are in.
    """

    created_at: int
    store_id: str
    file_id: str
    attributes: Attributes = Field(default_factory=dict)
    state: FileState = "in_progress"
    error: str | None = None
    chunking: Chunking | None = None
    chunk_ids: list[str] = Field(default_factory=list)
    indexed_by: str = ""
    bytes: int = 0
    ingested_at: int | None = None

    def ingested(self, at: int) -> None:
        """Ingest is done with the file: its text comes soon, or never."""
        self.ingested_at = at

    def ask_again(self, attributes: Attributes | None, chunking: Chunking | None) -> None:
        """It is asked for although it is there: what is said anew holds, and one that failed is tried again."""
        self.attributes = attributes if attributes is not None else self.attributes
        recut = chunking is not None and chunking != self.chunking
        self.chunking = chunking or self.chunking
        if self.state == "failed" or (self.state == "completed" and recut):
            self.again()

    def again(self) -> None:
        """It is to be indexed from the beginning."""
        self.state, self.error, self.ingested_at = "in_progress", None, None
        self.begin_anew()

    def index_elsewhere(self, collection: str) -> None:
        """Its vectors are to be in another collection than the one they are in."""
        if self.state == "completed" and self.indexed_by != collection:
            self.again()

    def plan(self, chunk_ids: list[str]) -> None:
        """Note the chunks before they are written, beside those there are: a delete finds them whatever happens."""
        if self.state == "in_progress":
            self.chunk_ids = list(dict.fromkeys([*self.chunk_ids, *chunk_ids]))

    def complete(self, size: int, chunk_ids: list[str], chunking: Chunking | None, indexed_by: str) -> None:
        """Its chunks, and no others, can be searched; unless it was asked for meanwhile to be cut otherwise."""
        if self.state != "in_progress" or chunking != self.chunking:
            return
        self.state, self.bytes, self.chunk_ids, self.indexed_by = "completed", size, chunk_ids, indexed_by
        self.record(
            DocumentIndexed(
                tenant_id=self.tenant_id,
                file_id=self.file_id,
                vector_store_id=self.store_id,
                chunks=len(self.chunk_ids),
            )
        )

    def describe(self, attributes: Attributes) -> None:
        """Change its attributes."""
        self.attributes = attributes

    def fail(self, reason: str) -> None:
        """It cannot be searched."""
        if self.state == "in_progress":
            self.state, self.error = "failed", reason

    def delete(self) -> None:
        """It is being taken out."""
        if self.state != "deleting":
            self.state = "deleting"
            self.begin_anew()

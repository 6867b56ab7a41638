"""Uploads."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id, Label, ObjectRef, Purpose


class FileUploaded(Event):
    """The bytes of an upload are stored and hashed; nothing in them has been read yet."""

    type, topic, key = "file.uploaded.v1", "files", "file_id"

    file_id: Id = Field(description="Id of the file.")
    purpose: Purpose = Field(description="What it was uploaded for.")
    filename: Label = Field(description="The name it was given: a label, never a path.")
    object: ObjectRef = Field(description="The bytes as uploaded.")


class FileDeleted(Event):
    """A file and its bytes are gone."""

    type, topic, key = "file.deleted.v1", "files", "file_id"

    file_id: Id = Field(description="Id of the file.")

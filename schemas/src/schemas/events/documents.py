"""Documents: knowledge to retrieve from."""

from __future__ import annotations

from pydantic import Field

from schemas.envelope import Event
from schemas.refs import Id, Label, ObjectRef, Purpose


class DocumentParsed(Event):
    """A text document is ready to be chunked and indexed."""

    type, topic, key = "document.parsed.v1", "documents", "file_id"

    file_id: Id = Field(description="The file it came from.")
    filename: Label = Field(description="The name it was uploaded under.")
    title: Label = Field(description="First heading, or the file's name.")
    purpose: Purpose = Field(description="Purpose of the file.")
    text: ObjectRef = Field(description="The document as UTF-8 text or Markdown.")
    owner: Id = Field("", description="Person, or key of nobody, whose it is: an end user sees their own only.")


class DocumentIndexed(Event):
    """A document's chunks can be searched in a vector store."""

    type, topic, key = "document.indexed.v1", "indexes", "file_id"

    file_id: Id = Field(description="The file.")
    vector_store_id: Id = Field(description="The store it was added to.")
    chunks: int = Field(ge=0, description="Chunks indexed.")

"""What `ingest` answers other services."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.refs import ObjectRef


class FileText(BaseModel):
    """`GET /internal/files/{file_id}/text`: the text that a file became; 404 `no_text` while it is none."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["document", "rows"] = Field(description='One UTF-8 text, or JSONL of `{"text": …}`.')
    text: ObjectRef = Field(description="Where it lies.")
    rows: int = Field(0, ge=0, description="Rows, where there are rows.")

"""Which text a run held out, as places in its training file: whoever may read the file can ask what it is worth."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

HELDOUT = "heldout.json"

MOST_DOCUMENTS = 1000
MOST_WINDOWS = 1000


class HeldoutWindow(BaseModel):
    """A part of one document, short enough to be scored at once, and what the run measured of it."""

    model_config = ConfigDict(frozen=True)

    start: int = Field(ge=0, description="First character, in the document without the white space around it.")
    end: int = Field(ge=1, description="The character after its last.")
    tokens: int = Field(ge=1, description="Tokens measured: all but the first, which nothing stands before.")
    base: float = Field(description="Mean loss of these tokens by the base model, in nats.")
    adapter: float = Field(description="The same with the adapter.")


class HeldoutDocument(BaseModel):
    """A document that was held out as a whole, or the end of one."""

    model_config = ConfigDict(frozen=True)

    line: int = Field(ge=0, description="Its line in the training file, from 0; 0 where the file is one document.")
    windows: list[HeldoutWindow] = Field(
        min_length=1, max_length=MOST_WINDOWS, description="In order; of a long document some, spread over all of it."
    )


class HeldoutText(BaseModel):
    """The contents of `heldout.json`."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(description="Layout of this file.")
    kind: Literal["document", "rows"] = Field(description='The training file: one text, or JSONL of `{"text": …}`.')
    unit: Literal["documents", "passages"] = Field(
        description="What varies by itself: whole documents, or the passages of the end of an only one."
    )
    documents: list[HeldoutDocument] = Field(
        min_length=1, max_length=MOST_DOCUMENTS, description="In the order of the file; of very many some."
    )

"""A base model's folder: a Hugging Face folder and `base.json`, which is written last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from schemas.artifacts.price import Price

BASE_FILE = "base.json"


class BaseModelSpec(BaseModel):
    """The contents of `base.json`; what an installation adds of its own is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1, description="Name of the base model, equal to its folder's.")
    digest: str = Field(
        min_length=1,
        description="SHA-256, in hex, over the lines `<file> <its sha256>`, sorted by file, `base.json` excepted.",
    )
    files: dict[str, str] = Field(min_length=1, description="SHA-256 of each other file of the folder, in hex.")
    dtype: str = Field(description="Type of the weights, as torch names it.")
    context_length: int = Field(ge=1, description="Longest prompt and answer together, in tokens.")
    vocab_size: int = Field(ge=1, description="Size of the vocabulary, in tokens.")
    parameters: int | None = Field(None, ge=0, description="Number of weights.")
    chat_template: str = Field(description="Jinja template that renders chat messages.")
    bos_token: str | None = Field(None, description="Token with which a text begins.")
    eos_token: str | None = Field(None, description="Token with which a text ends.")
    stop_tokens: list[str] = Field(default_factory=list, description="Tokens that end an answer.")
    license: str | None = Field(None, description="Licence of the weights.")
    source: str | None = Field(None, description="Where the weights are from.")
    price: Price | None = Field(None, description="What its tokens cost.")


def digest_of(files: Mapping[str, str]) -> str:
    """The digest of a base model whose files have these SHA-256s, in hex."""
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()

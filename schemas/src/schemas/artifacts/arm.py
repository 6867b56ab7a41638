"""The folder of an arm that answers by embeddings: numbers, answers, a fingerprint and, written last, the manifest."""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.artifacts.adapter import FileFacts

ARM_NUMBERS = "arm.safetensors"
ARM_ANSWERS = "answers.json"
ARM_FINGERPRINT = "fingerprint.json"

ARM_TOLERANCE = 0.02
"""Largest difference between the confidence that is measured and that of the fingerprint.

Other processors and batch shapes move a float32 confidence by less than 0.001.
"""

CONFIDENCES = (0.5, 0.7, 0.9, 0.99)
"""At which is told what would become of answers if an arm gave only those that it is so sure of."""

ArmKind = Literal["head", "nearest"]
"""`head` is a logistic regression on embeddings whose classes are the answers; `nearest` gives the answer of the
training row whose question is closest."""


class EmbedderFacts(BaseModel):
    """A model that makes vectors of texts, as an arm must find it again."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1, max_length=256, description="Its name.")
    digest: str = Field(
        min_length=1, max_length=128, description="Follows from its weights and how they are computed, in hex."
    )
    dimensions: int = Field(ge=1, description="Length of its vectors.")


class ArmManifest(BaseModel):
    """The contents of an arm's `manifest.json`."""

    model_config = ConfigDict(frozen=True)

    files: dict[str, FileFacts] = Field(description="The folder's other files.")
    kind: ArmKind = Field(description="How it answers.")
    generates: bool = Field(
        False,
        description="Whether the base model answers, shown the rows it finds; its answers are rows then, each the line "
        "of a chat row without system messages.",
    )
    embedder: EmbedderFacts = Field(description="What its questions are embedded by; no other may be asked.")
    rows: int = Field(ge=1, description="Rows it was fitted on.")
    answers: int = Field(ge=1, description="Distinct answers it can give.")
    dataset: dict[str, str] | None = Field(None, description="The dataset version or file, and its digest.")
    code_version: str = Field("", description="Version of the code that fitted it.")
    seed: int = Field(0, description="Seed of the fit.")
    metrics: dict[str, float] = Field(default_factory=dict, description="What was measured of it, out of fold.")
    created_at: int = Field(0, description="When it was fitted (Unix seconds).")


class ArmProbe(BaseModel):
    """One question with what the arm says to it."""

    model_config = ConfigDict(frozen=True)

    question: str = Field(description="A question of a training row.")
    answer: int = Field(ge=0, description="Its answer, as a place in `answers.json`.")
    confidence: float = Field(ge=0, le=1, description="How sure it is.")


class ArmFingerprint(BaseModel):
    """The contents of an arm's `fingerprint.json`: who runs it must measure the same."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = Field(description="Layout of this file.")
    probes: list[ArmProbe] = Field(min_length=1, max_length=64, description="What was measured.")


def arm_id_of(manifest: bytes) -> str:
    """The content-addressed id of the arm whose manifest consists of these bytes."""
    return f"arm-{hashlib.sha256(manifest).hexdigest()[:24]}"

"""What a job is made of: its text, its checkpoints, what its run made, and what that waits for."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from schemas import DatasetRef, ModelWaiting, ObjectRef


class Failure(BaseModel):
    """Why a job failed, in OpenAI's shape."""

    code: str
    message: str
    param: str | None = None


class Text(BaseModel):
    """Text without answers that a file became: a document, or rows of texts.

    Attributes:
        file_id: the file.
        kind: a document is one UTF-8 text, `rows` are JSONL of `{"text": …}`.
        object: where it lies.
        rows: how many there are, where there are rows.
    """

    file_id: str
    kind: Literal["document", "rows"]
    object: ObjectRef
    rows: int = 0

    @property
    def dataset(self) -> DatasetRef:
        """The text as what is learned from and, a part of it, tested on."""
        return DatasetRef(
            dataset_id=self.file_id, task="generation", manifest=self.object, train=self.object, heldout=self.object
        )


class Checkpoint(BaseModel):
    """A checkpoint that a job can go on from."""

    step: int
    manifest: ObjectRef


class Adapter(BaseModel):
    """What a finished run made."""

    adapter_id: str
    manifest: ObjectRef
    bytes: int = 0
    base_digest: str
    trained_tokens: int
    train_seconds: float
    metrics: dict[str, float]


class GateWait(BaseModel):
    """What the model that a job made waits for, as the registry said last."""

    waiting_for: Literal["evaluation", "approval", "replica"] = "evaluation"
    model_id: str = ""
    reason: str = ""
    revision: int = 0

    def hears(self, waiting: ModelWaiting) -> bool:
        """Whether the registry says something newer than is known."""
        return waiting.revision > self.revision

    @classmethod
    def of(cls, waiting: ModelWaiting) -> GateWait:
        """What the registry says."""
        return cls(
            waiting_for=waiting.waiting_for,
            model_id=waiting.model_id,
            reason=waiting.reason,
            revision=waiting.revision,
        )

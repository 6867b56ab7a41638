"""The reference to a dataset version, which events, models and evaluations hand on whole."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator
from pydantic.config import JsonDict

from schemas.refs import Id, ObjectRef, Task


class DatasetRef(BaseModel):
    """A dataset version, or a text to learn from: what it is and where its parts lie."""

    model_config = ConfigDict(frozen=True)

    dataset_id: Id = Field(
        "",
        description="Id of the dataset version; the file's id where it is a text; empty where an earlier release did "
        "not say it.",
    )
    task: Task = Field(description="Kind of answers in it.")
    manifest: ObjectRef | None = Field(
        None,
        description="Manifest naming every part with its digest; the text itself where it is one; null where an "
        "earlier release did not say it.",
    )
    train: ObjectRef = Field(description="Training rows, chat JSONL, from which few-shot examples are drawn.")
    validation: ObjectRef | None = Field(
        None, description="Validation rows, chat JSONL; null of a text, or where an earlier release did not say it."
    )
    heldout: ObjectRef = Field(
        description="Held-out rows to evaluate on, chat JSONL; the whole text where a part of one is held out."
    )

    @property
    def splits(self) -> list[ObjectRef]:
        """Its rows: those trained on come first."""
        return [split for split in (self.train, self.validation, self.heldout) if split is not None]

    @property
    def manifest_sha256(self) -> str:
        """Digest of its manifest; empty where that is not known."""
        return self.manifest.sha256 if self.manifest else ""


def flat(part: str, kind: Any, description: str) -> object:
    """A field in which version 1 of an event says one part of its dataset.

    Consumers of releases that know no `dataset` read it, and stored documents are found by it. It is written and of no
    type: who holds the object asks its `dataset`.

    Args:
        part: field of the reference.
        kind: type it is written as.
        description: what it is.
    """
    read = property(attrgetter(f"dataset.{part}"))
    return computed_field(return_type=kind, description=description, repr=False)(read)


def _may_be_missing(schema: JsonDict) -> None:
    """Messages of releases before it have no `dataset`."""
    if isinstance(required := schema.get("required"), list):
        schema["required"] = [name for name in required if name != "dataset"]


class CarriesDataset(BaseModel):
    """What is said of a dataset version and names it whole."""

    model_config = ConfigDict(json_schema_extra=_may_be_missing)

    required_parts: ClassVar[tuple[str, ...]] = ()
    """What version 1 always said, though others that carry a dataset may not know it."""

    dataset: DatasetRef = Field(description="The dataset version; releases before it say its parts beside it only.")

    task: ClassVar[object] = flat("task", Task, "Kind of answers: `dataset.task`.")
    train: ClassVar[object] = flat("train", ObjectRef, "Training rows: `dataset.train`.")
    heldout: ClassVar[object] = flat("heldout", ObjectRef, "Held-out rows: `dataset.heldout`.")

    @model_validator(mode="before")
    @classmethod
    def _read_flat(cls, said: Any) -> Any:
        """Gather the parts of what an earlier release said, or stored, without a `dataset`."""
        if not isinstance(said, dict) or "dataset" in said:
            return said
        parts = {"manifest": said.get("dataset_manifest"), **said}
        return {**said, "dataset": {name: parts[name] for name in DatasetRef.model_fields if name in parts}}

    @model_validator(mode="after")
    def _say_required_parts(self) -> Self:
        missing = [name for name in self.required_parts if not getattr(self.dataset, name)]
        if missing:
            raise ValueError(f"dataset: {', '.join(missing)} must be said")
        return self

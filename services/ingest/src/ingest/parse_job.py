"""What the worker asks of its parser process and what that answers: two files of one folder, written and read here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from ingest.readers import BadRows
from schemas import Purpose, RowCounts, Task


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ParseJob(_Message):
    """One upload to be read; its bytes lie beside it under the name `upload`.

    Attributes:
        filename: what its sender calls it.
        purpose: what it is for.
        columns: role -> its own column or field, as its sender said.
        bad_rows: what becomes of it if some rows are bad.
        sha256: of its bytes, for the card.
        seed: of the splits.
        fewest_rows: what a model can be trained on.
        validation_share, heldout_share: of the rows, about.
        memory_bytes, seconds: what the parser may use.
        max_file_bytes: the largest upload; the parser writes no file of more than four times that.
    """

    filename: str
    purpose: Purpose
    columns: dict[str, str]
    bad_rows: BadRows
    sha256: str
    seed: str
    fewest_rows: int
    validation_share: float
    heldout_share: float
    memory_bytes: int
    seconds: int
    max_file_bytes: int


class RejectedFile(_Message):
    """It cannot be used."""

    kind: Literal["rejected"] = "rejected"
    code: str
    message: str
    line: int | None = None


class KeptFile(_Message):
    """It is used as it is."""

    kind: Literal["kept"] = "kept"
    rows: int


class DocumentFile(_Message):
    """It is a document; its text is `text.md`."""

    kind: Literal["document"] = "document"
    title: str


class UnlabelledFile(_Message):
    """Its rows have no answers; they are `records.jsonl`."""

    kind: Literal["unlabelled"] = "unlabelled"
    rows: int
    note: str | None


class DatasetFile(_Message):
    """Its rows are a dataset; its parts are `train.jsonl`, `validation.jsonl`, `heldout.jsonl` and `card.md`."""

    kind: Literal["dataset"] = "dataset"
    format: str
    task: Task
    labels: int
    system: str
    duplicates: int
    teach_nothing: int
    rows: RowCounts
    note: str | None


ParseResult = RejectedFile | KeptFile | DocumentFile | UnlabelledFile | DatasetFile

_result: TypeAdapter[ParseResult] = TypeAdapter(Annotated[ParseResult, Field(discriminator="kind")])


def write_job(folder: Path, job: ParseJob) -> None:
    """Leave a job for the parser."""
    (folder / "job.json").write_text(job.model_dump_json())


def read_job(folder: Path) -> ParseJob:
    """The job in the parser's folder."""
    return ParseJob.model_validate_json((folder / "job.json").read_text())


def write_result(folder: Path, result: ParseResult) -> None:
    """Leave a result for the worker."""
    (folder / "result.json").write_text(result.model_dump_json())


def read_result(folder: Path) -> ParseResult:
    """The result that a parser left."""
    return _result.validate_json((folder / "result.json").read_text())

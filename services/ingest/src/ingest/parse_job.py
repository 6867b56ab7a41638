"""What the worker asks of its parser process and what that answers: files of one folder, written and read here."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ingest.readers import BadRows
from schemas import Purpose
from schemas.artifacts import DatasetFacts

MOST_ERRORS, MOST_FRAMES = 4, 6
"""Of a fault: errors that caused one another, and for each the innermost places in the code."""


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


class Fault(_Message):
    """Why a parser ended without a result, in words of the code alone: what errors say may quote the file.

    Attributes:
        errors: the kinds of them, each with where it was raised, the last one first.
    """

    errors: list[str]


ParseResult = RejectedFile | KeptFile | DocumentFile | UnlabelledFile | DatasetFacts
"""Of a dataset the facts stand in its manifest as they are here; its files of rows and its card lie in the folder."""

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


def write_fault(folder: Path, error: BaseException) -> None:
    """Leave word of an error that is no fault of the upload."""
    errors: list[str] = []
    behind: BaseException | None = error
    while behind is not None and len(errors) < MOST_ERRORS:
        frames = traceback.extract_tb(behind.__traceback__, limit=-MOST_FRAMES)
        places = (f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        errors.append(f"{type(behind).__name__} at {' > '.join(places)}")
        behind = behind.__cause__ or behind.__context__
    (folder / "fault.json").write_text(Fault(errors=errors).model_dump_json())


def read_fault(folder: Path) -> Fault | None:
    """The word of an error that a parser left; None where it was ended, or could not begin."""
    try:
        return Fault.model_validate_json((folder / "fault.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None

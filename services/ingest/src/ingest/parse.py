"""The disposable process that reads one upload: `python -m ingest.parse FOLDER PARENT`.

FOLDER holds a job and its upload; the process leaves a result and the parts it names, see `ingest.parse_job`. Memory,
CPU time and file size are limited, so a hostile file ends this process and nothing else. It ends with its worker,
PARENT.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from chassis.children import die_with_parent
from chassis.exhaustion import Exhausted, exhaustion_named
from ingest.card import write_card
from ingest.cleaning import Splits, split
from ingest.parse_job import (
    DocumentFile,
    KeptFile,
    ParseJob,
    ParseResult,
    RejectedFile,
    UnlabelledFile,
    read_job,
    write_fault,
    write_result,
)
from ingest.readers import FormatError, Parsed, Source, check_kept, parse
from schemas import RowCounts
from schemas.artifacts import CARD, SPLITS, ChatRow, DatasetFacts, TextRow, rows_file, write_row

KEPT_AS_IS = ("evals", "batch")
SHORT_ROW_BYTES = 2800
"""Memory that reading a row of one sentence and a label takes, measured."""

GRACE_SECONDS = 5
"""Between the signal that says the time is over and the one that looks like any other kill."""


def main() -> int:
    """Do the work; the exit code says whether it was done, or what the machine lacks is to blame."""
    folder = Path(sys.argv[1])
    die_with_parent(int(sys.argv[2]))
    warnings.simplefilter("ignore")  # openpyxl has one for every cell that it cannot read, and says what stands there
    try:
        with exhaustion_named():  # a full disk has no room for the word of another error either
            try:
                leave_result(folder)
            except Exception as error:  # the boundary: what is left of it is its place, and nothing of the file
                write_fault(folder, error)
                raise
    except Exhausted as error:
        return error.exit_code
    return 0


def leave_result(folder: Path) -> None:
    """Read the job, limit this process, work, and write what came of it."""
    job = read_job(folder)
    resource.setrlimit(resource.RLIMIT_AS, (job.memory_bytes, job.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (job.seconds, job.seconds + GRACE_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * job.max_file_bytes, 4 * job.max_file_bytes))
    result: ParseResult
    try:
        result = work(folder, job)
    except FormatError as error:
        where = f"{job.filename}, {error.place}" if error.place else job.filename
        result = RejectedFile(code=error.code, message=f"{where}: {error.message}", line=error.line)
    except MemoryError:
        message = f"{job.filename}: {out_of_bounds(job.memory_bytes, job.seconds)}"
        result = RejectedFile(code="too_large", message=message)
    write_result(folder, result)


def out_of_bounds(memory_bytes: int, seconds: int) -> str:
    """What to say of a file that cannot be read within these limits."""
    return (
        f"reading it takes more than {memory_bytes // 2**20} MiB or {seconds} s, enough for about "
        f"{memory_bytes // SHORT_ROW_BYTES // 1000},000 short rows. A dataset is made of one file, so send fewer rows."
    )


def work(folder: Path, job: ParseJob) -> ParseResult:
    """Turn the upload into parts, and say what they are.

    Raises:
        FormatError: the upload cannot be used.
    """
    source = Source(folder / "upload", job.filename)
    if job.purpose in KEPT_AS_IS:
        return KeptFile(rows=check_kept(source, job.purpose))
    if job.purpose == "vision":
        raise FormatError("unsupported_purpose", "files of purpose 'vision' cannot be used yet.")
    parsed = parse(source, columns=job.columns, purpose=job.purpose, bad_rows=job.bad_rows)
    if parsed.kind == "document":
        return _document(folder, job, parsed)
    if parsed.kind == "unlabelled":
        if job.purpose == "fine-tune":
            raise FormatError("no_answers", "the rows have no answers to learn. Add them, or upload as 'user_data'.")
        _write_rows(folder / "records.jsonl", parsed.texts)
        return UnlabelledFile(rows=len(parsed.texts), note=_note(parsed.left_out, parsed.unread_note()))
    return _dataset(folder, job, parsed)


def _document(folder: Path, job: ParseJob, parsed: Parsed) -> DocumentFile:
    headings = (line.lstrip("#").strip() for line in parsed.text.splitlines() if line.startswith("#"))
    (folder / "text.md").write_text(parsed.text)
    return DocumentFile(title=next(headings, "")[:200] or job.filename)


def _dataset(folder: Path, job: ParseJob, parsed: Parsed) -> DatasetFacts:
    splits = split(
        parsed.rows,
        unread=parsed.unread,
        validation_share=job.validation_share,
        heldout_share=job.heldout_share,
        seed=job.seed,
    )
    _check_rows(splits, job)
    for name in SPLITS:
        _write_rows(folder / rows_file(name), getattr(splits, name))
    (folder / CARD).write_text(write_card(job, parsed.format, splits))
    return DatasetFacts(
        format=parsed.format,
        task=splits.task,
        labels=len(splits.labels),
        system=splits.system,
        duplicates=splits.duplicates,
        teach_nothing=splits.teach_nothing,
        rows=RowCounts(train=len(splits.train), validation=len(splits.validation), heldout=len(splits.heldout)),
        note=_note(
            parsed.left_out,
            parsed.unread_note(),
            _removed(splits.duplicates, "exact duplicate"),
            _removed(splits.teach_nothing, "row", " because every answer has the weight 0 and nothing is learned"),
            f"{_counted(splits.rows, 'row')} can validate a model; {job.fewest_rows} are needed to train one."
            if splits.rows < job.fewest_rows
            else None,
        ),
    )


def _check_rows(splits: Splits, job: ParseJob) -> None:
    """Refuse what no use can be made of: a file that was uploaded for a job may be there to validate with.

    Raises:
        FormatError: there are too few rows.
    """
    if not splits.rows:
        raise FormatError("nothing_to_learn", "every answer has the weight 0, so there is nothing to learn.")
    if splits.rows < job.fewest_rows and job.purpose != "fine-tune":
        raise FormatError(
            "too_few_rows",
            f"{_counted(splits.rows, 'different row')} {'is' if splits.rows == 1 else 'are'} too few to learn and to "
            f"test from; at least {job.fewest_rows}.",
        )


def _removed(count: int, what: str, why: str = "") -> str | None:
    return f"{_counted(count, what)} {'was' if count == 1 else 'were'} removed{why}." if count else None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _note(*sentences: str | None) -> str | None:
    return " ".join(sentence for sentence in sentences if sentence) or None


def _write_rows(path: Path, rows: Iterable[ChatRow | TextRow]) -> None:
    with path.open("w") as file:
        file.writelines(f"{write_row(row)}\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())

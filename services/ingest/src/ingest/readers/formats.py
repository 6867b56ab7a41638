"""The table of readers. An upload's reader is chosen by its purpose, then its name, then its first bytes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from ingest.readers.csv_table import CsvTable
from ingest.readers.faults import BadRows, FormatError
from ingest.readers.json_lines import JsonLines, check_jsonl
from ingest.readers.parsed import Parsed
from ingest.readers.prose import Prose
from ingest.readers.reader import Reader, Source
from ingest.readers.workbook import Workbook

TABLE = CsvTable()
READERS: tuple[Reader, ...] = (Workbook(), JsonLines(), TABLE, Prose())
"""Every format that is read; of those that know a file by its name or by how it begins, the first one reads it."""

FOR_ROWS = ("fine-tune", "evals", "batch")


def parse(source: Source, *, columns: Mapping[str, str], purpose: str, bad_rows: BadRows = "refuse") -> Parsed:
    """Recognise the format and read it.

    Args:
        source: the file.
        columns: role (`text`, `input`, `label`, `system`) -> the file's own column or field.
        purpose: `assistants` files are documents whatever they look like, and `fine-tune` files are rows.
        bad_rows: what becomes of a file if some of its rows are bad.

    Raises:
        FormatError: the first thing wrong, and how many more lines are.
    """
    return reader_of(source, columns, purpose).read(source, columns, bad_rows)


def check_kept(source: Source, purpose: str) -> int:
    """Count the rows of a file that is kept as it is, for which only JSONL will do.

    Raises:
        FormatError: it is of another format, or a line is not a JSON object.
    """
    if any(reader.binary and reader.sniff(source) for reader in READERS):
        message = f"this is a table, and '{purpose}' files are JSONL. Save its rows as JSON objects, one a line."
        raise FormatError("no_jsonl", message)
    return check_jsonl(source.text)


def reader_of(source: Source, columns: Mapping[str, str], purpose: str) -> Reader:
    """The reader of a file: the one that its first bytes name, else its name, else the beginning of its text.

    Raises:
        FormatError: none makes of it what it is for.
    """
    for reader in READERS:
        if reader.binary and reader.sniff(source):
            if purpose == "assistants" and reader.makes != "document":
                message = "this is a table, and 'assistants' files are documents. Save it as CSV or Markdown first."
                raise FormatError("no_document", message)
            return reader
    wanted = "document" if purpose == "assistants" else "rows" if purpose in FOR_ROWS or columns else None
    fitting = [reader for reader in READERS if not reader.binary and wanted in (None, reader.makes)]
    named = (reader for reader in fitting if source.name.endswith(reader.names))
    begun = (reader for reader in fitting if reader.sniff(source))
    chosen = next(chain(named, begun), TABLE if columns else None)
    if chosen is None:
        raise FormatError(
            "no_rows",
            f"this is plain text, and '{purpose}' needs rows. Upload JSONL, CSV or XLSX, or use the purpose "
            "'assistants'.",
        )
    return chosen

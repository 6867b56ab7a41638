"""What a reader is: it recognises the files of one format, and reads rows or a document out of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from ingest.readers.decoding import decode
from ingest.readers.faults import BadRows
from ingest.readers.parsed import Parsed

HEAD_BYTES = 4096
"""More than any format's first bytes that tell it apart."""


@dataclass(frozen=True)
class Source:
    """A file that is to be read.

    Attributes:
        path: where its bytes lie.
        filename: what its sender calls it.
    """

    path: Path
    filename: str

    @property
    def name(self) -> str:
        """Its name in small letters, for what it ends with."""
        return self.filename.lower()

    @cached_property
    def head(self) -> bytes:
        """Its first bytes."""
        with self.path.open("rb") as file:
            return file.read(HEAD_BYTES)

    @cached_property
    def text(self) -> str:
        """All of it as text.

        Raises:
            FormatError: it is no text.
        """
        return decode(self.path.read_bytes())


class Reader(Protocol):
    """Reads one format.

    Attributes:
        makes: what it reads out of a file.
        names: what the names of its files end with.
        binary: whether its files are no text: then their first bytes tell, whatever their name says.
    """

    makes: Literal["rows", "document"]
    names: tuple[str, ...]
    binary: bool

    def sniff(self, source: Source) -> bool:
        """Whether the file is of this format by how it begins.

        Raises:
            FormatError: it is of no format that is read.
        """

    def read(self, source: Source, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:
        """What a file of this format holds.

        Args:
            source: the file.
            columns: role (`text`, `input`, `label`, `system`) -> the file's own column or field.
            bad_rows: what becomes of the file if some of its rows are bad.

        Raises:
            FormatError: the first thing wrong, and how many more rows are.
        """

"""Documents: text and Markdown, read as they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from ingest.readers.faults import BadRows
from ingest.readers.parsed import Parsed
from ingest.readers.reader import Source

PROSE_NAMES = (".md", ".markdown", ".txt", ".text", ".rst", ".html", ".htm")


class Prose:
    """Reads a document; every text is one."""

    makes: Literal["rows", "document"] = "document"
    names: tuple[str, ...] = PROSE_NAMES
    binary = False

    def sniff(self, source: Source) -> bool:
        """Whether it is text, which is all it takes."""
        return bool(source.text)

    def read(self, source: Source, columns: Mapping[str, str], bad_rows: BadRows) -> Parsed:  # noqa: ARG002
        """The text; a document has no columns and no rows."""
        markdown = re.search(r"^#{1,6} ", source.text, re.MULTILINE)
        return Parsed("document", "markdown" if markdown else "text", text=source.text)

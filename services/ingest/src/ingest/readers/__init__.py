"""Reads rows or text out of an upload, and says exactly what is wrong and where when it cannot."""

from ingest.readers.faults import BadRows, FormatError
from ingest.readers.formats import check_kept, parse
from ingest.readers.parsed import Parsed
from ingest.readers.reader import Source

__all__ = ["BadRows", "FormatError", "Parsed", "Source", "check_kept", "parse"]

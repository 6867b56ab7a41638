"""From the bytes of an upload to its text."""

from __future__ import annotations

from ingest.readers.faults import FormatError

MAGIC = {
    b"PK\x03\x04": "a zip archive (or an Office document)",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "a SQLite database",
    b"\x7fELF": "a program",
    b"\xd0\xcf\x11\xe0": "an Office document of the kind before 2007 (.xls, .doc)",
}


def decode(data: bytes) -> str:
    """The text of a file.

    Raises:
        FormatError: empty, a known binary format, not UTF-8, or holding NUL.
    """
    if not data.strip():
        raise FormatError("empty_file", "the file is empty. Upload a file with at least one row.")
    for magic, name in MAGIC.items():
        if data.startswith(magic):
            raise FormatError("unsupported_format", f"this is {name}, whatever its name says. Upload {_instead(name)}.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError("not_utf8", "this is UTF-16 text. Save the file as UTF-8 and upload it again.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FormatError(
            "not_utf8",
            f"byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8 and upload it again.",
            line,
        ) from error
    if (at := text.find("\x00")) >= 0:
        raise FormatError("nul_byte", "there is a NUL byte. Remove it and upload again.", text.count("\n", 0, at) + 1)
    return text


def _instead(name: str) -> str:
    text = "as text, Markdown, JSONL, CSV or XLSX"
    if "Office document" in name and "archive" in name:
        return f"the file inside it, or what the document says {text}"
    return "the file inside it" if "archive" in name else f"it {text}"

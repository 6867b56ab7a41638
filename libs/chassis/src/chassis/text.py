"""Quotes what people sent in messages: short, on one line, and always as text that can be written."""

from __future__ import annotations

from reprlib import Repr

ELLIPSIS = "…"


def quoted(value: object, limit: int = 200) -> str:
    """A value as Python writes it, at most `limit` characters long.

    Line breaks, control characters and halves of surrogate pairs come out escaped, so it is one line of Unicode.

    Args:
        value: usually text that somebody sent; of nested data only the beginning is looked at.
        limit: characters, the quotation marks and the ellipsis of a cut included.
    """
    if not isinstance(value, str):
        written = _beginning(limit).repr(value)
        return written if len(written) <= limit else written[: limit - 1] + ELLIPSIS
    written = repr(value[:limit])
    if len(value) <= limit and len(written) <= limit:
        return written
    return written[: limit - 2] + ELLIPSIS + written[-1]


def shown(text: str, limit: int = 200) -> str:
    """As `quoted`, without quotation marks: for a name whose place in the message says that it is one."""
    return quoted(text, limit + 2)[1:-1]


def _beginning(limit: int) -> Repr:
    short = Repr()
    short.maxlevel = 4
    short.maxstring = short.maxother = short.maxlong = limit + 1  # one more, so that what it shortens is cut here too
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 10
    return short

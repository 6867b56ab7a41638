"""Lists longer than a page: where the next one begins, and the links to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Listed:
    """One page of a list.

    Attributes:
        rows: newest first.
        has_more: there are older ones.
        after: the id it began behind; None for the first page.
    """

    rows: Sequence[Mapping[str, Any]]
    has_more: bool
    after: str | None

    @property
    def older(self) -> str | None:
        """The id behind which the next page begins."""
        return str(self.rows[-1]["id"]) if self.has_more and self.rows else None


def cursor(limit: int, after: str | None) -> dict[str, str | int]:
    """The query of one page."""
    return {"limit": limit, **({"after": after} if after else {})}

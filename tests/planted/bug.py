"""What a planted bug is: a change at a named point, and the suite that must notice."""

from __future__ import annotations

from dataclasses import dataclass

SIM = "sim"
"""The simulation; any other suite is a pytest node."""


@dataclass(frozen=True)
class Edit:
    """A part of one point's code, as `ast.unparse` writes it, and what stands there instead."""

    point: str
    old: str
    new: str


@dataclass(frozen=True)
class Planted:
    """A bug, in one or more edits, and who must catch it."""

    name: str
    edits: tuple[Edit, ...]
    suite: str = SIM


def bug(name: str, point: str, old: str, new: str, suite: str = SIM) -> Planted:
    """A bug of one edit."""
    return Planted(name, (Edit(point, old, new),), suite)

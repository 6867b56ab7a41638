"""The syntax trees of this checkout, each file parsed once for all rules that look at it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def tree_of(source: str) -> ast.Module:
    """A file's syntax tree, which nobody changes.

    Args:
        source: its path in the checkout.
    """
    return ast.parse((ROOT / source).read_text())

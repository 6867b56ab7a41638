"""How results are shown to people. Ids are whole, times are local, sizes are in KiB, and what is missing is blank."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sartor_cli.client import stderr, stdout

TIMES = re.compile(r"(_at|_finish)$|^(created|since)$")
SIZES = re.compile(r"(^|_)bytes$")
TEXTS = frozenset(
    [
        "filename",
        "name",
        "reason",
        "status_details",
        "waiting_for",
        "labels",
        "event_types",
        "problem",
        "question",
        "answer",
        "likelier",
        "wanted",
        "given",
    ]
)
"""Columns of words, which may be folded where the terminal is narrow; of everything else each row is one line."""

NARROWEST_TEXT = 20
GAP = 2


def show(result: Any, *, as_json: bool, columns: Sequence[str], more: str = "--after {}") -> None:
    """Print a result as JSON, a list as a table of `columns`, or one thing with a line for each of them.

    Args:
        result: what the API answered.
        as_json: print it as it is.
        columns: fields to show.
        more: the option that goes on behind the row whose id stands for `{}`.
    """
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
    elif "data" not in result:
        show_one([(column, cell(column, result.get(column))) for column in columns])
    else:
        show_rows(columns, [[cell(column, row.get(column)) for column in columns] for row in result["data"]])
        if result.get("has_more"):
            stderr.print(f"There is more: {more.format(result['data'][-1]['id'])}")


def show_deleted(done: Any, *, as_json: bool) -> None:
    """Print what was deleted, and beside it what stays and why."""
    show(done, as_json=as_json, columns=("id", "deleted"))
    for one in [] if as_json else done.get("kept", []):
        stderr.print(f"stays: {one['object']} {one['id']}: {one['because']}")


def show_rows(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = (), console: Console = stdout
) -> None:
    """Print a table; where the terminal is too narrow for what must not be cut, its lines run on.

    Args:
        columns: titles.
        rows: the cells.
        numbers: columns to be aligned at the right.
        console: where to.
    """
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    widest = [max(map(cell_len, [title, *cells])) for title, *cells in zip(columns, *rows, strict=True)]
    least = 0
    for title, width in zip(columns, widest, strict=True):
        folds = title in TEXTS and console.is_terminal
        floor = min(width, NARROWEST_TEXT) if folds else width
        least += floor + GAP
        justify: Any = "right" if title in numbers else "left"
        table.add_column(title, no_wrap=not folds, overflow="fold", min_width=floor, justify=justify)
    for row in rows:
        table.add_row(*map(Text, row))
    wide = Console(file=console.file, quiet=console.quiet, width=max(least, console.width))
    wide.print(table)


def show_one(facts: Iterable[tuple[str, str]], *, console: Console = stdout) -> None:
    """Print one thing: a line for each fact that is known."""
    known = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        console.print(Text(f"{name:<{width}}  {value}"))


def cell(name: str, value: Any) -> str:
    """A field's value in words, by the field's name and type."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and TIMES.search(name):
        return local_time(value)
    if isinstance(value, int) and SIZES.search(name):
        return human_size(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(key, inner)}" for key, inner in value.items() if inner not in (None, ""))
    if isinstance(value, list):
        return ", ".join(cell(name, inner) for inner in value)
    return "".join(letter if letter.isprintable() else " " for letter in str(value))


def local_time(seconds: float) -> str:
    """A moment, given in Unix seconds, by the clock on the wall."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def human_size(size: int) -> str:
    """A number of bytes in the largest unit that leaves at least 1."""
    if size < 1024:
        return f"{size} B"
    left, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while left >= 1024 and len(units) > 1:
        left, units = left / 1024, units[1:]
    return f"{left:.1f} {units[0]}"

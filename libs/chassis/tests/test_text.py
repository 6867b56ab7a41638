"""What a message shows of what somebody sent."""

from __future__ import annotations

from typing import Any

import pytest

from chassis.errors import Invalid, envelope
from chassis.text import quoted, shown


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("owner", "'owner'"),
        ("it's", '"it\'s"'),
        ("two\nlines\x00", r"'two\nlines\x00'"),
        ("cut \ud83d", r"'cut \ud83d'"),
        ("龘靐", "'龘靐'"),
        ("", "''"),
        (3.5, "3.5"),
        (None, "None"),
        (["a", {"b": "\udc00"}], r"['a', {'b': '\udc00'}]"),
        (b"\xff", r"b'\xff'"),
    ],
)
def test_it_is_written_as_python_writes_it(value: Any, written: str) -> None:
    assert quoted(value) == written


@pytest.mark.parametrize(
    "value",
    [
        "a" * 199,
        "x" * 3_000_000,
        "\n" * 300,
        "\ud83d" * 100,
        "'\"" * 150,
        ["y" * 500],
        {"z" * 900: 1},
        b"\xff" * 99,
    ],
)
@pytest.mark.parametrize("limit", [20, 200])
def test_what_is_long_is_cut_and_says_so(value: Any, limit: int) -> None:
    written = quoted(value, limit)
    assert len(written) <= limit
    assert "…" in written
    written.encode()
    assert "\n" not in written


def test_what_just_fits_is_whole() -> None:
    assert quoted("a" * 198) == "'" + "a" * 198 + "'"
    assert shown("a" * 200) == "a" * 200
    assert shown("a" * 201) == "a" * 199 + "…"


def test_an_error_can_be_written_whatever_it_quotes() -> None:
    body = envelope(Invalid("name: 'cut \ud83d'.", param="cut \ud83d"))
    assert body["error"]["message"] == r"name: 'cut \ud83d'."
    assert body["error"]["param"] == r"cut \ud83d"

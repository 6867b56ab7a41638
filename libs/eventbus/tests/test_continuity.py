"""The watchdog of sequence numbers."""

from __future__ import annotations

import pytest

from eventbus import continuity
from eventbus.continuity import Continuity


def test_gaps_and_repetitions_are_told_apart_for_each_stream() -> None:
    watch = Continuity()
    seen = [("a", 3), ("a", 4), ("b", 1), ("a", 4), ("a", 6), ("a", 5), ("a", 7), ("b", 2)]
    assert [watch.see(*one) for one in seen] == [
        "next",
        "next",
        "next",
        "repeated",
        "gap",
        "repeated",
        "next",
        "next",
    ]


def test_the_oldest_stream_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuity, "MOST_STREAMS", 2)
    watch = Continuity()
    for stream in ("a", "b", "a", "c"):
        watch.see(stream, 1)
    assert watch.see("b", 9) == "next"
    assert watch.see("c", 9) == "gap"

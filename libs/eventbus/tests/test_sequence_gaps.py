"""The watchdog of sequence numbers."""

from __future__ import annotations

import pytest

from eventbus.consume import sequence_gaps
from eventbus.consume.sequence_gaps import SequenceGaps


def test_gaps_and_repetitions_are_told_apart_for_each_stream() -> None:
    gaps = SequenceGaps()
    seen = [("a", 3), ("a", 4), ("b", 1), ("a", 4), ("a", 6), ("a", 5), ("a", 7), ("b", 2)]
    assert [gaps.see(*one) for one in seen] == [
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
    monkeypatch.setattr(sequence_gaps, "MOST_STREAMS", 2)
    gaps = SequenceGaps()
    for stream in ("a", "b", "a", "c"):
        gaps.see(stream, 1)
    assert gaps.see("b", 9) == "next"
    assert gaps.see("c", 9) == "gap"

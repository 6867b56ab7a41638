"""The samples are what their page says."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).parents[2] / "infra" / "samples"
PARTS = ("train", "valid", "heldout")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def messages(part: str) -> dict[str, str]:
    """Customer message -> intent."""
    return {
        row["messages"][-2]["content"]: row["messages"][-1]["content"]
        for row in rows(SAMPLES / f"support/{part}.jsonl")
    }


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_the_twelve_intents_in_equal_shares(part: str) -> None:
    found = Counter(messages(part).values())
    assert len(found) == 12
    assert len(set(found.values())) == 1


def test_no_message_stands_in_two_parts_or_twice() -> None:
    for one, other in combinations(PARTS, 2):
        assert messages(one).keys() & messages(other).keys() == set()
    for part in PARTS:
        assert len(messages(part)) == len(rows(SAMPLES / f"support/{part}.jsonl"))


def test_a_quarter_of_the_messages_is_japanese() -> None:
    everything = [text for part in PARTS for text in messages(part)]
    japanese = sum(not text.isascii() and any("\u3040" <= letter <= "\u9fff" for letter in text) for text in everything)
    assert 0.2 < japanese / len(everything) < 0.35


def test_every_help_page_is_asked_about() -> None:
    questions = rows(SAMPLES / "help/questions.jsonl")
    pages = {path.name for path in (SAMPLES / "help").glob("*.md")}
    assert len(pages) == 10
    assert {question["page"] for question in questions} == pages


def test_every_bad_file_is_in_the_table() -> None:
    table = (SAMPLES.parents[1] / "docs/bad_inputs.md").read_text()
    missing = [path.name for path in (SAMPLES / "bad").iterdir() if path.name not in table]
    assert missing == []


def test_the_page_names_every_sample() -> None:
    page = (SAMPLES / "README.md").read_text()
    assert [path.name for path in (SAMPLES / "support").iterdir() if f"support/{path.name}" not in page] == []

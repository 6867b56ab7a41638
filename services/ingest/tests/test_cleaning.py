"""How rows are cleaned, what they teach, and that no split knows what another one is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from ingest.cleaning import Splits, answer_of, split, task_of
from ingest.grouping import groups_of, question_key


def chat(*said: str, weights: dict[int, int] | None = None, system: str = "") -> dict[str, Any]:
    """A conversation of user and assistant by turns."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for place, text in enumerate(said):
        weight = {"weight": weights[place]} if weights and place in weights else {}
        messages.append({"role": "assistant" if place % 2 else "user", "content": text, **weight})
    return {"messages": messages}


def dealt(rows: Sequence[dict[str, Any]], **more: Any) -> Splits:
    return split(rows, **{"validation_share": 0.05, "heldout_share": 0.15, "seed": "s"} | more)


def rows(labels: int, each: int) -> list[dict[str, Any]]:
    return [chat(f"question {label} {n}", f"label_{label}") for label in range(labels) for n in range(each)]


def test_the_split_is_stratified_and_repeatable() -> None:
    data = rows(12, 32)
    first = dealt(data)
    assert first == dealt(data[::-1])
    assert (len(first.train), len(first.validation), len(first.heldout)) == (300, 24, 60)
    for part, each in ((first.validation, 2), (first.heldout, 5)):
        counts = {label: sum(answer_of(row) == label for row in part) for label in first.labels}
        assert set(counts.values()) == {each}


def test_no_question_is_in_two_splits_and_duplicates_go() -> None:
    data = rows(3, 20)
    variants = [json.loads(json.dumps(row).replace("question", "QUESTION")) for row in data]
    result = dealt(data + data + variants, validation_share=0.1, heldout_share=0.2)
    assert result.duplicates == 60
    assert result.rows == 120
    keys = [{question_key(row) for row in part} for part in (result.train, result.validation, result.heldout)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def begins_with(row: dict[str, Any], other: dict[str, Any]) -> bool:
    said, beginning = ([(m["role"], m["content"].casefold()) for m in one["messages"]] for one in (row, other))
    return said[: len(beginning)] == beginning


@pytest.mark.parametrize("seed", range(60))
def test_no_row_is_in_another_split_than_one_that_begins_with_all_of_it(seed: int) -> None:
    """Conversations that share beginnings, cut after any of their turns, in any order."""
    chance = random.Random(seed)
    talks: list[dict[str, Any]] = []
    for _ in range(chance.randint(4, 14)):
        said = [chance.choice(["a", "A", "b", "c"]) + str(chance.randint(0, 6))]
        system = chance.choice(["", "", "Be brief."])
        for _ in range(chance.randint(1, 4)):
            said += [f"answer {chance.randint(0, 3)}"]
            talks.append(chat(*said, system=system, weights={len(said) - 1: 0} if chance.random() < 0.1 else None))
            said += [chance.choice(["why", "and then"])]
    chance.shuffle(talks)
    parts = dealt(talks, heldout_share=0.3)
    placed = [(name, row) for name in ("train", "validation", "heldout") for row in getattr(parts, name)]
    assert len(placed) + parts.duplicates + parts.teach_nothing == len(talks)
    for name, row in placed:
        for other_name, other in placed:
            if begins_with(row, other) or question_key(row) == question_key(other):
                assert name == other_name


def test_talks_that_are_cut_after_each_turn_leave_rows_to_test_with() -> None:
    talks = [
        chat(*(word for turn in range(length) for word in (f"{talk}: asks {turn}", f"{talk}: says {turn}")))
        for talk in range(10)
        for length in range(1, 5)
    ]
    assert sorted(map(len, groups_of(talks))) == [4] * 10
    parts = dealt(talks)
    assert len(parts.train) >= 28
    assert len(parts.validation) == len(parts.heldout) == 4


def test_one_long_group_does_not_take_the_rows_to_learn_from() -> None:
    long_talk = [chat(*(f"turn {n}" for n in range(2 * length))) for length in range(1, 41)]
    parts = dealt([*long_talk, *(chat(f"q{n}", f"an answer, {n}") for n in range(20))])
    assert len(parts.train) >= 40
    assert parts.heldout
    assert parts.validation


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7, 8, 9, 12, 20, 29])
@pytest.mark.parametrize("classes", [1, 2, 5, 40])
def test_small_classes_keep_most_of_their_rows_for_training(classes: int, size: int) -> None:
    parts = dealt(rows(classes, size))
    for label in {answer_of(row) for row in rows(classes, size)}:
        learned = sum(answer_of(row) == label for row in parts.train)
        assert learned * 3 >= size * 2, f"{label} keeps {learned} of {size} rows"
    assert parts.heldout
    assert parts.validation or classes == 1 or size * classes < 8


@pytest.mark.parametrize("size", [3, 4, 5, 6, 7])
def test_a_class_of_a_few_rows_gives_one_of_them(size: int) -> None:
    parts = dealt([*rows(20, size), *(chat(f"big {n}", "big") for n in range(60))])
    labels = {answer_of(row) for row in parts.train} - {"big"}
    away = {label: sum(answer_of(row) == label for row in (*parts.validation, *parts.heldout)) for label in labels}
    assert set(away.values()) == {1}
    tested = {answer_of(row) for row in parts.heldout}
    assert len(tested) >= 15


def test_rows_that_teach_nothing_are_counted_and_in_no_split() -> None:
    data = [
        chat(f"is shelf {n} free?", ["yes", "no"][n % 2], weights={1: 0} if n % 4 == 0 else None) for n in range(24)
    ]
    parts = dealt(data)
    assert parts.teach_nothing == 6
    assert parts.rows == 18
    assert all("weight" not in message for row in (*parts.train, *parts.heldout) for message in row["messages"])


def test_an_answer_that_is_not_to_be_learned_is_no_reference() -> None:
    data = [chat(f"q{n}", f"first {n}", "and?", f"second {n}", weights={3: 0}) for n in range(20)]
    data += [chat(f"other {n}", f"answer {n}") for n in range(20)]
    parts = dealt(data, heldout_share=0.4)
    assert parts.rows == 40
    assert all(row["messages"][-1].get("weight") != 0 for row in (*parts.heldout, *parts.validation))


def test_rows_that_differ_only_in_what_is_not_read_stay_apart() -> None:
    data = rows(1, 1) * 4
    assert dealt(data).rows == 1
    assert dealt(data, unread=["a", "b", "", ""]).rows == 3


def test_the_task_follows_from_the_answers() -> None:
    assert task_of(rows(4, 5)) == "classification"
    assert task_of([chat(f"q{n}", f"an answer of its own, number {n}") for n in range(30)]) == "generation"
    assert task_of([chat(f"q{n}", "long " * 30) for n in range(30)]) == "generation"


@pytest.mark.parametrize(
    ("systems", "shared"), [(["Be brief."] * 3, "Be brief."), (["Be brief.", "", "Be brief."], ""), (["", "", ""], "")]
)
def test_the_system_message_of_all_rows_is_known(systems: list[str], shared: str) -> None:
    data = [chat(f"question {number}", "answer", system=system) for number, system in enumerate(systems)]
    assert dealt(data, validation_share=0.0, heldout_share=0.4).system == shared

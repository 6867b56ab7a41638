"""Reading rows, choosing which are used, and the prompts made of them."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from chassis.errors import Invalid
from evaluator.domain import Evaluation, Plan
from evaluator.prompts import choose_examples, few_shot, zero_shot
from evaluator.rows import Row, parse_rows, sample, shuffled


def row(index: int, question: str, reference: str, system: str = "Be brief.") -> Row:
    return Row(index, ({"role": "system", "content": system}, {"role": "user", "content": question}), reference)


def intents(counts: dict[str, int]) -> list[Row]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [row(index, f"question {index}", name) for index, name in enumerate(names)]


def test_chat_lines_are_read() -> None:
    line = {
        "messages": [
            {"role": "user", "content": "荷物はどこ?", "name": "of a later release"},
            {"role": "assistant", "content": "配送中", "weight": True},
        ],
        "tags": [],
    }
    [found] = parse_rows((json.dumps(line, ensure_ascii=False) + "\n\n").encode(), "heldout.jsonl")
    assert (found.index, found.reference, found.messages) == (
        0,
        "配送中",
        ({"role": "user", "content": "荷物はどこ?"},),
    )


def test_an_answer_of_weight_0_is_no_reference() -> None:
    def turn(role: str, content: str, **weight: int) -> dict[str, object]:
        return {"role": role, "content": content, **weight}

    conversations = [
        [turn("user", "a?"), turn("assistant", "A", weight=1), turn("user", "b?"), turn("assistant", "B", weight=0)],
        [turn("user", "a?"), turn("assistant", "A", weight=0), turn("user", "b?"), turn("assistant", "B")],
        [turn("user", "c?"), turn("assistant", "C", weight=0)],
    ]
    data = "".join(json.dumps({"messages": one}) + "\n" for one in conversations).encode()
    found = parse_rows(data, "heldout.jsonl")
    assert [(one.index, one.reference, len(one.messages), one.taught) for one in found] == [
        (0, "A", 1, True),
        (1, "B", 3, True),
        (2, "C", 1, False),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "{}",
        '{"messages": []}',
        '{"messages": [{"role": "assistant", "content": "x"}]}',
        '{"messages": [1, 2]}',
        '{"messages": [{"role": "user", "content": [{"type": "text"}]}, {"role": "assistant", "content": "y"}]}',
        '{"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]}',
    ],
)
def test_a_bad_line_is_named(line: str) -> None:
    good = '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}'
    with pytest.raises(Invalid, match=r"heldout\.jsonl, line 2"):
        parse_rows(f"{good}\n{line}\n".encode(), "heldout.jsonl")


def test_a_sample_keeps_the_shares_of_the_classes() -> None:
    rows = intents({"common": 120, "middle": 60, "rare": 20})
    chosen = sample(rows, 50, 1, lambda one: one.label)
    assert Counter(one.label for one in chosen) == {"common": 30, "middle": 15, "rare": 5}
    assert chosen == sample(list(reversed(rows)), 50, 1, lambda one: one.label)
    assert {one.index for one in chosen} < {one.index for one in sample(rows, 80, 1, lambda one: one.label)}
    assert [one.index for one in chosen] == sorted(one.index for one in chosen)


def test_small_sets_are_used_whole() -> None:
    rows = intents({"a": 3, "b": 2})
    assert sample(rows, 100, 1, lambda one: one.label) == rows


def test_shuffling_depends_on_the_seed_alone() -> None:
    rows = intents({"a": 30})
    assert shuffled(rows, 1) == shuffled(rows[::-1], 1) != shuffled(rows, 2)


def test_classification_shows_each_class() -> None:
    rows = intents({"a": 9, "b": 5, "c": 5, "d": 5, "e": 1})
    chosen = choose_examples(rows, "classification", 16, 1)
    assert [one.label for one in chosen] == [*"abcde", *"abcd"]
    few = choose_examples(intents({"a": 9, "b": 5}), "classification", 16, 1)
    assert [one.label for one in few] == ["a", "b", "a", "b"]
    assert len({one.index for one in few}) == 4
    assert [one.label for one in choose_examples(rows, "classification", 2, 1)] == ["a", "b"]


def test_long_examples_are_avoided() -> None:
    rows = [row(0, "x" * 4000, "a"), *[row(index, f"short {index}", "a") for index in range(1, 6)]]
    for seed in range(20):
        assert all(one.index != 0 for one in choose_examples(rows, "generation", 16, seed))


def test_the_few_shot_prefix_is_the_same_for_all_rows() -> None:
    examples = choose_examples(intents({"a": 3, "b": 3}), "classification", 4, 1)
    one, other = (few_shot(row(9, question, "a"), examples) for question in ("first?", "second?"))
    assert one[:-1] == other[:-1]
    assert [message["role"] for message in one] == ["system", *["user", "assistant"] * 4, "user"]
    assert one[-1]["content"] == "first?"
    assert zero_shot(row(9, "first?", "a")) == [one[0], one[-1]]


def test_the_reference_is_never_in_the_question() -> None:
    asked = few_shot(row(9, "where is it?", "SECRET-REFERENCE"), intents({"a": 2}))
    assert "SECRET-REFERENCE" not in json.dumps(asked)


def test_a_second_plan_does_not_replace_the_first() -> None:
    evaluation = Evaluation.model_validate(
        {
            "id": "ev-1",
            "tenant_id": "t",
            "created_at": 1,
            "model_id": "m",
            "job_id": "j",
            "base_model": "b",
            "adapter_id": "ad",
            "dataset": {
                "task": "generation",
                **{name: {"bucket": "b", "key": "k", "sha256": "0", "size": 0} for name in ("heldout", "train")},
            },
        }
    )
    plans = [
        Plan(rows=[place], examples=[], systems=["base", "candidate"], max_tokens=8, stop=[], seed=1)
        for place in (1, 2)
    ]
    for plan in plans:
        evaluation.fix_plan(plan)
    assert evaluation.plan == plans[0]
    assert plans[0].questions == 2
    evaluation.cancel(at=5)
    evaluation.cancel(at=6)
    assert (evaluation.state, evaluation.finished_at, evaluation.take_pending()) == ("cancelled", 5, [])

"""What each system is asked: the row alone, or the row after examples from the training rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from evaluator.rows import Row, shuffled
from schemas.artifacts import ChatMessage

EXAMPLES_OF_A_CLASS = 2
GENERATION_EXAMPLES = 4


def choose_examples(rows: Sequence[Row], task: str, count: int, seed: int) -> list[Row]:
    """Examples for the few-shot prompt, the more useful ones first; the same for every question.

    Classification: one of each class, common classes first, then a second one of each. Generation: four rows. Among
    candidates the shorter half is preferred, since every question pays for them.

    Args:
        rows: training rows.
        task: `classification` or `generation`.
        count: at most this many.
        seed: of the choice.
    """
    if task == "generation":
        return _shorter_half(shuffled(rows, seed))[: min(count, GENERATION_EXAMPLES)]
    classes: dict[str, list[Row]] = defaultdict(list)
    for row in shuffled(rows, seed):
        classes[row.label].append(row)
    by_share = sorted(classes.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    turns = range(EXAMPLES_OF_A_CLASS)
    ranked = [_shorter_half(members)[turn : turn + 1] for turn in turns for _, members in by_share]
    return [row for found in ranked for row in found][:count]


def _shorter_half(rows: list[Row]) -> list[Row]:
    """The rows not longer than the median one, in their order."""
    lengths = sorted(_length(row) for row in rows)
    limit = lengths[(len(lengths) - 1) // 2] if lengths else 0
    return [row for row in rows if _length(row) <= limit]


def _length(row: Row) -> int:
    return len(example_text(row))


def example_text(row: Row) -> str:
    """The text of an example, to count its tokens."""
    return "\n".join([*(turn["content"] for turn in row.turns), row.reference])


def zero_shot(row: Row) -> list[ChatMessage]:
    """The row's own messages."""
    return list(row.messages)


def few_shot(row: Row, examples: Sequence[Row]) -> list[ChatMessage]:
    """The row after the examples, as earlier turns of the conversation.

    Nothing before the row's own turns depends on the row (where all rows share a system message), so an engine that
    caches prompt prefixes reads the examples once.
    """
    shown = [turn for example in examples for turn in (*example.turns, _answer(example))]
    return [*row.system, *shown, *row.turns]


def _answer(row: Row) -> ChatMessage:
    return {"role": "assistant", "content": row.reference}

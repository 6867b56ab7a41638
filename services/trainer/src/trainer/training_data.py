"""From chat rows to training batches: which tokens are learned, in which order rows are seen."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

IGNORED = -100
"""Target of a position that is not learned."""


class BadTrainingData(Exception):
    """The rows cannot be trained on; the message says which and why."""


@dataclass(frozen=True)
class Example:
    """One row as tokens.

    Attributes:
        ids: input tokens.
        targets: for each position the token it must predict, or `IGNORED`; same length as `ids`.
    """

    ids: list[int]
    targets: list[int]


@dataclass(frozen=True)
class Examples:
    """The rows of a file that can be learned from, in its order, and how many were left out.

    Attributes:
        too_long: rows of more tokens than the limit.
        unweighted: rows without an answer to learn: each has the weight 0.
    """

    rows: list[Example] = field(default_factory=list)
    too_long: int = 0
    unweighted: int = 0


def read_examples(path: Path, tokenizer: Any, stop_ids: set[int], max_length: int) -> Examples:
    """Encode a JSONL file of `{"messages": [...]}` rows.

    Raises:
        BadTrainingData: a line is not such a row.
    """
    examples: list[Example] = []
    too_long = unweighted = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            example = encode(json.loads(line)["messages"], tokenizer, stop_ids)
        except (ValueError, KeyError, TypeError) as error:
            raise BadTrainingData(f"{path.name} line {number}: not a chat row ({error!r}).") from error
        if all(target == IGNORED for target in example.targets):
            unweighted += 1
        elif len(example.ids) > max_length:
            too_long += 1
        else:
            examples.append(example)
    return Examples(examples, too_long, unweighted)


def encode(messages: Sequence[dict[str, Any]], tokenizer: Any, stop_ids: set[int]) -> Example:
    """Tokenise a conversation; only assistant messages (unless their `weight` is 0) and their end are learned.

    The tokens before an answer are those of the prompt the server will see. After the last token of an answer the model
    must predict end-of-sequence, whatever the template puts there for later turns, so that it learns to stop.

    Args:
        messages: OpenAI chat messages.
        tokenizer: with a chat template whose rendering of a conversation starts with that of its beginning.
        stop_ids: tokens that end an answer by themselves.

    Raises:
        BadTrainingData: the template rewrites earlier turns, so answers cannot be told from prompts.
    """
    ids: list[int] = []
    targets: list[int] = []
    encoded = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant" or message.get("weight", 1) == 0:
            continue
        prompt = _render(tokenizer, messages[:i], add_generation_prompt=True)
        answered = _render(tokenizer, messages[: i + 1], add_generation_prompt=False)
        if not (prompt.startswith(encoded) and answered.startswith(prompt)):
            raise BadTrainingData("The chat template renders a turn differently once another one follows.")
        answer_text = answered[len(prompt) :].rstrip()
        context = _tokens(tokenizer, prompt[len(encoded) :])
        answer = _tokens(tokenizer, answer_text)
        end = IGNORED if answer and answer[-1] in stop_ids else tokenizer.eos_token_id
        ids += context + answer
        targets += [IGNORED] * (len(context) - 1) + answer + [end]
        encoded = prompt + answer_text
    return Example(ids, targets)


def _render(tokenizer: Any, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return text


def _tokens(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def epoch_batches(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[Example]]:
    """One epoch's batches: rows of like length together, in an order that depends only on the seed and the epoch.

    Rows are shuffled, sorted by length within pools of eight batches, cut, and the batches shuffled.
    """
    # Not for secrets: the order must be the same on every machine and attempt.
    order = random.Random(f"{seed}:{epoch}")  # noqa: S311
    rows = list(examples)
    order.shuffle(rows)
    pool = batch_size * 8
    batches = []
    for start in range(0, len(rows), pool):
        alike = sorted(rows[start : start + pool], key=lambda example: len(example.ids))
        batches += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
    order.shuffle(batches)
    return batches


def split_by_tokens(batch: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Cut a batch into parts of at most `max_tokens` padded tokens (at least one row), to bound memory."""
    parts: list[list[Example]] = []
    for example in sorted(batch, key=lambda example: len(example.ids)):
        if parts and (len(parts[-1]) + 1) * len(example.ids) <= max_tokens:
            parts[-1].append(example)
        else:
            parts.append([example])
    return parts


def to_tensors(examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right: `ids` and `targets`, both [rows, longest row]. A causal model needs no mask for that."""
    longest = max(len(example.ids) for example in examples)
    ids = [example.ids + [0] * (longest - len(example.ids)) for example in examples]
    targets = [example.targets + [IGNORED] * (longest - len(example.targets)) for example in examples]
    return torch.tensor(ids), torch.tensor(targets)

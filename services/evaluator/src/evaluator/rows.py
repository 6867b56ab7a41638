"""Rows of a dataset: what was asked and the answer a person gave; which of them an evaluation uses."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chassis.errors import Invalid
from evaluator.words import normalise
from schemas.artifacts import BadRow, ChatMessage, is_learned, read_chat_row


@dataclass(frozen=True)
class Row:
    """One row: the messages before the last answer that is to be learned, and that answer.

    Attributes:
        index: its place in the file, from 0.
        messages: the conversation up to the answer.
        reference: the answer it should have.
        taught: whether any of its answers is to be learned. If not, each has the weight 0, the reference is its last
            answer, and nobody may be measured by it.
    """

    index: int
    messages: tuple[ChatMessage, ...]
    reference: str
    taught: bool = True

    @property
    def system(self) -> list[ChatMessage]:
        """Its system messages."""
        return [message for message in self.messages if message["role"] == "system"]

    @property
    def turns(self) -> list[ChatMessage]:
        """Its other messages."""
        return [message for message in self.messages if message["role"] != "system"]

    @property
    def label(self) -> str:
        """The reference as classes are compared."""
        return normalise(self.reference)


def parse_rows(data: bytes, name: str) -> list[Row]:
    """Read chat JSONL.

    Args:
        data: the file.
        name: what to call it in errors.

    Raises:
        Invalid: a line is not such a row.
    """
    rows: list[Row] = []
    for number, line in enumerate(data.decode("utf-8").split("\n"), start=1):
        if line.strip():
            rows.append(_parse_row(line, len(rows), f"{name}, line {number}"))
    return rows


def _parse_row(line: str, index: int, where: str) -> Row:
    try:
        given = read_chat_row(line)["messages"]
    except BadRow as error:
        raise Invalid(f"{where}: not a chat row ({error}).", code="bad_row") from error
    if len(given) < 2 or given[-1]["role"] != "assistant":
        raise Invalid(f"{where}: the last message must be the assistant's, after at least one other.", code="bad_row")
    learned = [place for place, one in enumerate(given) if is_learned(one) and place > 0]
    last = learned[-1] if learned else len(given) - 1
    asked: list[ChatMessage] = [{"role": one["role"], "content": one["content"]} for one in given[:last]]
    return Row(index, tuple(asked), given[last]["content"], taught=bool(learned))


def shuffled(rows: Sequence[Row], seed: int) -> list[Row]:
    """The rows in an order that depends on nothing but `seed` and what they say."""

    def place(row: Row) -> str:
        said = json.dumps([seed, row.messages, row.reference], ensure_ascii=False)
        return hashlib.sha256(said.encode()).hexdigest()

    return sorted(rows, key=place)


def sample(rows: Sequence[Row], count: int, seed: int, stratum: Callable[[Row], str]) -> list[Row]:
    """At most `count` rows, in file order, with each stratum in about its share of all rows.

    Rows are shuffled within their stratum; the one at place i of a stratum of n gets the key (i + ½) / n, and the
    lowest keys are taken. Growing `count` only adds rows.
    """
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in shuffled(rows, seed):
        strata[stratum(row)].append(row)
    keyed = [
        ((place + 0.5) / len(members), name, row)
        for name, members in strata.items()
        for place, row in enumerate(members)
    ]
    chosen = sorted(keyed, key=lambda entry: entry[:2])[:count]
    return sorted((row for _, _, row in chosen), key=lambda row: row.index)

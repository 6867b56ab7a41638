"""Rows of a dataset: what was asked and the answer a person gave; which of them an evaluation uses."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chassis.errors import Invalid
from evaluator.words import normalise

Message = dict[str, str]


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
    messages: tuple[Message, ...]
    reference: str
    taught: bool = True

    @property
    def system(self) -> list[Message]:
        """Its system messages."""
        return [message for message in self.messages if message["role"] == "system"]

    @property
    def turns(self) -> list[Message]:
        """Its other messages."""
        return [message for message in self.messages if message["role"] != "system"]

    @property
    def label(self) -> str:
        """The reference as classes are compared."""
        return normalise(self.reference)


def parse_rows(data: bytes, name: str) -> list[Row]:
    """Read chat JSONL, each line `{"messages": [..., {"role": "assistant", "content": ...}]}`.

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
        given = json.loads(line)["messages"]
        messages = [{"role": str(one["role"]), "content": _text(one["content"])} for one in given]
        weights = [one.get("weight", 1) for one in given]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"{where}: not a chat row ({type(error).__name__}: {error}).", code="bad_row") from error
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise Invalid(f"{where}: the last message must be the assistant's, after at least one other.", code="bad_row")
    answers = [place for place, one in enumerate(messages) if one["role"] == "assistant" and place > 0]
    learned = [place for place in answers if weights[place] != 0]
    last = (learned or answers)[-1]
    return Row(index, tuple(messages[:last]), messages[last]["content"], taught=bool(learned))


def _text(content: str | Sequence[Mapping[str, str]]) -> str:
    """The text of a message, given as a string or as OpenAI's list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content)


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

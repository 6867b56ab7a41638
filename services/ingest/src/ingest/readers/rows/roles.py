"""Which field of a row or column of a table holds the question, the answer, the context and the system message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chassis.text import quoted
from ingest.readers.faults import FormatError, listed
from ingest.readers.parsed import Fields, Unread, unread_of
from ingest.readers.rows.content import blank, content
from schemas.artifacts import ChatMessage, ChatRow, TextRow

TEXTS: tuple[str, ...] = (
    "text",
    "message",
    "input",
    "prompt",
    "question",
    "query",
    "utterance",
    "sentence",
    "user",
    "instruction",
)
CLASSES = ("label", "intent", "category", "class")
ANSWERS: tuple[str, ...] = (*CLASSES, "answer", "output", "completion", "response", "assistant")
CONTEXTS: tuple[str, ...] = ("input", "context")
PAIRS = (("instruction", "output"), ("prompt", "completion"), ("question", "answer"))
"""Where both are there, a `text` beside them is their rendering, and a class is about the row: neither is meant."""

PREFERENCES = ({"chosen", "rejected"}, {"preferred_output", "non_preferred_output"})


@dataclass(frozen=True)
class Roles:
    """Names of fields or columns.

    Attributes:
        text: what is asked.
        context: what the question is about; put after it.
        answer: None where there are no answers.
        system: the system message.
    """

    text: str
    context: str | None = None
    answer: str | None = None
    system: str | None = None

    @property
    def format(self) -> str:
        """What rows of these roles are called."""
        if self.answer is None:
            return "text"
        pair = (self.text.casefold(), self.answer.casefold())
        return {PAIRS[0]: "instruction", PAIRS[1]: "prompt/completion"}.get(pair, "text/label")

    def read(self, record: Fields, number: int) -> tuple[ChatRow | TextRow, Unread]:
        """The row that a record of these fields is, and what it says beside.

        Raises:
            FormatError: a field that must hold text does not.
        """
        asked = _text(record, self.text, number)
        if context := _optional(record, self.context, number):
            asked = f"{asked}\n\n{context}"
        if self.answer is None:
            return {"text": asked}, unread_of(record, {self.text, self.context})
        row = chat_row(asked, _text(record, self.answer, number), _optional(record, self.system, number))
        return row, unread_of(record, {self.text, self.context, self.answer, self.system})


def _text(record: Fields, name: str, number: int) -> str:
    return content(record.get(name), listed([name]), number)


def _optional(record: Fields, name: str | None, number: int) -> str:
    return "" if name is None or blank(record.get(name)) else _text(record, name, number)


def find_roles(
    names: Sequence[str], wanted: Mapping[str, str], kind: Literal["column", "field"], line: int
) -> Roles | None:
    """The roles of fields or columns: those the sender said, and those that are plain from their names.

    Args:
        names: of the fields or columns, in their order.
        wanted: `text`, `input`, `label` or `system` -> name, as the sender said.
        kind: what to call them in messages.
        line: where they stand.

    Returns:
        None where no name stands for what is asked.

    Raises:
        FormatError: a name that the sender said is not there, or two could be meant.
    """
    folded = {name.casefold() for name in names}
    if any(pair <= folded for pair in PREFERENCES) and "label" not in wanted:
        raise FormatError(
            "preferences",
            "pairs of a chosen and a rejected answer cannot be learned from. Send one answer: prompt + completion.",
            line,
        )
    for role, name in wanted.items():
        if name not in names and (kind == "column" or role in ("text", "label")):
            raise FormatError(
                f"unknown_{kind}", f"there is no {kind} {quoted(name)}. The {kind}s are: {listed(names)}.", line
            )
    free = [name for name in names if name not in wanted.values()]
    paired = any(folded.issuperset(pair) for pair in PAIRS)
    texts, answers, contexts = TEXTS, ANSWERS, CONTEXTS
    if paired:
        texts = tuple(name for name in TEXTS if name != "text")
        answers = tuple(name for name in ANSWERS if name not in CLASSES)
    text_role = wanted.get("text", "instruction" if "instruction" in folded else "").casefold()
    if text_role == "instruction":
        texts = tuple(name for name in texts if name not in CONTEXTS)
    else:
        contexts = ()
    return _roles(names, free, wanted, (texts, contexts, answers), kind, line)


def _roles(
    names: Sequence[str],
    free: Sequence[str],
    wanted: Mapping[str, str],
    candidates: tuple[Sequence[str], Sequence[str], Sequence[str]],
    kind: Literal["column", "field"],
    line: int,
) -> Roles | None:
    def one(role: str, among: Sequence[str]) -> str | None:
        if role in wanted:
            found = [name for name in names if name == wanted[role]]
        else:
            found = [name for name in free if name.casefold() in among]
        if len(found) > 1:
            raise FormatError(f"ambiguous_{kind}s", _ambiguous(names, found, role, kind), line)
        return found[0] if found else None

    texts, contexts, answers = candidates
    text = one("text", texts)
    if text is None:
        return None
    return Roles(text, one("input", contexts), one("label", answers), one("system", ("system",)))


def _ambiguous(names: Sequence[str], found: Sequence[str], role: str, kind: Literal["column", "field"]) -> str:
    first = names.index(found[0])
    second = names.index(found[1], first + 1)
    if kind == "field":
        both = f"the fields {quoted(found[0])} and {quoted(found[1])}"
    else:
        both = f"the columns {first + 1} ({quoted(found[0])}) and {second + 1} ({quoted(found[1])})"
    if found[0] == found[1]:
        return f"{both} have the same name, and it cannot be told which one is the {role}. Rename or remove one."
    return f'{both} could both be the {role}. Say which: columns={{"{role}": "…"}}, or remove one.'


def chat_row(question: str, answer: str, system: str = "") -> ChatRow:
    """A row of one question and one answer."""
    before: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
    return {"messages": [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]}

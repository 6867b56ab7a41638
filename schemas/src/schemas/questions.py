"""What of a conversation is embedded: the same of a training row and of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from schemas.http.rag_indexer import QUESTION_CHARACTERS

ASKED = ("user", "assistant")


def question_of(messages: Iterable[Mapping[str, object]]) -> str:
    """The turns of user and assistant in their order, a line each; system messages are the same in every row.

    Args:
        messages: chat messages before the answer; their content is a text, or a list of parts whose texts count.

    Returns:
        At most `QUESTION_CHARACTERS`, from the end: what was asked last is asked.
    """
    turns = [_text(message.get("content")) for message in messages if message.get("role") in ASKED]
    return "\n".join(turn for turn in turns if turn)[-QUESTION_CHARACTERS:]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))

"""Shapes of OpenAI's answers, and the text filter that keeps stop sequences out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference_proxy.tgi import Piece


class StopFilter:
    """Cuts a text at the first stop sequence, holding back what may be the beginning of one."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The part of all text so far that may be shown now and was not before."""
        if self.stopped:
            return ""
        self._held += text
        cuts = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if cuts:
            shown, self._held, self.stopped = self._held[: min(cuts)], "", True
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back and turned out to be no stop sequence."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


@dataclass
class Generated:
    """One choice as it grows."""

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def take(self, piece: Piece, shown: str) -> None:
        """Add a token and the text it lets be shown."""
        self.text += shown
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.completion_tokens += 1
        if not piece.special:
            self.logprobs.append(_logprob(piece))
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
            self.completion_tokens = piece.generated_tokens or self.completion_tokens


def _logprob(piece: Piece) -> dict[str, Any]:
    return {
        "token": piece.text,
        "logprob": piece.logprob if piece.logprob is not None else 0.0,
        "bytes": list(piece.text.encode()),
        "top_logprobs": [
            {"token": text, "logprob": logprob, "bytes": list(text.encode())} for text, logprob in piece.top
        ],
    }


def usage(choices: list[Generated], each: int) -> dict[str, int]:
    """OpenAI's usage of an answer.

    Args:
        choices: of all prompts, in their order.
        each: choices of a prompt, which counts once.
    """
    of_prompts = (choices[start : start + each] for start in range(0, len(choices), each))
    prompt = sum(max(choice.prompt_tokens for choice in of_prompt) for of_prompt in of_prompts)
    completion = sum(choice.completion_tokens for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def chat_completion(header: dict[str, Any], choices: list[Generated], *, logprobs: bool) -> dict[str, Any]:
    """A whole chat answer: choices for one prompt."""
    return {
        **header,
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "finish_reason": choice.finish_reason,
                "logprobs": {"content": choice.logprobs, "refusal": None} if logprobs else None,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage(choices, len(choices)),
    }


def chat_chunk(
    header: dict[str, Any], index: int, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Any = None
) -> dict[str, Any]:
    """One chunk of a streamed chat answer."""
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
    return {**header, "object": "chat.completion.chunk", "choices": [choice]}


def text_completion(header: dict[str, Any], choices: list[Generated], each: int, top: int | None) -> dict[str, Any]:
    """A whole legacy completion, of `each` choices for a prompt."""
    return {
        **header,
        "object": "text_completion",
        "choices": [
            {
                "index": index,
                "text": choice.text,
                "finish_reason": choice.finish_reason,
                "logprobs": _legacy(choice) if top is not None else None,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage(choices, each),
    }


def text_chunk(header: dict[str, Any], index: int, text: str, finish_reason: str | None = None) -> dict[str, Any]:
    """One chunk of a streamed legacy completion."""
    choice = {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None}
    return {**header, "object": "text_completion", "choices": [choice]}


def _legacy(choice: Generated) -> dict[str, Any]:
    offsets, at = [], 0
    for entry in choice.logprobs:
        offsets.append(at)
        at += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in choice.logprobs],
        "token_logprobs": [entry["logprob"] for entry in choice.logprobs],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in choice.logprobs],
        "text_offset": offsets,
    }

"""What an engine generates, put together: text without stop sequences, log-probabilities, usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from inference_proxy.engines import Accepted, Piece

UNKNOWN = "\ufffd"


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


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer with its log-probability.

    Attributes:
        offset: characters of the answer before the one it begins in.
    """

    offset: int
    piece: Piece


@dataclass
class Generated:
    """One choice as it grows."""

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: list[TokenLogprob] = field(default_factory=list)
    _characters: int = 0

    def begin(self, accepted: Accepted) -> None:
        """Owe the prompt from now on."""
        self.prompt_tokens = accepted.prompt_tokens

    def take(self, piece: Piece, shown: str) -> None:
        """Add a token and the text it lets be shown."""
        self.text += shown
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.completion_tokens += 1
        if not piece.special:
            self.tokens.append(TokenLogprob(self._characters, piece))
            self._characters += len(piece.text)
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
            self.completion_tokens = piece.generated_tokens or self.completion_tokens

    def shown_tokens(self, start: int = 0) -> list[TokenLogprob]:
        """The tokens from the given one on that begin within the text shown: what is cut off has none."""
        return list(takewhile(lambda token: token.offset < len(self.text), islice(self.tokens, start, None)))


def chat_logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities as chat answers carry them; a part of a character is named by its bytes' escapes."""
    return {"content": [_logprob(token.piece) for token in tokens], "refusal": None}


def _logprob(piece: Piece) -> dict[str, Any]:
    return {
        **_named(piece.text, piece.bytes),
        "logprob": piece.logprob if piece.logprob is not None else 0.0,
        "top_logprobs": [{**_named(text, own), "logprob": logprob} for text, logprob, own in piece.top],
    }


def _named(text: str, own: bytes | None) -> dict[str, Any]:
    """An engine that does not tell a token's bytes gives text, which may hold less or more than the token."""
    if own is not None:
        return {"token": own.decode(errors="backslashreplace"), "bytes": list(own)}
    return {"token": text, "bytes": None if UNKNOWN in text else list(text.encode())}


def text_logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities as legacy completions carry them."""
    pieces = [token.piece for token in tokens]
    return {
        "tokens": [_legacy(piece.text, piece.bytes) for piece in pieces],
        "token_logprobs": [piece.logprob if piece.logprob is not None else 0.0 for piece in pieces],
        "top_logprobs": [{_legacy(text, own): logprob for text, logprob, own in piece.top} for piece in pieces],
        "text_offset": [token.offset for token in tokens],
    }


def _legacy(text: str, own: bytes | None) -> str:
    """A token's name: a part of a character is `bytes:` with its escapes."""
    if own is None:
        return text
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


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

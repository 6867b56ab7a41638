"""An answer under way, and all that is known of it: what was asked, what has come, what a stream has told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile

from chassis.auth import Principal
from chassis.ids import now
from inference_proxy.engines import Accepted, AnswerBroken, Piece, Prompt, Scored
from inference_proxy.requests import ChatAsked, CompletionAsked
from inference_proxy.routing import Route
from inference_proxy.shapes import ChatLogprobs, ChatToken, Header, NamedToken, Source, TextLogprobs, Usage
from schemas.artifacts import ArmKind, Price

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
        first: nothing stands before it, so that it has no log-probability.
    """

    offset: int
    piece: Piece
    first: bool = False


@dataclass
class Choice:
    """One choice as it grows.

    Attributes:
        cpu_seconds: processor time of an arm that gave it.
        confidence: how sure that is; None of what a model writes.
        told: how many of its tokens a stream has told; None before it has begun.
    """

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cpu_seconds: float = 0.0
    confidence: float | None = None
    tokens: list[TokenLogprob] = field(default_factory=list)
    told: int | None = None
    _characters: int = 0

    def echo(self, text: str, worth: Sequence[Piece]) -> None:
        """Begin with the prompt, and with what its tokens are worth where that was asked."""
        self.text = text
        for place, piece in enumerate(worth):
            self._note(piece, first=place == 0)
        self._characters = len(text)

    def echoed_logprobs(self) -> list[float]:
        """Log-probabilities of the tokens of a prompt that was scored, without the first one.

        Raises:
            AnswerBroken: the engine left one out.
        """
        worth = [token.piece.logprob for token in self.tokens if not token.first]
        if None in worth:
            raise AnswerBroken("it did not tell what every token of the text is worth.")
        return [one for one in worth if one is not None]

    def begin(self, accepted: Accepted) -> None:
        """Owe the prompt from now on."""
        self.prompt_tokens = accepted.prompt_tokens

    def take(self, piece: Piece, shown: str) -> None:
        """Add a token and the text it lets be shown."""
        self.text += shown
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.completion_tokens += 1
        self.cpu_seconds += piece.cpu_seconds
        self.confidence = piece.confidence
        if not piece.special:
            self._note(piece)
        if piece.finish_reason:
            self.finish_reason = piece.finish_reason
            self.completion_tokens = piece.generated_tokens or self.completion_tokens

    def shown_tokens(self, start: int = 0) -> list[TokenLogprob]:
        """The tokens from the given one on that begin within the text shown: what is cut off has none."""
        return list(takewhile(lambda token: token.offset < len(self.text), islice(self.tokens, start, None)))

    def tell(self) -> list[TokenLogprob]:
        """The tokens shown that a stream has not told, and tells now."""
        tokens = self.shown_tokens(self.told or 0)
        self.told = (self.told or 0) + len(tokens)
        return tokens

    def _note(self, piece: Piece, *, first: bool = False) -> None:
        self.tokens.append(TokenLogprob(self._characters, piece, first))
        self._characters += len(piece.text)


@dataclass
class Scoring:
    """What a prompt is worth: asked once, however many choices have it.

    Attributes:
        tokens: that were read for it, and are owed besides those read for the choices.
        worth: its tokens with their log-probabilities; None until they are told.
        asking: held by the choice that asks for all.
    """

    tokens: int = 0
    worth: Sequence[Piece] | None = None
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, told: Accepted | Scored) -> None:
        """Owe the prompt from now on, and keep what is told of it."""
        self.tokens = told.prompt_tokens
        if isinstance(told, Scored):
            self.worth = told.pieces


@dataclass(frozen=True)
class HandedOver:
    """An arm that was asked first, and was too unsure.

    Attributes:
        by: its kind.
        confidence: how sure it was of the answer that it was least sure of.
    """

    by: ArmKind
    confidence: float


@dataclass
class Answer:
    """An answer under way: what was asked, where it goes, what has come.

    Attributes:
        prompts: one per choice.
        price: what its tokens cost; None where nobody said.
        second_price: what a second of processor time costs that an arm takes.
        looked_seconds: processor time of what an arm was asked before it was known who gives the answer.
        retrieved: sources put into the prompt.
        scorings: by text, of the prompts that are scored.
        handed_over: by which arm the answer was left to what gives it.
    """

    id: str
    principal: Principal
    asked: ChatAsked | CompletionAsked
    route: Route
    prompts: Sequence[Prompt]
    stop_tokens: Sequence[str]
    price: Price | None
    second_price: float = 0.0
    looked_seconds: float = 0.0
    retrieved: list[Source] = field(default_factory=list)
    created: int = field(default_factory=now)
    began: float = field(default_factory=time.monotonic)
    choices: list[Choice] = field(default_factory=list)
    scorings: dict[str, Scoring] = field(default_factory=dict)
    handed_over: HandedOver | None = None

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token is told with its log-probability."""
        return self.asked.top is not None

    @property
    def cost(self) -> float | None:
        """What was read and generated costs, each choice with its prompt, and what arms took for it.

        None where no price of its tokens is known.
        """
        if self.price is None:
            return None
        scored = self.price.of(self.scored_tokens, 0)
        tokens = sum(self.price.of(choice.prompt_tokens, choice.completion_tokens) for choice in self.choices)
        seconds = self.looked_seconds + sum(choice.cpu_seconds for choice in self.choices)
        return scored + tokens + seconds * self.second_price

    @property
    def scored_tokens(self) -> int:
        """Tokens read to say what prompts are worth."""
        return sum(scoring.tokens for scoring in self.scorings.values())

    @property
    def usage(self) -> Usage:
        """OpenAI's usage: a prompt counts once, however many choices it has, and once more where it was scored."""
        each = self.asked.choices
        of_prompts = (self.choices[start : start + each] for start in range(0, len(self.choices), each))
        prompt = sum(max(choice.prompt_tokens for choice in of_prompt) for of_prompt in of_prompts) + self.scored_tokens
        completion = sum(choice.completion_tokens for choice in self.choices)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    @property
    def header(self) -> Header:
        """Fields every chunk and answer carries."""
        header: Header = {
            "id": self.id,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": self.route.fingerprint,
        }
        return {**header, "sartor": {"retrieved": self.retrieved}} if self.retrieved else header


def chat_logprobs(tokens: list[TokenLogprob]) -> ChatLogprobs:
    """Log-probabilities as chat answers carry them; a part of a character is named by its bytes' escapes."""
    return {"content": [_logprob(token.piece) for token in tokens], "refusal": None}


def _logprob(piece: Piece) -> ChatToken:
    return {
        **_named(piece.text, piece.bytes),
        "logprob": piece.logprob if piece.logprob is not None else 0.0,
        "top_logprobs": [{**_named(text, own), "logprob": logprob} for text, logprob, own in piece.top],
    }


def _named(text: str, own: bytes | None) -> NamedToken:
    """An engine that does not tell a token's bytes gives text, which may hold less or more than the token."""
    if own is not None:
        return {"token": own.decode(errors="backslashreplace"), "bytes": list(own)}
    return {"token": text, "bytes": None if UNKNOWN in text else list(text.encode())}


def text_logprobs(tokens: list[TokenLogprob]) -> TextLogprobs:
    """Log-probabilities as legacy completions carry them; a text's first token has none."""
    return {
        "tokens": [_legacy(token.piece.text, token.piece.bytes) for token in tokens],
        "token_logprobs": [None if token.first else token.piece.logprob or 0.0 for token in tokens],
        "top_logprobs": [None if token.first else _likeliest(token.piece) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _likeliest(piece: Piece) -> dict[str, float]:
    return {_legacy(text, own): logprob for text, logprob, own in piece.top}


def _legacy(text: str, own: bytes | None) -> str:
    """A token's name: a part of a character is `bytes:` with its escapes."""
    if own is None:
        return text
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)

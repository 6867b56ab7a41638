"""One request being answered: choosing tokens, turning them into text, knowing when to stop."""

from __future__ import annotations

import asyncio
import builtins
import codecs
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from model_server.lora import Adapter
from model_server.vocabulary import Vocabulary

LOWEST_TEMPERATURE = 1e-6
"""Below it the likeliest token is as good as certain, and the division would not be a number."""


@dataclass(frozen=True)
class GenerateRequest:
    """What to generate. `temperature` None with `do_sample` means 1; greedy without `do_sample`.

    `max_new_tokens` None is as many as the context has room for.
    """

    inputs: str
    adapter_id: str | None = None
    max_new_tokens: int | None = 100
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    repetition_penalty: float | None = None
    frequency_penalty: float = 0
    presence_penalty: float = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_n_tokens: int = 0


@dataclass(frozen=True)
class Token:
    """One generated token.

    Attributes:
        text: what became whole with it; a character may take several tokens.
        bytes: what it stands for itself.
        logprob: as the model has it, before penalties and biases.
        top: the likeliest tokens: id, bytes, log-probability.
        finish_reason: TGI's (length, eos_token, stop_sequence), on the last one.
        adapter_id: what it was computed with; None for the base model itself.
    """

    id: int
    text: str
    bytes: bytes
    logprob: float
    special: bool
    top: list[tuple[int, builtins.bytes, float]]
    finish_reason: str | None
    prompt_tokens: int
    generated_tokens: int
    generated_text: str
    adapter_id: str | None = None


class Sequence:
    """The state of one request inside the engine.

    Args:
        request: what to generate.
        prompt: its token ids.
        most: tokens of the answer.
        adapter: answers; the base alone if None. It stays here to the answer's end even when the engine drops it.
        vocabulary: of the base model.
        loop: the event loop that reads `tokens`.
    """

    def __init__(
        self,
        request: GenerateRequest,
        prompt: list[int],
        most: int,
        adapter: Adapter | None,
        vocabulary: Vocabulary,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.adapter = adapter
        self.tokens: asyncio.Queue[Token | Exception] = asyncio.Queue()
        self.cancelled = False
        self.ended = False
        self._most = most
        self._vocabulary = vocabulary
        self._loop = loop
        self._ids: list[int] = []
        self._counts: Counter[int] = Counter()
        self._text = ""
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._random = torch.Generator()
        if request.seed is not None:
            self._random.manual_seed(request.seed)
        else:
            self._random.seed()

    def choose(self, logits: torch.Tensor) -> int:
        """Take the next token from its logits [vocabulary] and hand it to the reader."""
        log_probs = torch.log_softmax(logits, dim=-1)
        logits = self._penalised(logits)
        token = self._sample(logits) if self.request.do_sample else int(logits.argmax())
        self._ids.append(token)
        self._counts[token] += 1
        self._emit(token, log_probs)
        return token

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.ended = True
        self._send(error)

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits with what the request holds against, or for, some tokens.

        Repetition: Keskar et al., arXiv 1909.05858. Frequency and presence, of the answer so far, and bias: OpenAI's
        formula, https://platform.openai.com/docs/advanced-usage.
        """
        request = self.request
        penalty = request.repetition_penalty
        if penalty:
            seen = torch.tensor(self._ids + self.prompt)
            values = logits[seen]
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if self._counts and (request.frequency_penalty or request.presence_penalty):
            times = torch.tensor(list(self._counts.values()), dtype=logits.dtype)
            logits[list(self._counts)] -= times * request.frequency_penalty + request.presence_penalty
        if request.logit_bias:
            logits[list(request.logit_bias)] += torch.tensor(list(request.logit_bias.values()), dtype=logits.dtype)
        return logits

    def _sample(self, logits: torch.Tensor) -> int:
        request = self.request
        # From the greatest one down, so that no temperature makes an infinite number of it.
        scaled = (logits - logits.max()) / max(request.temperature or 1.0, LOWEST_TEMPERATURE)
        if request.top_k:
            lowest = torch.topk(scaled, min(request.top_k, len(scaled))).values[-1]
            scaled = scaled.masked_fill(scaled < lowest, float("-inf"))
        if request.top_p is not None and request.top_p < 1:
            ordered, order = scaled.sort(descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
            scaled[order[before > request.top_p]] = float("-inf")
        return int(torch.multinomial(scaled.softmax(dim=-1), 1, generator=self._random))

    def _emit(self, token: int, log_probs: torch.Tensor) -> None:
        own = self._vocabulary.bytes_of(token)
        special = token in self._vocabulary.special
        # Bytes that are no whole character yet stay in the decoder; what the answer's end leaves there is not shown.
        text = "" if special else self._characters.decode(own)
        self._text += text
        reason = self._reason(token)
        self.ended = reason is not None
        self._send(
            Token(
                id=token,
                text=own.decode() if special else text,
                bytes=own,
                logprob=float(log_probs[token]),
                special=special,
                top=self._top(log_probs),
                finish_reason=reason,
                prompt_tokens=len(self.prompt),
                generated_tokens=len(self._ids),
                generated_text=self._text,
                adapter_id=self.adapter.id if self.adapter else None,
            )
        )

    def _top(self, log_probs: torch.Tensor) -> list[tuple[int, bytes, float]]:
        if not self.request.top_n_tokens:
            return []
        top = torch.topk(log_probs, self.request.top_n_tokens)
        ids = [int(one) for one in top.indices]
        return [(one, self._vocabulary.bytes_of(one), float(value)) for one, value in zip(ids, top.values, strict=True)]

    def _reason(self, token: int) -> str | None:
        if token in self._vocabulary.end_ids:
            return "eos_token"
        if any(stop in self._text for stop in self.request.stop):
            return "stop_sequence"
        return "length" if len(self._ids) >= self._most else None

    def _send(self, item: Token | Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.tokens.put_nowait, item)

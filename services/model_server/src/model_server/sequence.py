"""One request being answered: choosing tokens, turning them into text, knowing when to stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import torch

from model_server.lora import Adapter

UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class GenerateRequest:
    """What to generate. `temperature` None with `do_sample` means 1; greedy without `do_sample`."""

    inputs: str
    adapter_id: str | None = None
    max_new_tokens: int = 100
    do_sample: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    repetition_penalty: float | None = None
    top_n_tokens: int = 0


@dataclass(frozen=True)
class Token:
    """One generated token. `finish_reason` (TGI's: length, eos_token, stop_sequence) is set on the last one."""

    id: int
    text: str
    logprob: float
    special: bool
    top: list[tuple[int, str, float]]
    finish_reason: str | None
    prompt_tokens: int
    generated_tokens: int
    generated_text: str


class Sequence:
    """The state of one request inside the engine.

    Args:
        request: what to generate.
        prompt: its token ids.
        adapter: answers; the base alone if None. It stays here to the answer's end even when the engine drops it.
        tokenizer: of the base model.
        end_ids: tokens that end an answer.
        loop: the event loop that reads `tokens`.
    """

    def __init__(
        self,
        request: GenerateRequest,
        prompt: list[int],
        adapter: Adapter | None,
        tokenizer: Any,
        end_ids: set[int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.request = request
        self.prompt = prompt
        self.adapter = adapter
        self.tokens: asyncio.Queue[Token | Exception] = asyncio.Queue()
        self.cancelled = False
        self.ended = False
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._loop = loop
        self._ids: list[int] = []
        self._text = ""
        self._shown_from = 0
        self._random = torch.Generator()
        if request.seed is not None:
            self._random.manual_seed(request.seed)
        else:
            self._random.seed()

    def choose(self, logits: torch.Tensor) -> int:
        """Take the next token from its logits [vocabulary] and hand it to the reader."""
        request = self.request
        if request.repetition_penalty:
            seen = torch.tensor(self._ids + self.prompt)
            values = logits[seen]
            logits[seen] = torch.where(
                values > 0, values / request.repetition_penalty, values * request.repetition_penalty
            )
        log_probs = torch.log_softmax(logits, dim=-1)
        token = self._sample(logits) if request.do_sample else int(logits.argmax())
        self._ids.append(token)
        self._emit(token, log_probs)
        return token

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.ended = True
        self._send(error)

    def _sample(self, logits: torch.Tensor) -> int:
        request = self.request
        scaled = logits / (request.temperature or 1.0)
        if request.top_k:
            lowest = torch.topk(scaled, min(request.top_k, len(scaled))).values[-1]
            scaled = scaled.masked_fill(scaled < lowest, float("-inf"))
        if request.top_p is not None and request.top_p < 1:
            ordered, order = scaled.sort(descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
            scaled[order[before > request.top_p]] = float("-inf")
        return int(torch.multinomial(scaled.softmax(dim=-1), 1, generator=self._random))

    def _emit(self, token: int, log_probs: torch.Tensor) -> None:
        special = token in self._end_ids or token in self._tokenizer.all_special_ids
        text = "" if special else self._new_text()
        self._text += text
        reason = self._reason(token)
        self.ended = reason is not None
        top = torch.topk(log_probs, self.request.top_n_tokens) if self.request.top_n_tokens else None
        self._send(
            Token(
                id=token,
                text=self._tokenizer.decode([token]) if special else text,
                logprob=float(log_probs[token]),
                special=special,
                top=[
                    (int(one), self._tokenizer.decode([int(one)]), float(value))
                    for value, one in zip(top.values, top.indices, strict=True)
                ]
                if top is not None
                else [],
                finish_reason=reason,
                prompt_tokens=len(self.prompt),
                generated_tokens=len(self._ids),
                generated_text=self._text,
            )
        )

    def _new_text(self) -> str:
        """Text that became whole with the newest token; a character may take several tokens."""
        start = self._shown_from
        before = self._tokenizer.decode(self._ids[max(0, start - 4) : start])
        after = self._tokenizer.decode(self._ids[max(0, start - 4) :])
        if after.endswith(UNFINISHED) and len(self._ids) < self.request.max_new_tokens:
            return ""
        self._shown_from = len(self._ids)
        return str(after[len(before) :])

    def _reason(self, token: int) -> str | None:
        if token in self._end_ids:
            return "eos_token"
        if any(stop in self._text for stop in self.request.stop):
            return "stop_sequence"
        return "length" if len(self._ids) >= self.request.max_new_tokens else None

    def _send(self, item: Token | Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.tokens.put_nowait, item)

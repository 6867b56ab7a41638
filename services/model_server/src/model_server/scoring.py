"""Log-probabilities of texts as they stand: one forward pass for several texts, and nothing is generated."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
import torch

from model_server.batching import padded, uses_of
from model_server.lora import Adapter, Plan

log = structlog.get_logger()

SCORED_TOKENS = 1024
"""Padded tokens of one pass; a longer text has a pass of its own. Answers under way wait that long for a token."""

POSITIONS = 64
"""Rows of logits held at a time: a large vocabulary's logits of a whole text would take more memory than the model."""


@dataclass(frozen=True)
class Scored:
    """A token of a text.

    Attributes:
        logprob: given the tokens before it; None of the first, which has none.
        top: the likeliest tokens in its place: id, log-probability.
        adapter_id: what it was computed with; None for the base model itself.
    """

    id: int
    logprob: float | None
    top: list[tuple[int, float]]
    adapter_id: str | None = None


@dataclass(frozen=True, eq=False)
class Scoring:
    """A text to be scored, its tokens and who scores it: an adapter, or the base alone.

    Attributes:
        top: how many of the likeliest tokens are wanted in each place.
        done: what was found; cancelled where nobody waits for it any more.
    """

    prompt: list[int]
    adapter: Adapter | None
    top: int = 0
    done: Future[list[Scored]] = field(default_factory=Future)


class Scorings:
    """Texts that wait to be scored, and how they are.

    Args:
        decoder: the base model without its head.
        head: weights of the head [vocabulary, hidden].
        plan: says the decoder's layers which rows use which adapter.
        pad: id of the padding.
    """

    def __init__(self, decoder: torch.nn.Module, head: torch.Tensor, plan: Plan, pad: int) -> None:
        self.waiting: deque[Scoring] = deque()
        self._decoder = decoder
        self._head = head
        self._plan = plan
        self._pad = pad

    def step(self) -> None:
        """Score as many of those that wait as fit one pass; to be called by the thread that owns the model."""
        taken = self._next()
        if not taken:
            return
        try:
            for scoring, found in zip(taken, self.of(taken), strict=True):
                scoring.done.set_result(found)
        except Exception as error:  # the boundary of the engine's thread: these texts fail, the others go on
            log.error("scorings_failed", texts=len(taken), exc_info=error)
            for scoring in taken:
                if not scoring.done.done():
                    scoring.done.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Tell all who wait that nothing is scored any more."""
        while self.waiting:
            scoring = self.waiting.popleft()
            if scoring.done.set_running_or_notify_cancel():
                scoring.done.set_exception(error)

    def of(self, taken: Sequence[Scoring]) -> list[list[Scored]]:
        """The tokens of each text, each with the log-probability the model gives it after those before it."""
        with torch.inference_mode():
            self._plan.uses = uses_of(taken)
            ids, mask = padded(taken, self._pad)
            hidden = self._decoder(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
                use_cache=False,
            ).last_hidden_state
            return [self._scored(scoring, hidden[row]) for row, scoring in enumerate(taken)]

    def _next(self) -> list[Scoring]:
        taken: list[Scoring] = []
        longest = 0
        while self.waiting:
            longest = max(longest, len(self.waiting[0].prompt))
            if taken and longest * (len(taken) + 1) > SCORED_TOKENS:
                break
            scoring = self.waiting.popleft()
            if scoring.done.set_running_or_notify_cancel():
                taken.append(scoring)
        return taken

    def _scored(self, scoring: Scoring, hidden: torch.Tensor) -> list[Scored]:
        """The tokens of one text, from the hidden states of its row [padded, hidden]."""
        before = hidden[len(hidden) - len(scoring.prompt) :][:-1]
        following = torch.tensor(scoring.prompt[1:])
        adapter_id = scoring.adapter.id if scoring.adapter else None
        found = [Scored(scoring.prompt[0], None, [], adapter_id)]
        for start in range(0, len(before), POSITIONS):
            log_probs = torch.log_softmax((before[start : start + POSITIONS] @ self._head.t()).float(), dim=-1)
            tokens = following[start : start + POSITIONS]
            own = log_probs.gather(1, tokens[:, None])[:, 0].tolist()
            likeliest = torch.topk(log_probs, scoring.top)
            tops = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
            found += [
                Scored(token, value, list(zip(*top, strict=True)), adapter_id)
                for token, value, top in zip(tokens.tolist(), own, tops, strict=True)
            ]
        return found

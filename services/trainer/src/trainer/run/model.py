"""A frozen base with the adapter that is trained on it, and the losses that methods are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.run.data import IGNORED, Example, split_by_tokens
from trainer.run.frozen_base import FrozenBase
from trainer.run.lora_layers import CompletionHead, LoraLinear, adapter_disabled

TOKENS_AT_ONCE = 1024
"""Padded tokens of one forward pass; activations take about 1.5 MB a token at Gemma 3 270M."""


@dataclass(frozen=True)
class Scores:
    """What examples cost, nothing learned.

    Attributes:
        means: mean loss of each example, in an order of its own.
        loss: mean loss of all learned positions, in nats.
        accuracy: share of them whose target was the likeliest token.
    """

    means: list[float]
    loss: float
    accuracy: float


class AdaptedModel:
    """What a method learns with.

    Args:
        base: the frozen base, whose linear layers are `layers` by now.
        layers: the adapter.
    """

    def __init__(self, base: FrozenBase, layers: dict[str, LoraLinear]) -> None:
        self.base = base
        self.layers = layers
        self._head = CompletionHead(base.head)

    def without_adapter(self) -> AbstractContextManager[None]:
        """The plain base model, as long as the context lasts."""
        return adapter_disabled(self.layers)

    def loss(self, examples: Sequence[Example]) -> tuple[Tensor, int]:
        """Summed cross-entropy of the learned positions, differentiable, and how many targets were the likeliest."""
        hidden, targets, _ = self._learned_positions(examples)
        return self._head.loss(hidden, targets)

    def score(self, examples: Sequence[Example]) -> Scores:
        """What the examples cost."""
        means: list[float] = []
        loss, correct, count = 0.0, 0, 0
        with torch.no_grad():
            for part in split_by_tokens(examples, TOKENS_AT_ONCE):
                hidden, targets, rows = self._learned_positions(part)
                losses, hits = self._head.score(hidden, targets)
                sums = torch.zeros(len(part)).index_add_(0, rows, losses)
                means += (sums / rows.bincount(minlength=len(part)).clamp(min=1)).tolist()
                loss += losses.sum().item()
                correct += hits
                count += len(targets)
        return Scores(means, loss / count, correct / count)

    def losses(self, examples: Sequence[Example]) -> Iterator[list[float]]:
        """Loss of each learned position, example by example, in their order."""
        with torch.no_grad():
            for example in examples:
                hidden, targets, _ = self._learned_positions([example])
                losses, _ = self._head.score(hidden, targets)
                yield losses.tolist()

    def _learned_positions(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden state [n, width], target [n] and row [n] of every position that is learned."""
        ids, targets = to_tensors(examples)
        hidden = self.base.decoder(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        learned = (targets.flatten() != IGNORED).nonzero().squeeze(1)
        return hidden.index_select(0, learned), targets.flatten()[learned], learned // ids.shape[1]


def to_tensors(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Pad on the right: `ids` and `targets`, both [rows, longest row]. A causal model needs no mask for that."""
    longest = max(len(example.ids) for example in examples)
    ids = [example.ids + [0] * (longest - len(example.ids)) for example in examples]
    targets = [example.targets + [IGNORED] * (longest - len(example.targets)) for example in examples]
    return torch.tensor(ids), torch.tensor(targets)

"""Sequences computed together: how their prompts are laid side by side, and the beginning they share."""

from __future__ import annotations

import collections.abc
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import DynamicCache, PretrainedConfig

from model_server.lora import Adapter, Plan
from model_server.sequence import Sequence

WORTH_SHARING = 64
"""Tokens from which a prompt's shared beginning is computed once for a batch."""


class Row(Protocol):
    """What is computed beside others: token ids, and the adapter they are read with."""

    @property
    def prompt(self) -> list[int]:
        """The token ids."""
        ...

    @property
    def adapter(self) -> Adapter | None:
        """Reads them; the base alone if None."""
        ...


Rows = collections.abc.Sequence[Row]


@dataclass
class Batch:
    """Sequences decoded together, with their cache (left-padded to one length)."""

    sequences: list[Sequence]
    cache: DynamicCache
    mask: torch.Tensor
    ids: torch.Tensor


def shared_prefix(taken: list[Sequence]) -> int:
    """Length of the beginning all prompts of one adapter have in common; 0 where it is not worth a pass of its own.

    Nothing is kept from one batch to the next, so that nobody learns from the time an answer takes what others asked.
    """
    if len(taken) == 1 or len({sequence.request.adapter_id for sequence in taken}) > 1:
        return 0
    first, last = min(sequence.prompt for sequence in taken), max(sequence.prompt for sequence in taken)
    most = min(len(sequence.prompt) for sequence in taken) - 1
    shared = next((at for at in range(most) if first[at] != last[at]), most)
    return shared if shared >= WORTH_SHARING else 0


def padded(taken: Rows, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The prompts, left-padded: ids and mask, both [rows, longest].

    All padding stands before the prompt: a sliding window counts columns, so none may lie inside one.
    """
    longest = max(len(sequence.prompt) for sequence in taken)
    ids = torch.full((len(taken), longest), pad)
    mask = torch.zeros((len(taken), longest), dtype=torch.long)
    for row, sequence in enumerate(taken):
        ids[row, longest - len(sequence.prompt) :] = torch.tensor(sequence.prompt)
        mask[row, longest - len(sequence.prompt) :] = 1
    return ids, mask


def uses_of(sequences: Rows) -> list[tuple[Adapter, torch.Tensor | None]]:
    """Each adapter of these sequences with the rows it answers; None stands for all rows."""
    by_adapter: dict[str, list[int]] = {}
    for row, sequence in enumerate(sequences):
        if sequence.adapter is not None:
            by_adapter.setdefault(sequence.adapter.id, []).append(row)
    whole = len(sequences)
    adapters = {sequence.adapter.id: sequence.adapter for sequence in sequences if sequence.adapter is not None}
    return [(adapters[one], None if len(rows) == whole else torch.tensor(rows)) for one, rows in by_adapter.items()]


class ForwardPasses:
    """The forward passes of sequences that are decoded together.

    Args:
        decoder: the base model without its head.
        head: weights of the head [vocabulary, hidden].
        plan: says the decoder's layers which rows use which adapter.
        pad: id of the padding.
        config: the base model's, for the shape of its cache.
    """

    def __init__(
        self, decoder: torch.nn.Module, head: torch.Tensor, plan: Plan, pad: int, config: PretrainedConfig
    ) -> None:
        self._decoder = decoder
        self._head = head
        self._plan = plan
        self._pad = pad
        self._config = config

    def batch(self, taken: list[Sequence]) -> Batch:
        """These sequences, ready for their first pass."""
        shared = shared_prefix(taken)
        ids, mask = padded(taken, self._pad)
        cache = self._prefilled(taken, shared, mask) if shared else DynamicCache(config=self._config)
        return Batch(taken, cache, mask, ids[:, shared:])

    def logits(self, batch: Batch) -> torch.Tensor:
        """The logits of each row's next token, [rows, vocabulary] in float32. The head sees one position a row."""
        self._plan.uses = uses_of(batch.sequences)
        positions = (batch.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -batch.ids.shape[1] :]
        hidden = self._decoder(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=positions,
            past_key_values=batch.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        logits: torch.Tensor = (hidden @ self._head.t()).float()
        return logits

    def _prefilled(self, taken: list[Sequence], shared: int, mask: torch.Tensor) -> DynamicCache:
        """A cache of the batch's first `shared` columns, from one pass over the prompts' shared beginning.

        Every row's padding stands before its prompt, so a shorter one has less of the beginning in those columns.
        """
        whole = DynamicCache()  # nothing slides out of it: shorter rows need what longer ones no longer see
        self._plan.uses = uses_of(taken[:1])
        self._decoder(input_ids=torch.tensor([taken[0].prompt[:shared]]), past_key_values=whole, use_cache=True)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, :shared]
        cache = DynamicCache(config=self._config)
        for number, layer in enumerate(whole.layers):
            keys, values = (states[0][:, places].transpose(0, 1) for states in (layer.keys, layer.values))
            cache.update(keys, values, number)
        return cache

"""Sequences computed together: how their prompts are laid side by side, and the beginning they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from model_server.lora import Adapter
from model_server.sequence import Sequence

WORTH_SHARING = 64
"""Tokens from which a prompt's shared beginning is computed once for a group."""


@dataclass
class Group:
    """Sequences decoded together, with their cache (left-padded to one length)."""

    sequences: list[Sequence]
    cache: Any
    mask: torch.Tensor
    ids: torch.Tensor


def shared_prefix(taken: list[Sequence]) -> int:
    """Length of the beginning all prompts of one adapter have in common; 0 where it is not worth a pass of its own.

    Nothing is kept from one group to the next, so that nobody learns from the time an answer takes what others asked.
    """
    if len(taken) == 1 or len({sequence.request.adapter_id for sequence in taken}) > 1:
        return 0
    first, last = min(sequence.prompt for sequence in taken), max(sequence.prompt for sequence in taken)
    most = min(len(sequence.prompt) for sequence in taken) - 1
    shared = next((at for at in range(most) if first[at] != last[at]), most)
    return shared if shared >= WORTH_SHARING else 0


def padded(taken: list[Sequence], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
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


def uses_of(sequences: list[Sequence]) -> list[tuple[Adapter, torch.Tensor | None]]:
    """Each adapter of these sequences with the rows it answers; None stands for all rows."""
    by_adapter: dict[str, list[int]] = {}
    for row, sequence in enumerate(sequences):
        if sequence.adapter is not None:
            by_adapter.setdefault(sequence.adapter.id, []).append(row)
    whole = len(sequences)
    adapters = {sequence.adapter.id: sequence.adapter for sequence in sequences if sequence.adapter is not None}
    return [(adapters[one], None if len(rows) == whole else torch.tensor(rows)) for one, rows in by_adapter.items()]

"""The key-value cache of a running batch: one slot a sequence, kept dense, and attention over it.

transformers hands every layer's new keys and values to `KvSlots.update`, as to its own caches.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "kv_slots"
"""Name under which `slot_attention` is registered with transformers."""

GROWTH = 128
"""Slots grow by this many tokens at least, so that a growing answer is not copied at every step."""


class KvSlots:
    """Keys and values of up to `rows` sequences, per layer [rows, heads, length, head_dim]; grows as needed."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows = 0
        self._length = 0
        self._view = slice(0, 0)
        self._slots = torch.empty(0, 1, dtype=torch.long)
        self._positions = torch.empty(0, 1, dtype=torch.long)
        self._used = 0

    def open(self, first: int, positions: Tensor) -> None:
        """Say where the keys of the next forward pass go.

        Args:
            first: slot of the first row; rows lie in consecutive slots.
            positions: of the new tokens in their sequences, [rows, tokens].
        """
        rows = len(positions)
        self._used = int(positions.max()) + 1
        self._grow(first + rows, self._used)
        self._view = slice(first, first + rows)
        self._slots = torch.arange(first, first + rows).unsqueeze(1)
        self._positions = positions

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store what a layer computed for the new tokens and return all it may attend to."""
        if layer == len(self._layers):
            shape = (self._rows, keys.shape[1], self._length, keys.shape[3])
            self._layers.append((keys.new_zeros(shape), values.new_zeros(shape)))
        stored = self._layers[layer]
        for slots, new in zip(stored, (keys, values), strict=True):
            slots[self._slots, :, self._positions] = new.transpose(1, 2)
        return stored[0][self._view, :, : self._used], stored[1][self._view, :, : self._used]

    def get_seq_length(self, *_: Any) -> int:
        """Part of transformers' cache interface; positions are always given, so nothing depends on it."""
        return 0

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot to another."""
        for layer in self._layers:
            for slots in layer:
                slots[target, :, :length] = slots[source, :, :length]

    def read(self, slot: int, length: int) -> list[tuple[Tensor, Tensor]]:
        """Copies of the first `length` tokens of a slot, per layer keys and values [heads, length, head_dim]."""
        return [(keys[slot, :, :length].clone(), values[slot, :, :length].clone()) for keys, values in self._layers]

    def write(self, slot: int, saved: list[tuple[Tensor, Tensor]], length: int) -> None:
        """Put the first `length` tokens of what `read` returned into a slot."""
        self._grow(slot + 1, length)
        for layer, new in zip(self._layers, saved, strict=True):
            for slots, tensor in zip(layer, new, strict=True):
                slots[slot, :, :length] = tensor[:, :length]

    def clear(self) -> None:
        """Give the memory back."""
        self._layers.clear()
        self._rows = self._length = 0

    def _grow(self, rows: int, length: int) -> None:
        if rows <= self._rows and length <= self._length:
            return
        self._rows = max(self._rows, rows)
        if length > self._length:
            self._length = -(-length // GROWTH) * GROWTH
        self._layers = [(self._resized(keys), self._resized(values)) for keys, values in self._layers]

    def _resized(self, slots: Tensor) -> Tensor:
        larger = slots.new_zeros(self._rows, slots.shape[1], self._length, slots.shape[3])
        larger[: slots.shape[0], :, : slots.shape[2]] = slots
        return larger


def attention_masks(config: Any, positions: Tensor) -> Tensor | dict[str, Tensor]:
    """Which stored tokens each new token may see: bool [rows, 1, tokens, stored], per kind of layer if there are kinds.

    Args:
        config: of the model; `layer_types` and `sliding_window` are read.
        positions: of the new tokens, [rows, tokens].
    """
    stored = torch.arange(int(positions.max()) + 1)
    seen = (stored <= positions.unsqueeze(-1)).unsqueeze(1)
    kinds = set(getattr(config, "layer_types", None) or [])
    if "sliding_attention" not in kinds:
        return seen
    recent = (stored > positions.unsqueeze(-1) - config.sliding_window).unsqueeze(1)
    return {"full_attention": seen, "sliding_attention": seen & recent}


def slot_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over the slots; for one new token a row, the query heads of a key head share one product.

    Args:
        module: the attention layer that asks.
        query: [rows, query heads, tokens, head_dim].
        key: [rows, key heads, stored, head_dim].
        value: as `key`.
        attention_mask: bool [rows, 1, tokens, stored].
        scaling: of the scores.

    Returns:
        [rows, tokens, query heads, head_dim], and no weights.
    """
    rows, heads, tokens, width = query.shape
    if tokens > 1:
        groups = heads // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return mixed.transpose(1, 2), None
    grouped = query.view(rows, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(2, 3)).float().mul_(scaling).masked_fill_(~attention_mask, -torch.inf)
    mixed = torch.softmax(scores, dim=-1).to(value.dtype) @ value
    return mixed.view(rows, 1, heads, width), None


AttentionInterface.register(ATTENTION, slot_attention)


@dataclass(frozen=True)
class Prefix:
    """A prompt's keys and values, to be used again by prompts that begin alike."""

    ids: tuple[int, ...]
    saved: list[tuple[Tensor, Tensor]]


class PrefixStore:
    """Prompts computed before, at most `max_tokens` of them, the least recently used dropped first.

    A scope is an adapter, or a caller's salt for the base model: nothing is shared across scopes, because a faster answer
    would tell one tenant what another one asked (PROMPTPEEK, NDSS 2025).
    """

    SHORTEST = 32
    """Prompts shorter than this are computed again sooner than copied."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._prefixes: OrderedDict[tuple[str, tuple[int, ...]], Prefix] = OrderedDict()

    def longest(self, scope: str | None, ids: list[int]) -> tuple[int, Prefix | None]:
        """The stored prompt that shares most with `ids`, and how many tokens of it can be used.

        At least one token of `ids` is left over, since its output is needed.
        """
        best, length = None, self.SHORTEST - 1
        for key, prefix in self._prefixes.items():
            if key[0] == scope and (shared := _shared(prefix.ids, ids)) > length:
                best, length = key, shared
        if best is None:
            return 0, None
        self._prefixes.move_to_end(best)
        return length, self._prefixes[best]

    def keep(self, scope: str | None, ids: list[int], used: int, slots: KvSlots, slot: int) -> None:
        """Remember a prompt that lies in a slot, unless most of it (`used` tokens) was remembered already."""
        if scope is None or len(ids) < self.SHORTEST or len(ids) > self._max_tokens or used > 0.75 * len(ids):
            return
        self._prefixes[scope, tuple(ids)] = Prefix(tuple(ids), slots.read(slot, len(ids)))
        while sum(len(prefix.ids) for prefix in self._prefixes.values()) > self._max_tokens:
            self._prefixes.popitem(last=False)

    def forget(self, scope: str) -> None:
        """Drop everything of a scope."""
        for key in [key for key in self._prefixes if key[0] == scope]:
            del self._prefixes[key]


def _shared(stored: tuple[int, ...], ids: list[int]) -> int:
    limit = min(len(stored), len(ids) - 1)
    for i in range(limit):
        if stored[i] != ids[i]:
            return i
    return limit

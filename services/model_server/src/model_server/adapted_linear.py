"""Linear layers that apply a different adapter, or none, to every row of a batch.

The adapters of a batch are stacked: one product with all A's, the columns of other rows' adapters blanked, one product
with all B's. On a CPU, 8 rows with 8 adapters cost 1.3x the plain layers so; row groups 4.5x, gathered bmm 2.6x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Adapter:
    """An adapter ready to be applied, in the base's type.

    Attributes:
        rank: r.
        down: per layer A, [r, in].
        up: per layer (alpha / r) B transposed, [r, out].
    """

    rank: int
    down: dict[str, Tensor]
    up: dict[str, Tensor]


@dataclass(frozen=True)
class _Stack:
    """Adapters side by side: `columns` says which inner columns are whose."""

    columns: dict[str, slice]
    down: dict[str, Tensor]
    up: dict[str, Tensor]


@dataclass(frozen=True)
class _Plan:
    """What the next forward pass applies: some columns of the stack, and which of them are not a token's own."""

    stack: _Stack
    columns: slice
    others: Tensor | None


class AdapterBank:
    """The resident adapters, and the plan that tells the layers which row wants which."""

    STACKED = 8
    """A stack that was built for one batch is kept for the next while it holds at most this many adapters."""

    def __init__(self, model: Any) -> None:
        """Replace every linear layer of the model's decoder by one that consults this bank."""
        self.adapters: dict[str, Adapter] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        self.plan: _Plan | None = None
        self._stack = _Stack({}, {}, {})
        linears = {
            f"{model.base_model_prefix}.{name}": module
            for name, module in model.base_model.named_modules()
            if isinstance(module, nn.Linear)
        }
        for path, linear in linears.items():
            parent, name = path.rsplit(".", 1)
            setattr(model.get_submodule(parent), name, AdaptedLinear(linear, path, self))
            self.shapes[path] = (linear.out_features, linear.in_features)

    def remove(self, adapter_id: str) -> None:
        """Forget an adapter, its copy in the stack included."""
        self.adapters.pop(adapter_id, None)
        if adapter_id in self._stack.columns:
            self._stack = _Stack({}, {}, {})

    def use(self, adapter_ids: Sequence[str | None], tokens: int) -> None:
        """Plan the next forward pass.

        Args:
            adapter_ids: the adapter of each row, None for the base model.
            tokens: tokens a row, padding included.

        Raises:
            KeyError: an adapter is not resident.
        """
        wanted = dict.fromkeys(adapter_id for adapter_id in adapter_ids if adapter_id is not None)
        if not wanted:
            self.plan = None
            return
        if not wanted.keys() <= self._stack.columns.keys():
            self._stack = self._build(list(wanted))
        columns = [self._stack.columns[adapter_id] for adapter_id in wanted]
        span = slice(min(column.start for column in columns), max(column.stop for column in columns))
        others = torch.ones(len(adapter_ids), span.stop - span.start, dtype=torch.bool)
        for row, adapter_id in enumerate(adapter_ids):
            if adapter_id is not None:
                own = self._stack.columns[adapter_id]
                others[row, own.start - span.start : own.stop - span.start] = False
        blanked = others.repeat_interleave(tokens, dim=0) if bool(others.any()) else None
        self.plan = _Plan(self._stack, span, blanked)

    def _build(self, wanted: list[str]) -> _Stack:
        recent = [adapter_id for adapter_id in self._stack.columns if adapter_id not in wanted]
        chosen = wanted + recent[: max(0, self.STACKED - len(wanted))]
        columns, end = {}, 0
        for adapter_id in chosen:
            rank = self.adapters[adapter_id].rank
            columns[adapter_id] = slice(end, end + rank)
            end += rank
        adapters = [self.adapters[adapter_id] for adapter_id in chosen]
        return _Stack(
            columns,
            {path: torch.cat([self._down(adapter, path) for adapter in adapters]) for path in self.shapes},
            {path: torch.cat([self._up(adapter, path) for adapter in adapters]) for path in self.shapes},
        )

"""What numbers a run computes with: those of the base's weights, unless this machine is much faster in float32."""

from __future__ import annotations

import time

import torch

MUCH_FASTER = 1.5
"""Less is not worth twice the memory."""

ROWS, WIDTH, INNER = 64, 512, 1024
TRIES = 3

MOST_BYTES = 4 * 1024**3
"""Of the weights in float32: what a trainer of 8 GiB has room for beside its run."""


def fastest(own: torch.dtype, parameters: int | None) -> torch.dtype:
    """The type to compute in, by a measurement of milliseconds.

    A processor without instructions for bfloat16 takes up to eighty times as long for the gradient of a linear layer.

    Args:
        own: of the base's weights.
        parameters: how many there are; where that is not known, or too many, it is their own.
    """
    if own == torch.float32 or torch.cuda.is_available() or parameters is None or 4 * parameters > MOST_BYTES:
        return own
    return torch.float32 if _seconds(own) > MUCH_FASTER * _seconds(torch.float32) else own


def _seconds(kind: torch.dtype) -> float:
    """What the products of a linear layer and of its gradient take, at best."""
    rows, weight = torch.ones(ROWS, WIDTH, dtype=kind), torch.ones(INNER, WIDTH, dtype=kind)
    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        (rows @ weight.t()) @ weight
        took.append(time.perf_counter() - began)
    return min(took)

"""Measures products of matrices in two types, and chooses one."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
import torch
from torch import Tensor

log = structlog.get_logger()

Products = Callable[[Tensor, Tensor], object]
"""What a kind of work does with rows [rows, width] and the weight of a linear layer [inner, width]."""

MUCH_FASTER = 1.5
"""Less is not worth twice the memory."""

ROWS, WIDTH, INNER = 64, 512, 1024
TRIES = 3

MOST_BYTES = 4 * 1024**3
"""Of the weights in float32: what a trainer of 8 GiB, or a model server of 6 GiB, has room for beside its work.

What is kept of sequences takes twice the memory too.
"""


def answering(rows: Tensor, weight: Tensor) -> Tensor:
    """The product of a forward pass: prompts that are read, texts that are scored."""
    return rows @ weight.t()


def training(rows: Tensor, weight: Tensor) -> Tensor:
    """The products of a forward pass and of the gradient of what went in."""
    return rows @ weight.t() @ weight


def fastest(own: torch.dtype, parameters: int | None, products: Products) -> torch.dtype:
    """The type to compute in, by a measurement of milliseconds.

    A processor without instructions for bfloat16 takes several times as long for the forward pass of a linear layer,
    and up to eighty times as long for its gradient.

    Args:
        own: of the base's weights. Both services compute on the processor, also beside a GPU.
        parameters: how many there are; where that is not known, or too many, it is their own.
        products: of the work to be done.
    """
    if own == torch.float32 or parameters is None or 4 * parameters > MOST_BYTES:
        return own
    took, took_in_float32 = _seconds(own, products), _seconds(torch.float32, products)
    chosen = torch.float32 if took > MUCH_FASTER * took_in_float32 else own
    log.info("arithmetic_chosen", own=str(own), chosen=str(chosen), ratio=round(took / took_in_float32, 2))
    return chosen


def _seconds(kind: torch.dtype, products: Products) -> float:
    """What the products take, at best."""
    rows, weight = torch.ones(ROWS, WIDTH, dtype=kind), torch.ones(INNER, WIDTH, dtype=kind)
    took = []
    for _ in range(TRIES):
        began = time.perf_counter()
        products(rows, weight)
        took.append(time.perf_counter() - began)
    return min(took)

"""LoRA at serving time: one frozen layer, many adapters, each row of a batch with its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before a module's path in an adapter file."""


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory, by layer path: (A' [in, r], B' [r, out] times alpha / r) in the base's type."""

    id: str
    layers: dict[str, tuple[Tensor, Tensor]]


@dataclass
class Plan:
    """Which rows of the current batch use which adapter; rows not named use the base alone.

    One object is shared by all layers. `rows` None means every row.
    """

    uses: list[tuple[Adapter, Tensor | None]] = field(default_factory=list)


class AdaptedLinear(nn.Module):
    """y = x W' + x A' B' for the rows that have an adapter (Hu et al., arXiv 2106.09685)."""

    def __init__(self, linear: nn.Linear, path: str, plan: Plan) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.path = path
        self._plan = plan

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to `x` [rows, positions, in_features]."""
        y = nn.functional.linear(x, self.weight, self.bias)
        for adapter, rows in self._plan.uses:
            pair = adapter.layers.get(self.path)
            if pair is None:
                continue
            a, b = pair
            if rows is None:
                y = y + (x @ a) @ b
            else:
                y.index_add_(0, rows, (x.index_select(0, rows) @ a) @ b)
        return y


def adapt(model: nn.Module, plan: Plan) -> dict[str, AdaptedLinear]:
    """Replace the decoder's linear layers; the language-model head stays. Returns layer path -> layer."""
    prefix = str(getattr(model, "base_model_prefix", "model"))
    decoder = model.get_submodule(prefix)
    linears = {f"{prefix}.{name}": module for name, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    layers = {}
    for path, linear in linears.items():
        parent, name = path.rsplit(".", 1)
        layers[path] = AdaptedLinear(linear, path, plan)
        setattr(model.get_submodule(parent), name, layers[path])
    return layers


def build(
    adapter_id: str, tensors: dict[str, Tensor], scale: float, layers: dict[str, AdaptedLinear], rank: int
) -> Adapter:
    """An adapter from the tensors of its file.

    Raises:
        ValueError: a tensor is missing, unexpected, of another shape, or not finite.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, letter = name.removeprefix(PEFT_PREFIX).removesuffix(".weight").rpartition(".lora_")
        if path not in layers or letter not in ("A", "B"):
            raise ValueError(f"'{name}' is not of this base model.")
        pairs.setdefault(path, {})[letter] = tensor
    built = {}
    for path, pair in pairs.items():
        layer = layers[path]
        shapes = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
        for letter, shape in shapes.items():
            if letter not in pair or tuple(pair[letter].shape) != shape:
                raise ValueError(f"{path}: lora_{letter} is missing or not of shape {shape}.")
            if not torch.isfinite(pair[letter]).all():
                raise ValueError(f"{path}: lora_{letter} holds numbers that are not finite.")
        kind = layer.weight.dtype
        built[path] = (pair["A"].to(kind).t().contiguous(), (pair["B"] * scale).to(kind).t().contiguous())
    if not built:
        raise ValueError("The adapter is empty.")
    return Adapter(adapter_id, built)

"""A base model computes in what is fast on its machine and has room there."""

from __future__ import annotations

import pytest
import torch

from arithmetic import Products, answering, choice, fastest, training


@pytest.mark.parametrize(
    ("slower", "parameters", "chosen"),
    [
        (80.0, 270_000_000, "float32"),
        (1.2, 270_000_000, "bfloat16"),
        (80.0, None, "bfloat16"),
        (80.0, 10**10, "bfloat16"),
    ],
    ids=["without instructions for it", "about as fast", "of unknown size", "too large"],
)
def test_float32_is_chosen_where_it_is_much_faster_and_has_room(
    monkeypatch: pytest.MonkeyPatch, slower: float, parameters: int | None, chosen: str
) -> None:
    monkeypatch.setattr(choice, "_seconds", lambda kind, _: slower if kind == torch.bfloat16 else 1.0)
    assert fastest(torch.bfloat16, parameters, answering) == getattr(torch, chosen)
    assert fastest(torch.float32, parameters, answering) == torch.float32


@pytest.mark.parametrize("products", [answering, training])
def test_a_measurement_takes_milliseconds(products: Products) -> None:
    assert 0 < choice._seconds(torch.float32, products) < 1

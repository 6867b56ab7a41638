"""One LoRA step on a CPU: Sartor's recipe against PEFT on transformers with the usual loss, same model, same batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from trainer.run.lora_layers import CompletionHead, attach_lora

ROWS, TOKENS, LEARNED, ROUNDS = 16, 48, 5, 5


def model() -> Gemma3ForCausalLM:
    """Random weights in the shape of Gemma 3 270M: what a step costs does not depend on them."""
    torch.manual_seed(0)
    shape = Gemma3TextConfig(
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        attn_implementation="sdpa",
    )
    return Gemma3ForCausalLM(shape).to(torch.bfloat16).eval()


def batch() -> tuple[Tensor, Tensor]:
    """Ids and labels [rows, tokens]; only the last tokens of a row are learned, as when a message gets its label."""
    ids = torch.randint(10, 262_000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :-LEARNED] = -100
    return ids, labels


def usual() -> Callable[[], float]:
    """PEFT's layers and the loss transformers computes from `labels`."""
    wrapped = get_peft_model(
        model(), LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.0)
    )
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    ids, labels = batch()

    def step() -> float:
        loss = wrapped(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        for parameter in trained:
            parameter.grad = None
        return float(loss)

    return step


def ours() -> Callable[[], float]:
    """The same step as the trainer makes it: hidden states are chosen before the head."""
    plain = model()
    attach_lora(plain, ["all-linear"], 16, 32.0, seed=0)
    head = CompletionHead(plain.get_output_embeddings().weight)
    ids, labels = batch()
    targets = torch.full_like(labels, -100)
    targets[:, :-1] = labels[:, 1:]
    learned = (targets.flatten() != -100).nonzero().squeeze(1)
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]

    def step() -> float:
        hidden = plain.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        total, _ = head.loss(hidden.index_select(0, learned), targets.flatten()[learned])
        loss = total / len(learned)
        torch.autograd.backward(loss)
        for parameter in trained:
            parameter.grad = None
        return float(loss)

    return step


def test_a_training_step() -> None:
    steps = {"transformers + peft": usual(), "sartor": ours()}
    losses = {name: step() for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = middle["transformers + peft"] / middle["sartor"]
    print(
        f"\n{ROWS} rows x {TOKENS} tokens, {LEARNED} learned, Gemma 3 270M's shape, {torch.get_num_threads()} threads"
    )
    for name, time_taken in middle.items():
        print(f"  {name:20} {time_taken * 1000:7.0f} ms a step, loss {losses[name]:.3f}")
    print(f"  ratio                {ratio:7.2f} x")
    assert abs(losses["sartor"] - losses["transformers + peft"]) < 0.05
    assert ratio > 1

"""The fingerprint of an adapter: what it makes of fixed probes, so that a server can prove that it serves this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

PROBES = (
    ("How do I change the address on my account?", "Open the settings and choose your address."),
    ("My payment was declined, what should I do?", "Please check the card and try again."),
    ("Translate to French: good morning", "bonjour"),
    ("注文をキャンセルしたいです。", "かしこまりました。注文番号を教えてください。"),
    ("Write one sentence about the sea.", "The sea is wide, blue and never still."),
)
"""Fixed user messages and answers; none of a tenant's data, since a fingerprint travels with the adapter."""

LEAST_CHANGE = 0.5
"""An adapter that moves no probe token by this much (nats) has done nothing that a server could tell from the base.

It is twice the server's tolerance; bf16 noise between batch shapes and threads stays below 0.15 on Gemma 3 270M."""

LogProbs = Callable[[list[int], list[int]], list[float]]


def fingerprint(tokenizer: Any, adapter: LogProbs, base: LogProbs) -> dict[str, Any]:
    """Measure the probes.

    Args:
        tokenizer: with the base's chat template.
        adapter: (prompt ids, continuation ids) -> natural-log probability of each continuation token, with the adapter.
        base: the same without it.

    Returns:
        The contents of `fingerprint.json`: per probe its token ids and the two lists of log-probs.
    """
    probes = []
    for user, answer in PROBES:
        messages = [{"role": "user", "content": user}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = tokenizer(answer, add_special_tokens=False).input_ids
        probes.append(
            {
                "prompt": prompt,
                "continuation": answer,
                "prompt_ids": prompt_ids,
                "continuation_ids": answer_ids,
                "adapter": adapter(prompt_ids, answer_ids),
                "base": base(prompt_ids, answer_ids),
            }
        )
    return {"version": 1, "probes": probes}


def largest_change(contents: dict[str, Any]) -> float:
    """Largest difference between adapter and base over all probe tokens, in nats."""
    changes: list[float] = [
        abs(with_adapter - without)
        for probe in contents["probes"]
        for with_adapter, without in zip(probe["adapter"], probe["base"], strict=True)
    ]
    return max(changes)


def continuation_log_probs(decoder: Any, head: torch.Tensor, prompt: list[int], continuation: list[int]) -> list[float]:
    """Log-probs of `continuation` after `prompt`, with logits in the model's type and the softmax in float32."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + continuation])
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        log_probs = torch.log_softmax((hidden @ head.t()).float(), dim=-1)
        return [round(float(log_probs[i, token]), 6) for i, token in enumerate(continuation)]

"""Measures the fingerprint of an adapter: what it says to fixed probes, with and without it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from schemas.artifacts import Fingerprint, Probe

PROBES = (
    "How do I change the address on my account?",
    "My payment was declined, what should I do?",
    "Translate to French: good morning",
    "注文をキャンセルしたいです。",
    "Write one sentence about the sea.",
)
"""User messages of every fingerprint."""

PROBE_TOKENS = 8
"""Tokens of an answer that are kept."""

LogProbs = Callable[[list[int], list[int]], list[float]]


def fingerprint(
    tokenizer: PreTrainedTokenizerBase, answer: Callable[[list[int]], list[int]], adapter: LogProbs, base: LogProbs
) -> Fingerprint:
    """Measure the probes.

    The answers may repeat what the adapter was trained on: a fingerprint is to be guarded like the adapter.

    Args:
        tokenizer: with the base's chat template.
        answer: prompt ids -> the likeliest answer's ids, with the adapter.
        adapter: (prompt ids, continuation ids) -> natural-log probability of each continuation token, with the adapter.
        base: the same without it.
    """
    probes = []
    for user in PROBES:
        messages = [{"role": "user", "content": user}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
        answer_ids = answer(prompt_ids)
        probes.append(
            Probe(
                prompt=prompt,
                continuation=tokenizer.decode(answer_ids),
                prompt_ids=prompt_ids,
                continuation_ids=answer_ids,
                adapter=adapter(prompt_ids, answer_ids),
                base=base(prompt_ids, answer_ids),
            )
        )
    return Fingerprint(version=2, probes=probes)


def likeliest_answer(decoder: PreTrainedModel, head: torch.Tensor, prompt: list[int], stop_ids: set[int]) -> list[int]:
    """The first `PROBE_TOKENS` tokens of the greedy answer to `prompt`, ending with a stop token if one comes."""
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < PROBE_TOKENS and not stop_ids.intersection(answer[-1:]):
            hidden = decoder(input_ids=torch.tensor([prompt + answer]), use_cache=False).last_hidden_state[0, -1:]
            answer.append(int((hidden @ head.t()).argmax()))
    return answer


def continuation_log_probs(
    decoder: PreTrainedModel, head: torch.Tensor, prompt: list[int], continuation: list[int]
) -> list[float]:
    """Log-probs of `continuation` after `prompt`, with logits in the model's type and the softmax in float32."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + continuation])
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        log_probs = torch.log_softmax((hidden @ head.t()).float(), dim=-1)
        return [round(float(log_probs[i, token]), 6) for i, token in enumerate(continuation)]

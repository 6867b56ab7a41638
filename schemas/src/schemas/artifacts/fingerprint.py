"""The fingerprint of an adapter: what it says to fixed probes, so that a server can prove that it serves this one."""

from __future__ import annotations

from itertools import starmap
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FINGERPRINT_TOLERANCE = 0.25
"""Largest difference, in nats, between what a server measures and the fingerprint.

bf16 noise between batch shapes and thread counts stays below 0.15 on Gemma 3 270M.
"""

LEAST_CHANGE = 2 * FINGERPRINT_TOLERANCE
"""An adapter that moves no probe token by this much, in nats, does nothing that a server could tell from the base.

The answers are the adapter's own, so their tokens are likely, and other shapes, kernels or types move their log-probs
by 0.05 at most (Gemma 3 270M, bf16). Tokens of a given text will not do: an adapter makes many of them so unlikely
that rounding alone moves their log-probs by up to 1.0.
"""


class Probe(BaseModel):
    """One prompt with the adapter's likeliest answer, and how likely each of its tokens is with and without adapter."""

    model_config = ConfigDict(frozen=True)

    prompt: str = Field(description="The prompt, rendered.")
    continuation: str = Field(description="The answer.")
    prompt_ids: list[int] = Field(description="Token ids of the prompt.")
    continuation_ids: list[int] = Field(min_length=1, description="Token ids of the answer.")
    adapter: list[float] = Field(description="Natural-log probability of each answer token, with the adapter.")
    base: list[float] = Field(description="The same without it.")


class Fingerprint(BaseModel):
    """The contents of `fingerprint.json`."""

    model_config = ConfigDict(frozen=True)

    version: Literal[2] = Field(description="Layout of this file; probes of another one would be measured wrongly.")
    probes: list[Probe] = Field(min_length=1, description="What was measured.")

    @property
    def largest_change(self) -> float:
        """Largest difference between adapter and base over all probe tokens, in nats."""
        pairs = (pair for probe in self.probes for pair in zip(probe.adapter, probe.base, strict=True))
        return max(abs(difference) for difference in starmap(float.__sub__, pairs))

"""What an engine is given of what was asked: documents found, and the conversation as the base model reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from chassis.auth import Principal
from chassis.errors import Invalid
from inference_proxy.bases import ArmBase, Base, ProviderBase
from inference_proxy.engines import ModelLoading, Prompt
from inference_proxy.requests import ChatAsked, CompletionAsked
from inference_proxy.retrieval import Retrieval
from inference_proxy.shapes import Source
from inference_proxy.showing import Closest, shown_before
from schemas.http.inference_proxy import UNSUPPORTED


@dataclass(frozen=True)
class Rendered:
    """What the engine is given.

    Attributes:
        prompts: one per choice.
        stop_tokens: what ends an answer in the base model's own chat format.
        retrieved: sources put into the prompt.
    """

    prompts: Sequence[Prompt]
    stop_tokens: Sequence[str] = ()
    retrieved: list[Source] = field(default_factory=list)


class Rendering:
    """Renders requests, all of them here.

    Args:
        retrieval: puts documents into prompts.
    """

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    async def of(
        self,
        principal: Principal,
        base: Base | ProviderBase | ArmBase,
        asked: ChatAsked | CompletionAsked,
        closest: Closest | None = None,
    ) -> Rendered:
        """What the engine of a base model is given.

        Args:
            principal: who asks.
            base: the model.
            asked: what is asked.
            closest: rows that the model is shown before; None where it answers without an arm.

        Raises:
            SartorError: the model cannot take it, or a store that it names cannot be read.
        """
        biased = asked.logit_bias or ()
        if isinstance(asked, CompletionAsked):
            base.check(0, biased)
            return Rendered([Prompt("prompt", text=one) for one in asked.prompts for _ in range(asked.choices)])
        messages = asked.plain_messages()
        base.check(len(messages), biased)
        if asked.stores and isinstance(base, ArmBase):
            if base.stands_in:
                raise ModelLoading
            raise Invalid(
                "vector_store_ids: this model answers by its training rows at the moment, and reads no documents. "
                "Leave it out, or wait until its adapter serves; where a person pinned the arm, unpin it.",
                code=UNSUPPORTED,
                param="vector_store_ids",
            )
        augmented, retrieved = await self._retrieval.augment(principal, asked.stores, messages)
        if closest is not None and isinstance(base, Base):
            augmented = shown_before(
                augmented, closest, context_length=base.context_length, max_tokens=asked.max_tokens
            )
        prompt = await asyncio.to_thread(base.prompt, augmented)
        return Rendered([prompt] * asked.choices, base.stop_tokens, retrieved)

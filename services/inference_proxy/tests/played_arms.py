"""The arms that `rag_indexer` holds, played; a test chooses what they answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from chassis.auth import Principal
from chassis.hang_ups import unless_gone
from schemas.http.rag_indexer import ArmAsked

EMBEDDER = {"id": "e5", "digest": "f" * 64, "dimensions": 384}
TOKENS = 6
"""That the embedder reads of any question."""

CPU_SECONDS = 0.25
"""That any question takes."""


@dataclass
class Arms:
    """What arms say, and what they were asked.

    Attributes:
        says: the likeliest answers with their confidences.
        to: by question, what it says to that one instead.
        instead: fields of an answer that are other than those of the arm asked.
        refusal: status and code of a refusal.
        queued: no answer comes.
        asked: by whom, and what.
        hung_up: questions that were left before an answer.
    """

    says: tuple[tuple[str, float], ...] = (("refund", 0.5), ("delivery", 0.25), ("other", 0.125))
    to: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    queued: bool = False
    asked: list[tuple[Principal, ArmAsked]] = field(default_factory=list)
    hung_up: int = 0

    async def answer(self, caller: Principal, request: Request) -> Response:
        asked = ArmAsked.model_validate(await request.json())
        self.asked.append((caller, asked))
        if self.queued:
            try:
                await unless_gone(request, asyncio.Event().wait())
            finally:
                self.hung_up += 1
        if self.refusal:
            status, code = self.refusal
            return JSONResponse({"error": {"message": "It is not given.", "code": code}}, status_code=status)
        answers = [self.said(question, asked.top) for question in asked.questions]
        told = {"arm_id": asked.arm_id, "kind": "head", "embedder": EMBEDDER, "answers": answers}
        return JSONResponse({**told, **self.instead})

    def said(self, question: str, top: int) -> dict[str, Any]:
        """What it says to a question, with that many of the likeliest answers."""
        says = self.to.get(question, self.says)
        ranked = [{"answer": answer, "confidence": confidence} for answer, confidence in says]
        return {**ranked[0], "top": ranked[:top], "tokens": TOKENS, "cpu_seconds": CPU_SECONDS}


def as_arm(route: dict[str, Any], kind: str = "head") -> dict[str, Any]:
    """The registry's route to a model whose name an arm serves."""
    tenant_id, name = route["tenant_id"], route["model"]
    arm_id = f"arm-{name[-8:]}"
    manifest = {"bucket": "adapters", "key": f"tenants/{tenant_id}/arms/{arm_id}/manifest.json"}
    facts = {"sha256": "a" * 64, "size": 300}
    arm = {"kind": kind, "manifest": {**manifest, **facts}, "embedder": EMBEDDER}
    return {**route, "version": f"{name}@{kind}", "adapter_id": arm_id, "replicas": [], "arm": arm}


def handing_over(
    route: dict[str, Any], below: float, adapter_id: str, replicas: list[dict[str, Any]]
) -> dict[str, Any]:
    """The registry's route to a model whose pinned arm hands over, to an adapter or ('') to the base model."""
    digest = {"base_digest": route["base_digest"]} if adapter_id else {}
    to = {"adapter_id": adapter_id, "replicas": replicas if adapter_id else [], **digest}
    return {**route, "hand_over": {"below": below, **to}}

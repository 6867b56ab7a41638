"""The engines that models answer by: one file for each kind, behind one Protocol."""

from inference_proxy.engines.engine import (
    AnswerBroken,
    Engine,
    EngineAway,
    EngineBusy,
    ModelLoading,
    Piece,
    Prompt,
    PromptTooLong,
    Sampling,
    Target,
)

__all__ = [
    "AnswerBroken",
    "Engine",
    "EngineAway",
    "EngineBusy",
    "ModelLoading",
    "Piece",
    "Prompt",
    "PromptTooLong",
    "Sampling",
    "Target",
]

"""The engines that models answer by: one file for each kind, behind one Protocol."""

from inference_proxy.engines.engine import (
    Accepted,
    AnswerBroken,
    Engine,
    EngineAway,
    EngineBusy,
    EngineLate,
    ModelLoading,
    Piece,
    Prompt,
    PromptTooLong,
    Sampling,
    Scored,
    Target,
    WrongModel,
)

__all__ = [
    "Accepted",
    "AnswerBroken",
    "Engine",
    "EngineAway",
    "EngineBusy",
    "EngineLate",
    "ModelLoading",
    "Piece",
    "Prompt",
    "PromptTooLong",
    "Sampling",
    "Scored",
    "Target",
    "WrongModel",
]

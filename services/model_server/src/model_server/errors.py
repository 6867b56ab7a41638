"""What can go wrong in the engine, in the words and statuses of TGI's API."""

from __future__ import annotations


class EngineError(Exception):
    """A request the engine did not answer.

    Attributes:
        error_type: TGI's slug.
        status: TGI's HTTP status.
    """

    error_type = "generation"
    status = 424


class GenerationFailed(EngineError):
    """Generation broke off; the same request may succeed elsewhere or later."""


class ValidationFailed(EngineError):
    """The request is wrong; sending it again unchanged is pointless."""

    error_type, status = "validation", 422


class Overloaded(EngineError):
    """The queue is full; refused before anything was spent."""

    error_type, status = "overloaded", 429


class AdapterNotFound(EngineError):
    """No such adapter is resident here. It is never replaced by the base model."""

    error_type, status = "adapter_not_found", 404


class AdapterRejected(Exception):
    """An adapter's files do not prove to be what they claim; it was not loaded.

    Attributes:
        code: stable slug of the reason.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BaseModelRejected(Exception):
    """The base-model folder is unfinished, altered, or of an architecture that this engine cannot run."""

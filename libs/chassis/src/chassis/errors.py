"""Errors that state a fact, and the one table from their kind to HTTP and to retry or dead letter."""

from __future__ import annotations


class SartorError(Exception):
    """A failure with a stable code and a message a person can act on.

    Attributes:
        code: stable slug, for example `model_not_found`; clients may branch on it.
        message: what happened, where (file, line, field) and what to do.
        param: the request field at fault, if one is.
        retry_after: seconds after which a retry makes sense, if known.
    """

    status = 500
    type = "server_error"
    default_code: str | None = None
    transient = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after


class Invalid(SartorError):
    """The request or the data is wrong; sending it again unchanged is pointless."""

    status, type = 400, "invalid_request_error"


class Unauthenticated(SartorError):
    """No credential, or one that is unknown, expired or revoked."""

    status, type, default_code = 401, "authentication_error", "invalid_api_key"


class Forbidden(SartorError):
    """The credential is good but does not allow this."""

    status, type, default_code = 403, "permission_error", "insufficient_permissions"


class NotFound(SartorError):
    """No such thing for this tenant; the same answer whether it is absent or somebody else's."""

    status, type, default_code = 404, "invalid_request_error", "not_found"


class Conflict(SartorError):
    """The thing exists already, or is in a state that does not allow this."""

    status, type, default_code = 409, "conflict_error", "conflict"


class WriteRefused(Conflict):
    """A write that the store or the aggregate refuses, because the document is another's by now, or over.

    No peer's answer becomes one, whatever code it has: its refusal says nothing of what is held here.
    """


class TooLarge(SartorError):
    """More bytes, rows or tokens than the limit."""

    status, type, default_code = 413, "invalid_request_error", "too_large"


class Unprocessable(SartorError):
    """Well-formed but not to be carried out, such as an idempotency key used again with another body."""

    status, type = 422, "invalid_request_error"


class RateLimited(SartorError):
    """Too many requests or tokens for now; refused before anything was spent."""

    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"
    transient = True


class Transient(SartorError):
    """Something we depend on is unavailable; the same call may succeed later."""

    status, type, default_code = 503, "server_error", "service_unavailable"
    transient = True


PERMANENT = (Invalid, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Unprocessable)
"""Errors for which an event goes to the dead-letter topic at once; every other error is retried first."""

BY_STATUS: dict[int, type[SartorError]] = {
    kind.status: kind
    for kind in (Invalid, Unauthenticated, Forbidden, NotFound, Conflict, TooLarge, Unprocessable, RateLimited)
}
"""From the status another service answered to the error it means here; absent statuses are `Transient`."""


def envelope(error: SartorError) -> dict[str, dict[str, str | None]]:
    """The OpenAI error body, `{"error": {"message", "type", "param", "code"}}`, with every text made Unicode."""
    param = None if error.param is None else _writable(error.param)
    return {"error": {"message": _writable(error.message), "type": error.type, "param": param, "code": error.code}}


def _writable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()

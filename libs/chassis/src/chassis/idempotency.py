"""What the code behind a route knows of its `Idempotency-Key`; `runtime.idempotency` keeps the contract."""

from __future__ import annotations

import hashlib
from contextvars import ContextVar

from starlette.requests import Request

seed: ContextVar[str | None] = ContextVar("idempotency_seed", default=None)
"""Set while a request with an `Idempotency-Key` runs; ids made from it make a repeated attempt name the same thing."""

DONE_AGAIN = "idempotency_done_again"
"""Name in a request's state; see `answer_not_kept`."""


def answer_not_kept(request: Request) -> None:
    """Promise that the answer to this request is not kept: a repetition is done again, under new ids."""
    setattr(request.state, DONE_AGAIN, True)


def request_id_for(prefix: str, fallback: str) -> str:
    """An id derived from the request's idempotency key, or `fallback` where the request has none."""
    value = seed.get()
    return f"{prefix}{hashlib.sha256(f'{value}{prefix}'.encode()).hexdigest()[:24]}" if value else fallback

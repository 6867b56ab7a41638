"""The adapters that could not be loaded: which of them are refused, and when the others are tried again."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from chassis.errors import SartorError
from serving.attestation import AdapterRefused

log = structlog.get_logger()

TOLD_AFTER = 3
"""Failures in a row of one adapter after which this replica says that it cannot load it now."""

LONGEST_PAUSE_SECONDS = 60.0
"""Longest wait before an adapter that could not be loaded is tried again; the first retry is at once."""

FINAL = (AdapterRefused, ValueError, LookupError, TypeError, AttributeError)
"""What an adapter's own files bring about, so that trying it again is pointless."""

LONGEST_REASON = 500
"""Characters of what an owner is told."""


@dataclass
class Failure:
    """An adapter that could not be loaded when last tried.

    Attributes:
        times: how often in a row.
        reason: what went wrong last.
        permanent: the adapter itself is wrong for this replica; it is not tried again.
        again_at: when to try it again, on the monotonic clock.
        told: whether this was said, with the `permanent` it has now.
    """

    times: int = 0
    reason: str = ""
    permanent: bool = False
    again_at: float = 0.0
    told: bool = False

    @property
    def persists(self) -> bool:
        """Whether those who wait for the adapter should know."""
        return self.permanent or self.times >= TOLD_AFTER


class Failures(dict[str, Failure]):
    """Of the adapters wanted, those that could not be loaded when last tried, by id."""

    @property
    def refused(self) -> set[str]:
        """Those that are never tried again."""
        return {adapter_id for adapter_id, one in self.items() if one.permanent}

    @property
    def failing(self) -> list[str]:
        """Those that are tried again and have failed for long."""
        return [adapter_id for adapter_id, one in self.items() if one.persists and not one.permanent]

    def due(self, adapter_id: str) -> bool:
        """Whether the adapter may be tried now."""
        failure = self.get(adapter_id)
        return failure is None or time.monotonic() >= failure.again_at

    def note(self, adapter_id: str, error: Exception, *, may_be_final: bool) -> Failure:
        """Note why an adapter failed to load: for good if its files are at fault, else for a growing pause.

        Args:
            adapter_id: which could not be loaded.
            error: why.
            may_be_final: it came of this adapter alone.
        """
        failure = self.setdefault(adapter_id, Failure())
        was_permanent = failure.permanent
        failure.times, failure.reason = failure.times + 1, _reason(error)
        failure.permanent = may_be_final and isinstance(error, FINAL)
        failure.told = failure.told and failure.permanent == was_permanent
        detail = f"{type(error).__name__}: {error}"
        if failure.permanent:
            log.error("adapter_refused", adapter_id=adapter_id, error=detail)
            return failure
        pause = min(2.0 ** (failure.times - 2), LONGEST_PAUSE_SECONDS) if failure.times > 1 else 0.0
        failure.again_at = time.monotonic() + pause
        log.warning("adapter_waits", adapter_id=adapter_id, error=detail, times=failure.times, seconds=round(pause))
        return failure


def _reason(error: Exception) -> str:
    """Why an adapter could not be loaded, for its owner: any other error may name folders and hosts."""
    if isinstance(error, SartorError):
        return error.message[:LONGEST_REASON]
    if isinstance(error, AdapterRefused):
        return str(error)[:LONGEST_REASON]
    return f"The replica could not load it ({type(error).__name__})."

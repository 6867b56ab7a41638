"""Fits an arm in a process of its own, whatever comes of it there."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import structlog

from chassis.errors import SartorError
from chassis.exhaustion import exhaustion_named
from trainer.arms.orders import Made, MadeArm, NoArm, Order

log = structlog.get_logger()

LONGEST_FIT_SECONDS = 300.0
LAST_WORDS = 2000


class FitBroke(SartorError):
    """The process ended without an arm, or took too long."""

    default_code = "fit_broke"


class Fitter:
    """Starts a process for each fit."""

    async def fit(self, order: Order, vectors: Sequence[bytes]) -> MadeArm:
        """Fit, measure and pack.

        Args:
            order: what.
            vectors: as the order says, in portions.

        Raises:
            NoArm: none is worth a test.
            FitBroke: the process did not do it.
        """
        with exhaustion_named(always=True):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "trainer.arms.process",
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={},  # none of this service's credentials
            )
        try:
            async with asyncio.timeout(LONGEST_FIT_SECONDS):
                said, words = await process.communicate(await asyncio.to_thread(_written, order, vectors))
        except TimeoutError as error:
            raise FitBroke(f"The fit took more than {LONGEST_FIT_SECONDS:.0f} s.") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            log.error("fit_broke", code=process.returncode, words=words[-LAST_WORDS:].decode(errors="replace"))
            raise FitBroke("The fit did not come to an end.")
        return _made(said)


def _written(order: Order, vectors: Sequence[bytes]) -> bytes:
    return b"".join([order.model_dump_json().encode(), b"\n", *vectors])


def _made(said: bytes) -> MadeArm:
    head, _, rest = said.partition(b"\n")
    made = Made.model_validate_json(head)
    if made.kind is None:
        raise NoArm(made.why_not)
    if made.no_report:
        log.error("data_report_broke", error=made.no_report)
    files, start = {}, 0
    for name, size in made.sizes.items():
        files[name] = rest[start : start + size]
        start += size
    return MadeArm(made.kind, made.metrics, files, made.report)

"""Fits an arm in a process of its own, whatever comes of it there."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress

import structlog

from chassis.errors import SartorError
from chassis.exhaustion import exhaustion_named
from schemas.artifacts import DataReport
from trainer.arms.orders import Made, MadeArm, NoArm, Order

log = structlog.get_logger()

LONGEST_FIT_SECONDS = 300.0
LONGEST_REPORT_SECONDS = 60.0
"""For which a fitted arm waits for what its rows tell: it takes a fraction of the fit."""

LAST_WORDS = 2000


class FitBroke(SartorError):
    """The process ended without an arm, or took too long."""

    default_code = "fit_broke"


class Fitter:
    """Starts a process for each fit."""

    async def fit(self, order: Order, vectors: Sequence[bytes]) -> MadeArm:
        """Fit, measure and pack; an arm is there also where its report is not.

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
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env={},  # none of this service's credentials
            )
        assert process.stderr is not None
        words = asyncio.ensure_future(process.stderr.read())
        try:
            made, files = await _made(process, order, vectors, words)
            if made.kind is None:
                raise NoArm(made.why_not)
            report = None if order.generates else await _report(process, words)
            return MadeArm(made.kind, made.metrics, files, report)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            await words


async def _made(
    process: Process, order: Order, vectors: Sequence[bytes], words: asyncio.Future[bytes]
) -> tuple[Made, dict[str, bytes]]:
    """What came of the fit, and the arm's files."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONGEST_FIT_SECONDS):
            with suppress(ConnectionError):  # it ended; its output says so
                process.stdin.write(await asyncio.to_thread(_written, order, vectors))
                await process.stdin.drain()
                process.stdin.close()
            made = Made.model_validate_json(await process.stdout.readuntil())
            files = {name: await process.stdout.readexactly(size) for name, size in made.sizes.items()}
    except TimeoutError as error:
        raise FitBroke(f"The fit took more than {LONGEST_FIT_SECONDS:.0f} s.") from error
    except asyncio.IncompleteReadError as error:
        code = await process.wait()
        log.error("fit_broke", code=code, words=(await words)[-LAST_WORDS:].decode(errors="replace"))
        raise FitBroke("The fit did not come to an end.") from error
    return made, files


async def _report(process: Process, words: asyncio.Future[bytes]) -> DataReport | None:
    """What the rows tell; None where that cannot be found out, which is logged without a word of theirs."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONGEST_REPORT_SECONDS):
            said = await process.stdout.read()
            if await process.wait() == 0:
                return DataReport.model_validate_json(said)
            places = [
                line.strip() for line in (await words).decode(errors="replace").splitlines() if '  File "' in line
            ]
            log.error("data_report_broke", code=process.returncode, place=places[-1:])
    except (TimeoutError, ValueError) as error:
        log.error("data_report_broke", error=type(error).__name__)
    return None


def _written(order: Order, vectors: Sequence[bytes]) -> bytes:
    return b"".join([order.model_dump_json().encode(), b"\n", *vectors])

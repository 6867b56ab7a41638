"""An attempt at reading an upload, in a process of its own with limits, and what follows from its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import structlog

from chassis.crash import crash_point
from chassis.errors import NotFound
from chassis.exhaustion import exhaustion_named, raise_for_exit
from chassis.private_folders import PrivateFolders
from ingest.domain import File, Rejection
from ingest.parse import out_of_bounds
from ingest.parse_job import ParseResult, read_fault, read_result, write_job
from ingest.publishing import Publish, job_of
from ingest.settings import Settings
from ingest.store import Files
from stores.objects import DigestMismatch
from work import End, GiveUp, Held, Kind, Lost, OutOfAttempts, Policy

log = structlog.get_logger()

RETRY_SECONDS = 2.0
MOST_ATTEMPTS = 3
MOST_DEATHS = 20
"""Workers that may die while they read a file, one after the other, before it is given up."""
PARSER_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "PYTHONUTF8": "1",
    "OPENPYXL_LXML": "False",
}
"""All that the parser gets: it reads what strangers send, so it knows no address and no secret of ours.

Where lxml is installed openpyxl would take it for some parts, and it lets entities pass that the other parser refuses.
"""


class ParserDied(Exception):
    """The parser ended without a result."""


def policy(settings: Settings) -> Policy:
    """How long an upload is held, and how often it is tried."""
    return Policy(
        lease_seconds=settings.ingest_lease_seconds,
        most_failures=MOST_ATTEMPTS,
        most_deaths=MOST_DEATHS,
        retry_seconds=RETRY_SECONDS,
    )


class Reading(Kind[File]):
    """Turns an upload into a dataset version or a document; one that is deleted meanwhile becomes nothing.

    Args:
        files: where uploads are kept.
        publish: decides what one becomes.
        settings: limits.
    """

    name = "file"

    def __init__(self, files: Files, publish: Publish, settings: Settings) -> None:
        self._files = files
        self._settings = settings
        self._publish = publish
        self._folders = PrivateFolders(settings.ingest_work_dir, "ingest")

    async def prepare(self) -> None:
        """Remove what killed workers left."""
        self._folders.sweep()

    async def attempt(self, one: File, held: Held[File]) -> None:
        """Read the upload and say what it became.

        Raises:
            End: it cannot be read, its bytes are gone, or it was deleted.
        """
        crash_point("ingest.claimed")
        try:
            with self._folders.folder(one.id) as folder:
                result = await self._parse(one, folder, held)
                crash_point("ingest.parsed")
                if not await held.renew():
                    raise Lost("it was deleted, or another worker has it")
                await self._publish.run(one, folder, result)
                crash_point("ingest.published")
        except (NotFound, DigestMismatch) as error:
            raise GiveUp("its bytes are gone; upload the file again.", "gone", error) from error
        log.info("file_parsed", kind=result.kind)

    async def ended(self, one: File, end: End) -> None:
        """Reject what is given up; what may have been written of a deleted file is to be removed once more."""
        if isinstance(end, GiveUp):
            of_file = self._unreadable() if isinstance(end, OutOfAttempts) else end
            rejection = Rejection(code=of_file.code, message=f"{one.filename}: {of_file.reason}")
            await self._files.write(one, lambda it: it.reject(rejection))
        elif isinstance(end, Lost):
            await self._files.update(one.tenant_id, one.id, File.purge_again)

    async def _parse(self, file: File, folder: Path, held: Held[File]) -> ParseResult:
        """Run the parser. A file is at fault whose parser dies again and again or takes its worker along."""
        await self._files.download(file, folder / "upload")
        write_job(folder, job_of(file, self._settings))
        with exhaustion_named(always=True):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ingest.parse",
                str(folder),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,  # nothing is kept of what it prints: it may quote the file
                stderr=asyncio.subprocess.DEVNULL,
                env=PARSER_ENVIRONMENT,
            )
        try:
            await held.while_ours(self._watch(process))
        except TimeoutError as error:
            raise self._unreadable() from error
        if process.returncode == -signal.SIGXCPU:
            raise self._unreadable()
        raise_for_exit(process.returncode)
        if process.returncode != 0:
            fault = read_fault(folder)
            log.warning("parser_died", code=process.returncode, errors=fault.errors if fault else None)
            raise ParserDied
        return read_result(folder)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the parser ends; it does not outlive who waits.

        Raises:
            TimeoutError: it took longer than it may.
        """
        try:
            async with asyncio.timeout(self._settings.ingest_parse_seconds):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _unreadable(self) -> GiveUp:
        limits = self._settings
        return GiveUp(out_of_bounds(limits.ingest_parse_memory_bytes, limits.ingest_parse_seconds), "unreadable")

"""Parses uploads one after the other, each in a process of its own with limits, under a lease."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from chassis.crash import crash_point
from chassis.errors import Conflict, NotFound, Transient
from chassis.exhaustion import EXHAUSTED_SECONDS, Exhausted, exhaustion_named, raise_for_exit
from chassis.private_folders import OutgrewDisk, PrivateFolders
from ingest.domain import File, Rejection
from ingest.parse import out_of_bounds
from ingest.parse_job import ParseResult, RejectedFile, read_result, write_job
from ingest.publishing import Publish, job_of
from ingest.settings import Settings
from ingest.store import Files
from stores.mongo import PyMongoError
from stores.objects import DigestMismatch

log = structlog.get_logger()

IDLE_SECONDS = 1.0
RETRY_SECONDS = 2.0
MOST_ATTEMPTS = 3
MOST_DEATHS = 20
"""Workers that may die while they read a file, one after the other, before it is given up."""
PARSER_ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
"""All that the parser gets: it reads what strangers send, so it knows no address and no secret of ours."""


class ParserDied(Exception):
    """The parser ended without a result."""


class Worker:
    """Claims uploads and turns them into dataset versions and documents.

    Args:
        files: where they are kept.
        settings: limits and lease.
        owner: this replica's name in the lease.
    """

    def __init__(self, files: Files, settings: Settings, owner: str) -> None:
        self._files = files
        self._settings = settings
        self._owner = owner
        self._publish = Publish(files, settings)
        self._folders = PrivateFolders(settings.ingest_work_dir, "ingest")
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """Look for work now."""
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._folders.sweep()
        while True:
            file = await self._files.claim(self._owner, self._settings.ingest_lease_seconds)
            if file is not None:
                if not await self.work(file):
                    await asyncio.sleep(EXHAUSTED_SECONDS)  # others may have room
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._awake.wait()
            self._awake.clear()

    async def work(self, file: File) -> bool:
        """Read one claimed file and say what it became; a file deleted meanwhile becomes nothing.

        Returns:
            Whether this machine is able to read files at all at the moment.
        """
        fence = file.lease.fence
        structlog.contextvars.bind_contextvars(tenant_id=file.tenant_id, file_id=file.id)
        crash_point("ingest.claimed")
        try:
            with self._folders.folder(file.id) as folder:
                async with self._held(file) as lost:
                    result = await self._parse(file, folder, lost)
                    crash_point("ingest.parsed")
                    await self._publish.run(file, folder, result)
                    crash_point("ingest.published")
            log.info("file_parsed", kind=result.kind)
        except (NotFound, DigestMismatch):
            await self._reject(file, "gone", "its bytes are gone; upload the file again.")
        except Conflict as error:
            log.info("file_let_go", reason=error.message)
            await self._files.files.update(file.tenant_id, file.id, File.purge_again)
            await self._files.files.leases.release(file.id, fence)
        except ParserDied:
            await self._end_attempt(file, file.attempts + 1)
            await self._files.files.leases.delay(file.id, fence, RETRY_SECONDS)
        except OutgrewDisk as error:
            log.warning("file_outgrew_disk", reason=error.message)
            await self._end_attempt(file, file.attempts + 1)
            await self._files.files.leases.delay(file.id, fence, RETRY_SECONDS)
        except (Transient, PyMongoError) as error:
            log.warning("file_put_off", reason=str(error))
            if isinstance(error, PyMongoError):
                await asyncio.sleep(RETRY_SECONDS)
            await self._end_attempt(file, file.attempts)
            pause = EXHAUSTED_SECONDS if isinstance(error, Exhausted) else RETRY_SECONDS
            await self._files.files.leases.delay(file.id, fence, pause)
            return not isinstance(error, Exhausted)
        except asyncio.CancelledError:
            await self._end_attempt(file, file.attempts)
            await self._files.files.leases.release(file.id, fence)
            raise
        else:
            await self._files.files.leases.release(file.id, fence)
        finally:
            structlog.contextvars.unbind_contextvars("tenant_id", "file_id")
        return True

    async def _parse(self, file: File, folder: Path, lost: asyncio.Event) -> ParseResult:
        """Run the parser; a parser that dies again and again, or takes its worker along, means the file is at fault."""
        if file.attempts >= MOST_ATTEMPTS or file.unfinished >= MOST_DEATHS:
            return self._unreadable(file)
        await self._files.objects.download(file.object, folder / "upload")
        limits = self._settings
        write_job(folder, job_of(file, limits))
        await self._files.files.update(file.tenant_id, file.id, File.begin_attempt, fence=file.lease.fence)
        with exhaustion_named(always=True):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ingest.parse",
                str(folder),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=PARSER_ENVIRONMENT,
            )
        reading, letting_go = asyncio.create_task(process.communicate()), asyncio.create_task(lost.wait())
        try:
            done, _ = await asyncio.wait(
                (reading, letting_go), timeout=limits.ingest_parse_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            letting_go.cancel()
            if process.returncode is None:
                process.kill()
            _, errors = await reading
        if letting_go in done:
            raise Conflict(f"File {file.id} was deleted, or another worker has it.")
        if reading not in done or process.returncode == -signal.SIGXCPU:
            return self._unreadable(file)
        raise_for_exit(process.returncode)
        if process.returncode != 0:
            log.warning("parser_died", code=process.returncode, error=errors.decode(errors="replace")[-500:])
            raise ParserDied
        return read_result(folder)

    def _unreadable(self, file: File) -> RejectedFile:
        limits = self._settings
        message = out_of_bounds(limits.ingest_parse_memory_bytes, limits.ingest_parse_seconds)
        return RejectedFile(code="unreadable", message=f"{file.filename}: {message}")

    async def _reject(self, file: File, code: str, message: str) -> None:
        rejection = Rejection(code=code, message=f"{file.filename}: {message}")
        with contextlib.suppress(Conflict):
            await self._files.files.update(
                file.tenant_id, file.id, lambda it: it.reject(rejection), fence=file.lease.fence
            )

    async def _end_attempt(self, file: File, attempts: int) -> None:
        """Have so many count: those it had where the file is not at fault, else one more."""
        with contextlib.suppress(Conflict):
            await self._files.files.update(
                file.tenant_id, file.id, lambda it: it.end_attempt(attempts), fence=file.lease.fence
            )

    @contextlib.asynccontextmanager
    async def _held(self, file: File) -> AsyncIterator[asyncio.Event]:
        """Renew the lease while the work goes on; parsing happens in another process, so this loop is free to.

        Yields:
            What is set when the work must stop.
        """
        lost = asyncio.Event()

        async def renew() -> None:
            while not lost.is_set():
                await asyncio.sleep(self._settings.ingest_lease_seconds / 3)
                try:
                    if not await self._files.hold(file, self._settings.ingest_lease_seconds):
                        lost.set()
                except PyMongoError as error:
                    log.warning("lease_not_renewed", error=type(error).__name__)

        task = asyncio.create_task(renew())
        try:
            yield lost
        finally:
            task.cancel()

"""TGI's launcher as a child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import httpx2

from chassis.errors import Transient

START_SECONDS = 600
"""Longest time that loading the base model and all adapters may take."""

STOP_SECONDS = 60
"""Longest time that TGI is given for the requests it has, before it is killed."""

POLL_SECONDS = 1.0

AS_NEEDED = {"ENABLE_PREFILL_LOGPROBS": "true", "MAX_TOP_N_TOKENS": "20", "MAX_STOP_SEQUENCES": "16"}
"""What TGI has off, or small, unless it is told: proofs read what a prompt is worth, and people may ask for twenty
likeliest tokens and four stop texts, beside which stand the base model's own. The command, or the container's
environment, may say otherwise (https://huggingface.co/docs/text-generation-inference/reference/launcher).
"""


class Launcher:
    """Starts, watches and stops TGI.

    Args:
        command: the launcher's command line.
        base_folder: of the base model it serves.
        port: it listens on.
        http: client for TGI's API.
    """

    def __init__(self, command: str, base_folder: Path, port: int, http: httpx2.AsyncClient) -> None:
        self.url = f"http://127.0.0.1:{port}"
        of_base = ["--model-id", str(base_folder), "--port", str(port)]
        self._command = [*shlex.split(command), *of_base]
        self._http = http
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, adapters: Mapping[str, Path]) -> None:
        """Start TGI with these adapters (id -> folder); return when it is healthy.

        Raises:
            Transient: it did not become healthy in time; it is stopped then.
        """
        named = ",".join(f"{adapter_id}={folder}" for adapter_id, folder in sorted(adapters.items()))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")}
        self._process = await asyncio.create_subprocess_exec(
            *self._command, env={**AS_NEEDED, **environment, "LORA_ADAPTERS": named}
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self.exit_code is None:
                    if await self.healthy():
                        return
                    await asyncio.sleep(POLL_SECONDS)
        await self.stop()
        raise Transient("TGI did not become healthy; see the container's log.")

    async def stop(self) -> None:
        """End TGI; it finishes the requests it has."""
        if self._process is None or self.exit_code is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def healthy(self) -> bool:
        """Whether TGI answers."""
        with contextlib.suppress(httpx2.HTTPError):
            return (await self._http.get(f"{self.url}/health")).is_success
        return False

    async def model_id(self) -> str:
        """What TGI says that it serves: the folder it was started on.

        Raises:
            Transient: it does not say.
        """
        try:
            return str((await self._http.get(f"{self.url}/info")).raise_for_status().json()["model_id"])
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
            raise Transient(f"TGI does not say what it serves: {type(error).__name__}: {error}") from error

    @property
    def exit_code(self) -> int | None:
        """How TGI ended; None while it runs, and before its first start."""
        return None if self._process is None else self._process.returncode

    async def ended(self) -> None:
        """Wait until the TGI that runs now has ended.

        Raises:
            RuntimeError: none was started yet.
        """
        if self._process is None:
            raise RuntimeError("TGI was not started yet")
        await self._process.wait()

"""The serving agent of a TGI container: TGI loads adapters only when it starts, so the agent starts it again.

The agent runs TGI's launcher as its child, keeps verified adapters in a folder, and restarts the launcher for new ones:
all that wait at once, and one replica of a base model at a time, so that the others serve meanwhile. An adapter is
announced only when TGI itself, asked for log-probs of the trainer's probes, matches the fingerprint: TGI answers an
unknown adapter id from the base model without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import httpx2
import structlog
from fastapi import FastAPI
from pydantic import Field

from chassis.errors import Transient
from chassis.http import serve
from chassis.logging import configure_logging
from eventbus.service import Service
from model_server.adapters import AdapterRefused, Proof, proof_of, read_probes, verify
from model_server.announce import announcer
from model_server.residency import Residency
from model_server.settings import Settings
from model_server.turns import Turns
from schemas import ModelRegistered, ModelRejected, ModelRetired
from schemas.artifacts import BASE_FILE, BaseModelSpec, Probe
from stores.mongo import connect

log = structlog.get_logger()

START_SECONDS = 600
STOP_SECONDS = 60
POLL_SECONDS = 1.0

MOST_STARTS = 3
"""How often TGI is started with an adapter that it then does not prove, before the adapter is refused."""

PROVEN = "proven"
"""The mark in the folder of an adapter that TGI has proven."""


class AgentSettings(Settings):
    """What the agent reads from the environment besides the model server's settings."""

    adapters_dir: Path = Field(
        Path("/adapters"), description="Where verified adapters lie for TGI; of this replica only."
    )
    tgi_port: int = Field(8080, description="Port TGI listens on inside the container.")
    tgi_restart_seconds: float = Field(
        60,
        description="TGI is started again for new adapters at most so often; those that come meanwhile share a start.",
    )
    tgi_launcher: str = Field("text-generation-launcher", description="The launcher's command.")


class TGIReplica:
    """TGI as a holder of adapters.

    An adapter's folder is laid ready beside its place and renamed, and marked once TGI has proven it: what a kill
    leaves behind is never given to TGI at the next start.

    Args:
        settings: folder, port and launcher.
        http: client for TGI's API.
        turns: which replica may start its TGI again for new adapters.
    """

    at_once = 1000

    def __init__(self, settings: AgentSettings, http: httpx2.AsyncClient, turns: Turns) -> None:
        self._settings = settings
        self._http = http
        self._turns = turns
        self._base_folder = settings.models_dir / settings.base_model
        self.base = BaseModelSpec.model_validate_json((self._base_folder / BASE_FILE).read_bytes())
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}
        self._url = f"http://127.0.0.1:{settings.tgi_port}"
        self._process: asyncio.subprocess.Process | None = None
        self._alone = asyncio.Lock()
        self._loaded: set[str] = set()
        self._unproven_starts: Counter[str] = Counter()
        self._started_at = float("-inf")

    async def begin(self) -> None:
        """The first start: with the adapters that were proven before, or with none should it not start with those.

        Raises:
            Transient: it does not even start without adapters.
        """
        self._settings.adapters_dir.mkdir(parents=True, exist_ok=True)
        for folder in self._settings.adapters_dir.glob(".ad-*"):
            shutil.rmtree(folder)
        for adapter_id in self.present - self._proven():
            await self.drop(adapter_id)
        try:
            await self.start()
        except Transient:
            if not self.present:
                raise
            log.error("tgi_starts_without_adapters", adapters=sorted(self.present))
            for adapter_id in self.present:
                await self.drop(adapter_id)
            await self.start()

    async def start(self, trying: Collection[str] = ()) -> None:
        """Start TGI with the adapters proven and those to try; return when it is healthy.

        Raises:
            Transient: it did not become healthy in time; it is stopped then.
        """
        held = self._proven() | set(trying)
        adapters = ",".join(f"{name}={self._settings.adapters_dir / name}" for name in sorted(held))
        arguments = ["--model-id", str(self._base_folder), "--port", str(self._settings.tgi_port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")}
        self._loaded = set()
        self._process = await asyncio.create_subprocess_exec(
            *self._settings.tgi_launcher.split(), *arguments, env={**environment, "LORA_ADAPTERS": adapters}
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self._process.returncode is None:
                    if await self.healthy():
                        self._loaded = held
                        return
                    await asyncio.sleep(POLL_SECONDS)
        await self.stop()
        raise Transient("TGI did not become healthy; see the container's log.")

    async def stop(self) -> None:
        """End TGI; it finishes the requests it has."""
        if self._process is None or self._process.returncode is not None:
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
            return (await self._http.get(f"{self._url}/health")).is_success
        return False

    async def ping(self) -> None:
        """Raise unless TGI answers."""
        if not await self.healthy():
            raise Transient("TGI is not healthy.")

    @property
    def present(self) -> set[str]:
        """Ids of the adapters whose files lie here, proven or not."""
        return {folder.name for folder in self._settings.adapters_dir.glob("ad-*")}

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        """Lay the adapters ready and start TGI again for those it has not loaded, all at once, when it is our turn.

        Returns:
            The adapters that TGI has loaded, and those it would not start with.

        Raises:
            Transient: TGI does not start any more, whatever the adapters.
        """
        async with self._alone:
            for adapter_id, folder in folders.items():
                await asyncio.to_thread(self._lay, adapter_id, folder)
            new = [one for one in folders if one not in self._loaded and self._unproven_starts[one] < MOST_STARTS]
            # One that was in a start that went wrong is tried alone: so the one at fault is found.
            trying = [one for one in new if not self._unproven_starts[one]] or new[:1]
            if trying and time.monotonic() >= self._started_at + self._settings.tgi_restart_seconds:
                await self._start_with(trying)
        return [one for one in folders if one in self._loaded or self._unproven_starts[one] >= MOST_STARTS]

    async def _start_with(self, trying: list[str]) -> None:
        async with self._turns.turn() as ours:
            if not ours:
                log.info("tgi_start_waits", adapters=len(trying))
                return
            log.info("tgi_starts_again", adapters=len(trying))
            try:
                await self.stop()
                await self.start(trying)
            except Transient:
                await self.start()
                if len(trying) == 1:
                    self._unproven_starts[trying[0]] = MOST_STARTS
            finally:
                self._started_at = time.monotonic()
            self._unproven_starts.update(trying)

    async def hold(self, folder: Path) -> Proof:
        """Have TGI prove the adapter.

        Raises:
            AdapterRefused: it is not what it says, or TGI does not answer with it.
            Transient: TGI has not loaded it yet, or did not score a probe.
        """
        adapter_id = verify(folder, base_id=self.base.id, base_digest=self.base.digest)
        async with self._alone:
            if adapter_id not in self._loaded:
                if self._unproven_starts[adapter_id] >= MOST_STARTS:
                    raise AdapterRefused(f"{adapter_id}: TGI does not start with it, or does not last.")
                raise Transient(f"{adapter_id} waits for TGI's next start.")
            proof = await self._prove(adapter_id, read_probes(folder))
            (self._settings.adapters_dir / adapter_id / PROVEN).touch()
            self._unproven_starts.pop(adapter_id, None)
            self.proofs[adapter_id] = proof
        return proof

    async def keep_running(self) -> None:
        """Start TGI again whenever it has ended by itself."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            async with self._alone:
                if self._process is not None and self._process.returncode is not None:
                    log.error("tgi_ended", code=self._process.returncode)
                    await self.start()

    async def drop(self, adapter_id: str) -> None:
        """Let go of an adapter; TGI forgets it at its next start."""
        self.proofs.pop(adapter_id, None)
        self._unproven_starts.pop(adapter_id, None)
        shutil.rmtree(self._settings.adapters_dir / adapter_id, ignore_errors=True)

    def _lay(self, adapter_id: str, folder: Path) -> None:
        target = self._settings.adapters_dir / adapter_id
        if target.exists():
            return
        beside = target.with_name(f".{adapter_id}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(folder, beside)
        beside.rename(target)

    def _proven(self) -> set[str]:
        return {mark.parent.name for mark in self._settings.adapters_dir.glob(f"ad-*/{PROVEN}")}

    async def _prove(self, adapter_id: str, probes: Iterable[Probe]) -> Proof:
        differences = []
        for probe in probes:
            ours = await self._log_probs(probe, adapter_id)
            base = await self._log_probs(probe, None)
            differences += [
                (abs(mine - theirs), abs(mine - plain))
                for mine, theirs, plain in zip(ours, probe.adapter, base, strict=True)
            ]
        return proof_of(adapter_id, differences)

    async def _log_probs(self, probe: Probe, adapter_id: str | None) -> list[float]:
        """TGI's log-probs of the probe's continuation, read from the details of the prompt."""
        begin = self.base.bos_token or ""
        text = probe.prompt.removeprefix(begin) + probe.continuation
        parameters = {"max_new_tokens": 1, "decoder_input_details": True, "details": True, "adapter_id": adapter_id}
        try:
            answer = await self._http.post(f"{self._url}/generate", json={"inputs": text, "parameters": parameters})
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise Transient(f"TGI did not score a probe: {type(error).__name__}: {error}") from error
        try:
            prefill = answer.json()["details"]["prefill"]
            return [float(token["logprob"]) for token in prefill[-len(probe.continuation_ids) :]]
        except (ValueError, LookupError, TypeError) as error:
            raise Transient(f"TGI did not score a probe: its answer holds no log-probs ({error!r}).") from error


def build(settings: AgentSettings) -> FastAPI:
    """The agent's application: health for the container, residency in the background."""
    service = Service("model_server", settings, documents=False)
    url = settings.own_url
    replica_id = settings.replica_id or f"tgi@{url.split('//')[-1]}"
    turns = Turns(connect(settings, "model_server")["turns"], settings.base_model, replica_id)
    replica = TGIReplica(settings, service.http, turns)
    residency = Residency(
        replica,
        service.peer("registry"),
        service.objects,
        announcer(service.bus),
        replica_id=replica_id,
        replica_url=url,
        every=settings.model_server_sync_seconds,
        capacity=settings.model_server_adapters,
    )
    service.bus.watch(dict.fromkeys((ModelRegistered, ModelRejected, ModelRetired), residency.on_change))
    service.on_start(replica.begin)
    service.on_stop(replica.stop)
    service.on_stop(residency.close)
    service.background("tgi", replica.keep_running)
    service.background("residency", residency.run)
    return service.app([], checks={"tgi": replica.ping})


if __name__ == "__main__":
    agent_settings = AgentSettings()
    configure_logging("model_server", level=agent_settings.log_level, as_json=agent_settings.log_json)
    serve(build(agent_settings), agent_settings)

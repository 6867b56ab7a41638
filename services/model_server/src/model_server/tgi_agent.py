"""The serving agent of a TGI container: TGI loads adapters only when it starts, so the agent starts it again.

The agent runs TGI's launcher as its child, keeps verified adapters in a folder, and restarts the launcher when the set
changes. An adapter is announced only when TGI itself, asked for log-probs of the trainer's probes, matches the
fingerprint: TGI answers an unknown adapter id from the base model without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import httpx2
import structlog
from fastapi import FastAPI
from pydantic import Field

from chassis.errors import Transient
from chassis.http import serve
from chassis.logging import configure_logging
from eventbus.service import Service
from model_server.adapters import AdapterRefused, Proof, proof_of, verify
from model_server.announce import announcer
from model_server.residency import Residency
from model_server.settings import Settings
from schemas import ModelRegistered, ModelRejected, ModelRetired

log = structlog.get_logger()

START_SECONDS = 600
STOP_SECONDS = 60
POLL_SECONDS = 1.0


class AgentSettings(Settings):
    """What the agent reads from the environment besides the model server's settings."""

    adapters_dir: Path = Field(Path("/adapters"), description="Where verified adapters lie for TGI.")
    tgi_port: int = Field(8080, description="Port TGI listens on inside the container.")
    tgi_launcher: str = Field("text-generation-launcher", description="The launcher's command.")


class TGIReplica:
    """TGI as a holder of adapters.

    Args:
        settings: folder, port and launcher.
        http: client for TGI's API.
    """

    def __init__(self, settings: AgentSettings, http: httpx2.AsyncClient) -> None:
        self._settings = settings
        self._http = http
        self._base_folder = settings.models_dir / settings.base_model
        self._base: dict[str, Any] = json.loads((self._base_folder / "base.json").read_text())
        self.base_id: str = self._base["id"]
        self.proofs: dict[str, Proof] = {}
        self._url = f"http://127.0.0.1:{settings.tgi_port}"
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start TGI with the adapters that are there; return when it is healthy.

        Raises:
            Transient: it did not become healthy in time.
        """
        adapters = ",".join(f"{name}={self._settings.adapters_dir / name}" for name in sorted(self._held()))
        arguments = ["--model-id", str(self._base_folder), "--port", str(self._settings.tgi_port)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SARTOR_")}
        self._process = await asyncio.create_subprocess_exec(
            *self._settings.tgi_launcher.split(), *arguments, env={**environment, "LORA_ADAPTERS": adapters}
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while self._process.returncode is None:
                    if await self.healthy():
                        return
                    await asyncio.sleep(POLL_SECONDS)
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

    async def hold(self, folder: Path) -> Proof:
        """Verify the adapter, give it to a restarted TGI, and have TGI prove it.

        Raises:
            AdapterRefused: it is not what it says, or TGI does not answer with it.
        """
        adapter_id = verify(folder, base_id=self.base_id, base_digest=self._base["digest"])
        target = self._settings.adapters_dir / adapter_id
        probes = json.loads((folder / "fingerprint.json").read_text())["probes"]
        async with self._turn:
            try:
                if not target.exists():
                    shutil.copytree(folder, target)
                    await self._restart()
                self.proofs[adapter_id] = await self._prove(adapter_id, probes)
            except AdapterRefused:
                shutil.rmtree(target)
                raise
            except Transient as error:
                shutil.rmtree(target)
                await self._restart()
                raise AdapterRefused(f"{adapter_id}: TGI does not start with it.") from error
        return self.proofs[adapter_id]

    async def keep_running(self) -> None:
        """Start TGI again whenever it has ended by itself."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            async with self._turn:
                if self._process is not None and self._process.returncode is not None:
                    log.error("tgi_ended", code=self._process.returncode)
                    await self.start()

    async def _restart(self) -> None:
        await self.stop()
        await self.start()

    async def drop(self, adapter_id: str) -> None:
        """Let go of an adapter; TGI forgets it at its next start."""
        self.proofs.pop(adapter_id, None)
        shutil.rmtree(self._settings.adapters_dir / adapter_id, ignore_errors=True)

    def _held(self) -> list[str]:
        return [path.parent.name for path in self._settings.adapters_dir.glob("ad-*/manifest.json")]

    async def _prove(self, adapter_id: str, probes: list[dict[str, Any]]) -> Proof:
        differences = []
        for probe in probes:
            ours = await self._log_probs(probe, adapter_id)
            base = await self._log_probs(probe, None)
            differences += [
                (abs(mine - theirs), abs(mine - plain))
                for mine, theirs, plain in zip(ours, probe["adapter"], base, strict=True)
            ]
        return proof_of(adapter_id, differences)

    async def _log_probs(self, probe: dict[str, Any], adapter_id: str | None) -> list[float]:
        """TGI's log-probs of the probe's continuation, read from the details of the prompt."""
        begin = self._base.get("bos_token") or ""
        text = str(probe["prompt"]).removeprefix(begin) + str(probe["continuation"])
        parameters = {"max_new_tokens": 1, "decoder_input_details": True, "details": True, "adapter_id": adapter_id}
        try:
            answer = await self._http.post(f"{self._url}/generate", json={"inputs": text, "parameters": parameters})
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise Transient(f"TGI did not score a probe: {error}") from error
        prefill = answer.json()["details"]["prefill"]
        return [float(token["logprob"]) for token in prefill[-len(probe["continuation_ids"]) :]]


def build(settings: AgentSettings) -> FastAPI:
    """The agent's application: health for the container, residency in the background."""
    service = Service("model_server", settings, documents=False)
    replica = TGIReplica(settings, service.http)
    url = settings.model_server_url.rstrip("/")
    residency = Residency(
        replica,
        service.peer("registry"),
        service.objects,
        announcer(service.bus),
        replica_id=settings.replica_id or f"tgi@{url.split('//')[-1]}",
        replica_url=url,
        every=settings.model_server_sync_seconds,
    )
    service.bus.watch(dict.fromkeys((ModelRegistered, ModelRejected, ModelRetired), residency.on_change))
    service.on_start(replica.start)
    service.on_stop(replica.stop)
    service.background("tgi", replica.keep_running)
    service.background("residency", residency.run)
    return service.app([], checks={"tgi": replica.ping})


if __name__ == "__main__":
    agent_settings = AgentSettings()
    configure_logging("model_server", level=agent_settings.log_level, as_json=agent_settings.log_json)
    serve(build(agent_settings), agent_settings)

"""A TGI container as a host of adapters: TGI loads adapters only when it starts, so it is started again for new ones.

All that wait share a start, and one replica of a base model starts at a time, so that the others serve meanwhile. An
adapter is announced only when TGI itself, asked for log-probs of the trainer's probes, matches the fingerprint: TGI
answers an unknown adapter id from the base model without a word.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import httpx2
import structlog

from chassis.errors import Transient
from schemas.artifacts import Probe
from serving import AdapterRefused, BaseFolder, BaseRefused, Proof, proof_of, read_probes, verify
from serving_agent.launcher import Launcher
from serving_agent.restart_lease import RestartLease
from serving_agent.settings import Settings

log = structlog.get_logger()

MOST_STARTS = 3
"""How often TGI is started with an adapter that it then does not prove, before the adapter is refused."""

PROVEN = "proven"
"""The mark in the folder of an adapter that TGI has proven."""


class TGIHost:
    """TGI and the adapters it serves; see `serving.AdapterHost`.

    An adapter's folder is laid ready beside its place and renamed, and marked once TGI has proven it: what a kill
    leaves behind is never given to TGI at the next start.

    Args:
        settings: folders, port and launcher.
        http: client for TGI's API.
        lease: by which one replica at a time starts its TGI again.
    """

    engine = "tgi"
    capabilities: tuple[str, ...] = ()
    at_once = 1000

    def __init__(self, settings: Settings, http: httpx2.AsyncClient, lease: RestartLease) -> None:
        self._folder = BaseFolder(settings.models_dir / settings.base_model)
        self._launcher = Launcher(settings.tgi_launcher, self._folder.path, settings.tgi_port, http)
        self._http = http
        self._lease = lease
        self._adapters_dir = settings.adapters_dir
        self._restart_seconds = settings.tgi_restart_seconds
        self._prove_again_seconds = settings.tgi_prove_again_seconds
        self.base = self._folder.spec
        self.proofs: dict[str, Proof] = {}
        self.used: dict[str, float] = {}
        self._alone = asyncio.Lock()
        self._loaded: set[str] = set()
        self._unproven_starts: Counter[str] = Counter()
        self._started_at = float("-inf")
        self._proven_at = time.monotonic()

    async def begin(self) -> None:
        """The first start: with the adapters that were proven before, or with none should it not start with those.

        Raises:
            Transient: it does not even start without adapters.
        """
        self._adapters_dir.mkdir(parents=True, exist_ok=True)
        for folder in self._adapters_dir.glob(".ad-*"):
            shutil.rmtree(folder)
        for adapter_id in self.held - self._proven():
            await self.unload(adapter_id)
        try:
            await self.start()
        except Transient:
            if not self.held:
                raise
            log.error("tgi_starts_without_adapters", adapters=sorted(self.held))
            for adapter_id in self.held:
                await self.unload(adapter_id)
            await self.start()

    async def start(self, trying: Collection[str] = ()) -> None:
        """Start TGI with the adapters proven and those to try; return when it is healthy.

        Raises:
            Transient: it did not become healthy in time; it is stopped then.
        """
        adapters = self._proven() | set(trying)
        self._loaded = set()
        await self._launcher.start({adapter_id: self._adapters_dir / adapter_id for adapter_id in adapters})
        self._loaded = adapters

    async def stop(self) -> None:
        """End TGI; it finishes the requests it has."""
        await self._launcher.stop()

    async def ping(self) -> None:
        """Raise unless TGI answers."""
        if not await self._launcher.healthy():
            raise Transient("TGI is not healthy.")

    async def attest(self) -> None:
        """TGI was started on the base's files, and names them; see `serving.AdapterHost`.

        It cannot say in an answer who gives it, so one of its adapters, by chance, is proven again now and then.
        """
        await self._folder.prove()
        async with self._alone:
            if (named := await self._launcher.model_id()) != str(self._folder.path):
                raise BaseRefused(f"{self.base.id}: what answers at {self._launcher.url} serves {named}.")
            if self.proofs and time.monotonic() >= self._proven_at + self._prove_again_seconds:
                self._proven_at = time.monotonic()
                await self._prove_again(random.choice(sorted(self.proofs)))  # noqa: S311 - nothing secret

    async def _prove_again(self, adapter_id: str) -> None:
        try:
            self.proofs[adapter_id] = await self._prove(adapter_id, read_probes(self._adapters_dir / adapter_id))
        except AdapterRefused as error:
            log.error("adapter_proven_no_more", adapter_id=adapter_id, error=str(error))
            self._loaded.discard(adapter_id)
            await self.unload(adapter_id)

    @property
    def held(self) -> set[str]:
        """Ids of the adapters whose files lie here, proven or not."""
        return {folder.name for folder in self._adapters_dir.glob("ad-*")}

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
            if trying and time.monotonic() >= self._started_at + self._restart_seconds:
                await self._restart_with(trying)
        return [one for one in folders if one in self._loaded or self._unproven_starts[one] >= MOST_STARTS]

    async def _restart_with(self, trying: list[str]) -> None:
        async with self._lease.held() as ours:
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

    async def load(self, folder: Path) -> Proof:
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
            (self._adapters_dir / adapter_id / PROVEN).touch()
            self._unproven_starts.pop(adapter_id, None)
            self.proofs[adapter_id] = proof
        return proof

    async def keep_running(self) -> None:
        """Start TGI again whenever it has ended by itself."""
        while True:
            await self._launcher.ended()
            async with self._alone:
                if self._launcher.exit_code is not None:
                    log.error("tgi_ended", code=self._launcher.exit_code)
                    await self.start()

    async def unload(self, adapter_id: str) -> None:
        """Let go of an adapter; TGI forgets it at its next start."""
        self.proofs.pop(adapter_id, None)
        self._unproven_starts.pop(adapter_id, None)
        shutil.rmtree(self._adapters_dir / adapter_id, ignore_errors=True)

    def _lay(self, adapter_id: str, folder: Path) -> None:
        target = self._adapters_dir / adapter_id
        if target.exists():
            return
        beside = target.with_name(f".{adapter_id}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(folder, beside)
        beside.rename(target)

    def _proven(self) -> set[str]:
        return {mark.parent.name for mark in self._adapters_dir.glob(f"ad-*/{PROVEN}")}

    async def _prove(self, adapter_id: str, probes: Iterable[Probe]) -> Proof:
        measured = [
            (probe, await self._log_probs(probe, adapter_id), await self._log_probs(probe, None)) for probe in probes
        ]
        return proof_of(adapter_id, measured)

    async def _log_probs(self, probe: Probe, adapter_id: str | None) -> list[float]:
        """TGI's log-probs of the probe's continuation, read from the details of the prompt."""
        begin = self.base.bos_token or ""
        text = probe.prompt.removeprefix(begin) + probe.continuation
        parameters = {"max_new_tokens": 1, "decoder_input_details": True, "details": True, "adapter_id": adapter_id}
        asked = {"inputs": text, "parameters": parameters}
        try:
            answer = await self._http.post(f"{self._launcher.url}/generate", json=asked)
            answer.raise_for_status()
        except httpx2.HTTPError as error:
            raise Transient(f"TGI did not score a probe: {type(error).__name__}: {error}") from error
        try:
            prefill = answer.json()["details"]["prefill"]
            return [float(token["logprob"]) for token in prefill[-len(probe.continuation_ids) :]]
        except (ValueError, LookupError, TypeError) as error:
            raise Transient(f"TGI did not score a probe: its answer holds no log-probs ({error!r}).") from error

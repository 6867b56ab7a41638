"""The serving agent against a launcher that starts and answers as TGI does; the real one needs a GPU."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from chassis.errors import Transient
from chassis.settings import ServiceSettings
from model_server import tgi_agent
from model_server import turns as turns_module
from model_server.adapters import AdapterRefused
from model_server.tgi_agent import AgentSettings, TGIReplica, build
from model_server.turns import Turns
from schemas import AdapterEvicted, AdapterResident
from schemas.artifacts import BASE_FILE, MANIFEST, BaseModelSpec, adapter_id_of
from stores.mongo import PyMongoError, connect
from testkit import Space, eventually, running
from testkit.running import free_port

LAUNCHER = """
import json, os, pathlib, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
adapters = dict(pair.split("=") for pair in os.environ["LORA_ADAPTERS"].split(",") if pair)
assert not [name for name in os.environ if name.startswith("SARTOR_")]
read = lambda path: json.loads(pathlib.Path(path, "fingerprint.json").read_text())["probes"][0]
probes = {name: read(path) for name, path in adapters.items()}
here = pathlib.Path(__file__)
with here.with_name("starts").open("a") as starts:
    starts.write(" ".join(sorted(adapters)) + "\\n")
if any(probe.get("fatal") for probe in probes.values()) or here.with_name("broken").exists():
    sys.exit("cannot load it")

class TGI(BaseHTTPRequestHandler):
    def answer(self, body, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        probe = probes.get(asked["parameters"]["adapter_id"], {})
        if probe.get("crashing"):
            os._exit(1)
        if here.with_name("busy").exists():
            return self.answer({"error": "overloaded"}, 429)
        tokens = [-9.0, -9.0] if probe.get("ignored") else probe.get("adapter", [-9.0, -9.0])
        prefill = [{"id": 0, "text": "", "logprob": value} for value in [None, -1.0, *tokens]]
        self.answer({"details": {"prefill": prefill}})

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(arguments["--port"])), TGI).serve_forever()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than a real TGI, which takes minutes to start, needs."""
    monkeypatch.setattr(tgi_agent, "POLL_SECONDS", 0.1)


def adapter(base: BaseModelSpec, folder: Path, **quirk: bool) -> Path:
    """An adapter's folder as the trainer leaves it; how the launcher answers with it is in its probe."""
    folder.mkdir(parents=True)
    texts = {"prompt": "q", "continuation": "a", "prompt_ids": [3], "continuation_ids": [1, 2]}
    probe = {**texts, "adapter": [-0.5, -0.25], "base": [-9.0, -9.0], **quirk}
    contents = {
        "adapter_model.safetensors": b"weights",
        "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}).encode(),
        "fingerprint.json": json.dumps({"version": 2, "probes": [probe]}).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in contents.items()
    }
    facts = {"files": files, "base_id": base.id, "base_digest": base.digest}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def agent_settings(space: Space, tiny_models: Path, folder: Path, **overrides: Any) -> AgentSettings:
    folder.mkdir(exist_ok=True)
    launcher = folder / "launcher.py"
    launcher.write_text(LAUNCHER)
    return space.settings(
        AgentSettings,
        "model_server",
        **{
            "models_dir": tiny_models,
            "base_model": "tiny-test",
            "adapters_dir": folder / "adapters",
            "tgi_port": free_port(),
            "tgi_restart_seconds": 0,
            "tgi_launcher": f"{sys.executable} {launcher}",
            "model_server_sync_seconds": 0.1,
            **overrides,
        },
    )


@asynccontextmanager
async def agent(
    space: Space, tiny_models: Path, folder: Path, *, name: str = "tgi-1", restart_seconds: float = 0
) -> AsyncIterator[TGIReplica]:
    settings = agent_settings(space, tiny_models, folder, tgi_restart_seconds=restart_seconds)
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        replica = TGIReplica(settings, http, turns(space, name))
        await replica.begin()
        try:
            yield replica
        finally:
            await replica.stop()


def turns(space: Space, name: str) -> Turns:
    return Turns(connect(space.settings(ServiceSettings, "model_server"), "model_server")["turns"], "tiny-test", name)


def id_of(folder: Path) -> str:
    return adapter_id_of((folder / MANIFEST).read_bytes())


async def take(replica: TGIReplica, *folders: Path) -> list[str]:
    """What residency does with adapters in one look: prepare all, hold those that are ready; returns the refused."""
    ids = {id_of(one): one for one in folders}
    refused = []
    for adapter_id in await replica.prepare(ids):
        try:
            await replica.hold(ids[adapter_id])
        except AdapterRefused:
            refused.append(ids[adapter_id].name)
            await replica.drop(adapter_id)
    return refused


def starts(folder: Path) -> list[int]:
    """How many adapters each start of TGI had."""
    return [len(line.split()) for line in (folder / "starts").read_text().split("\n")[:-1]]


def proven(replica: TGIReplica, *folders: Path) -> bool:
    ids = {id_of(one) for one in folders}
    return set(replica.proofs) == ids == replica.present


async def test_an_adapter_is_proven_by_tgi_itself(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        one, two = adapter(replica.base, tmp_path / "one"), adapter(replica.base, tmp_path / "two", other=True)
        assert await take(replica, one) == []
        (proof,) = replica.proofs.values()
        assert (proof.fingerprint_delta, proof.base_delta) == (0.0, 8.75)
        assert await take(replica, one, two) == []
        assert proven(replica, one, two)
        await replica.drop(proof.adapter_id)
        assert proven(replica, two)


async def test_adapters_that_wait_share_one_start(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        folders = [adapter(replica.base, tmp_path / str(number), **{f"number_{number}": True}) for number in range(3)]
        await take(replica, *folders)
        await take(replica, *folders)
        assert proven(replica, *folders)
        assert starts(tmp_path) == [0, 3]


async def test_starts_for_new_adapters_keep_their_distance(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path, restart_seconds=3600) as replica:
        one, two = adapter(replica.base, tmp_path / "one"), adapter(replica.base, tmp_path / "two", other=True)
        await take(replica, one)
        await take(replica, one, two)
        assert starts(tmp_path) == [0, 1]
        with pytest.raises(Transient, match="waits"):
            await replica.hold(two)
        replica._started_at = float("-inf")
        await take(replica, one, two)
        assert proven(replica, one, two)


async def test_an_adapter_that_tgi_ignores_is_refused(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        ignored = adapter(replica.base, tmp_path / "one", ignored=True)
        await replica.prepare({id_of(ignored): ignored})
        with pytest.raises(AdapterRefused, match="off its fingerprint"):
            await replica.hold(ignored)
        assert replica.proofs == {}
        assert replica._proven() == set()


async def test_an_adapter_that_stops_tgi_takes_nobody_along(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        good = adapter(replica.base, tmp_path / "good")
        await take(replica, good)
        fatal, other = (
            adapter(replica.base, tmp_path / "fatal", fatal=True),
            adapter(replica.base, tmp_path / "other", other=True),
        )
        refused = []
        for _ in range(3):
            refused += await take(replica, *([good, other] if refused else [good, fatal, other]))
            assert await replica.healthy()
        assert refused == ["fatal"]
        assert proven(replica, good, other)


async def test_an_adapter_that_ends_tgi_when_asked_is_refused_in_the_end(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        crashing = adapter(replica.base, tmp_path / "crashing", crashing=True)
        for _ in range(3):
            with pytest.raises(Transient):
                await take(replica, crashing)
            await replica._process.wait()
            await replica.start()
        assert await take(replica, crashing) == ["crashing"]
        assert await replica.healthy()


async def test_a_probe_that_was_not_answered_refuses_nothing(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        one = adapter(replica.base, tmp_path / "one")
        (tmp_path / "busy").touch()
        with pytest.raises(Transient, match="429"):
            await take(replica, one)
        (tmp_path / "busy").unlink()
        assert await take(replica, one) == []
        assert proven(replica, one)
        assert starts(tmp_path) == [0, 1]


async def test_a_tgi_that_starts_no_more_refuses_nothing(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        one = adapter(replica.base, tmp_path / "one")
        (tmp_path / "broken").touch()
        for _ in range(4):
            with pytest.raises(Transient):
                await take(replica, one)
        (tmp_path / "broken").unlink()
        assert await take(replica, one) == []
        assert proven(replica, one)


async def test_what_a_kill_left_unproven_is_not_given_to_tgi_again(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        good = adapter(replica.base, tmp_path / "good")
        await take(replica, good)
        shutil.copytree(adapter(replica.base, tmp_path / "fatal", fatal=True), tmp_path / "adapters/ad-tried")
        (tmp_path / "adapters/.ad-half").mkdir()
    async with agent(space, tiny_models, tmp_path) as replica:
        assert [path.name for path in (tmp_path / "adapters").iterdir()] == list(replica.present)
        assert starts(tmp_path)[-1] == 1
        await take(replica, good)
        assert proven(replica, good)
        assert starts(tmp_path) == [0, 1, 1]


async def test_a_tgi_that_does_not_start_with_its_adapters_starts_without(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        shutil.copytree(adapter(replica.base, tmp_path / "fatal", fatal=True), tmp_path / "adapters/ad-proven-once")
        (tmp_path / "adapters/ad-proven-once/proven").touch()
    async with agent(space, tiny_models, tmp_path) as replica:
        assert await replica.healthy()
        assert replica.present == set()


async def test_replicas_start_again_one_at_a_time(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path / "tgi-2", name="tgi-2") as replica:
        one = adapter(replica.base, tmp_path / "one")
        async with turns(space, "tgi-1").turn() as ours:
            assert ours
            await take(replica, one)
            assert starts(tmp_path / "tgi-2") == [0]
            assert await replica.healthy()
        await take(replica, one)
        assert proven(replica, one)


async def test_a_turn_outlasts_its_lease_but_not_its_replica(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LEASE_SECONDS", 3)
    other = turns(space, "tgi-2")
    async with turns(space, "tgi-1").turn() as ours:
        assert ours
        began = time.monotonic()
        while time.monotonic() < began + 4:
            async with other.turn() as theirs:
                assert not theirs
    async with other.turn() as theirs:
        assert theirs
    assert await turns(space, "tgi-1")._claim() is not None  # and then the replica is killed

    async def free() -> bool:
        async with other.turn() as theirs:
            return theirs

    assert await eventually(free)


async def test_while_the_database_is_away_nobody_starts_again() -> None:
    class Away:
        async def update_one(self, *_: object, **__: object) -> None:
            raise PyMongoError("no server")

    async with Turns(Away(), "tiny-test", "tgi-1").turn() as ours:  # type: ignore[arg-type]
        assert not ours


async def test_a_tgi_that_ended_is_started_again(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        keeper = asyncio.create_task(replica.keep_running())
        assert replica._process is not None
        replica._process.kill()
        await replica._process.wait()
        assert not await replica.healthy()
        assert await eventually(replica.healthy)
        keeper.cancel()


async def test_the_agent_makes_tgi_hold_what_the_registry_wants(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    wanted: list[dict[str, Any]] = []
    registry = FastAPI()

    @registry.get("/internal/adapters")
    async def adapters() -> list[dict[str, Any]]:
        return wanted

    async with running(registry) as registry_url:
        settings = agent_settings(space, tiny_models, tmp_path, registry_url=registry_url, replica_id="tgi-1")
        app = build(settings)
        objects = app.state.service.objects
        async with running(app) as url, httpx2.AsyncClient(trust_env=False) as http, space.probe("adapters") as seen:
            base = BaseModelSpec.model_validate_json((tiny_models / "tiny-test" / BASE_FILE).read_bytes())
            folders = [adapter(base, tmp_path / str(number), **{f"number_{number}": True}) for number in range(2)]
            for folder in folders:
                prefix = f"tenants/tenant_a/adapters/{id_of(folder)}"
                for path in folder.iterdir():
                    ref = await objects.put_file(f"{prefix}/{path.name}", path)
                    if path.name == "manifest.json":
                        item = {"adapter_id": id_of(folder), "model_id": "ft:1", "tenant_id": "tenant_a"}
                        wanted.append({**item, "manifest": ref.model_dump()})
            await eventually(lambda: len(seen.of(AdapterResident)) == 2)
            assert {event.adapter_id for event in seen.of(AdapterResident)} == {id_of(folder) for folder in folders}
            assert (await http.get(f"{url}/readyz")).json()["tgi"] == "ok"
            gone = wanted.pop()["adapter_id"]
            (evicted,) = await eventually(lambda: seen.of(AdapterEvicted))
            assert (evicted.adapter_id, evicted.tenant_id, evicted.replica_id) == (gone, "tenant_a", "tgi-1")
            assert [path.name for path in (tmp_path / "adapters").iterdir()] == [id_of(folders[0])]

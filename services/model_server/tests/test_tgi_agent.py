"""The serving agent against a launcher that starts and answers as TGI does; the real one needs a GPU."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from model_server.adapters import AdapterRefused
from model_server.tgi_agent import AgentSettings, TGIReplica
from testkit import Space, eventually
from testkit.running import free_port

LAUNCHER = """
import json, os, pathlib, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
adapters = dict(pair.split("=") for pair in os.environ["LORA_ADAPTERS"].split(",") if pair)
assert not [name for name in os.environ if name.startswith("SARTOR_")]
read = lambda path: json.loads(pathlib.Path(path, "fingerprint.json").read_text())["probes"][0]
probes = {name: read(path) for name, path in adapters.items()}
if any(probe.get("fatal") for probe in probes.values()):
    sys.exit("cannot load it")

class TGI(BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        probe = probes.get(asked["parameters"]["adapter_id"], {})
        tokens = [-9.0, -9.0] if probe.get("ignored") else probe.get("adapter", [-9.0, -9.0])
        prefill = [{"id": 0, "text": "", "logprob": value} for value in [None, -1.0, *tokens]]
        self.answer({"details": {"prefill": prefill}})

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(arguments["--port"])), TGI).serve_forever()
"""


def adapter(replica: TGIReplica, folder: Path, **quirk: bool) -> Path:
    """An adapter's folder as the trainer leaves it; how the launcher answers with it is in its probe."""
    folder.mkdir(parents=True)
    probe = {"prompt": "q", "continuation": "a", "continuation_ids": [1, 2], "adapter": [-0.5, -0.25], **quirk}
    contents = {
        "adapter_model.safetensors": b"weights",
        "adapter_config.json": json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}).encode(),
        "fingerprint.json": json.dumps({"probes": [probe]}).encode(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in contents.items()
    }
    facts = {"files": files, "base_id": replica.base_id, "base_digest": replica._base["digest"]}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


@asynccontextmanager
async def agent(space: Space, tiny_models: Path, folder: Path) -> AsyncIterator[TGIReplica]:
    launcher = folder / "launcher.py"
    launcher.write_text(LAUNCHER)
    settings = space.settings(
        AgentSettings,
        "model_server",
        models_dir=tiny_models,
        base_model="tiny-test",
        adapters_dir=folder / "adapters",
        tgi_port=free_port(),
        tgi_launcher=f"{sys.executable} {launcher}",
    )
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        replica = TGIReplica(settings, http)
        await replica.start()
        try:
            yield replica
        finally:
            await replica.stop()


async def test_an_adapter_is_proven_by_tgi_itself(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        proof = await replica.hold(adapter(replica, tmp_path / "one"))
        assert (proof.fingerprint_delta, proof.base_delta) == (0.0, 8.75)
        second = await replica.hold(adapter(replica, tmp_path / "two", other=True))
        assert set(replica.proofs) == {proof.adapter_id, second.adapter_id}
        await replica.drop(proof.adapter_id)
        assert [path.name for path in (tmp_path / "adapters").iterdir()] == [second.adapter_id]


async def test_an_adapter_that_tgi_ignores_is_refused(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        with pytest.raises(AdapterRefused, match="off its fingerprint"):
            await replica.hold(adapter(replica, tmp_path / "one", ignored=True))
        assert replica.proofs == {}
        assert list((tmp_path / "adapters").iterdir()) == []


async def test_an_adapter_that_stops_tgi_takes_nobody_along(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        good = await replica.hold(adapter(replica, tmp_path / "good"))
        with pytest.raises(AdapterRefused, match="does not start with it"):
            await replica.hold(adapter(replica, tmp_path / "fatal", fatal=True))
        assert await replica.healthy()
        assert set(replica.proofs) == {good.adapter_id}


async def test_a_tgi_that_ended_is_started_again(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with agent(space, tiny_models, tmp_path) as replica:
        keeper = asyncio.create_task(replica.keep_running())
        assert replica._process is not None
        replica._process.kill()
        await replica._process.wait()
        assert not await replica.healthy()
        assert await eventually(replica.healthy)
        keeper.cancel()

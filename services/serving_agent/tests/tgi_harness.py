"""The agent's TGI: a launcher that starts and answers as TGI's does; the real one needs a GPU."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from chassis.settings import ServiceSettings
from serving_agent.hosts.tgi import TGIHost
from serving_agent.restart_lease import RestartLease
from serving_agent.settings import Settings
from stores.mongo import connect
from testkit import Space
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
        other = here.with_name("other_base").exists()
        self.answer({"model_id": "/models/other" if other else arguments["--model-id"]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parameters = asked["parameters"]
        if (parameters.get("top_n_tokens") or 0) > int(os.environ.get("MAX_TOP_N_TOKENS", 5)):
            return self.answer({"error": "`top_n_tokens` is too many"}, 422)
        if len(parameters.get("stop") or []) > int(os.environ.get("MAX_STOP_SEQUENCES", 4)):
            return self.answer({"error": "`stop` has too many"}, 422)
        probe = probes.get(parameters["adapter_id"], {})
        if probe.get("crashing"):
            os._exit(1)
        if here.with_name("busy").exists():
            return self.answer({"error": "overloaded"}, 429)
        forgets = probe.get("ignored") or here.with_name("forgets").exists()
        tokens = [-9.0, -9.0] if forgets else probe.get("adapter", [-9.0, -9.0])
        prefill = [{"id": 0, "text": "", "logprob": value} for value in [None, -1.0, *tokens]]
        self.answer({"details": {"prefill": prefill if os.environ.get("ENABLE_PREFILL_LOGPROBS") == "true" else []}})

    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(arguments["--port"])), TGI).serve_forever()
"""


def agent_settings(space: Space, tiny_models: Path, folder: Path, **overrides: Any) -> Settings:
    """Settings of an agent whose launcher and adapters lie in `folder`."""
    folder.mkdir(exist_ok=True)
    program = folder / "launcher.py"
    program.write_text(LAUNCHER)
    return space.settings(
        Settings,
        "serving_agent",
        **{
            "models_dir": tiny_models,
            "base_model": "tiny-test",
            "adapters_dir": folder / "adapters",
            "tgi_port": free_port(),
            "tgi_restart_seconds": 0,
            "tgi_launcher": f"{sys.executable} {program}",
            "serving_agent_sync_seconds": 0.1,
            **overrides,
        },
    )


def restart_lease(space: Space, name: str) -> RestartLease:
    """The lease as the replica of that name asks for it."""
    database = connect(space.settings(ServiceSettings, "serving_agent"), "serving_agent")
    return RestartLease(database["restart_leases"], "tiny-test", name)


@asynccontextmanager
async def tgi(
    space: Space, tiny_models: Path, folder: Path, *, name: str = "tgi-1", restart_seconds: float = 0, **more: Any
) -> AsyncIterator[TGIHost]:
    """A replica whose TGI runs."""
    settings = agent_settings(space, tiny_models, folder, tgi_restart_seconds=restart_seconds, **more)
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        host = TGIHost(settings, http, restart_lease(space, name))
        await host.begin()
        try:
            yield host
        finally:
            await host.stop()

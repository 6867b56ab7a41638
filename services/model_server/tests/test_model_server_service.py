"""The model server as a service: its engine holds what the registry wants, proves it, and says so."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from engine_harness import adapter_folder
from fastapi import FastAPI

from model_server.app import build
from model_server.engine import Engine
from model_server.settings import Settings
from schemas import AdapterEvicted, AdapterLoadFailed, AdapterResident, ReplicaReady
from schemas.artifacts import BASE_FILE
from schemas.http.model_server import IDENTITY, identity
from serving import BaseFolder, BaseRefused
from stores.objects import Objects
from testkit import Space, eventually, running
from testkit.adapters import id_of, seal


async def wanted(objects: Objects, folder: Path) -> dict[str, Any]:
    """What the registry says of the adapter in `folder`, once its files are stored."""
    prefix = f"tenants/tenant_a/adapters/{id_of(folder)}"
    refs = {path.name: await objects.put_file(f"{prefix}/{path.name}", path) for path in folder.iterdir()}
    item = {"adapter_id": id_of(folder), "model_id": f"ft:{folder.name}", "tenant_id": "tenant_a"}
    return {**item, "manifest": refs["manifest.json"].model_dump()}


async def test_the_engine_holds_what_the_registry_wants(
    engine: Engine, space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    items: list[dict[str, Any]] = []
    registry = FastAPI()

    @registry.get("/internal/adapters")
    async def adapters() -> list[dict[str, Any]]:
        return items

    async with running(registry) as registry_url:
        facts = {"models_dir": tiny_models, "base_model": "tiny-test", "registry_url": registry_url}
        speed = {"model_server_threads": 1, "model_server_sync_seconds": 0.1}
        settings = space.settings(Settings, "model_server", service_port=8209, **facts, **speed)
        app = build(settings)
        objects = app.state.service.objects
        async with (
            running(app) as url,
            httpx2.AsyncClient(trust_env=False) as http,
            space.probe("adapters", "replicas") as seen,
        ):
            (ready,) = await eventually(lambda: seen.of(ReplicaReady))
            assert (ready.base_model, ready.base_digest) == (engine.base.id, engine.base.digest)
            assert (ready.replica_url, ready.engine, ready.capabilities) == ("http://127.0.0.1:8209", "tgi", ["echo"])
            spoilt = adapter_folder(engine, tmp_path / "spoilt", seed=2)
            (spoilt / "adapter_model.safetensors").write_bytes(b"not tensors")
            items.append(await wanted(objects, seal(spoilt, engine.base)))
            (failed,) = await eventually(lambda: seen.of(AdapterLoadFailed))
            assert (failed.adapter_id, failed.permanent) == (id_of(spoilt), True)
            assert "cannot be read" in failed.reason
            items.append(await wanted(objects, adapter_folder(engine, tmp_path / "good")))
            (resident,) = await eventually(lambda: seen.of(AdapterResident))
            (shown,) = (await http.get(f"{url}/adapters")).json()
            assert (resident.adapter_id, resident.model_id) == (shown["adapter_id"], "ft:good")
            assert (resident.replica_id, resident.replica_url) == (
                "model-server@127.0.0.1:8209",
                "http://127.0.0.1:8209",
            )
            assert {envelope.source for envelope, _ in seen.events} == {"/sartor/model_server"}
            asked: dict[str, Any] = {"inputs": "where", "parameters": {"max_new_tokens": 1}}
            for address in ("generate", "generate_stream"):
                for adapter_id in (resident.adapter_id, None):
                    asked["parameters"]["adapter_id"] = adapter_id
                    named = {IDENTITY: identity(engine.base.digest, adapter_id)}
                    answer = await http.post(f"{url}/{address}", json=asked, headers=named)
                    assert (answer.status_code, answer.headers[IDENTITY]) == (200, named[IDENTITY])
                    other = {IDENTITY: identity("e" * 64, adapter_id)}
                    refused = await http.post(f"{url}/{address}", json=asked, headers=other)
                    assert (refused.status_code, refused.json()["error_type"]) == (404, "base_not_found")
            asked["parameters"]["adapter_id"] = resident.adapter_id
            assert (await http.post(f"{url}/generate", json=asked)).status_code == 200
            items.pop()
            (evicted,) = await eventually(
                lambda: [one for one in seen.of(AdapterEvicted) if one.adapter_id == resident.adapter_id]
            )
            assert (evicted.tenant_id, evicted.replica_id) == ("tenant_a", resident.replica_id)
            assert (await http.post(f"{url}/generate", json=asked)).status_code == 404


ADDRESSES: dict[str, dict[str, Any]] = {
    "generate": {"parameters": {"max_new_tokens": 1}},
    "generate_stream": {"parameters": {"max_new_tokens": 1}},
    "tokenize": {},
}


async def statuses(url: str) -> set[tuple[int, str]]:
    """What each address at which the base answers says."""
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as http:
        answers = [await http.post(f"{url}/{name}", json={"inputs": "x", **body}) for name, body in ADDRESSES.items()]
    kinds = [one.json()["error_type"] if one.status_code != 200 else "" for one in answers]
    return {(one.status_code, kind) for one, kind in zip(answers, kinds, strict=True)}


@asynccontextmanager
async def served(space: Space, models_dir: Path) -> AsyncIterator[str]:
    """A model server; no registry is beside it."""
    facts = {"models_dir": models_dir, "base_model": "tiny-test", "registry_url": "http://127.0.0.1:1"}
    settings = space.settings(Settings, "model_server", model_server_threads=1, **facts)
    async with running(build(settings)) as url:
        yield url


async def test_nobody_is_answered_with_weights_that_are_not_the_bases(
    space: Space, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_models / "tiny-test", tmp_path / "tiny-test"))
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.seek(-4, 2)
        [last] = struct.unpack("<f", weights.read(4))
        weights.seek(-4, 2)
        weights.write(struct.pack("<f", last + 0.5))
    assert (folder / BASE_FILE).read_bytes() == (tiny_models / "tiny-test" / BASE_FILE).read_bytes()
    refused: list[BaseRefused] = []
    prove = BaseFolder.prove

    async def proving(self: BaseFolder) -> None:
        try:
            await prove(self)
        except BaseRefused as error:
            refused.append(error)
            raise

    monkeypatch.setattr(BaseFolder, "prove", proving)
    async with served(space, tmp_path) as url:
        assert await statuses(url) == {(503, "base_not_proven")}
        await eventually(lambda: refused)
        assert await statuses(url) == {(503, "base_not_proven")}


async def test_the_base_answers_once_it_is_proven_and_not_before(
    space: Space, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, prove = asyncio.Event(), BaseFolder.prove

    async def proving(self: BaseFolder) -> None:
        await go_on.wait()
        await prove(self)

    monkeypatch.setattr(BaseFolder, "prove", proving)
    async with served(space, tiny_models) as url:
        assert await statuses(url) == {(503, "base_not_proven")}
        go_on.set()

        async def answers() -> bool:
            return await statuses(url) == {(200, "")}

        await eventually(answers)

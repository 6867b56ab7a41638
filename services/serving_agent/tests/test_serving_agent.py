"""The agent as a service: TGI holds what the registry wants, and the agent says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI
from tgi_harness import agent_settings

from schemas import AdapterEvicted, AdapterResident, ReplicaReady
from schemas.artifacts import BASE_FILE, BaseModelSpec
from serving_agent.app import build
from testkit import Space, eventually, running
from testkit.adapters import adapter_folder, id_of


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
        async with (
            running(app) as url,
            httpx2.AsyncClient(trust_env=False) as http,
            space.probe("adapters", "replicas") as seen,
        ):
            base = BaseModelSpec.model_validate_json((tiny_models / "tiny-test" / BASE_FILE).read_bytes())
            folders = [adapter_folder(tmp_path / str(number), base, number=number) for number in range(2)]
            for folder in folders:
                prefix = f"tenants/tenant_a/adapters/{id_of(folder)}"
                for path in folder.iterdir():
                    ref = await objects.put_file(f"{prefix}/{path.name}", path)
                    if path.name == "manifest.json":
                        item = {"adapter_id": id_of(folder), "model_id": "ft:1", "tenant_id": "tenant_a"}
                        wanted.append({**item, "manifest": ref.model_dump()})
            await eventually(lambda: len(seen.of(AdapterResident)) == 2)
            assert {event.adapter_id for event in seen.of(AdapterResident)} == {id_of(folder) for folder in folders}
            assert {event.replica_url for event in seen.of(AdapterResident)} == {
                f"http://127.0.0.1:{settings.tgi_port}"
            }
            (ready,) = seen.of(ReplicaReady)
            assert (ready.base_digest, ready.replica_url, ready.capabilities) == (
                base.digest,
                f"http://127.0.0.1:{settings.tgi_port}",
                [],
            )
            assert {envelope.source for envelope, _ in seen.events} == {"/sartor/serving_agent"}
            assert (await http.get(f"{url}/readyz")).json()["tgi"] == "ok"
            gone = wanted.pop()["adapter_id"]
            (evicted,) = await eventually(lambda: seen.of(AdapterEvicted))
            assert (evicted.adapter_id, evicted.tenant_id, evicted.replica_id) == (gone, "tenant_a", "tgi-1")
            assert [path.name for path in (tmp_path / "adapters").iterdir()] == [id_of(folders[0])]

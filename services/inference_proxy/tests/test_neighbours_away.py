"""What was seen before goes on being answered while accounts and registry cannot be asked."""

from __future__ import annotations

import httpx2
import pytest
from proxy_harness import BASE, QUESTION, Harness, StubPeers

from chassis.auth import hash_key
from inference_proxy import routing
from inference_proxy.app import build
from inference_proxy.settings import Settings
from schemas import AdapterResident, KeyRevoked, ModelRetired
from testkit import Space, eventually, running
from testkit.running import free_port
from testkit.tcp_proxy import HEALTHY, RESET, tcp_proxy


async def test_what_was_seen_is_answered_and_what_ended_is_not(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "BELIEVED_SECONDS", 0.0)
    engine, neighbours, port = StubPeers(space), StubPeers(space), free_port()
    away = f"http://127.0.0.1:{port}"
    async with running(engine.app()) as there:
        neighbours.url = there
        settings = space.settings(
            Settings,
            "inference_proxy",
            key_cache_seconds=0.0,
            accounts_url=away,
            registry_url=away,
            rag_indexer_url=there,
        )
        async with running(build(settings)) as url, space.publisher("registry") as publish:
            harness = Harness(space, url, neighbours, publish, None)
            key, other, unseen = harness.key(), harness.key(), harness.key()
            model, unseen_model = harness.model(), harness.model()

            async def chat(key: str, model: str) -> int:
                async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
                    headers = {"authorization": f"Bearer {key}"}
                    body = {"model": model, "messages": QUESTION}
                    return (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code

            async with running(neighbours.app(), port=port):
                seen = [(key, model), (key, BASE), (other, model)]
                assert [await chat(*one) for one in seen] == [200, 200, 200]
            assert [await chat(*one) for one in seen] == [200, 200, 200]
            assert await chat(unseen, model) == 503
            assert await chat(key, unseen_model) == 503

            resident = {"replica_id": "r2", "replica_url": there, "fingerprint_delta": 0.0, "base_delta": 1.0}
            ids = {"tenant_id": harness.a, "adapter_id": harness.adapter(model), "model_id": model}
            await publish(AdapterResident(**ids, **resident))
            await publish(KeyRevoked(tenant_id=harness.a, key_id="key_1", key_hash=hash_key(key)))

            async def answers(key: str, status: int) -> bool:
                return await chat(key, model) == status

            await eventually(lambda: answers(key, 401), within=10)
            assert await chat(other, model) == 200
            await publish(ModelRetired(**ids))
            await eventually(lambda: answers(other, 503), within=10)


@pytest.mark.parametrize(
    ("store", "named", "address"),
    [("mongo_url", "mongodb", "mongodb://{}/?directConnection=true"), ("objects_endpoint", "objects", "{}")],
)
async def test_a_replica_that_can_answer_is_ready_whichever_store_is_away(
    space: Space, store: str, named: str, address: str
) -> None:
    neighbours = StubPeers(space)
    async with running(neighbours.app()) as there, tcp_proxy(getattr(space.addresses, store)) as proxy:
        neighbours.url = there
        settings = space.settings(
            Settings,
            "inference_proxy",
            accounts_url=there,
            registry_url=there,
            rag_indexer_url=there,
            **{store: address.format(proxy.address)},
        )
        async with running(build(settings)) as url:
            harness = Harness(space, url, neighbours, None, None)
            async with httpx2.AsyncClient(base_url=url, timeout=30) as http:

                async def chat() -> int:
                    headers = {"authorization": f"Bearer {key}"}
                    body = {"model": BASE, "messages": QUESTION}
                    return (await http.post("/v1/chat/completions", json=body, headers=headers)).status_code

                key = harness.key()
                assert await chat() == 200
                proxy.set(RESET)
                try:
                    ready = await http.get("/readyz")
                    assert ready.status_code == 200, ready.text
                    assert [name for name, said in ready.json().items() if said != "ok"] == [named]
                    assert await chat() == 200
                finally:
                    proxy.set(HEALTHY)

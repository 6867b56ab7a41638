"""Wires the model server together."""

from __future__ import annotations

from fastapi import FastAPI

from eventbus.service import Service
from model_server.announce import announcer
from model_server.api import routes
from model_server.engine import Engine
from model_server.residency import Residency
from model_server.settings import Settings
from schemas import ModelRegistered, ModelRejected, ModelRetired


def build(settings: Settings) -> FastAPI:
    """The model server's application; the base model is loaded here."""
    service = Service("model_server", settings, documents=False)
    engine = Engine(
        settings.models_dir / settings.base_model,
        threads=settings.model_server_threads,
        batch=settings.model_server_batch,
        queue=settings.model_server_queue,
        max_tokens=settings.model_server_max_tokens,
    )

    url = settings.own_url
    residency = Residency(
        engine,
        service.peer("registry"),
        service.objects,
        announcer(service.bus),
        replica_id=settings.replica_id or f"model-server@{url.split('//')[-1]}",
        replica_url=url,
        every=settings.model_server_sync_seconds,
        capacity=settings.model_server_adapters,
    )

    async def close() -> None:
        engine.close()

    service.bus.watch(dict.fromkeys((ModelRegistered, ModelRejected, ModelRetired), residency.on_change))
    service.background("residency", residency.run)
    service.on_stop(close)
    service.on_stop(residency.close)
    return service.app([routes(engine)], checks={"engine": engine.ping})

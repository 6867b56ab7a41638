"""Wires the model server together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from model_server.api import routes
from model_server.engine import Engine
from model_server.events import watched
from model_server.settings import Settings
from runtime import Overrides, Service
from serving import Downloads, Residency


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The model server's application; the base model is loaded here."""
    service = Service("model_server", settings, aggregates=False, **overrides)
    engine = Engine(
        settings.models_dir / settings.base_model,
        threads=settings.model_server_threads,
        batch=settings.model_server_batch,
        queue=settings.model_server_queue,
        max_tokens=settings.model_server_max_tokens,
    )
    residency = Residency(
        engine,
        service.peer("registry"),
        Downloads(service.objects, service.name),
        service.bus.producer.announce,
        replica_id=settings.own_id,
        replica_url=settings.own_url,
        every=settings.model_server_sync_seconds,
        capacity=settings.model_server_adapters,
    )

    async def close() -> None:
        engine.close()

    service.bus.watch(watched(residency))
    service.background("residency", residency.run)
    service.on_stop(close)
    service.on_stop(residency.close)
    return service.app([routes(engine)], checks={"engine": engine.ping})

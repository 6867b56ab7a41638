"""Wires the serving agent together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from runtime import Overrides, Service
from serving import Downloads, Residency
from serving_agent.events import watched
from serving_agent.hosts.tgi import TGIHost
from serving_agent.restart_lease import RestartLease
from serving_agent.settings import Settings


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The agent's application: health for the container, its engine and residency in the background."""
    service = Service("serving_agent", settings, aggregates=False, **overrides)
    lease = RestartLease(service.collection("restart_leases"), settings.base_model, settings.own_id)
    host = TGIHost(settings, service.http, lease)
    residency = Residency(
        host,
        service.peer("registry"),
        Downloads(service.objects, service.name),
        service.bus.producer.announce,
        replica_id=settings.own_id,
        replica_url=settings.own_url,
        every=settings.serving_agent_sync_seconds,
        capacity=settings.serving_agent_adapters,
    )
    service.bus.watch(watched(residency))
    service.on_start(host.begin)
    service.on_stop(host.stop)
    service.on_stop(residency.close)
    service.background("tgi", host.keep_running)
    service.background("residency", residency.run)
    return service.app([], checks={"tgi": host.ping})

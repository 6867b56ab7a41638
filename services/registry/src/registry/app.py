"""Wires the registry together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from chassis.in_flight import InFlight
from registry.alias import Alias
from registry.api import internal_routes, model_routes, registry_routes
from registry.catalogue import Catalogue
from registry.domain import Model
from registry.events import subscriptions
from registry.settings import Settings
from registry.store import LEFT_BEHIND, WAITING, AdapterFiles, Aliases, Models, Replicas, Tenants
from registry.use_cases import Downloading, Gate, Naming, Pinning, Serving
from runtime import Leftovers, Overrides, Service, leftover_routes


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The registry's application."""
    service = Service("registry", settings, **overrides)
    store = service.aggregates("models", Model)
    models = Models(
        store,
        service.collection("cancelled_jobs"),
        service.collection("deleted_names"),
        service.collection("deleted_datasets"),
    )
    aliases = Aliases(service.aggregates("aliases", Alias))
    tenants = Tenants(service.collection("tenants"), service.peer("accounts"))
    replicas = Replicas(service.collection("replicas"), settings.registry_replica_seconds)
    catalogue = Catalogue(settings.models_dir, default=settings.base_model)
    gate = Gate(models, tenants, replicas)
    naming = Naming(aliases, models, catalogue, settings.registry_aliases)
    downloads = InFlight(
        "downloads",
        most=settings.registry_downloads_at_a_time,
        most_each=settings.registry_downloads_of_a_tenant,
        retry_after=5,
    )
    downloading = Downloading(models, AdapterFiles(service.objects), catalogue)
    serving = Serving(models, aliases, replicas, catalogue, gate)
    service.bus.subscribe(subscriptions(gate, tenants, replicas))
    service.on_start(models.prepare)
    service.on_start(replicas.prepare)
    service.watch_waiting(store, WAITING, "waiting_since")
    return service.app(
        [
            model_routes(serving, gate, naming),
            registry_routes(models, gate, Pinning(models), naming, serving, downloading, downloads, catalogue),
            internal_routes(serving, catalogue),
            leftover_routes(Leftovers(store, LEFT_BEHIND, gate.finish_deletion)),
        ]
    )

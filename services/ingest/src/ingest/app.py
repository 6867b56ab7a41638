"""Wires ingest together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from ingest.api import dataset_routes, file_routes, internal_routes
from ingest.domain import Dataset, File
from ingest.events import subscriptions
from ingest.publishing import Publish
from ingest.settings import Settings
from ingest.store import DATASETS_TO_PURGE, LEFT_BEHIND, TO_PARSE, TO_PURGE, Files, StoredElsewhere, Uses
from ingest.use_cases import Retention, Uploads
from ingest.worker import Reading, policy
from runtime import Leftovers, Overrides, Service, leftover_routes
from work import LeasedWorker, WorkQueue


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The ingest application."""
    service = Service("ingest", settings, **overrides)
    kept, datasets = service.aggregates("files", File), service.aggregates("datasets", Dataset)
    uses, elsewhere = Uses(service.collection("uses")), StoredElsewhere(service.collection("stored_elsewhere"))
    files = Files(kept, datasets, service.collection("arriving"), uses, elsewhere, service.objects)
    uploads = Uploads(files, settings.ingest_tenant_bytes, service.replica_id, settings.ingest_lease_seconds)
    waiting = WorkQueue(kept, TO_PARSE, service.collection("turns"))
    reading = Reading(files, Publish(files, service.objects, settings), settings)
    worker = LeasedWorker(waiting, reading, policy(settings), service.replica_id)

    service.on_start(files.prepare)
    service.on_start(waiting.prepare)
    service.bus.subscribe(subscriptions(uploads, Retention(uses, elsewhere, uploads)))
    service.background("worker", worker.run)
    service.background("sweep", uploads.sweep)
    service.watch_leases(kept, waiting.query, TO_PURGE)
    service.watch_leases(datasets, DATASETS_TO_PURGE)
    service.sweep_orphans(
        {"files": files.orphaned_bytes, "documents": files.orphaned_bytes, "datasets": files.orphaned_datasets}
    )
    leftovers = Leftovers(kept, LEFT_BEHIND, File.finish_deletion)
    return service.app(
        [
            file_routes(files, uploads, settings, worker.wake),
            dataset_routes(files),
            internal_routes(files),
            leftover_routes(leftovers),
        ],
        streamed=["/v1/files"],
    )

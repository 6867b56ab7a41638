"""Wires the trainer together."""

from __future__ import annotations

from fastapi import FastAPI

from eventbus.leftovers import Leftovers, leftover_routes
from eventbus.service import Service
from trainer.api import routes
from trainer.domain import Job
from trainer.events import subscriptions
from trainer.job_objects import JobObjects
from trainer.nursery import Nursery
from trainer.settings import Settings
from trainer.stages import WAITING
from trainer.store import LEFT_BEHIND, TO_DISCARD, TO_SWEEP, TO_TRAIN, Jobs
from trainer.use_cases import Datasets, Outcomes, Requests, TuneOnUpload
from trainer.worker import Worker


def build(settings: Settings) -> FastAPI:
    """The trainer's application."""
    service = Service("trainer", settings)
    jobs = Jobs(
        service.aggregates("jobs", Job),
        service.collection("job_events"),
        service.collection("checkpoints"),
        service.collection("datasets"),
        service.collection("turns"),
    )
    requests = Requests(jobs, service.peer("ingest"), service.peer("registry"), settings.trainer_open_jobs)
    tune_on_upload = TuneOnUpload(requests, service.peer("accounts"), settings.base_model)
    nursery = Nursery()
    worker = Worker(jobs, JobObjects(service.objects), nursery, settings, service.replica_id)
    service.on_start(jobs.prepare)
    service.on_stop(nursery.close)
    service.bus.subscribe(subscriptions(Datasets(jobs), tune_on_upload, Outcomes(jobs)))
    service.background("worker", worker.run)
    service.background("sweep", worker.sweep)
    service.watch_waiting(jobs.jobs, WAITING, "since")
    service.watch_leases(jobs.jobs, TO_TRAIN, TO_SWEEP, TO_DISCARD)
    service.sweep_orphans({"jobs": jobs.orphaned_checkpoints, "adapters": jobs.orphaned_adapters})
    leftovers = Leftovers(jobs.jobs, LEFT_BEHIND, Job.discard_adapter)
    return service.app([routes(jobs, requests), leftover_routes(leftovers)])

"""Wires the trainer together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from runtime import Leftovers, Overrides, Service, leftover_routes
from trainer.api import routes
from trainer.arms import lane
from trainer.arms.fitter import Fitter
from trainer.domain import CLAIMABLE, ArmFit, Job
from trainer.events import subscriptions
from trainer.job_data import JobData
from trainer.job_objects import JobObjects
from trainer.outcomes import Outcomes
from trainer.run.fork_server import ForkServer
from trainer.settings import Settings
from trainer.store import INTERRUPTED, LEFT_BEHIND, TO_DISCARD, TO_SWEEP, WAITING, Jobs
from trainer.sweep import Sweep
from trainer.use_cases import Requests, TuneOnUpload
from trainer.worker import Training, policy
from work import LeasedWorker, WorkQueue


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The trainer's application."""
    service = Service("trainer", settings, **overrides)
    store = service.aggregates("jobs", Job)
    names = ("job_events", "checkpoints", "datasets")
    fits = service.aggregates("arm_fits", ArmFit)
    jobs = Jobs(store, *(service.collection(name) for name in names), fits=fits)
    ingest = service.peer("ingest")
    fork_server = ForkServer(settings.trainer_niceness)
    objects = JobObjects(service.objects)
    queue = WorkQueue(store, CLAIMABLE, service.collection("turns"), first=INTERRUPTED)
    training = Training(jobs, objects, fork_server, settings)
    worker = LeasedWorker(queue, training, policy(settings), service.replica_id)
    fit_queue = WorkQueue(fits, ("to_fit",), service.collection("fit_turns"))
    fitting = lane.ArmFitting(jobs, objects, service.peer("rag_indexer"), Fitter(), settings)
    arms = LeasedWorker(fit_queue, fitting, lane.policy(settings), service.replica_id)

    def wake() -> None:
        worker.wake()
        arms.wake()

    data = JobData(jobs, ingest, settings.trainer_max_length, settings.arms, wake)
    requests = Requests(jobs, data, ingest, service.peer("registry"), settings.trainer_open_jobs)
    tune_on_upload = TuneOnUpload(requests, service.peer("accounts"), settings.base_model)
    sweep = Sweep(jobs, data, objects, service.replica_id, settings.trainer_lease_seconds)
    service.on_start(jobs.prepare)
    service.on_start(queue.prepare)
    service.on_start(fit_queue.prepare)
    service.on_stop(fork_server.close)
    service.bus.subscribe(subscriptions(data, tune_on_upload, Outcomes(jobs)))
    service.background("worker", worker.run)
    service.background("arms", arms.run)
    service.background("sweep", sweep.run)
    service.watch_waiting(store, WAITING, "since")
    service.watch_leases(store, queue.query, TO_SWEEP, TO_DISCARD)
    service.watch_leases(fits, fit_queue.query)
    service.sweep_orphans(
        {"jobs": jobs.orphaned_checkpoints, "adapters": jobs.orphaned_adapters, "arms": jobs.orphaned_arms}
    )
    leftovers = Leftovers(store, LEFT_BEHIND, Job.discard_adapter)
    return service.app([routes(jobs, requests, objects), leftover_routes(leftovers)])

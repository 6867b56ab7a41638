"""Wires labeling together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from labeling.api import routes
from labeling.domain import Project
from labeling.events import subscriptions
from labeling.settings import Settings
from labeling.store import TO_PURGE, Labels
from labeling.use_cases import Projects
from runtime import Overrides, Service


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The labeling application."""
    service = Service("labeling", settings, **overrides)
    kept = service.aggregates("projects", Project)
    labels = Labels(
        kept,
        service.collection("tasks"),
        service.collection("feedback"),
        service.collection("deleted_files"),
    )
    projects = Projects(
        labels,
        service.objects,
        most=settings.labeling_rows,
        most_projects=settings.labeling_projects,
        held_seconds=settings.labeling_task_seconds,
        owner=service.replica_id,
    )
    service.on_start(labels.prepare)
    service.bus.subscribe(subscriptions(projects))
    service.background("sweep", projects.sweep)
    service.sweep_orphans({"labels": labels.orphaned_labels})
    service.watch_leases(kept, TO_PURGE)
    return service.app([routes(labels, projects)])

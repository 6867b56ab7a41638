"""Wires the event gateway together."""

from __future__ import annotations

import asyncio
from typing import Unpack

from fastapi import FastAPI

from chassis.in_flight import InFlight
from event_gateway.api import publishing_routes, reading_routes, webhook_routes
from event_gateway.domain import Delivery, Endpoint, Received
from event_gateway.events import subscriptions
from event_gateway.sending import WebhookSender
from event_gateway.settings import Settings
from event_gateway.store import Inbox, Log, Refusals, Webhooks
from event_gateway.use_cases import DropOld, Endpoints, Heads, KeepEvent, Publish
from event_gateway.worker import Deliveries
from runtime import Overrides, Service
from work import WorkQueue


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The event gateway application."""
    service = Service("event_gateway", settings, **overrides)
    seconds = settings.events_kept_seconds
    log = Log(
        service.collection("events"),
        service.collection("heads"),
        kept_seconds=seconds,
        most=settings.events_kept_per_tenant,
    )
    refusals = Refusals(service.collection("refused"), kept_seconds=seconds, most=settings.events_refused_per_tenant)
    deliveries = service.aggregates("deliveries", Delivery)
    due = WorkQueue(deliveries, ["waiting"], service.collection("turns"))
    webhooks = Webhooks(service.aggregates("endpoints", Endpoint), deliveries, due)
    inbox = Inbox(service.aggregates("received", Received))
    wake = asyncio.Event()
    sender = WebhookSender(to_inside=settings.webhooks_to_inside, seconds=settings.webhook_seconds)
    streams = InFlight(
        "streams of events",
        most=settings.event_streams,
        most_each=settings.event_streams_per_tenant,
        retry_after=5,
    )
    heads = Heads(log, streams)
    service.bus.subscribe(subscriptions(KeepEvent(log, webhooks, most_waiting=settings.webhook_waiting, wake=wake)))
    for store in (inbox, log, refusals, webhooks):
        service.on_start(store.prepare)
    service.background("sweep", DropOld(inbox, webhooks, kept_seconds=seconds).run)
    service.background("heads", heads.run)
    service.background("deliveries", Deliveries(webhooks, sender, settings, owner=service.replica_id, wake=wake).run)
    service.watch_leases(deliveries, due.query)
    service.on_stop(sender.close)
    return service.app(
        [
            publishing_routes(Publish(inbox, refusals), refusals),
            reading_routes(log, heads),
            webhook_routes(webhooks, Endpoints(webhooks, sender, most=settings.webhooks_per_tenant, wake=wake)),
        ]
    )

"""Wires the proxy together."""

from __future__ import annotations

from fastapi import FastAPI

from chassis.limits import Allowance, Limiter
from eventbus.service import Service
from inference_proxy.api import feedback_routes, inference_routes, stored_routes
from inference_proxy.domain import Chat, Feedback
from inference_proxy.events import watched
from inference_proxy.limits import InFlight, Spending
from inference_proxy.prompts import Bases
from inference_proxy.records import Records
from inference_proxy.retrieval import Retrieval
from inference_proxy.routing import RouteTable
from inference_proxy.settings import Settings
from inference_proxy.store import Chats
from inference_proxy.tgi import TGIClient
from inference_proxy.use_cases import Answering, ForgetChat, LabelChat, Rating


def build(settings: Settings) -> FastAPI:
    """The proxy's application."""
    service = Service("inference_proxy", settings)
    chats = Chats(service.aggregates("chats", Chat), service.aggregates("feedback", Feedback))
    registry = service.peer("registry")
    bases = Bases(registry)
    routes = RouteTable(registry, bases, settings.model_server_url, settings.route_stale_seconds)
    engine = TGIClient(settings.inference_seconds)
    tokens = Limiter("tokens")
    service.limiters.append(tokens)
    usual = Allowance("", settings.requests_per_minute, settings.tokens_per_minute)
    spending = Spending(service.limiters[0], tokens, usual)
    in_flight = InFlight(settings.inference_in_flight, settings.inference_tenant_in_flight)
    retrieval = Retrieval(service.peer("rag_indexer"), settings.inference_retrieved_characters)
    records = Records(chats.chats)
    answering = Answering(routes, bases, engine, retrieval, records, spending)
    service.on_start(engine.open)
    service.on_start(chats.prepare)
    service.on_stop(engine.close)
    service.background("records", records.run)
    service.on_stop(records.stop)
    service.bus.watch(watched(routes))
    return service.app(
        [
            inference_routes(answering, spending, in_flight),
            stored_routes(chats, LabelChat(chats), ForgetChat(chats)),
            feedback_routes(Rating(chats)),
        ],
        lives_without=["kafka", "mongodb", "objects"],
    )

"""Wires the proxy together."""

from __future__ import annotations

from fastapi import FastAPI

from chassis.limits import Allowance, Limiter
from eventbus.service import Service
from inference_proxy.api import feedback_routes, inference_routes, stored_routes
from inference_proxy.bases import Bases
from inference_proxy.domain import Chat, Feedback
from inference_proxy.engines import Engine
from inference_proxy.engines.openai import OpenAIEngine
from inference_proxy.engines.tgi import TGIEngine
from inference_proxy.events import watched
from inference_proxy.limits import InFlight, Spending
from inference_proxy.records import Records
from inference_proxy.retrieval import Retrieval
from inference_proxy.routing import RouteTable
from inference_proxy.settings import Settings
from inference_proxy.store import Chats
from inference_proxy.use_cases import Answering, ForgetChat, LabelChat, Rating


def build(settings: Settings) -> FastAPI:
    """The proxy's application."""
    service = Service("inference_proxy", settings)
    chats = Chats(service.aggregates("chats", Chat), service.aggregates("feedback", Feedback))
    registry = service.peer("registry")
    bases = Bases(registry, settings.route_stale_seconds)
    routes = RouteTable(registry, bases, settings.route_stale_seconds)
    engines: dict[str, Engine] = {
        "tgi": TGIEngine(settings.inference_seconds),
        "openai": OpenAIEngine(settings.inference_seconds, settings.inference_keys_dir),
    }
    tokens = Limiter("tokens")
    service.limiters.append(tokens)
    usual = Allowance("", settings.requests_per_minute, settings.tokens_per_minute)
    spending = Spending(service.limiters[0], tokens, usual)
    in_flight = InFlight(settings.inference_in_flight, settings.inference_tenant_in_flight)
    retrieval = Retrieval(service.peer("rag_indexer"), settings.inference_retrieved_characters)
    records = Records(chats.chats)
    answering = Answering(routes, bases, engines, retrieval, records, spending, in_flight)
    for engine in engines.values():
        service.on_start(engine.open)
        service.on_stop(engine.close)
    service.on_start(chats.prepare)
    service.background("records", records.run)
    service.on_stop(records.stop)
    service.bus.watch(watched(routes))
    return service.app(
        [
            inference_routes(answering),
            stored_routes(chats, LabelChat(chats), ForgetChat(chats)),
            feedback_routes(Rating(chats)),
        ],
        lives_without=["kafka", "mongodb", "objects"],
    )

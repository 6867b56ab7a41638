"""Wires the proxy together."""

from __future__ import annotations

from typing import Unpack

from fastapi import FastAPI

from chassis.in_flight import InFlight
from chassis.limits import Allowance, Limiter
from inference_proxy.admission import EvaluationAdmission, TenantAdmission
from inference_proxy.answering import Answering
from inference_proxy.api import evaluation_routes, feedback_routes, inference_routes, stored_routes
from inference_proxy.asking import Asking
from inference_proxy.bases import Bases
from inference_proxy.domain import Chat, Feedback
from inference_proxy.engines import Engine
from inference_proxy.engines.arms import ArmEngine
from inference_proxy.engines.openai import OpenAIEngine
from inference_proxy.engines.tgi import TGIEngine
from inference_proxy.events import watched
from inference_proxy.handing_over import HandingOver
from inference_proxy.limits import Spending
from inference_proxy.records import Records
from inference_proxy.rendering import Rendering
from inference_proxy.retrieval import Retrieval
from inference_proxy.routing import RouteTable
from inference_proxy.settings import Settings
from inference_proxy.showing import Showing
from inference_proxy.store import Chats
from inference_proxy.use_cases import ForgetChat, LabelChat, Rating
from runtime import Overrides, Service


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The proxy's application."""
    service = Service("inference_proxy", settings, **overrides)
    chats = Chats(service.aggregates("chats", Chat), service.aggregates("feedback", Feedback))
    registry, rag_indexer = service.peer("registry"), service.peer("rag_indexer")
    second_price = settings.inference_cpu_second_price
    bases = Bases(registry, settings.route_stale_seconds, arms_priced=second_price is not None)
    routes = RouteTable(registry, bases, settings.route_stale_seconds)
    arms = ArmEngine(rag_indexer, settings.inference_seconds)
    engines: dict[str, Engine] = {
        "tgi": TGIEngine(settings.inference_seconds),
        "openai": OpenAIEngine(settings.inference_seconds, settings.inference_keys_dir),
        "arm": arms,
    }
    tokens = Limiter("tokens")
    service.limiters.append(tokens)
    usual = Allowance("", settings.requests_per_minute, settings.tokens_per_minute)
    spending = Spending(service.limiters[0], tokens, usual)
    in_flight = InFlight(
        "answers", most=settings.inference_in_flight, most_each=settings.inference_tenant_in_flight, retry_after=1
    )
    rendering = Rendering(Retrieval(rag_indexer, settings.inference_retrieved_characters))
    records = Records(chats)
    of_tenants = TenantAdmission(routes, spending, in_flight, records)
    most = settings.inference_evaluation_in_flight
    tests = InFlight("answers to tests", most=most, most_each=most, retry_after=1)
    of_evaluations = EvaluationAdmission(routes, tests)
    asking = Asking(engines, routes)
    handing_over = HandingOver(arms, asking, bases, rendering, routes)
    showing = Showing(arms, routes, settings.inference_shown_bytes)
    answering, testing = (
        Answering(one, bases, rendering, asking, handing_over, showing, second_price or 0.0)
        for one in (of_tenants, of_evaluations)
    )
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
            evaluation_routes(testing),
            stored_routes(chats, LabelChat(chats), ForgetChat(chats)),
            feedback_routes(Rating(chats)),
        ],
        lives_without=["kafka", "mongodb", "objects"],
    )

"""Wires the console together."""

from __future__ import annotations

import secrets
from typing import Unpack

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from console.progress import Watcher
from console.reference import Reference, reference_routes
from console.rendering import FOLDER
from console.routes.deletion import deletion_routes
from console.routes.entry import entry_routes
from console.routes.events import event_routes
from console.routes.home import home_routes
from console.routes.labeling import label_routes
from console.routes.models import model_routes
from console.routes.operate import operate_routes
from console.routes.operator import operator_routes
from console.routes.play import play_routes
from console.sessions import Sessions
from console.settings import Settings
from console.web import Web
from runtime import Overrides, Service


def build(settings: Settings, **overrides: Unpack[Overrides]) -> FastAPI:
    """The console's application."""
    service = Service("console", settings, **overrides)
    secret = settings.session_secret_file.read_text().strip() if settings.session_secret_file else secrets.token_hex(32)
    sessions = Sessions(service.collection("sessions"), secret, settings.session_hours, service.peer("accounts"))
    web = Web(sessions, settings.public_url)
    accounts, ingest, trainer = map(service.peer, ("accounts", "ingest", "trainer"))
    evaluator, labeling = map(service.peer, ("evaluator", "labeling"))
    registry, proxy = map(service.peer, ("registry", "inference_proxy"))
    watcher = Watcher(ingest, trainer, evaluator, registry, labeling)
    service.on_start(sessions.prepare)
    app = service.app(
        [
            entry_routes(web, accounts),
            deletion_routes(web, ingest, trainer, registry, labeling, proxy),  # before `/models/{anything}`
            home_routes(web, watcher, ingest, trainer, registry),
            model_routes(web, registry, evaluator, trainer),
            play_routes(web, ingest, registry, proxy, settings.base_model),
            label_routes(web, labeling),
            operate_routes(web, accounts, registry),
            event_routes(web, accounts, service.peer("event_gateway")),
            operator_routes(web, service.peer),
            reference_routes(web, Reference(service.peer)),
        ],
        streamed=["/upload"],
    )
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    web.install(app)
    return app

"""Wires the console together."""

from __future__ import annotations

import secrets

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from console.accounts import account_routes
from console.api import page_routes
from console.labels import label_routes
from console.pages import FOLDER
from console.progress import Watcher
from console.reference import Reference, reference_routes
from console.sessions import Sessions
from console.settings import Settings
from console.web import Web
from eventbus.service import Service


def build(settings: Settings) -> FastAPI:
    """The console's application."""
    service = Service("console", settings)
    secret = settings.session_secret_file.read_text().strip() if settings.session_secret_file else secrets.token_hex(32)
    sessions = Sessions(service.collection("sessions"), secret, settings.session_hours, service.peer("accounts"))
    web = Web(sessions, settings.public_url)
    watcher = Watcher(*map(service.peer, ("ingest", "trainer", "evaluator", "labeling")))
    service.on_start(sessions.prepare)
    app = service.app(
        [
            account_routes(web, service.peer("accounts")),
            page_routes(web, watcher, service.peer, settings.base_model),
            label_routes(web, service.peer("labeling")),
            reference_routes(web, Reference(service.peer)),
        ],
        streamed=["/upload"],
    )
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    web.install(app)
    return app

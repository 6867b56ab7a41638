"""Runs the event_gateway service."""

from chassis.http import serve
from chassis.logging import configure_logging
from event_gateway.app import build
from event_gateway.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("event_gateway", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

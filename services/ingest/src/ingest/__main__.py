"""Runs the ingest service."""

from chassis.http import serve
from chassis.logging import configure_logging
from ingest.app import build
from ingest.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("ingest", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the labeling service."""

from chassis.http import serve
from chassis.logging import configure_logging
from labeling.app import build
from labeling.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("labeling", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the registry."""

from chassis.http import serve
from chassis.logging import configure_logging
from registry.app import build
from registry.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("registry", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the console."""

from chassis.http import serve
from chassis.logging import configure_logging
from console.app import build
from console.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("console", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the model server."""

from chassis.http import serve
from chassis.logging import configure_logging
from model_server.app import build
from model_server.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("model_server", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the inference proxy."""

from chassis.http import serve
from chassis.logging import configure_logging
from inference_proxy.app import build
from inference_proxy.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("inference_proxy", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

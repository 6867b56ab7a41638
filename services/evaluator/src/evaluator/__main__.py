"""Runs the evaluator."""

from chassis.http import serve
from chassis.logging import configure_logging
from evaluator.app import build
from evaluator.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("evaluator", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

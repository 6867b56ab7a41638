"""Runs the trainer."""

from chassis.http import serve
from chassis.logging import configure_logging
from trainer.app import build
from trainer.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("trainer", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

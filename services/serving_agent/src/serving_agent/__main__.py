"""Runs the serving agent."""

from chassis.http import serve
from chassis.logging import configure_logging
from serving_agent.app import build
from serving_agent.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("serving_agent", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

"""Runs the accounts service."""

from accounts.app import build
from accounts.settings import Settings
from chassis.http import serve
from chassis.logging import configure_logging

if __name__ == "__main__":
    settings = Settings()
    configure_logging("accounts", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

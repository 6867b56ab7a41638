"""Runs the indexer."""

from chassis.http import serve
from chassis.logging import configure_logging
from rag_indexer.app import build
from rag_indexer.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    configure_logging("rag_indexer", level=settings.log_level, as_json=settings.log_json)
    serve(build(settings), settings)

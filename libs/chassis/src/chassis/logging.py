"""One structlog set-up for all services: JSON in containers, a console on a terminal, secrets masked."""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# API keys and bearer tokens, wherever they stand in a logged value.
SECRET = re.compile(r"(sk-[A-Za-z0-9]{2,8}-?)[A-Za-z0-9_-]{8,}|(Bearer )[A-Za-z0-9._-]{8,}")


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace API keys and bearer tokens in every string value by their first characters."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = SECRET.sub(lambda match: f"{match.group(1) or match.group(2)}…", value)
    return event


def configure_logging(service: str, *, level: str = "INFO", as_json: bool | None = None) -> None:
    """Route structlog and the standard library's loggers to stdout in one format.

    Args:
        service: bound to every line as `service`.
        level: lowest level that is logged.
        as_json: JSON lines if true, console if false, decided by the terminal if None.
    """
    as_json = not sys.stdout.isatty() if as_json is None else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    # The default traceback shows local variables, which may hold what a user uploaded.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    final: Processor = structlog.processors.JSONRenderer() if as_json else console
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, mask_secrets, final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"
    for noisy in ("aiokafka", "httpx2", "httpcore2", "pymongo", "urllib3", "pymilvus"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(service=service)

"""Whether a program of the stack is ready, and what is known about it where it is not."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

from localstack.programs import Program

ANSWER_SECONDS = 6
LONGEST_LINE = 300


def is_ready(program: Program) -> bool:
    """Whether a program answers as its row in the table says."""
    if not program.ready:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", program.port)) == 0
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{program.port}{program.ready}", timeout=ANSWER_SECONDS
        ) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def why_not_ready(program: Program) -> str:
    """The checks of `/readyz` that fail. The list is empty where nothing answers there."""
    if program.ready != "/readyz":
        return ""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{program.port}{program.ready}", timeout=ANSWER_SECONDS).close()
    except urllib.error.HTTPError as answer:
        with answer:
            return _failing(answer.read())
    except OSError:
        return ""
    return ""


def last_line(log: Path) -> str:
    """The end of a log, cut to a length that can be shown in a sentence."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:LONGEST_LINE] for line in reversed(lines) if line.strip()), "its log is empty")


def _failing(report: bytes) -> str:
    try:
        checks: dict[str, str] = json.loads(report)
    except ValueError:
        return ""
    return ", ".join(f"{check}: {state[:100]}" for check, state in checks.items() if state != "ok")

"""Starting and stopping the stack's processes."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from localstack import LocalStack, StackError
from localstack import stack as stack_module
from localstack.programs import Program, infrastructure
from localstack.readiness import is_ready, why_not_ready


def test_a_start_that_fails_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = LocalStack(tmp_path, services=())
    was_running = []

    def fail(_: Any) -> None:
        was_running.append(stack.running())
        raise StackError("mongodb did not become ready")

    monkeypatch.setattr(stack, "_wait", fail)
    with pytest.raises(StackError, match="did not become ready"), stack:
        pytest.fail("it is not up")
    assert was_running == [True]
    assert not stack.running()


def test_a_part_that_does_not_start_is_waited_for_and_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    stack = LocalStack(tmp_path, services=(), usual_ports=False, say=said.append)
    usual = infrastructure

    def broken(*about: Any, **more: Any) -> list[Program]:
        command = [sys.executable, "-c", "raise SystemExit('no room for the database')"]
        return [replace(one, command=command) if one.name == "mongodb" else one for one in usual(*about, **more)]

    monkeypatch.setattr(stack_module, "infrastructure", broken)
    monkeypatch.setattr(stack_module, "READY_SECONDS", 3)
    monkeypatch.setattr(stack_module, "SAY_AGAIN_SECONDS", 1)
    log = tmp_path / "logs" / "mongodb.log"
    with pytest.raises(StackError) as failure, stack:
        pytest.fail("it is not up")
    told = str(failure.value)
    assert "\n" not in told
    assert told.startswith("mongodb was not ready after 3 s: process ")
    assert told.endswith(f"last line of its log: no room for the database; see {log}")
    assert any(line.startswith("objects is ready (") for line in said)
    assert any(
        line.startswith("waiting for mongodb (1 s of at most 3): process ") and str(log) in line for line in said
    )


def test_what_a_service_is_not_ready_for_is_said(tmp_path: Path) -> None:
    report = {"kafka": "ok", "mongodb": "TimeoutError: ", "objects": "x" * 500}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(report).encode()
            self.send_response(503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        program = Program("ingest", [], server.server_port, ready="/readyz")
        assert not is_ready(program)
        assert why_not_ready(program) == f"mongodb: TimeoutError: , objects: {'x' * 100}"
    finally:
        server.shutdown()
        server.server_close()
    assert why_not_ready(program) == ""

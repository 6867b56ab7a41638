"""An API on a free port that gives chosen answers and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

STOP_SECONDS = 0.01
"""How long the server takes to see that it is to stop; its usual half second is most of a test."""


@dataclass
class Api:
    """One API.

    Attributes:
        answers: (method, path behind `/v1`) -> (status, body); a list of them is given out one by one, the last again.
        asked: method, path, query, body of each request.
        cut: so many bytes at the end of an answer that is no JSON are promised and never sent.
    """

    url: str = ""
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    cut: int = 0

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        found = self.answers.get((method, path))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if found is None:
            return 404, {"error": {"message": f"No such thing:\n{path}", "type": "x", "param": None, "code": "x"}}
        return found if isinstance(found, tuple) else (200, found)


@contextmanager
def api_running() -> Iterator[Api]:
    """An API that runs for as long as the context."""
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path.removeprefix("/v1"))
            if self.headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
            api.asked.append((self.command, path, dict(parse_qsl(parts.query)), body))
            status, said = api.answer(self.command, path)
            sent = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(sent)))
            self.send_header("x-request-id", "req_1")
            self.end_headers()
            if api.cut and isinstance(said, bytes):
                sent, self.close_connection = sent[: -api.cut], True
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    for method in ("GET", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._serve)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(STOP_SECONDS,), daemon=True)
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

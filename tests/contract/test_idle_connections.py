"""A connection without a request is closed by the client, so that no request is sent on one that is being closed."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from chassis import http
from inference_proxy.engines.tgi import KEPT_SECONDS
from labeling.settings import Settings
from localstack.ingress import production_caddyfile
from testkit import Space
from testkit.alone import NOWHERE

CADDY_SECONDS = 120
"""What Caddy keeps one for unless `keepalive` says otherwise.

https://caddyserver.com/docs/caddyfile/directives/reverse_proxy
"""


def test_services_keep_idle_connections_longer_than_whoever_asks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[uvicorn.Config] = []
    monkeypatch.setattr(http._Server, "run", lambda server: served.append(server.config))
    http.serve(FastAPI(), Space(NOWHERE, tmp_path).settings(Settings, "labeling"))
    between_services = httpx2.Limits().keepalive_expiry
    assert "keepalive" not in production_caddyfile()
    assert between_services is not None
    assert max(CADDY_SECONDS, KEPT_SECONDS, between_services) < served[0].timeout_keep_alive

"""The reverse proxy's configuration: one address for the whole API and the console."""

from __future__ import annotations

import json

ROUTES: dict[str, tuple[str, ...]] = {
    "ingest": ("/v1/files", "/v1/datasets"),
    "trainer": ("/v1/fine_tuning",),
    "registry": ("/v1/models", "/v1/registry"),
    "labeling": ("/v1/labeling",),
    "evaluator": ("/v1/evals",),
    "rag_indexer": ("/v1/vector_stores", "/v1/embeddings"),
    "inference_proxy": ("/v1/chat", "/v1/completions", "/v1/feedback"),
    "accounts": ("/v1/organization",),
    "event_gateway": ("/v1/events", "/v1/webhook_endpoints", "/v1/webhook_event_types"),
}


def _body(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


REFERENCE = "/reference"
UNKNOWN = _body(f"No such address. {REFERENCE} lists the routes.", "invalid_request_error", "unknown_url")
AWAY = _body("This part of Sartor is not up at the moment. Try again shortly.", "server_error", "service_unavailable")


def caddyfile(ports: dict[str, int]) -> str:
    """The local stack's Caddyfile for these ports; a part that is away answers 503 in the OpenAI envelope."""
    upstreams = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    port = ports["ingress"]
    return _render(
        ["auto_https off", "admin off", "persist_config off", "log {", "\tlevel WARN", "}"],
        f"http://127.0.0.1:{port}, http://localhost:{port}",
        ["bind 127.0.0.1"],
        upstreams,
    )


def production_caddyfile() -> str:
    """`infra/docker/Caddyfile`: the same routes to the containers; with a host name Caddy obtains its certificate."""
    upstreams = {name: f"{name.replace('_', '-')}:8000" for name in (*ROUTES, "console")}
    header = "# Made by `make image-locks`; do not edit. Set SARTOR_DOMAIN to a host name.\n"
    return header + _render(["admin off"], "{$SARTOR_DOMAIN::80}", [], upstreams)


def _render(options: list[str], site: str, first: list[str], upstreams: dict[str, str]) -> str:
    lines = ["{", *_indent(options), "}", f"{site} {{", *_indent(first)]
    lines += _indent(
        [
            "handle_errors {",
            "\theader content-type application/json",
            "\theader retry-after 1",
            f"\trespond `{AWAY}` 503",
            "}",
        ]
    )
    for service, prefixes in ROUTES.items():
        paths = " ".join(f"{prefix} {prefix}/*" for prefix in prefixes)
        lines += _indent([f"@{service} path {paths}", f"handle @{service} {{", *_proxy(upstreams[service]), "}"])
    lines += _indent(
        [
            f"redir /openapi.json {REFERENCE}/openapi.json 308",
            f"redir /docs {REFERENCE} 308",
            "@unknown path /v1 /v1/* /internal /internal/* /metrics /readyz",
            "handle @unknown {",
            "\theader content-type application/json",
            f"\trespond `{UNKNOWN}` 404",
            "}",
            "handle {",
            *_proxy(upstreams["console"]),
            "}",
        ]
    )
    return "\n".join([*lines, "}", ""])


def _proxy(upstream: str) -> list[str]:
    return _indent([f"reverse_proxy {upstream} {{", "\tflush_interval -1", "}"])


def _indent(lines: list[str]) -> list[str]:
    return [f"\t{line}" for line in lines]

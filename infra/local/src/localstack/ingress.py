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
}


def _body(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def caddyfile(ports: dict[str, int]) -> str:
    """The Caddyfile for these ports; a part of the stack that is away answers 503 in the OpenAI envelope."""
    unknown = _body("No such address. See the API reference for the routes.", "invalid_request_error", "unknown_url")
    away = _body(
        "This part of Sartor is not up at the moment. Try again shortly.", "server_error", "service_unavailable"
    )
    lines = [
        "{",
        "\tauto_https off",
        "\tadmin off",
        "\tpersist_config off",
        "\tlog {",
        "\t\tlevel WARN",
        "\t}",
        "}",
        f"http://127.0.0.1:{ports['ingress']}, http://localhost:{ports['ingress']} {{",
        "\tbind 127.0.0.1",
        "\thandle_errors {",
        "\t\theader content-type application/json",
        "\t\theader retry-after 1",
        f"\t\trespond `{away}` 503",
        "\t}",
    ]
    for service, prefixes in ROUTES.items():
        paths = " ".join(f"{prefix} {prefix}/*" for prefix in prefixes)
        lines += [
            f"\t@{service} path {paths}",
            f"\thandle @{service} {{",
            f"\t\treverse_proxy 127.0.0.1:{ports[service]} {{",
            "\t\t\tflush_interval -1",
            "\t\t}",
            "\t}",
        ]
    lines += [
        "\t@unknown path /v1 /v1/* /internal /internal/* /metrics /readyz",
        "\thandle @unknown {",
        "\t\theader content-type application/json",
        f"\t\trespond `{unknown}` 404",
        "\t}",
        "\thandle {",
        f"\t\treverse_proxy 127.0.0.1:{ports['console']} {{",
        "\t\t\tflush_interval -1",
        "\t\t}",
        "\t}",
        "}",
        "",
    ]
    return "\n".join(lines)

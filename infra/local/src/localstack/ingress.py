"""The reverse proxy's configuration: one address for the whole API and the console."""

from __future__ import annotations

import json
from collections.abc import Mapping

from localstack.scale import balanced, replicas
from schemas.services import PUBLIC


def _body(message: str, kind: str, code: str) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


REFERENCE = "/reference"
UNKNOWN = _body(f"No such address. {REFERENCE} lists the routes.", "invalid_request_error", "unknown_url")
AWAY = _body("This part of Sartor is not up at the moment. Try again shortly.", "server_error", "service_unavailable")


AWAY_ANSWERS = [
    "handle_errors {",
    "\theader content-type application/json",
    "\theader retry-after 1",
    f"\trespond `{AWAY}` 503",
    "}",
]

ASKED_AGAIN = (
    "{http.reverse_proxy.is_transport_error} == true && method('GET')"
    " && {http.regexp.again.0} == null && path_regexp('again', '^/')"
)
"""A GET whose connection broke, the first time: the last condition always holds and sets what the one before it reads.
Caddy does not ask it where nothing could be sent."""

NEXT_REPLICA = ["lb_policy round_robin", "lb_retries 10", "lb_try_interval 50ms"]
"""Each request to the next replica, and where that cannot be reached to the one after it. None is left out for what a
request met there: whoever can break a connection could shut a service so."""

AMONG_REPLICAS = [*NEXT_REPLICA, "lb_retry_match {", f"\texpression `{ASKED_AGAIN}`", "}"]
"""Where one goes away while it is asked by GET, another is asked: a request that kills its process kills two."""

FOR_SERVICES = [*NEXT_REPLICA, "lb_retry_match {", "\texpression false", "}"]
AS_ONE_REPLICA = ["handle_errors {", "\tabort", "}"]
"""Where services ask, a broken connection stays one: they know themselves what may be asked again."""


def caddyfile(ports: Mapping[str, int], scale: Mapping[str, int] | None = None) -> str:
    """The local stack's Caddyfile; a part that is away answers 503 in the OpenAI envelope.

    Args:
        ports: of everything, by name.
        scale: of services with several replicas, how many. Each of them has an address for all its replicas as well,
            where the other services ask.
    """
    scale, port = scale or {}, ports["ingress"]
    parts = {name: [f"127.0.0.1:{ports[one]}" for one in replicas(name, scale)] for name in (*PUBLIC, "console")}
    proxies = {name: _proxy(found, AMONG_REPLICAS if name in scale else []) for name, found in parts.items()}
    public = f"http://127.0.0.1:{port}, http://localhost:{port}"
    options = ["auto_https off", "admin off", "persist_config off", "log {", "\tlevel WARN", "}"]
    bind = "bind 127.0.0.1"
    inner = [
        _site(f"http://127.0.0.1:{ports[balanced(name)]}", [bind, *AS_ONE_REPLICA, *_proxy(parts[name], FOR_SERVICES)])
        for name in scale
    ]
    return _file(options, _site(public, [bind, *_routes(proxies)]), *inner)


def production_caddyfile() -> str:
    """`infra/docker/Caddyfile`: the same routes to the containers; with a host name Caddy obtains its certificate.

    A service's name has the addresses of all its containers, asked again every few seconds.
    """
    header = "# Made by `make image-locks`; do not edit. Set SARTOR_DOMAIN to a host name.\n"
    proxies = {name: _proxy([], [*_found_by_name(name), *AMONG_REPLICAS]) for name in (*PUBLIC, "console")}
    return header + _file(["admin off"], _site("{$SARTOR_DOMAIN::80}", _routes(proxies)))


def _file(options: list[str], *sites: str) -> str:
    return "\n".join(["{", *_indent(options), "}", *sites])


def _site(addresses: str, lines: list[str]) -> str:
    return "\n".join([f"{addresses} {{", *_indent(lines), "}", ""])


def _routes(proxies: Mapping[str, list[str]]) -> list[str]:
    lines = list(AWAY_ANSWERS)
    for service, prefixes in PUBLIC.items():
        paths = " ".join(f"{prefix} {prefix}/*" for prefix in prefixes)
        lines += [f"@{service} path {paths}", f"handle @{service} {{", *_indent(proxies[service]), "}"]
    return [
        *lines,
        f"redir /openapi.json {REFERENCE}/openapi.json 308",
        f"redir /docs {REFERENCE} 308",
        "@unknown path /v1 /v1/* /internal /internal/* /metrics /readyz",
        "handle @unknown {",
        "\theader content-type application/json",
        f"\trespond `{UNKNOWN}` 404",
        "}",
        "handle {",
        *_indent(proxies["console"]),
        "}",
    ]


def _proxy(upstreams: list[str], how: list[str]) -> list[str]:
    return [" ".join(["reverse_proxy", *upstreams, "{"]), *_indent(["flush_interval -1", *how]), "}"]


def _found_by_name(service: str) -> list[str]:
    name = service.replace("_", "-")
    found = [f"dynamic a {name} 8000 {{", "\trefresh 2s", "\tversions ipv4", "}"]
    return [*found, "transport http {", "\tdial_timeout 2s", "}"]


def _indent(lines: list[str]) -> list[str]:
    return [f"\t{line}" for line in lines]

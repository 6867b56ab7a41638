"""The services: their names, where each listens and which public addresses lead to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """One service.

    Attributes:
        name: of its package and folder; elsewhere, as in images, groups and metrics, with hyphens.
        port: where it listens in the local stack, and where the others look for it by themselves.
        paths: how the public addresses begin that the ingress sends to it.
        engine: the engine it stands beside, in that one's image; an installation without that engine, as the local
            stack, runs without the service.
    """

    name: str
    port: int
    paths: tuple[str, ...] = ()
    engine: str = ""


SERVICES: dict[str, Service] = {
    one.name: one
    for one in (
        Service("inference_proxy", 8108, ("/v1/chat", "/v1/completions", "/v1/feedback")),
        Service("ingest", 8102, ("/v1/files", "/v1/datasets")),
        Service("trainer", 8104, ("/v1/fine_tuning",)),
        Service("registry", 8106, ("/v1/models", "/v1/registry")),
        Service("evaluator", 8105, ("/v1/evals",)),
        Service("rag_indexer", 8107, ("/v1/vector_stores", "/v1/embeddings")),
        Service("labeling", 8103, ("/v1/labeling",)),
        Service("accounts", 8101, ("/v1/organization",)),
        Service("event_gateway", 8111, ("/v1/events", "/v1/webhook_endpoints", "/v1/webhook_event_types")),
        Service("model_server", 8109),
        Service("serving_agent", 8112, engine="tgi"),
        Service("console", 8110),
    )
}
"""By name, in the order in which people read of them. `console` takes every address that is nobody else's."""

PUBLIC = {name: one.paths for name, one in SERVICES.items() if one.paths}
"""The services that have public addresses, with how those begin."""

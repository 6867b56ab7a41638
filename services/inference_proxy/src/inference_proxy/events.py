"""The events the proxy watches, in every replica, to forget routes that may have changed."""

from __future__ import annotations

from eventbus import Handlers
from inference_proxy.routing import RouteTable
from schemas import (
    AdapterEvicted,
    AdapterResident,
    ModelPinned,
    ModelPromoted,
    ModelRejected,
    ModelRetired,
    ModelUnpinned,
    ReplicaReady,
)


def watched(routes: RouteTable) -> Handlers:
    """Each event watched, with what it leads to."""
    of_models = (ModelPromoted, ModelPinned, ModelUnpinned, ModelRejected, ModelRetired)
    of_adapters = (AdapterResident, AdapterEvicted)
    return {**dict.fromkeys((*of_models, *of_adapters), routes.on_change), ReplicaReady: routes.on_replica_ready}

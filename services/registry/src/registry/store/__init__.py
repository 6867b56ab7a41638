"""The registry's documents and the files it reads, in its own words."""

from registry.store.adapter_files import AdapterFiles
from registry.store.aliases import Aliases
from registry.store.models import LEFT_BEHIND, WAITING, Models
from registry.store.replicas import FORGOTTEN_SECONDS, Proven, Replicas
from registry.store.tenants import Tenants

__all__ = [
    "FORGOTTEN_SECONDS",
    "LEFT_BEHIND",
    "WAITING",
    "AdapterFiles",
    "Aliases",
    "Models",
    "Proven",
    "Replicas",
    "Tenants",
]

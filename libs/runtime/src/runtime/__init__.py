"""Joins HTTP, bus, stores and background work into a service."""

from runtime.leftovers import Leftovers, leftover_routes
from runtime.overrides import Overrides
from runtime.service import Service

__all__ = ["Leftovers", "Overrides", "Service", "leftover_routes"]

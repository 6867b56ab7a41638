"""Joins HTTP, bus, stores and background work into a service."""

from runtime.leftovers import Leftovers, leftover_routes
from runtime.service import Service

__all__ = ["Leftovers", "Service", "leftover_routes"]

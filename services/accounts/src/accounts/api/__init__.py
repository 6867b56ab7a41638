"""The HTTP routes of accounts: `/v1/organization` for people and operators, `/internal` for services."""

from accounts.api.internal import internal_routes
from accounts.api.operator import dead_letter_routes, leftover_routes, tenant_routes
from accounts.api.organization import organization_routes

__all__ = ["dead_letter_routes", "internal_routes", "leftover_routes", "organization_routes", "tenant_routes"]

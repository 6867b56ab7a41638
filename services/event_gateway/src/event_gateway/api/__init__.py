"""The HTTP routes of the gateway."""

from event_gateway.api.publishing import publishing_routes
from event_gateway.api.reading import reading_routes
from event_gateway.api.webhooks import webhook_routes

__all__ = ["publishing_routes", "reading_routes", "webhook_routes"]

"""What the gateway does: takes events in, lets them be read, sends them on."""

from event_gateway.use_cases.dropping import DropOld
from event_gateway.use_cases.publishing import Publish
from event_gateway.use_cases.reading import ANNOUNCED, Heads, KeepEvent
from event_gateway.use_cases.webhooks import Endpoints, NewEndpoint

__all__ = ["ANNOUNCED", "DropOld", "Endpoints", "Heads", "KeepEvent", "NewEndpoint", "Publish"]

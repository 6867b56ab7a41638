"""What every service is built with in place of what production has: the arguments of `build` besides the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from chassis.clock import Clock
from chassis.peers import Peer
from eventbus import Broker
from stores.mongo import Database
from stores.objects import ObjectClient


class Overrides(TypedDict, total=False):
    """`build(settings, **overrides: Unpack[Overrides])`; what is left out is production's.

    Attributes:
        peers: other services by package name; those that are not named are asked over HTTP.
        database: the service's own.
        broker: what delivers messages; it has its topics.
        objects: the object store's client.
        clock: what time it is, for aggregates, keys, outboxes and turns. Leases go by the database's clock.
    """

    peers: Mapping[str, Peer]
    database: Database
    broker: Broker
    objects: ObjectClient
    clock: Clock

"""Delivery: aggregates with an embedded outbox, the bus that publishes and handles events, and the dead letters."""

from eventbus.aggregates.aggregate import Aggregate
from eventbus.aggregates.repository import AggregateStore
from eventbus.broker import Broker
from eventbus.bus import Bus
from eventbus.consume.handlers import Handlers, envelope_handled
from eventbus.dead_letters.reader import DeadLetter, DeadLetters
from eventbus.publish.relay import Relay

__all__ = [
    "Aggregate",
    "AggregateStore",
    "Broker",
    "Bus",
    "DeadLetter",
    "DeadLetters",
    "Handlers",
    "Relay",
    "envelope_handled",
]

"""Delivery in one place: aggregates with an embedded outbox, the relay, consumers, dead letters and leases."""

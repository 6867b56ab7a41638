"""Publishing: the broker's acknowledgement is awaited, and what lies in an outbox gets out in order."""

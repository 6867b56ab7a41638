"""One Kafka message, as every part of the consumer sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One Kafka message as it came, its topic without the installation's prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]

    @property
    def place(self) -> str:
        """Where it lies in its topic, `partition:offset`."""
        return f"{self.partition}:{self.offset}"

    @property
    def order_key(self) -> str:
        """What must stay in order: the messages of one key, or of one partition where there is none."""
        key = self.key.hex() if self.key is not None else f"partition-{self.partition}"
        return f"{self.topic}/{key}"

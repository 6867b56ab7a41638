"""What delivers messages: Kafka, as the settings name it."""

from __future__ import annotations

from faststream.kafka import KafkaBroker

from chassis.settings import ServiceSettings

Broker = KafkaBroker


def kafka(settings: ServiceSettings, service: str) -> Broker:
    """A connection to Kafka, not started; an acknowledgement means that all replicas in sync have the message.

    Args:
        settings: where it is.
        service: shown in its log.
    """
    return KafkaBroker(
        settings.kafka_bootstrap.split(","),
        client_id=service,
        acks="all",
        enable_idempotence=settings.kafka_idempotent,
        allow_auto_create_topics=False,
        graceful_timeout=settings.stop_timeout,
        logger=None,
    )

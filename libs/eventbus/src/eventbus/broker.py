"""What delivers messages: Kafka, as the settings name it."""

from __future__ import annotations

from faststream.kafka import KafkaBroker

from chassis.settings import ServiceSettings

Broker = KafkaBroker

METADATA_MS = 10_000
"""How old what is known of topics may be: a broker that failed to tell of one is asked again after that. The client's
five minutes would leave a group unformed, or a watcher deaf, for as long; one small request in ten seconds is cheap."""


def kafka(settings: ServiceSettings, service: str) -> Broker:
    """A connection to Kafka, not started; an acknowledgement means that all replicas in sync have the message.

    Args:
        settings: where it is.
        service: shown in its log.
    """
    return KafkaBroker(
        settings.kafka_bootstrap.split(","),
        client_id=service,
        metadata_max_age_ms=METADATA_MS,
        acks="all",
        enable_idempotence=settings.kafka_idempotent,
        allow_auto_create_topics=False,
        graceful_timeout=settings.stop_timeout,
        logger=None,
    )

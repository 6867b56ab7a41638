"""A corner of the local stack of one test's own: topics, databases and bucket carry its prefix."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from joserfc.jwk import OKPKey

from chassis.auth import Principal
from chassis.settings import ServiceSettings
from chassis.tokens import Tokens
from eventbus import Bus
from eventbus.messages.envelopes import envelope_of
from schemas import EVENTS, TOPICS, Envelope, Event, parse, read_envelope
from schemas.services import SERVICES
from stores.objects import Objects

S = TypeVar("S", bound=ServiceSettings)
E = TypeVar("E", bound=Event)

SESSION_MS = 2000
"""The local broker makes whoever joins a group wait until half of it is over, in whole seconds: one second here."""


@dataclass(frozen=True)
class Addresses:
    """Where the infrastructure of a local stack answers."""

    kafka_bootstrap: str
    mongo_url: str
    objects_endpoint: str
    objects_access_key: str
    objects_secret_key: str
    milvus_url: str


@dataclass
class Seen:
    """Events a probe has read, in the order they came."""

    events: list[tuple[Envelope, Event]]

    def of(self, kind: type[E]) -> list[E]:
        """The events of one type."""
        return [event for _, event in self.events if isinstance(event, kind)]


class Space:
    """Settings, credentials and probes of one test, isolated by a random prefix.

    Args:
        addresses: of the running infrastructure.
        folder: a temporary folder for keys.
    """

    def __init__(self, addresses: Addresses, folder: Path) -> None:
        self.addresses = addresses
        self.folder = folder
        self.prefix = f"t{secrets.token_hex(4)}"
        self._used = False
        self._write_keys()

    def settings(self, kind: type[S], service: str, **overrides: Any) -> S:
        """Settings of `service` in this space; `overrides` are further fields."""
        self._used = True
        stack = {name: value for name, value in asdict(self.addresses).items() if name in kind.model_fields}
        return kind(
            **{
                **stack,
                "kafka_idempotent": False,
                "kafka_session_timeout_ms": SESSION_MS,
                "topic_prefix": f"{self.prefix}-",
                "mongo_database_prefix": f"{self.prefix}_",
                "objects_bucket": f"{self.prefix}-sartor",
                "token_private_key_file": self.folder / f"{service}.pem",
                "token_public_keys_file": self.folder / "services.jwks",
                "stop_timeout": 5.0,
                **overrides,
            }
        )

    def tokens(self, service: str) -> Tokens:
        """The signer of `service`, to call another service as it."""
        return Tokens.from_files(service, self.folder / f"{service}.pem", self.folder / "services.jwks")

    def bearer(self, audience: str, tenant_id: str, *, role: str | None = None, as_service: str = "console") -> str:
        """A credential for `audience`: usable as `api_key` of the `openai` SDK or after `Bearer `.

        Args:
            audience: package name of the service called.
            tenant_id: the tenant acted for.
            role: act as a user of this role; as the service itself if None.
            as_service: who signs.
        """
        user = Principal(tenant_id=tenant_id, user_id="user_test", role=role, organization="org") if role else None
        return self.tokens(as_service).sign(audience, tenant_id, user)

    def headers(self, audience: str, tenant_id: str, *, role: str | None = None) -> dict[str, str]:
        """`bearer` as request headers."""
        return {"authorization": f"Bearer {self.bearer(audience, tenant_id, role=role)}"}

    def objects(self) -> Objects:
        """This space's bucket; call `await objects.prepare()` before the first write if no service runs yet."""
        return Objects(self._of_objects)

    @cached_property
    def _of_objects(self) -> ServiceSettings:
        """Made once: what is stored is looked at again and again."""
        return self.settings(ServiceSettings, "console")

    @asynccontextmanager
    async def publisher(self, service: str) -> AsyncIterator[Any]:
        """Yields `async publish(event, seq=1)`, which sends an event as `service` would."""
        bus = Bus(self.settings(ServiceSettings, service), service)
        await bus.start()

        async def publish(event: Event, *, seq: int = 1) -> Envelope:
            envelope = envelope_of(event, service, seq=seq)
            await bus.producer.publish(event.topic, envelope, event.model_dump(mode="json"))
            return envelope

        try:
            yield publish
        finally:
            await bus.stop()

    @asynccontextmanager
    async def probe(self, *topics: str) -> AsyncIterator[Seen]:
        """Reads `topics` (without prefix) from their beginning in the background.

        The topics must exist: start the service under test, or a publisher, first.
        """
        consumer = AIOKafkaConsumer(
            *(f"{self.prefix}-{topic}" for topic in topics),
            bootstrap_servers=self.addresses.kafka_bootstrap,
            auto_offset_reset="earliest",
            group_id=None,
        )
        await consumer.start()
        seen = Seen([])

        async def read() -> None:
            async for message in consumer:
                headers = {name: value.decode() for name, value in message.headers}
                envelope = read_envelope(headers)
                seen.events.append((envelope, parse(EVENTS[envelope.type], message.value)))

        task = asyncio.create_task(read())
        try:
            yield seen
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await consumer.stop()

    def remove_topics(self) -> None:
        """Leave none of this space's behind: a client that connects reads the names of all that there are."""
        if self._used:
            with ThreadPoolExecutor(1) as beside_any_event_loop:
                beside_any_event_loop.submit(asyncio.run, self._remove_topics()).result()

    async def _remove_topics(self) -> None:
        names = [name for topic in TOPICS for name in (topic.name, topic.dead_letters)]
        admin = AIOKafkaAdminClient(bootstrap_servers=self.addresses.kafka_bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([f"{self.prefix}-{name}" for name in names])
        finally:
            await admin.close()

    def _write_keys(self) -> None:
        public = []
        for service in SERVICES:
            key = OKPKey.generate_key("Ed25519")
            (self.folder / f"{service}.pem").write_bytes(key.as_pem(private=True))
            public.append({**key.as_dict(private=False), "kid": service})
        (self.folder / "services.jwks").write_text(json.dumps({"keys": public}))

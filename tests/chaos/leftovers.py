"""What a stack has published, and what it still holds that should have gone; read from its stores themselves."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from chassis.settings import ServiceSettings
from localstack import LocalStack
from localstack.home import LOCAL_SERVICES
from schemas import TOPICS, Envelope, read_envelope
from schemas.artifacts import ArmKind
from stores import mongo
from testkit.injector import Message, recorded


@dataclass(frozen=True)
class Published:
    """One event as it was published."""

    topic: str
    envelope: Envelope
    of_arm: bool = False

    @property
    def kind(self) -> str:
        """Its type without its version: `model.promoted`; of a version that is an arm, `model.promoted of an arm`."""
        kind = self.envelope.type.rsplit(".", 1)[0]
        return f"{kind} of an arm" if self.of_arm else kind


def is_of_arm(value: bytes) -> bool:
    """Whether an event's data names a version of a model that is an arm; what is no event's data does not."""
    try:
        data = json.loads(value)
    except ValueError:
        return False
    return isinstance(data, dict) and str(data.get("model_id", "")).rpartition("@")[2] in get_args(ArmKind)


class Leftovers:
    """Reads the stores of one stack."""

    def __init__(self, stack: LocalStack) -> None:
        addresses = stack.addresses()
        self.kafka = addresses["kafka_bootstrap"]
        self.settings = ServiceSettings(
            mongo_url=addresses["mongo_url"],  # type: ignore[arg-type]
            objects_endpoint=addresses["objects_endpoint"],
            objects_secret_key=addresses["objects_secret_key"],  # type: ignore[arg-type]
        )

    def messages(self, *topics: str) -> list[Message]:
        """Everything in these topics."""
        return asyncio.run(recorded(self.kafka, *topics))

    def events(self) -> list[Published]:
        """Every event that was published; more than once where it was published again."""
        return [
            Published(
                one.topic,
                read_envelope({name: value.decode("utf-8", "replace") for name, value in one.headers}),
                of_arm=is_of_arm(one.value),
            )
            for one in self.messages(*(topic.name for topic in TOPICS))
            if one.header("ce_type")
        ]

    def dead_letters(self) -> list[Message]:
        """Every message that was given up."""
        return self.messages(*(topic.dead_letters for topic in TOPICS))

    async def unpublished_or_parked(self) -> list[str]:
        """Events that wait in outboxes, and keys that wait for another attempt."""
        found = []
        for service in LOCAL_SERVICES:
            database = mongo.connect(self.settings, service)
            for name in await database.list_collection_names():
                outbox = await database[name].count_documents({"outbox.0": {"$exists": True}})
                if outbox:
                    found.append(f"{outbox} documents of {service}.{name} have events that were not published")
            parked = await database["parked"].count_documents({})
            if parked:
                found.append(f"{parked} keys of {service} are parked")
            database.client.close()
        return found


def streams_broken(events: Iterable[Published]) -> list[str]:
    """Numbers that two events share, or that are missing, in the streams of these events."""
    streams: dict[tuple[str, str, str], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in events:
        envelope = one.envelope
        if envelope.origin:
            streams[one.topic, envelope.subject, envelope.origin][envelope.seq].add(envelope.id)
    found = []
    for stream, numbers in streams.items():
        found += [f"{'/'.join(stream)} has two events {seq}" for seq, ids in numbers.items() if len(ids) > 1]
        if missing := set(range(1, max(numbers) + 1)) - set(numbers):
            found.append(f"{'/'.join(stream)} lacks {sorted(missing)}")
    return found

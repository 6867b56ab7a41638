"""300 poison messages of eight kinds among 5,000 healthy ones: what they cost, where they go, how they come back."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from chassis.clock import utc_now
from chassis.errors import Invalid
from chassis.ids import new_id
from chassis.settings import ServiceSettings
from eventbus import DeadLetters
from eventbus.consume import handlers as reading
from eventbus.consume.retry_policy import RetryPolicy
from runtime import Service
from schemas import Envelope, Event, FileUploaded, MalformedEvent, ObjectRef, to_message
from testkit import Space, eventually
from testkit.space import Addresses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TENANT = "tenant_a"
KEYS, EACH = 1000, 5
ROUNDS = 5
"""Both sides are run alternately, and the best of each is compared: the machine may be busy with something else."""

NOT_JSON, REFUSED, HEADERLESS, UNKNOWN, PERMANENT, EXHAUSTS, HANGS, TRANSIENT = KINDS = (
    "not-json",
    "refused",
    "headerless",
    "unknown",
    "permanent",
    "exhausts",
    "hangs",
    "transient",
)
COUNTS = {kind: 38 if place < 4 else 37 for place, kind in enumerate(KINDS)}
AMONG_HEALTHY_KEYS = (NOT_JSON, REFUSED, HEADERLESS, UNKNOWN)
"""Their keys have healthy messages before and after; the others have keys of their own, as they hold up a key."""

FOLLOWERS = 2
"""Healthy messages behind each one that fails for a while; they are counted apart."""

REASONS = {
    NOT_JSON: "malformed",
    REFUSED: "malformed",
    HEADERLESS: "malformed",
    PERMANENT: "poison",
    EXHAUSTS: "exhausted",
    HANGS: "exhausted",
}


@dataclass(frozen=True)
class Message:
    """One message: `name` is what it says, `key` what it is about."""

    key: str
    name: str

    @property
    def kind(self) -> str:
        return self.name.split("/")[0]

    def encode(self) -> tuple[bytes, bytes, dict[str, str]]:
        event = FileUploaded(
            tenant_id=TENANT,
            file_id=self.key,
            purpose="user_data",
            filename=self.name,
            object=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1),
        )
        envelope = Envelope(
            id=new_id("evt_"),
            source="/sartor/ingest",
            type=event.type,
            time=utc_now(),
            subject=self.key,
            seq=1,
            tenantid=TENANT,
        )
        key, value, headers = to_message(envelope, event.model_dump(mode="json"))
        if self.kind == NOT_JSON:
            value = value.removesuffix(b"}")
        if self.kind == REFUSED:
            value = value.replace(b'"filename"', b'"file_name"')
        if self.kind == HEADERLESS:
            headers = {"ce_type": headers["ce_type"]}
        if self.kind == UNKNOWN:
            headers["ce_type"] = "file.from_the_future.v9"
        return key, value, headers


def healthy() -> list[Message]:
    """Five messages of each of a thousand keys, the keys mixed."""
    return [Message(f"file-{key}", f"healthy/{key}/{place}") for place in range(EACH) for key in range(KEYS)]


def poisoned() -> list[Message]:
    """The same, with 300 others among them."""
    dice = random.Random(7)
    lines: list[tuple[float, Message]] = [(float(place), message) for place, message in enumerate(healthy())]
    for kind, count in COUNTS.items():
        for number in range(count):
            key = f"file-{dice.randrange(KEYS)}" if kind in AMONG_HEALTHY_KEYS else f"file-{kind}-{number}"
            place = dice.uniform(0, KEYS * EACH)
            lines.append((place, Message(key, f"{kind}/{number}/0")))
            if kind == TRANSIENT:
                lines += [(place + 1e-6 * n, Message(key, f"{kind}/{number}/{n}")) for n in range(1, FOLLOWERS + 1)]
    return [message for _, message in sorted(lines, key=lambda line: line[0])]


@dataclass
class Effects:
    """A handler whose effect is one write under a natural key, and what it saw."""

    collection: Any
    fixed: bool = False
    attempts: Counter[str] = field(default_factory=Counter)
    handled: Counter[str] = field(default_factory=Counter)
    order: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    moments: list[float] = field(default_factory=list)

    async def take(self, event: FileUploaded) -> None:
        kind, _, place = event.filename.split("/")
        self.attempts[event.filename] += 1
        if not self.fixed:
            await self._fail(kind, int(place), self.attempts[event.filename])
        await self.collection.update_one(
            {"_id": event.filename}, {"$setOnInsert": {"file_id": event.file_id}}, upsert=True
        )
        self.handled[event.filename] += 1
        self.order[event.file_id].append(event.filename)
        if kind == "healthy":
            self.moments.append(time.perf_counter())

    async def _fail(self, kind: str, place: int, attempt: int) -> None:
        if kind == PERMANENT:
            raise Invalid("This file is poison.", code="poison")
        if kind == EXHAUSTS or (kind == TRANSIENT and place == 0 and attempt <= 4):
            raise ConnectionError("away")
        if kind == HANGS:
            await asyncio.Event().wait()

    @property
    def seconds(self) -> float:
        """Between the first and the last healthy effect."""
        return self.moments[-1] - self.moments[0]


async def publish(space: Space, messages: list[Message], rate: float = math.inf) -> None:
    """Send messages in order, `rate` of them a second."""
    producer = AIOKafkaProducer(bootstrap_servers=space.addresses.kafka_bootstrap, linger_ms=20)
    await producer.start()
    try:
        sent, began = [], time.perf_counter()
        for number, message in enumerate(messages):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            key, value, headers = message.encode()
            pairs = [(name, text.encode()) for name, text in headers.items()]
            sent.append(await producer.send(f"{space.prefix}-files", value, key=key, headers=pairs))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


def consumer(space: Space) -> tuple[Service, Effects]:
    service = Service("registry", space.settings(ServiceSettings, "registry"))
    assert service.bus.consumer is not None
    service.bus.consumer.attempts.policy = RetryPolicy(attempts=5, handler_seconds=2)
    effects = Effects(service.collection("effects"))
    service.bus.subscribe({FileUploaded: effects.take})
    return service, effects


async def timed(space: Space, messages: list[Message]) -> Effects:
    """Let a consumer work off what already lies in the topic."""
    async with space.publisher("ingest"):
        await publish(space, messages)
    service, effects = consumer(space)
    app = service.app([])
    async with app.router.lifespan_context(app):
        await eventually(lambda: len(effects.moments) >= KEYS * EACH, within=400)
    return effects


async def arriving(space: Space, messages: list[Message], rate: float) -> float:
    """Healthy messages handled a second, while `rate` of them arrive in one."""
    service, effects = consumer(space)
    app = service.app([])
    async with space.publisher("ingest"), app.router.lifespan_context(app):
        began = time.perf_counter()
        await publish(space, messages, rate * len(messages) / (KEYS * EACH))
        await eventually(lambda: len(effects.moments) >= KEYS * EACH, within=400)
        return KEYS * EACH / (effects.moments[-1] - began)


def lenient_parse(strict: Callable[..., Event]) -> Callable[..., Event]:
    """The release that reads what the producer wrote."""

    def parse(event_type: type[Event], value: bytes) -> Event:
        with suppress(MalformedEvent):
            return strict(event_type, value)
        return strict(event_type, value.replace(b'"file_name"', b'"filename"').rstrip(b"}") + b"}}")

    return parse


def lenient_envelope(strict: Callable[..., Envelope]) -> Callable[..., Envelope]:
    def read(headers: dict[str, str]) -> Envelope:
        missing = {"ce_id": new_id("evt_"), "ce_source": "/", "ce_time": utc_now().isoformat(), "ce_subject": "?"}
        return strict({**missing, "ce_seq": "1", "ce_tenantid": TENANT, **headers})

    return read


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Hundreds of tracebacks are expected, and would hide the figures."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.CRITICAL)
    yield
    logging.getLogger().setLevel(level)


async def test_poison_costs_little_goes_where_it_belongs_and_comes_back(
    addresses: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corner(name: str) -> Space:
        folder = tmp_path / name
        folder.mkdir()
        return Space(addresses, folder)

    clean, dirty = [], []
    for number in range(ROUNDS):
        clean.append((await timed(corner(f"clean-{number}"), healthy())).seconds)
        dirty.append((await timed(corner(f"dirty-{number}"), poisoned())).seconds)
    ratio = min(clean) / min(dirty)
    rate = KEYS * EACH / min(clean) / 2
    alone = await arriving(corner("clean-paced"), healthy(), rate)
    beside = await arriving(corner("dirty-paced"), poisoned(), rate)
    print(
        f"\n{KEYS * EACH} healthy messages, alone and with {sum(COUNTS.values())} poison ones; {ROUNDS} rounds of each"
    )
    for name, times in (("alone", clean), ("with poison", dirty)):
        each = " ".join(f"{seconds:.2f}" for seconds in times)
        print(f"  {name:12} best {KEYS * EACH / min(times):7.0f} /s   seconds: {each}")
    print(f"  ratio of the best {ratio:.3f}, of the medians {statistics.median(clean) / statistics.median(dirty):.3f}")
    print(f"arriving at {rate:.0f} /s: alone {alone:.0f} /s, with poison {beside:.0f} /s, ratio {beside / alone:.3f}")

    space = corner("whole")
    await whole_story(space, monkeypatch)
    assert beside / alone >= 0.95
    assert ratio >= 0.95


async def whole_story(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the poison in the topic to all of it handled once."""
    messages = poisoned()
    async with space.publisher("ingest"):
        await publish(space, messages)
    service, effects = consumer(space)
    app = service.app([])
    async with app.router.lifespan_context(app):
        letters = DeadLetters(service.settings, service.bus.producer, service.collection("dead_letter_replays"))
        dead = sum(COUNTS[kind] for kind in REASONS)
        parked = service.collection("parked")

        async def settled() -> bool:
            if await parked.count_documents({}):
                return False
            return len(await letters.find()) == dead

        await eventually(settled, within=300, every=2)
        found = await letters.find()
        reasons = Counter((letter.code, letter.attempts) for letter in found)
        print(f"  dead letters by reason and attempts: {dict(reasons)}")
        assert Counter(letter.code for letter in found) == Counter(
            {
                "malformed": COUNTS[NOT_JSON] + COUNTS[REFUSED] + COUNTS[HEADERLESS],
                "poison": COUNTS[PERMANENT],
                "exhausted": COUNTS[EXHAUSTS] + COUNTS[HANGS],
            }
        )
        wanted = Counter(message.name for message in messages if message.kind in ("healthy", TRANSIENT))
        assert effects.handled == wanted
        assert kept_order(effects)

        monkeypatch.setattr(reading, "parse", lenient_parse(reading.parse))
        monkeypatch.setattr(reading, "read_envelope", lenient_envelope(reading.read_envelope))
        effects.fixed = True
        began = time.perf_counter()
        for letter in found:
            await letters.replay(letter)
        all_of_them = Counter(message.name for message in messages if message.kind != UNKNOWN)
        await eventually(lambda: sum(effects.handled.values()) >= all_of_them.total(), within=60)
        print(f"  {dead} replayed and handled in {time.perf_counter() - began:.1f} s")
        assert effects.handled == all_of_them
        assert kept_order(effects)
        assert await letters.find() == []

        for letter in found[:20]:
            await letters.replay(letter)
        await eventually(lambda: sum(effects.handled.values()) == all_of_them.total() + 20, within=60)
        assert await effects.collection.count_documents({}) == len(all_of_them)


def kept_order(effects: Effects) -> bool:
    """Whether the healthy messages of each key, and those behind a failing one, came in their order."""
    for names in effects.order.values():
        places = [name for name in names if name.split("/")[0] in ("healthy", TRANSIENT)]
        if places != sorted(places, key=lambda name: int(name.split("/")[2])):
            return False
    return True

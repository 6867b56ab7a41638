"""Takes events of services outside, each once. A list of which one is refused is refused whole, and noted."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from prometheus_client import Counter
from pydantic import JsonValue, ValidationError

from chassis.auth import Principal
from chassis.errors import Conflict, Invalid, SartorError
from chassis.ids import now
from event_gateway.domain import Received, Refused, Sent, checked_data
from event_gateway.store import Inbox, Refusals
from schemas import PUBLISHABLE

TAKEN = Counter("outside_events_total", "Events that services outside sent.", ["type", "outcome"])

LONGEST_NAME = 256


class Publish:
    """Checks what was sent, and publishes it.

    Args:
        inbox: where it is kept.
        refusals: where it is noted that something was not.
    """

    def __init__(self, inbox: Inbox, refusals: Refusals) -> None:
        self._inbox = inbox
        self._refusals = refusals

    async def run(self, producer: Principal, events: Sequence[JsonValue]) -> list[Received]:
        """Publish events, each once; one that was sent before is answered as it was then.

        All are checked before one is published. What is cut between two of them is sent again as a whole: it is
        published to its end, each event once.

        Args:
            producer: whose key they came with.
            events: decoded JSON.

        Raises:
            Invalid, Forbidden, TooLarge: the first that is refused, by its place; none is published.
            Conflict: as these; or another event took its id meanwhile, and those before it are published.
        """
        many = len(events)
        seen: dict[str, Received] = {}
        checked = [await self._checked(producer, one, place, many, seen) for place, one in enumerate(events)]
        return [await self._publish(producer, sent, fresh) for sent, fresh in checked]

    async def refuse(self, producer: Principal, sent: JsonValue, error: SartorError) -> None:
        """Keep what was not published, with why."""
        named = sent if isinstance(sent, dict) else {}
        id_, source, type_ = (_readable(named.get(name)) for name in ("id", "source", "type"))
        refused = Refused(id_, source, type_, producer.key_id, str(error.code), error.message[:1000], error.param)
        await self._refusals.keep(producer.tenant_id, refused)
        TAKEN.labels(_counted(type_), str(error.code)).inc()

    async def _checked(
        self, producer: Principal, one: JsonValue, place: int, many: int, seen: dict[str, Received]
    ) -> tuple[Sent, Received]:
        try:
            sent = _read(one)
            fresh = Received.of(sent, checked_data(sent, producer), producer, now())
            seen.setdefault(fresh.id, fresh).expect(sent)
            before = await self._inbox.find(producer.tenant_id, fresh.id)
            if before is not None:
                before.expect(sent)
        except SartorError as error:
            await self.refuse(producer, one, error)
            if many > 1:
                error.message = f"events[{place}].{error.message} None of the {many} events was published."
            raise
        return sent, fresh

    async def _publish(self, producer: Principal, sent: Sent, fresh: Received) -> Received:
        with structlog.contextvars.bound_contextvars(event_id=sent.id):  # what the published one follows from
            stored = await self._inbox.add(fresh)
        try:
            stored.expect(sent)
        except Conflict as error:  # the same id came in twice at the same time, with two bodies
            await self.refuse(producer, sent.model_dump(mode="json"), error)
            raise
        TAKEN.labels(_counted(sent.type), "accepted" if stored is fresh else "repeated").inc()
        return stored


def _read(one: JsonValue) -> Sent:
    if not isinstance(one, dict):
        raise Invalid("an event is a JSON object with CloudEvents' attributes.", code="malformed_event")
    try:
        return Sent.model_validate(one)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        inner = [str(first["ctx"]["param"])] if "param" in first.get("ctx", {}) else []
        where = ".".join([*map(str, first["loc"]), *inner])[:200]
        said = "is no attribute of an event here. Leave it out" if first["type"] == "extra_forbidden" else first["msg"]
        raise Invalid(f"{where}: {said}.", code="malformed_event", param=where or None) from error


def _readable(value: JsonValue) -> str:
    text = value if isinstance(value, str) else ""
    return text[:LONGEST_NAME].encode(errors="backslashreplace").decode()


def _counted(event_type: str) -> str:
    return event_type if event_type in PUBLISHABLE else "other"

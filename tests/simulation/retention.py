"""What ingest makes of the events of a run: whose rows it goes on holding in the end."""

from __future__ import annotations

from collections import deque
from random import Random

from ingest.events import subscriptions
from ingest.store import Uses
from ingest.use_cases import Retention
from schemas import Event
from testkit.simulated_documents import Documents
from tests.simulation.history import Entry, History


class Released:
    """What ingest takes for its uploads: which files' rows nothing rested on when they might have gone."""

    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self.files: set[str] = set()

    async def release(self, tenant_id: str, file_id: str) -> None:
        """See `ingest.use_cases.Uploads`."""
        if not await self._uses.of(tenant_id, file_id):
            self.files.add(file_id)


class Uncounted:
    """What ingest takes for the bytes that others hold."""

    async def count(self, tenant_id: str, thing: str, by: str, size: int) -> None:
        """See `ingest.store.StoredElsewhere`."""

    async def remove(self, tenant_id: str, thing: str, by: str) -> None:
        """See `ingest.store.StoredElsewhere`."""


async def rows_held(history: History, chance: Random) -> dict[str, bool]:
    """By job, whether the rows it learned from stay, be their file deleted: if they do not, they have been let go.

    Events are heard in the order of their keys alone, as from several partitions.
    """
    uses = Uses(Documents()["uses"])  # type: ignore[arg-type]
    released = Released(uses)
    retention = Retention(uses, Uncounted(), released)  # type: ignore[arg-type]
    handlers = {kind.type: (kind, handle) for kind, handle in subscriptions(None, retention).items()}  # type: ignore[arg-type]
    jobs = history.final("jobs")
    for entry in _shuffled(history, chance):
        kind, handle = handlers.get(entry.headers["ce_type"], (None, None))
        if kind is not None and handle is not None:
            event: Event = kind.model_validate_json(entry.value)
            await handle(event)
    return {
        key: bool(await uses.of(job["tenant_id"], job["training_file"])) or job["training_file"] not in released.files
        for key, job in jobs.items()
    }


def _shuffled(history: History, chance: Random) -> list[Entry]:
    streams: dict[tuple[str, bytes | None], deque[Entry]] = {}
    for entry in history.entries:
        if not entry.topic.endswith("-dlq"):
            streams.setdefault((entry.topic, entry.key), deque()).append(entry)
    waiting, heard = list(streams.values()), list[Entry]()
    while waiting:
        stream = chance.choice(waiting)
        heard.append(stream.popleft())
        waiting = [one for one in waiting if one]
    return heard

"""What happened in a simulated run, for the checkers: facts only, no judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One message in the log, and when it was stored."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: dict[str, str]
    at: float

    @property
    def event_id(self) -> str:
        """Id of the event; copies have the same."""
        return self.headers.get("ce_id", "")

    @property
    def stream(self) -> str:
        """What its `seq` counts: origin, topic and subject."""
        return f"{self.headers.get('ce_origin', '')}/{self.topic}/{self.headers.get('ce_subject', '')}"


@dataclass
class Delivery:
    """A consumer was given a message; `ended` when its handling came to an end."""

    group: str
    member: str
    entry: Entry
    began: float
    ended: float | None = None
    done: bool = False
    error: str = ""


@dataclass(frozen=True)
class Write:
    """One write of a document, in the order the server made them."""

    at: float
    server_ms: int
    database: str
    collection: str
    id: str
    before: Document | None
    after: Document | None
    by: str


@dataclass(frozen=True)
class Handled:
    """A handler's effect is done."""

    at: float
    service: str
    event_id: str


@dataclass(frozen=True)
class Worked:
    """A training process made a step; `by` is the worker that started it."""

    at: float
    job_id: str
    by: str
    step: int


@dataclass(frozen=True)
class Fault:
    """What was done to the system."""

    at: float
    kind: str
    target: str = ""


@dataclass
class History:
    """Everything recorded of one run.

    Attributes:
        accepted: ids of jobs whose request was answered with success.
        expected: ids of jobs that must come of what was uploaded.
        cancelled: ids of jobs whose cancellation was answered with success.
        proven: (adapter, replica) that was verified before it was announced.
        weights: by job, what its training must make of it whatever happens on the way.
        learnt: by adapter, what it was trained to.
        subscribed: by service, the event types it handles.
        parked: by service, the keys that wait in the end.
        removed: keys of objects that were removed and not stored again.
        unanswered: what was asked of a server that its simulation has no answer to.
        routes: by job, the version that answered by its model's name in the end, as the registry said; None for none.
        rows: by job, whether ingest holds its rows in the end.
        intents: how many jobs were asked for.
        slow: whether calls might take seconds.
        quiet_from: when faults stopped.
        drained_at: when nothing was left to do; None if that never came.
        left: what was still to do then.
    """

    entries: list[Entry] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    worked: list[Worked] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stored: dict[str, tuple[float, str]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    expected: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    proven: set[tuple[str, str]] = field(default_factory=set)
    weights: dict[str, str] = field(default_factory=dict)
    learnt: dict[str, str] = field(default_factory=dict)
    subscribed: dict[str, frozenset[str]] = field(default_factory=dict)
    parked: dict[str, list[Document]] = field(default_factory=dict)
    unanswered: list[str] = field(default_factory=list)
    routes: dict[str, str | None] = field(default_factory=dict)
    rows: dict[str, bool] = field(default_factory=dict)
    intents: int = 0
    slow: bool = False
    quiet_from: float = 0.0
    drained_at: float | None = None
    left: str = ""

    def final(self, collection: str) -> dict[str, Document]:
        """The documents of a collection in the end, by id."""
        found = {write.id: write.after for write in self.writes if write.collection == collection}
        return {key: document for key, document in found.items() if document is not None}

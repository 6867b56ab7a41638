"""Invariants of order, whatever the clocks of machines say: fair turns of jobs, and lines of their history."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.simulation.history import Document, History

PLACES_A_MS = 1_000_000
"""Of lines that are told within one millisecond, which may be those of several machines."""


def places_given(history: History) -> Iterator[tuple[int, Document]]:
    """Each write by which a job gave its place: its number, and the job after it."""
    for at, write in enumerate(history.writes):
        if write.collection != "jobs" or write.before is None or write.after is None:
            continue
        if (write.before["state"], write.after["state"]) == ("running", "queued"):
            yield at, write.after


def places_are_given_to_who_waited_longer(history: History) -> list[str]:
    """I20: a job gives its place only where another tenant's turn comes first, and whoever it was goes before it."""
    wrong = []
    for at, job in places_given(history):
        write, own, owner = history.writes[at], job["tenant_id"], job["lease"]["owner"]
        asked = (place for place in range(at - 1, -1, -1) if _reaches(history, place, write.id))
        if not any(_waits_longer(history, place, own, write.server_ms) for place in range(next(asked, 0), at)):
            wrong.append(f"I20: {write.id} gave its place at {write.at:.1f}, and nobody's turn came before its own")
        claim = next((place for place in range(at + 1, len(history.writes)) if _claims(history, place, owner)), None)
        if claim is None or history.writes[claim].id != write.id:
            continue
        had = _turns(history, at).get(own, 0)
        turns = _turns(history, claim)
        wrong += [
            f"I20: {write.id} gave its place at {write.at:.1f} and had it again before {other['_id']}"
            for other in _free(history, at, write.server_ms)
            if other["tenant_id"] != own
            and turns.get(other["tenant_id"], 0) < had
            and not any(one.id == other["_id"] for one in history.writes[at:claim])
        ]
    return wrong


def _reaches(history: History, place: int, job_id: str) -> bool:
    """Whether a job had a new checkpoint, or a new worker, by a write: it asks who waits after that.

    Its lease is renewed since, where the answer or its write takes long.
    """
    one = history.writes[place]
    if one.collection != "jobs" or one.id != job_id or one.before is None or one.after is None:  # its fit has its id
        return False
    old, new = one.before, one.after
    return old.get("checkpoint") != new.get("checkpoint") or bool(old["lease"]["fence"] != new["lease"]["fence"])


def _claims(history: History, place: int, owner: str) -> bool:
    one = history.writes[place]
    if one.collection != "jobs" or one.before is None or one.after is None or one.before["state"] != "queued":
        return False
    old, new = one.before["lease"], one.after["lease"]
    return bool(new["fence"] > old["fence"] and new["owner"] == owner)


def _waits_longer(history: History, place: int, own: str, server_ms: int) -> bool:
    """Whether the turn of another tenant with a free job comes before one's own, after the write at a place."""
    turns = _turns(history, place + 1)
    others = {job["tenant_id"] for job in _free(history, place + 1, server_ms)} - {own}
    return any((turns.get(other, 0), other) < (turns.get(own, 0), own) for other in others)


def _turns(history: History, until: int) -> dict[str, float]:
    return {it.id: it.after["at"] for it in history.writes[:until] if it.collection == "turns" and it.after}


def _free(history: History, until: int, server_ms: int) -> list[Document]:
    """The jobs that a worker may claim after so many writes."""
    jobs = {it.id: it.after for it in history.writes[:until] if it.collection == "jobs" and it.after}
    return [it for it in jobs.values() if it["state"] in ("queued", "running") and it["lease"]["until_ms"] < server_ms]


def lines_are_in_the_order_in_which_they_were_told(history: History) -> list[str]:
    """I26: a line that is told later is no older in the list, to the millisecond."""
    wrong: list[str] = []
    newest: dict[str, int] = {}
    for write in history.writes:
        if write.collection != "job_events" or write.before is not None or write.after is None:
            continue
        job, told = write.after["job_id"], write.after["order"] // PLACES_A_MS
        if told < newest.get(job, 0):
            wrong.append(f"I26: at {write.at:.1f} {job} was told what is older than before: {write.after['message']}")
        newest[job] = max(told, newest.get(job, 0))
    return wrong


ORDER_CHECKERS: tuple[Callable[[History], list[str]], ...] = (
    places_are_given_to_who_waited_longer,
    lines_are_in_the_order_in_which_they_were_told,
)

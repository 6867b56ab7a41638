"""A run told in lines, and the smallest part of its faults that still breaks it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.checkers import violations
from tests.simulation.history import History
from tests.simulation.scenario import Scenario


def lines(history: History) -> list[str]:
    """What happened, by virtual time: faults, changes of state, claims, messages, effects."""
    told = [
        *((one.at, f"FAULT   {one.kind} {one.target}") for one in history.faults),
        *(
            (one.at, f"log     {one.topic}/{one.partition}/{one.offset} {_message(one.headers)}")
            for one in history.entries
        ),
        *((one.at, f"handled {one.service} {one.event_id}") for one in history.handled),
        *((one.at, f"trained {one.job_id} step {one.step} by {one.by}") for one in history.worked),
        *_writes(history),
        (history.quiet_from, "QUIET   faults are over"),
    ]
    return [f"{at:8.3f}  {line}" for at, line in sorted(told, key=lambda one: one[0])]


def _message(headers: dict[str, str]) -> str:
    return (
        f"{headers.get('ce_type')} {headers.get('ce_id')} seq {headers.get('ce_seq')} {headers.get('x-error-code', '')}"
    )


def _writes(history: History) -> Iterator[tuple[float, str]]:
    for write in history.writes:
        before, after = write.before or {}, write.after or {}
        facts = [
            f"{name} {before.get(name)} -> {after.get(name)}"
            for name in ("state", "promotion", "checkpoint")
            if before.get(name) != after.get(name)
        ]
        old, new = before.get("lease", {}), after.get("lease", {})
        if old.get("fence") != new.get("fence"):
            facts.append(f"claimed by {new.get('owner')} with fence {new.get('fence')}")
        if old.get("failures") != new.get("failures"):
            facts.append(f"failures {old.get('failures')} -> {new.get('failures')}")
        if len(before.get("messages", [])) != len(after.get("messages", [])):
            facts.append(f"parked {[one['place'] for one in after.get('messages', [])]}")
        if facts:
            yield write.at, f"write   {write.id} by {write.by}: {'; '.join(facts)}"


def digest(history: History) -> str:
    """Equal for two runs that took the same course."""
    return hashlib.sha256("\n".join(lines(history)).encode()).hexdigest()


def shortest(seed: int, folder: Path, faults: int) -> History:
    """The run of a broken seed with the fewest of its faults that still breaks it."""
    for most in range(faults):
        history = Scenario(seed, folder, most_faults=most).run()
        if violations(history):
            return history
    return Scenario(seed, folder).run()

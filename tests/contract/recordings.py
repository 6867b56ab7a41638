"""Recordings: every message of a run of one release, kept in `schemas/recorded` for the releases after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import EVENTS, read_envelope
from schemas.export import ROOT, schema
from testkit.injector import Message

FOLDER = ROOT / "recorded"


@dataclass(frozen=True)
class Recording:
    """What one release said.

    Attributes:
        release: its version.
        schemas: its JSON Schemas, by event type.
        messages: of a whole run, in the order of their times.
    """

    release: str
    schemas: dict[str, Any]
    messages: tuple[Message, ...]

    @classmethod
    def of_now(cls, release: str, messages: list[Message]) -> Recording:
        """The recording of a run of the code as it is."""
        ordered = sorted(messages, key=lambda message: read_envelope(message.headers).time)
        return cls(release, {name: schema(EVENTS[name], name) for name in sorted(EVENTS)}, tuple(ordered))

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording back, byte for byte."""
        head, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        return cls(head["release"], head["schemas"], tuple(_message(line) for line in lines))

    def save(self, path: Path) -> None:
        """Write it, one message a line below the line of the schemas.

        Raises:
            FileExistsError: there is one of that release; it never changes.
        """
        lines = [{"release": self.release, "schemas": self.schemas}, *map(_line, self.messages)]
        with path.open("x", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def recordings() -> list[Path]:
    """The recordings that are kept, by name."""
    return sorted(FOLDER.glob("*.jsonl"))


def _line(message: Message) -> dict[str, Any]:
    headers = {name: value.decode() for name, value in message.headers}
    key = message.key.decode() if message.key is not None else None
    return {"topic": message.topic, "key": key, "headers": headers, "value": message.value.decode()}


def _message(line: dict[str, Any]) -> Message:
    headers = tuple((name, value.encode()) for name, value in line["headers"].items())
    key = line["key"].encode() if line["key"] is not None else None
    return Message(line["topic"], key, line["value"].encode(), headers)

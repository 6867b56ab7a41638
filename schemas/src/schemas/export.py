"""Writes the public contract to disk: one JSON Schema per event type and a catalogue page.

`python -m schemas.export` writes; `--check` only compares, and refuses a change that an older consumer cannot read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jsoncompat import check_compat

from schemas.envelope import Event
from schemas.topics import EVENTS, LOG, TOPICS

ROOT = Path(__file__).parents[2]


def schema(event: type[Event]) -> dict[str, Any]:
    """The JSON Schema of one event's payload."""
    document = event.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": event.type, **document}


def render() -> dict[Path, str]:
    """Every generated file: path -> text."""
    files = {
        ROOT / "json" / f"{name}.schema.json": json.dumps(schema(event), indent=2, ensure_ascii=False) + "\n"
        for name, event in EVENTS.items()
    }
    files[ROOT / "catalogue.md"] = catalogue()
    return files


def catalogue() -> str:
    """The page that lists topics, their events, and who writes and reads them."""
    lines = [
        "# Event catalogue",
        "",
        "Made by `python -m schemas.export` from `schemas/src/schemas/topics.py`; do not edit.",
        "Kafka key = aggregate id. CloudEvents 1.0, binary mode. Messages that cannot be handled go to `<topic>-dlq`.",
        "",
        "```mermaid",
        "flowchart LR",
    ]
    lines += [
        f"  {producer} -- {topic.name} --> {consumer}"
        for topic in TOPICS
        if topic.name != "accounts"
        for producer in topic.producers
        for consumer in topic.consumers
        if consumer != LOG
    ]
    lines += ["  accounts -- accounts --> every[every service that checks keys]", "```", ""]
    lines += [f"`{LOG}`, which keeps what tenants may read and sends webhooks, is left out of the picture.", ""]
    for topic in TOPICS:
        readers = ", ".join(f"`{name}`" for name in topic.consumers) or "nobody here (for your own consumers)"
        writers = ", ".join(f"`{name}`" for name in topic.producers)
        lines += [f"## `{topic.name}`", "", f"{topic.about} Written by {writers}, read by {readers}.", ""]
        lines += ["| event | key | when |", "|---|---|---|"]
        lines += [f"| `{event.type}` | `{event.key}` | {_sentence(event)} |" for event in topic.events]
        lines.append("")
    return "\n".join(lines)


def _sentence(event: type[Event]) -> str:
    return " ".join((event.__doc__ or "").split())


def incompatible(committed: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Why a consumer built on `committed` could not read what `current` writes, or a producer's new field is required.

    A change may only add optional fields; anything else is a new version of the type.
    """
    problems = []
    old, new = ({name: value for name, value in side.items() if name != "$id"} for side in (committed, current))
    if not check_compat(json.dumps(old), json.dumps(new), "serializer"):
        problems.append("messages written now are not valid under the committed schema")
    added = set(current.get("required", [])) - set(committed.get("required", []))
    if added:
        problems.append(f"new required fields: {', '.join(sorted(added))}")
    return problems


def main() -> int:
    """Write or check; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    check = parser.parse_args().check
    stale = []
    for path, text in render().items():
        committed = path.read_text() if path.exists() else None
        if committed == text:
            continue
        stale.append(path)
        if committed is not None and path.suffix == ".json":
            for problem in incompatible(json.loads(committed), json.loads(text)):
                print(f"{path.name}: {problem}; make a new version beside it", file=sys.stderr)
                return 1
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    if check and stale:
        names = ", ".join(path.name for path in stale)
        print(f"not current: {names}; run `python -m schemas.export`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

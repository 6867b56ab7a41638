"""Writes the public contract to disk: a JSON Schema for each event type and artifact, and a catalogue page.

`python -m schemas.export` writes; `--check` only compares, and refuses a change that an older consumer cannot read.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

from jsoncompat import check_compat
from pydantic import JsonValue, TypeAdapter

from schemas.artifacts import ARTIFACTS
from schemas.envelope import Event
from schemas.topics import EVENTS, LOG, TOPICS

ROOT = Path(__file__).parents[2]
LINE = 120
"""Longest line of what is written, as the formatter has it."""

FACE = Path(__file__).parent / "events" / "__init__.py"


def schema(contract: type, name: str) -> dict[str, JsonValue]:
    """The JSON Schema of an event's payload or of an artifact."""
    document = TypeAdapter(contract).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name, **document}


def render() -> dict[Path, str]:
    """Every generated file: path -> text."""
    contracts: dict[str, type] = {
        **EVENTS,
        **{f"artifacts/{name}": artifact for name, artifact in ARTIFACTS.items()},
    }
    files = {
        ROOT / "json" / f"{name}.schema.json": json.dumps(schema(contract, name), indent=2, ensure_ascii=False) + "\n"
        for name, contract in contracts.items()
    }
    files[ROOT / "catalogue.md"] = catalogue()
    files[FACE] = face()
    return files


def face() -> str:
    """What `schemas.events` exports: every class of its files, which are read and not imported."""
    declared = {
        path.stem: sorted(node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
        for path in sorted(FACE.parent.glob("[!_]*.py"))
    }
    lines = ['"""Every event of Sartor, a file per aggregate. Made by `python -m schemas.export`; do not edit."""', ""]
    for module, names in declared.items():
        line = f"from schemas.events.{module} import {', '.join(names)}"
        wrapped = [f"from schemas.events.{module} import (", *(f"    {name}," for name in names), ")"]
        lines += [line] if len(line) <= LINE else wrapped
    exported = sorted(name for names in declared.values() for name in names)
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in exported), "]", ""]
    return "\n".join(lines)


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
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if FACE in stale and not check:  # what it now exports is known to a new process only
        os.execv(sys.executable, [sys.executable, "-m", "schemas.export"])  # noqa: S606 - ourselves
    if check and stale:
        names = ", ".join(path.name for path in stale)
        print(f"not current: {names}; run `python -m schemas.export`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

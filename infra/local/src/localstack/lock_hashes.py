"""Writes `requirements.hashes`: the pins of `requirements.lock`, each with the digests of the files pip may install.

`make hashes` asks pip which file it would take here for each pin, and adds its SHA-256 to those already known for that
version, so that the file covers every kind of machine it was made on. pip fetches the files to learn their digests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
LOCK = ROOT / "requirements.lock"
HASHES = ROOT / "requirements.hashes"
HEADER = "# Made by `make hashes`; do not edit. Covers: "
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def name_of(name: str) -> str:
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_of(text: str) -> dict[str, str]:
    """The pins in a requirements file: name -> version."""
    return {name_of(name): version for name, version in PIN.findall(text)}


def digests_of(text: str) -> dict[tuple[str, str], set[str]]:
    """What is known of each release: its name and version -> SHA-256 digests."""
    found = {}
    for line in text.splitlines():
        if pin := PIN.match(line):
            found[name_of(pin[1]), pin[2]] = set(DIGEST.findall(line))
    return found


def reported(report: Mapping[str, Any]) -> dict[tuple[str, str], set[str]]:
    """The files of one of pip's installation reports, in the same form; a local build counts for its version."""
    return {
        (name_of(one["metadata"]["name"]), one["metadata"]["version"].partition("+")[0]): {
            one["download_info"]["archive_info"]["hashes"]["sha256"]
        }
        for one in report["install"]
    }


def render(pins: Mapping[str, str], known: Mapping[tuple[str, str], set[str]], covered: set[str], lock: str) -> str:
    """The file: every pin in the order and the spelling of the lock, with the digests of its version and no other's."""
    lines = [HEADER + " ".join(sorted(covered))]
    for name, version in PIN.findall(lock):
        digests = sorted(known.get((name_of(name), pins[name_of(name)]), set()))
        lines.append(" ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in digests)]))
    return "\n".join(lines) + "\n"


def here() -> str:
    """The kind of machine this is, for example `cp311-linux-x86_64`."""
    return f"cp{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_platform()}"


def main() -> int:
    """Ask pip, and write; returns the process's exit status."""
    lock = LOCK.read_text()
    before = HASHES.read_text() if HASHES.exists() else ""
    known = digests_of(before)
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    done = subprocess.run([*command, "--report", "-", "-r", str(LOCK)], stdout=subprocess.PIPE, check=True)
    for release, digests in reported(json.loads(done.stdout)).items():
        known[release] = known.get(release, set()) | digests
    covered = set(before.partition("Covers: ")[2].partition("\n")[0].split()) | {here()}
    HASHES.write_text(render(pins_of(lock), known, covered, lock))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Writes what images are made with: a lock each, and the routes of the ingress.

A lock holds exactly what its service needs, at the versions of `requirements.lock` and with the digests of
`requirements.hashes`. torch is not among it: which of its builds an image has is an argument of the build.

`python -m localstack.image_locks` writes `infra/docker/`; `--check` only compares.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

from localstack.home import SERVICE_PORTS
from localstack.ingress import production_caddyfile
from localstack.lock_hashes import HASHES, PIN, name_of

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "infra" / "docker" / "locks"
HEADER = "# Made by `make image-locks`; do not edit.\n"
BUILD = {"setuptools"}
"""What makes a package of source files."""


def pins() -> dict[str, str]:
    """The whole lock: package -> its line, with digests."""
    lines = (line for line in HASHES.read_text().splitlines() if not line.startswith("#"))
    return {name_of(pin[1]): line for line in lines if (pin := PIN.match(line))}


def needed(project: Path) -> set[str]:
    """Every third-party package that the project at `project` and our libs it names need, directly or not."""
    return _closure(_declared(project))


def closure(packages: Iterable[str]) -> set[str]:
    """The packages with every third-party package that they need, directly or not."""
    return _closure([Requirement(name) for name in packages])


def _closure(todo: list[Requirement]) -> set[str]:
    wanted: set[str] = set()
    while todo:
        requirement = todo.pop()
        name = name_of(requirement.name)
        if name in wanted:
            continue
        if name.startswith("sartor-"):
            part = name.removeprefix("sartor-")
            todo += _declared(ROOT / ("schemas" if part == "schemas" else f"libs/{part}"))
            continue
        wanted.add(name)
        todo += _dependencies(name, requirement.extras)
    return wanted


def render() -> dict[Path, str]:
    """Every lock and the Caddyfile: path -> text."""
    available = pins()
    projects = {name: needed(ROOT / "services" / name) for name in SERVICE_PORTS}
    projects["provision"] = needed(ROOT / "infra" / "provision")
    projects["build"] = BUILD
    return {FOLDER.parent / "Caddyfile": production_caddyfile()} | {
        FOLDER / f"{name}.txt": HEADER + "".join(f"{available[package]}\n" for package in sorted(packages - {"torch"}))
        for name, packages in projects.items()
    }


def _declared(project: Path) -> list[Requirement]:
    contents = tomllib.loads((project / "pyproject.toml").read_text())
    return [Requirement(text) for text in contents["project"]["dependencies"]]


def _dependencies(name: str, extras: set[str]) -> list[Requirement]:
    try:
        listed = [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [
        one
        for one in listed
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def main() -> int:
    """Write or check; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m localstack.image_locks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    check = parser.parse_args().check
    stale = [path for path, text in render().items() if not path.exists() or path.read_text() != text]
    if check and stale:
        names = ", ".join(path.name for path in stale)
        print(f"not current: {names}; run `make image-locks`", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in render().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

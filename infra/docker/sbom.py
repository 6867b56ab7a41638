"""Writes what an image holds as CycloneDX 1.6: the packages of its locks with their digests, and our own.

`make sbom` writes all of them. A build runs it inside the image for that one, and ends at a package that no lock names;
before that it asks which of our own packages the image is made of.
Licences are those that the packages say where this runs; one that is not installed there has none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distributions, metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

PIN = re.compile(r"^([A-Za-z0-9._-]+)={2,3}(\S+)(.*)$", re.MULTILINE)
DIGEST = re.compile(r"--hash=sha256:([0-9a-f]{64})")
OURS = re.compile(r"sartor-([a-z-]+)")
LONGEST_NAME = 60
"""Of a licence; where more stands, it is the whole text."""

ALWAYS_THERE = {"pip", "setuptools"}
"""What Python's own `venv` puts into every environment."""

COMPUTE = ("trainer", "model_server")
TORCHES = ("cpu", "cuda")
PROJECTS = {"provision": "infra/provision"}
"""What locks whose name is no service's are for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one, or write all; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="sbom.py", description=__doc__)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="write those of all images there")
    parser.add_argument("--folders", metavar="PROJECT", help="print the folders of ours that an image of it is made of")
    parser.add_argument("--image", help="print that of the image whose build runs this: its name, or its service's")
    parser.add_argument("--project", help="folder of what it runs")
    parser.add_argument("--lock", type=Path, action="append", help="what it was made with")
    asked = parser.parse_args(arguments)
    if asked.all:
        asked.all.mkdir(parents=True, exist_ok=True)
        for build, image, project, locks in images(Path()):
            (asked.all / f"{build}.json").write_text(text(bom(Path(), image, project, locks)))
        return 0
    if asked.folders:
        print(*(f"./{folder}" for folder in folders(Path(), asked.folders)))
        return 0
    found = bom(Path(), image_name(asked.image), asked.project, asked.lock)
    named = {(index_name(one["name"]), one["version"]) for one in found["components"]}
    installed = {(index_name(one.metadata["Name"]), one.version) for one in distributions()}
    unnamed = sorted(f"{name} {version}" for name, version in installed - named if name not in ALWAYS_THERE)
    if unnamed:
        print(f"installed, and in no lock: {', '.join(unnamed)}", file=sys.stderr)
        return 1
    print(text(found), end="")
    return 0


def images(root: Path) -> Iterator[tuple[str, str, str, list[Path]]]:
    """Each build with its image, what that runs, and its locks. An image that computes is built with either torch."""
    for lock in sorted((root / "infra/docker/locks").glob("*.txt")):
        service = lock.stem
        if service == "build" or service.startswith("torch_"):
            continue
        image, project = image_name(service), PROJECTS.get(service, f"services/{service}")
        if service not in COMPUTE:
            beside = [lock.with_name("build.txt")] if service == "serving_agent" else []  # built where it runs
            yield image, image, project, [lock, *beside]
            continue
        for torch in TORCHES:
            yield f"{image}-{torch}", image, project, [lock, lock.with_name(f"torch_{torch}.txt")]


def image_name(service: str) -> str:
    """As `docker-compose.yml` calls the image of a service."""
    return service.replace("_", "-")


def bom(root: Path, image: str, project: str, locks: Iterable[Path]) -> dict[str, Any]:
    """The bill of materials of an image; the same for the same locks and source.

    Args:
        root: of the tree.
        image: its name.
        project: folder of what it runs.
        locks: what it was made with.
    """
    pins = [pin for lock in locks for pin in PIN.findall(lock.read_text())]
    theirs = [third_party(name, version, set(DIGEST.findall(rest))) for name, version, rest in pins]
    ours = [own(folder, "application" if folder == root / project else "library") for folder in folders(root, project)]
    components = [*ours, *sorted(theirs, key=lambda one: str(one["bom-ref"]))]
    content = json.dumps(components, sort_keys=True)
    described = {"type": "container", "bom-ref": "image", "name": f"sartor/{image}", "version": ours[0]["version"]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sartor/{image}/{content}')}",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": described},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": [one["bom-ref"] for one in components]}],
    }


def folders(root: Path, project: str) -> list[Path]:
    """A project's folder first, and those of our own packages that it needs, directly or not."""
    found: list[Path] = []
    todo = [root / project]
    while todo:
        folder = todo.pop(0)
        if folder in found:
            continue
        found.append(folder)
        parts = [needed[1] for text in declared(folder)["dependencies"] if (needed := OURS.match(text))]
        todo += [root / ("schemas" if part == "schemas" else f"libs/{part}") for part in parts]
    return found


def third_party(name: str, version: str, digests: set[str]) -> dict[str, Any]:
    """A package of an index, with the digests of the files that the lock takes; the image holds one of them."""
    purl = f"pkg:pypi/{index_name(name)}@{quote(version, safe='')}"
    hashes = [{"alg": "SHA-256", "content": digest} for digest in sorted(digests)]
    known = {"name": name, "version": version, "purl": purl, "hashes": hashes}
    return {"type": "library", "bom-ref": purl, **known, **licences(name)}


def own(folder: Path, kind: str) -> dict[str, Any]:
    """One of our packages."""
    name, version = declared(folder)["name"], declared(folder)["version"]
    purl = f"pkg:generic/{name}@{version}"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def licences(name: str) -> dict[str, Any]:
    """What a package says of its licence: an expression, a name in its own words, or its classifiers."""
    try:
        said = metadata(name)
    except PackageNotFoundError:
        return {}
    if expression := said.get("License-Expression"):
        return {"licenses": [{"expression": expression}]}
    words = (said.get("License") or "").strip()
    classified = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or [] if one.startswith("License ::")]
    named = [words] if 0 < len(words) <= LONGEST_NAME and "\n" not in words else classified
    return {"licenses": [{"license": {"name": one}} for one in named]} if named else {}


def declared(folder: Path) -> dict[str, Any]:
    """What a package of ours says of itself."""
    contents: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return contents


def index_name(name: str) -> str:
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def text(found: dict[str, Any]) -> str:
    """As it is written."""
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())

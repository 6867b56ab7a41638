"""A copy of an adapter on this machine: fetched, unpacked, and compared with what the registry knows of it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from sartor_cli.client import Client, CommandFailed

MANIFEST = "manifest.json"
README = "README.md"
AGAIN = "nothing was kept; try again"

Tell = Callable[[int, int | None], None]
"""Told how many bytes came, and of how many in all where that is known."""


@dataclass(frozen=True)
class Copy:
    """A copy of an adapter.

    Attributes:
        folder: where it lies.
        card: of its version.
        size: of its files, in bytes.
    """

    folder: Path
    card: dict[str, Any]
    size: int


def take(client: Client, model_id: str, to: Path | None, tell: Tell) -> Copy:
    """Fetch a model's adapter into a new folder, which is there once all of it is.

    Args:
        client: by which it is asked for.
        model_id: of the version, or its name.
        to: the folder; else one with the model's name, in the folder that one is in.
        tell: how far it is.

    Raises:
        CommandFailed: the folder is there already or cannot be written, the adapter cannot be had, or it is not the one
            that the registry knows.
    """
    _expect_new(to)
    card = client.call("GET", "/registry/models/{}", model_id)
    beside = next(one for one in (to or Path("x")).absolute().parents if one.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".adapter-", dir=beside) as place:
            archive = Path(place, "adapter.zip")
            with archive.open("wb") as file:
                client.download("/registry/models/{}/adapter", card["id"], to=file, tell=tell)
            folder = _unpacked(archive, Path(place, "unpacked"))
            _compare(folder, card["adapter_manifest"]["sha256"])
            target = to or Path(folder.name)
            _expect_new(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
    except OSError as error:
        raise CommandFailed(f"the copy cannot be written ({error}); {AGAIN}") from error
    return Copy(target, card, sum(path.stat().st_size for path in target.iterdir()))


def _expect_new(folder: Path | None) -> None:
    if folder is not None and folder.exists():
        raise CommandFailed(f"{folder} is there already; name another folder with --to, or remove it")


def _unpacked(archive: Path, folder: Path) -> Path:
    """The only folder in a zip."""
    folder.mkdir()
    try:
        with ZipFile(archive) as zipped:
            zipped.extractall(folder)
        [inside] = folder.iterdir()
    except (BadZipFile, ValueError) as error:
        raise CommandFailed(f"what came is no adapter ({error}); {AGAIN}") from error
    return inside


def _compare(folder: Path, manifest_sha256: str) -> None:
    """Look that every file of a folder is the one that was stored; its card is written anew for each copy.

    Raises:
        CommandFailed: one is missing, another one, or too much.
    """
    there = {path.name for path in folder.iterdir()} - {README}
    try:
        if _sha256(folder / MANIFEST) != manifest_sha256:
            raise ValueError(f"{MANIFEST} is not the one that the registry knows")
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        if different := there ^ {*files, MANIFEST}:
            raise ValueError(f"{', '.join(sorted(different))}: missing, or none of its files")
        for name, facts in files.items():
            if _sha256(folder / name) != facts["sha256"]:
                raise ValueError(f"{name} is not the file that was stored")
    except (FileNotFoundError, ValueError) as error:
        raise CommandFailed(f"what came is no whole adapter ({error}); {AGAIN}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

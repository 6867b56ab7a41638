"""Folders of files that are either complete and verified or not there: checkpoints and finished adapters."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chassis.crash import crash_point
from chassis.exhaustion import exhaustion_named
from schemas.artifacts import MANIFEST


class CorruptArtifact(Exception):
    """A folder does not hold what its manifest says."""


def publish(target: Path, write: Callable[[Path], None], facts: dict[str, Any]) -> str:
    """Write a folder so that no reader ever sees it unfinished: beside, synced, manifest last, then renamed.

    Args:
        target: the folder to appear; one of the same name is replaced.
        write: fills the folder it is given.
        facts: what the manifest says besides `files` (name -> sha256 and size in bytes).

    Returns:
        Sha256 of the manifest.
    """
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    write(draft)
    crash_point("save.written")
    paths = sorted(draft.iterdir())
    for path in paths:
        path.chmod(0o644)
        _sync(path)
    crash_point("save.synced")
    files = {path.name: {"sha256": sha256(path), "size": path.stat().st_size} for path in paths}
    manifest = json.dumps({"files": files, **facts}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (draft / MANIFEST).write_text(manifest, encoding="utf-8")
    _sync(draft / MANIFEST)
    _sync(draft)
    crash_point("save.manifest_written")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    crash_point("save.renamed")
    _sync(target.parent)
    return hashlib.sha256(manifest.encode()).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of `folder`, after comparing every file with it.

    Raises:
        CorruptArtifact: the manifest or a file is missing or altered.
    """
    try:
        with exhaustion_named():
            manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            for name, file in manifest["files"].items():
                if sha256(folder / name) != file["sha256"]:
                    raise CorruptArtifact(f"{folder.name}/{name} is not the file its manifest describes.")
    except (OSError, ValueError, KeyError) as error:
        raise CorruptArtifact(f"{folder.name} is incomplete: {error}.") from error
    return manifest


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

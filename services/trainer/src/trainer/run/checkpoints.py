"""Folders of files that are either complete and verified or not there: checkpoints and finished adapters."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from chassis.crash import crash_point
from chassis.exhaustion import exhaustion_named
from schemas.artifacts import MANIFEST, FileFacts

Files = dict[str, FileFacts]


class RunIdentity(BaseModel):
    """What must be equal for a checkpoint to be gone on from; an earlier release named no method.

    A field that is not known here is a setting of a later release, which this one cannot go on under.

    Attributes:
        arithmetic: as of `FrozenBase`; a run goes on in what it began with, on whatever machine.
    """

    model_config = ConfigDict(extra="forbid")

    method: str = "supervised"
    hyperparameters: dict[str, JsonValue]
    seed: int
    base_digest: str
    train_sha256: str
    arithmetic: str = ""


class CheckpointManifest(BaseModel):
    """The contents of a checkpoint's `manifest.json`."""

    files: Files
    run: RunIdentity


class _Listed(BaseModel):
    files: Files


class CorruptArtifact(Exception):
    """A folder does not hold what its manifest says."""


def publish(target: Path, write: Callable[[Path], None], manifest: Callable[[Files], BaseModel]) -> str:
    """Write a folder so that no reader ever sees it unfinished: beside, synced, manifest last, then renamed.

    Args:
        target: the folder to appear; one of the same name is replaced.
        write: fills the folder it is given.
        manifest: makes the folder's manifest of what it says of each file.

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
    facts = manifest({path.name: FileFacts(sha256=sha256(path), size=path.stat().st_size) for path in paths})
    content = json.dumps(facts.model_dump(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (draft / MANIFEST).write_text(content, encoding="utf-8")
    _sync(draft / MANIFEST)
    _sync(draft)
    crash_point("save.manifest_written")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    crash_point("save.renamed")
    _sync(target.parent)
    return hashlib.sha256(content.encode()).hexdigest()


def verify(folder: Path) -> None:
    """Compare every file of `folder` with its manifest.

    Raises:
        CorruptArtifact: the manifest or a file is missing or altered.
    """
    try:
        with exhaustion_named():
            for name, file in _Listed.model_validate_json((folder / MANIFEST).read_bytes()).files.items():
                if sha256(folder / name) != file.sha256:
                    raise CorruptArtifact(f"{folder.name}/{name} is not the file its manifest describes.")
    except ValidationError as error:
        raise CorruptArtifact(f"{folder.name} has no manifest that lists its files.") from error
    except OSError as error:
        raise CorruptArtifact(f"{folder.name} is incomplete: {error}.") from error


def identity_of(folder: Path) -> RunIdentity | None:
    """The run that left a checkpoint; None where its manifest names none that is known here."""
    with contextlib.suppress(OSError, ValidationError):
        return CheckpointManifest.model_validate_json((folder / MANIFEST).read_bytes()).run
    return None


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

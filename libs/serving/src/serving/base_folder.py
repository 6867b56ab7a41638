"""A base model's folder, and whether its files are what its `base.json` says."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from schemas.artifacts import BASE_FILE, BaseModelSpec, digest_of


class BaseRefused(Exception):
    """What a replica holds is not the base model it was told to hold: it must answer for nobody."""


class BaseFolder:
    """The folder that a replica's engine loads.

    Attributes:
        spec: its `base.json`.
        is_proven: its files were found to be what that says.

    Args:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = BaseModelSpec.model_validate_json((path / BASE_FILE).read_bytes())
        self.is_proven = False

    async def prove(self) -> None:
        """Compute the digest of the files, once.

        Raises:
            BaseRefused: it is another than `base.json` says.
        """
        if not self.is_proven:
            await asyncio.to_thread(self._verify)
            self.is_proven = True

    def _verify(self) -> None:
        found = {name: self._sha256(name) for name in self.spec.files}
        if wrong := sorted(name for name, sha256 in found.items() if sha256 != self.spec.files[name]):
            raise BaseRefused(f"{self.spec.id}: {', '.join(wrong)} in {self.path} is not as {BASE_FILE} describes it.")
        if digest_of(found) != self.spec.digest:
            raise BaseRefused(f"{self.spec.id}: the digest in {self.path / BASE_FILE} is not that of the files there.")

    def _sha256(self, name: str) -> str:
        try:
            with (self.path / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return ""

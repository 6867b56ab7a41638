"""An adapter's files, from the object store until an engine has loaded them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

from chassis.crash import crash_point
from chassis.ids import derived_id
from chassis.private_folders import PrivateFolders
from schemas import ObjectRef
from schemas.artifacts import MANIFEST, AdapterManifest, BaseModelSpec
from schemas.http.registry import AdapterToLoad
from serving.attestation import AdapterRefused, verify
from stores.objects import Objects


class Downloads:
    """Fetches and verifies adapters, each in a folder of its own that nobody else sees.

    Args:
        objects: where their files lie.
        service: names the folders on this machine.
    """

    def __init__(self, objects: Objects, service: str) -> None:
        self._objects = objects
        self._folders = PrivateFolders(None, service)
        self._closing = contextlib.ExitStack()
        self._root: Path | None = None

    async def verified(self, item: AdapterToLoad, base: BaseModelSpec) -> Path:
        """The folder of the adapter's files, as its manifest and the registry describe them; fetched once.

        Raises:
            AdapterRefused: they are not what the manifest says, or not for this base.
            Transient: they could not be fetched now.
        """
        folder = self._folder(item.adapter_id)
        if not (folder / MANIFEST).exists():
            await self._fetch(item.manifest, folder)
            crash_point("residency.fetched")
        found = await asyncio.to_thread(verify, folder, base_id=base.id, base_digest=base.digest)
        if found != item.adapter_id:
            raise AdapterRefused(f"{item.adapter_id}: the manifest is that of {found}.")
        return folder

    def discard(self, adapter_id: str) -> None:
        """Remove the adapter's files: it is loaded, refused, or not wanted any more."""
        if self._root is not None:
            shutil.rmtree(self._folder(adapter_id), ignore_errors=True)

    def close(self) -> None:
        """Remove all files."""
        self._closing.close()

    def _folder(self, adapter_id: str) -> Path:
        if self._root is None:
            self._folders.sweep()
            self._root = self._closing.enter_context(self._folders.folder("adapters"))
        return self._root / derived_id("", adapter_id)

    async def _fetch(self, manifest: ObjectRef, folder: Path) -> None:
        body = await self._objects.get_bytes(manifest)
        prefix = manifest.key.rsplit("/", 1)[0]
        for name, facts in AdapterManifest.model_validate_json(body).files.items():
            ref = ObjectRef(bucket=manifest.bucket, key=f"{prefix}/{name}", sha256=facts.sha256, size=facts.size)
            await self._objects.download(ref, folder / Path(name).name)
        folder.mkdir(exist_ok=True)
        draft = folder / f".{MANIFEST}"
        draft.write_bytes(body)  # a full disk leaves half of it
        draft.rename(folder / MANIFEST)

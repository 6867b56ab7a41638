"""The files of adapters, as the trainer stored them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from pydantic import ValidationError

from chassis.errors import NotFound
from registry.domain import Model
from schemas import ObjectRef
from schemas.artifacts import MANIFEST, AdapterManifest
from stores.objects import DigestMismatch, Objects


class AdapterFiles:
    """Reads adapters, of each file the bytes that were written or none."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def of(self, model: Model) -> Mapping[str, ObjectRef]:
        """The files of a model's adapter, by their names, its manifest the last.

        Raises:
            NotFound: they are gone, or not those that were stored.
        """
        manifest, folder = model.adapter_manifest, model.adapter_manifest.key.removesuffix(MANIFEST)
        gone = f"The files of the adapter of '{model.id}' are not stored any more as they were."
        if manifest.bucket != self._objects.bucket or not folder.startswith(f"tenants/{model.tenant_id}/adapters/"):
            raise NotFound(gone, code="adapter_gone")
        try:
            listed = AdapterManifest.model_validate_json(await self._objects.get_bytes(manifest)).files
        except (NotFound, DigestMismatch, ValidationError) as error:
            raise NotFound(gone, code="adapter_gone") from error
        files = {
            name: ObjectRef(bucket=manifest.bucket, key=f"{folder}{name}", sha256=facts.sha256, size=facts.size)
            for name, facts in listed.items()
        }
        return {**files, MANIFEST: manifest}

    def read(self, file: ObjectRef) -> AsyncGenerator[bytes, None]:
        """The bytes of a file in pieces; see `Objects.stream`."""
        return self._objects.stream(file)

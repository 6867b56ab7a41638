"""The files of an arm in the object store: whose they are, and how many bytes are read of them."""

from __future__ import annotations

from pydantic import ValidationError

from chassis.errors import Conflict, NotFound
from schemas import ObjectRef
from schemas.artifacts import ARM_ANSWERS, ARM_FINGERPRINT, ARM_NUMBERS, MANIFEST, ArmManifest
from schemas.http.rag_indexer import WRONG_ARM
from stores.objects import DigestMismatch, Objects

FILES = frozenset({ARM_ANSWERS, ARM_FINGERPRINT, ARM_NUMBERS})

MOST_BYTES = 64 * 1024 * 1024
"""Of an arm's files together."""

MOST_MANIFEST_BYTES = 64 * 1024


def wrong(ref: ObjectRef, why: str) -> Conflict:
    """An arm that does not answer here."""
    return Conflict(f"{ref.key}: {why}. Do not ask this arm; have it fitted again.", code=WRONG_ARM)


def expect_own(tenant_id: str, ref: ObjectRef) -> None:
    """Let a tenant's own arm be asked.

    Raises:
        Conflict: its manifest does not lie among the arms of this tenant.
    """
    folder, parts = f"tenants/{tenant_id}/arms/", ref.key.split("/")
    if not ref.key.startswith(folder) or parts[-1] != MANIFEST or not {"", ".", ".."}.isdisjoint(parts):
        raise wrong(ref, "no manifest of an arm of the tenant that asks")


class ArmFiles:
    """Reads arms, of each file the bytes that were written or none."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def manifest(self, ref: ObjectRef) -> bytes:
        """The bytes of a manifest.

        Raises:
            NotFound: it is gone.
            Conflict: it is too long, or other bytes than were named.
        """
        if ref.bucket != self._objects.bucket or ref.size > MOST_MANIFEST_BYTES:
            raise wrong(ref, f"in another bucket, or a manifest of over {MOST_MANIFEST_BYTES} bytes")
        return await self._read(ref)

    async def beside(self, ref: ObjectRef, manifest: ArmManifest) -> dict[str, bytes]:
        """The other files of an arm, by their names.

        Raises:
            NotFound: one is gone.
            Conflict: they are not those of an arm, not those that the manifest names, or longer than they may be.
        """
        if set(manifest.files) != FILES or sum(one.size for one in manifest.files.values()) > MOST_BYTES:
            raise wrong(ref, f"its files are not {', '.join(sorted(FILES))}, of {MOST_BYTES} bytes together at most")
        folder = ref.key.removesuffix(MANIFEST)
        refs = {
            name: ObjectRef(bucket=ref.bucket, key=f"{folder}{name}", sha256=facts.sha256, size=facts.size)
            for name, facts in manifest.files.items()
        }
        return {name: await self._read(one) for name, one in refs.items()}

    async def _read(self, ref: ObjectRef) -> bytes:
        content = bytearray()
        try:
            async for chunk in self._objects.stream(ref):
                content += chunk
                if len(content) > ref.size:
                    raise wrong(ref, f"longer than the {ref.size} bytes that were written")
        except NotFound as error:
            raise NotFound(f"{ref.key}: this file of an arm is gone.", code="arm_not_found") from error
        except DigestMismatch as error:
            raise wrong(ref, "other bytes than were written") from error
        return bytes(content)


def manifest_of(ref: ObjectRef, content: bytes) -> ArmManifest:
    """What a manifest says.

    Raises:
        Conflict: it is none.
    """
    try:
        return ArmManifest.model_validate_json(content)
    except ValidationError as error:
        raise wrong(ref, f"not what its schema says ({error.error_count()} errors)") from error

"""Hands somebody a copy of an adapter: its files and a card, in a folder that PEFT loads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from chassis.ids import now
from registry.archive import Member, length_of, zipped
from registry.card import readme
from registry.catalogue import Catalogue
from registry.domain import Model, expect_files, note_download
from registry.store import AdapterFiles, Models
from schemas import ObjectRef
from schemas.http.registry import folder_of

README = "README.md"


@dataclass(frozen=True)
class Archive:
    """A zip file on its way out.

    Attributes:
        name: of the file.
        size: bytes, where that is known before.
        content: its bytes; they break off where a file of the adapter is not the one that was stored.
    """

    name: str
    size: int | None
    content: AsyncGenerator[bytes, None]


class Downloading:
    """Hands out adapters, and remembers to whom."""

    def __init__(self, models: Models, files: AdapterFiles, catalogue: Catalogue) -> None:
        self._models = models
        self._files = files
        self._catalogue = catalogue

    async def adapter(self, tenant_id: str, model_id: str, where: Mapping[str, str], by: str) -> Archive:
        """The adapter of a version, or of a name, for `by`, whose download is noted before the first byte.

        Raises:
            NotFound: there is no such version that meets the conditions of `where`, or it has no files.
        """
        model = await self._models.version(tenant_id, model_id, where)
        expect_files(model)
        files = await self._files.of(model)
        model = await self._models.update(tenant_id, model.id, lambda one: note_download(one, by, now()))
        folder, members = folder_of(model.name), self._members(model, files)
        content = zipped(folder, members, model.created_at)
        return Archive(f"{folder}.zip", length_of(folder, members), content)

    def _members(self, model: Model, files: Mapping[str, ObjectRef]) -> list[Member]:
        base = self._catalogue.find(model.base_model)
        card = readme(model, base.spec.license if base else None).encode()
        stored = [Member(name, ref.size, self._files.read(ref)) for name, ref in files.items()]
        return [Member(README, len(card), _whole(card)), *stored]


async def _whole(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content

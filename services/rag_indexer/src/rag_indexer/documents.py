"""The text of the documents in stores."""

from __future__ import annotations

from chassis.auth import Principal
from chassis.errors import NotFound, TooLarge
from chassis.text import quoted
from rag_indexer.domain import StoreFile
from rag_indexer.store import Stores, seen_by
from stores.objects import Objects


class Documents:
    """Reads the text that was parsed from a file.

    Args:
        stores: where it is noted which text that is.
        objects: where it lies.
        most_bytes: of a text.
    """

    def __init__(self, stores: Stores, objects: Objects, most_bytes: int) -> None:
        self._stores = stores
        self._objects = objects
        self._most_bytes = most_bytes

    async def content(self, principal: Principal, store_id: str, file_id: str) -> tuple[StoreFile, str, str]:
        """A file of a store, with its name and its text.

        Raises:
            NotFound: the store or the file is not this tenant's, or the file has no text yet.
            TooLarge: the text is longer than what is indexed.
        """
        tenant_id = principal.tenant_id
        await self._stores.get(tenant_id, store_id, seen_by(principal))
        file = await self._stores.file(tenant_id, store_id, file_id)
        document = await self._stores.document(tenant_id, file_id)
        if document is None:
            raise NotFound(f"The file {quoted(file_id)} has no text, or none yet: see its status.", param="file_id")
        if document.text.size > self._most_bytes:
            raise TooLarge(f"The document's text is over {self._most_bytes} bytes.")
        return file, document.filename, (await self._objects.get_bytes(document.text)).decode()

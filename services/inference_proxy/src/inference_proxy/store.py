"""Answers given and their ratings, in MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chassis.auth import Principal
from eventbus import AggregateStore
from inference_proxy.domain import Chat, Feedback, no_feedback, not_stored
from stores.mongo import ASCENDING, DESCENDING, Query, ensure_index


class Chats:
    """The service's documents, in its own words."""

    def __init__(self, chats: AggregateStore[Chat], feedback: AggregateStore[Feedback]) -> None:
        self._chats = chats
        self._feedback = feedback

    async def prepare(self) -> None:
        """Let the list of stored answers be read without those that were not stored, of which there are many more."""
        keys = [("tenant_id", ASCENDING), ("stored", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        await ensure_index(self._chats.collection, keys)

    async def add(self, chat: Chat) -> None:
        """Keep an answer, once."""
        await self._chats.add_once(chat)

    async def get(self, principal: Principal, chat_id: str) -> Chat:
        """An answer, whether its content was stored or not.

        Raises:
            NotFound: there is none that the caller may see.
        """
        return await self._chats.get(principal.tenant_id, chat_id, principal.only)

    async def stored(self, principal: Principal, chat_id: str) -> Chat:
        """An answer whose content was stored.

        Raises:
            NotFound: there is none that the caller may see.
        """
        chat = await self._chats.find_one(principal.tenant_id, {**principal.only, "_id": chat_id, "stored": True})
        if chat is None:
            raise not_stored(chat_id)
        return chat

    async def change_stored(self, principal: Principal, chat_id: str, change: Callable[[Chat], None]) -> Chat:
        """An answer whose content was stored, changed.

        Raises:
            NotFound: there is none that the caller may see, or `change` finds it stored no more.
        """
        await self.stored(principal, chat_id)
        return await self._chats.update(principal.tenant_id, chat_id, change)

    async def stored_page(
        self,
        principal: Principal,
        model: str | None,
        metadata: Mapping[str, str],
        *,
        limit: int,
        after: str | None,
        newest_first: bool,
    ) -> list[Chat]:
        """Answers whose content was stored, of one model and with given metadata where that is asked."""
        query: Query = {
            **principal.only,
            "stored": True,
            **{f"metadata.{key}": value for key, value in metadata.items()},
        }
        if model:
            query["model"] = model
        return await self._chats.find(principal.tenant_id, query, limit=limit, after=after, newest_first=newest_first)

    async def rate(self, feedback: Feedback) -> Feedback:
        """Keep a rating, or return the one that is there."""
        return await self._feedback.add_once(feedback)

    async def change_rating(
        self, tenant_id: str, feedback_id: str, change: Callable[[Feedback], None], *, owner: str | None = None
    ) -> Feedback:
        """A rating, changed.

        Args:
            tenant_id: whose.
            feedback_id: which.
            change: what is done to it.
            owner: only if it is theirs.

        Raises:
            NotFound: there is none such.
        """
        theirs = {} if owner is None else {"owner": owner}
        if await self._feedback.find_one(tenant_id, {**theirs, "_id": feedback_id}) is None:
            raise no_feedback(feedback_id)
        return await self._feedback.update(tenant_id, feedback_id, change)

"""What people do with answers that were given: note things about them, have them forgotten, rate them."""

from __future__ import annotations

from typing import Literal

from chassis.auth import Principal
from chassis.idempotency import request_id_for
from chassis.ids import new_id, now
from inference_proxy.domain import Chat, Feedback
from inference_proxy.store import Chats


class LabelChat:
    """Replaces what its owner noted about a stored answer."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def run(self, principal: Principal, chat_id: str, metadata: dict[str, str]) -> Chat:
        """The answer with its new metadata.

        Raises:
            NotFound: there is none that the caller may see, or it was just deleted.
        """
        return await self._chats.change_stored(principal, chat_id, lambda chat: chat.label(metadata))


class ForgetChat:
    """Drops the content of a stored answer."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def run(self, principal: Principal, chat_id: str) -> None:
        """Drop what was said.

        Raises:
            NotFound: there is none that the caller may see, or it was just deleted.
        """
        await self._chats.change_stored(principal, chat_id, Chat.forget_content)


class Rating:
    """Takes ratings of answers, and gives them back."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def record(
        self,
        principal: Principal,
        chat_id: str,
        rating: Literal["up", "down"],
        *,
        correction: str | None,
        comment: str | None,
    ) -> Feedback:
        """Keep a rating.

        Raises:
            NotFound: this tenant got no such answer.
        """
        chat = await self._chats.get(principal, chat_id)
        feedback = Feedback(
            id=request_id_for("fb_", new_id("fb_")),
            tenant_id=principal.tenant_id,
            owner=principal.owner,
            created_at=now(),
            chat_id=chat_id,
            model=chat.model,
            rating=rating,
            correction=correction,
            comment=comment,
        )
        feedback.announce()
        return await self._chats.rate(feedback)

    async def take_back(self, principal: Principal, feedback_id: str) -> None:
        """Delete a rating: its giver their own, who manages the organization anybody's.

        Raises:
            NotFound: there is none that the caller may delete, or it was deleted before.
        """
        owner = None if principal.may("organization:write") else principal.owner
        await self._chats.change_rating(principal.tenant_id, feedback_id, Feedback.delete, owner=owner)

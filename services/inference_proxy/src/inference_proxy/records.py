"""The record of each answer: kept at once, or when the database is back. An answer never waits for its record."""

from __future__ import annotations

import asyncio
from collections import deque

import structlog
from prometheus_client import Counter, Gauge

from inference_proxy.domain import Chat
from inference_proxy.store import Chats
from stores.mongo import PyMongoError

log = structlog.get_logger()

WAITING = Gauge("chats_unrecorded", "Answers whose record waits for the database.")
LOST = Counter("chats_record_lost_total", "Answers given whose record, and with it their cost, was lost.")

SAVE_SECONDS = 5.0
RETRY_SECONDS = 2.0
MOST_WAITING = 5_000
MOST_CHARACTERS = 64_000_000
"""Of stored conversations that wait; the records of others hold no content."""


class Records:
    """Saves chats with their events.

    While the database is away nothing waits for it: the first answer finds out, those after it are noted in memory.

    Args:
        chats: where they are kept.
    """

    def __init__(self, chats: Chats) -> None:
        self._chats = chats
        self._waiting: deque[Chat] = deque()
        self._characters = 0
        self._away = False

    async def keep(self, chat: Chat) -> None:
        """Save a chat, now or later; never raises, as the answer it tells of has been given."""
        if not self._away and await self._saved(chat):
            return
        if len(self._waiting) >= MOST_WAITING or self._characters + _characters(chat) > MOST_CHARACTERS:
            self._lose(chat)
            return
        self._waiting.append(chat)
        self._characters += _characters(chat)
        WAITING.set(len(self._waiting))

    async def run(self) -> None:
        """Save what waits, until cancelled."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await self._save_waiting()

    async def stop(self) -> None:
        """Save what waits; what cannot be saved now is lost."""
        await self._save_waiting()
        while self._waiting:
            self._lose(self._next())

    async def _save_waiting(self) -> None:
        while self._waiting and await self._saved(self._waiting[0]):
            self._next()
            WAITING.set(len(self._waiting))

    def _next(self) -> Chat:
        chat = self._waiting.popleft()
        self._characters -= _characters(chat)
        return chat

    async def _saved(self, chat: Chat) -> bool:
        """Whether nothing is left to do about a chat."""
        try:
            announced = chat.model_copy()
            announced.take_pending()  # a list of its own: a save that fails takes the events with it
            announced.announce()
            async with asyncio.timeout(SAVE_SECONDS):
                await self._chats.add(announced)
        except (PyMongoError, TimeoutError) as error:
            log.warning("chat_not_recorded_yet", chat_id=chat.id, error=f"{type(error).__name__}: {error}")
            self._away = True
            return False
        except Exception as error:  # the boundary: what cannot be stored must not cost the answer
            log.error("chat_not_storable", exc_info=error)
            self._lose(chat)
        self._away = False
        return True

    def _lose(self, chat: Chat) -> None:
        LOST.inc()
        log.error("chat_record_lost", chat_id=chat.id, tokens=chat.prompt_tokens + chat.completion_tokens)


def _characters(chat: Chat) -> int:
    """About how much content a record holds."""
    return len(str(chat.messages)) + len(str(chat.answer)) if chat.stored else 0

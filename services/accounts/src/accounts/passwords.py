"""Argon2id in a thread, few at a time: one hash takes 64 MiB and a good part of a second."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

AT_A_TIME = 2


class Passwords:
    """Hashes and verifies passwords (RFC 9106, second recommended option)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._nobodys = self._hasher.hash("the password of nobody")

    async def hash(self, password: str) -> str:
        """The hash to store."""
        async with self._gate:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right; takes as long when there is no such person (`password_hash` None)."""
        async with self._gate:
            try:
                await asyncio.to_thread(self._hasher.verify, password_hash or self._nobodys, password)
            except VerifyMismatchError:
                return False
        return password_hash is not None

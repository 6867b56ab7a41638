"""Sends back what consumers gave up, once its cause is mended."""

from __future__ import annotations

from collections.abc import Sequence

from accounts.store import Accounts
from eventbus import DeadLetter, DeadLetters


class ReplayLetters:
    """Replays dead letters for the operator.

    Args:
        accounts: keeps the trail.
        letters: where they lie.
    """

    def __init__(self, accounts: Accounts, letters: DeadLetters) -> None:
        self._accounts = accounts
        self._letters = letters

    async def run(self, letters: Sequence[DeadLetter], actor: str) -> None:
        """Replay these, in order."""
        for letter in letters:
            await self._letters.replay(letter)
            await self._accounts.audit("", actor, "dead_letter.replay", letter.id, consumer=letter.consumer)

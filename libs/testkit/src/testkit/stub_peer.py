"""What stands where another service is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from pydantic import TypeAdapter

from chassis.peers import Peer

T = TypeVar("T")


class StubPeer(Peer, ABC):
    """Another service, played; a subclass says what it answers."""

    def __init__(self) -> None:
        """It is nowhere, and nobody signs what it is asked."""

    @abstractmethod
    async def get(self, path: str, *ids: str, **options: Any) -> Any:
        """The answer to a GET, as JSON."""

    async def read(self, shape: type[T], path: str, *ids: str, **options: Any) -> T:
        """As `Peer.read`: what `get` answers, refused where it is not of that shape."""
        return TypeAdapter(shape).validate_python(await self.get(path, *ids, **options))

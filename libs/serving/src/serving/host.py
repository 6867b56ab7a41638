"""What holds adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from schemas.artifacts import BaseModelSpec
from serving.attestation import Proof


class AdapterHost(Protocol):
    """An engine as far as its adapters go: our own, or one that an agent stands beside.

    Attributes:
        engine: whose HTTP API it answers by.
        capabilities: what it does beyond that; see `ReplicaReady`.
        base: its base model.
        proofs: of the adapters it serves, by id.
        used: when an adapter was last asked for, on the monotonic clock, as far as it knows.
        at_once: how many adapters it is best given at a time.
    """

    engine: str
    capabilities: tuple[str, ...]
    base: BaseModelSpec
    proofs: dict[str, Proof]
    used: dict[str, float]
    at_once: int

    async def attest(self) -> None:
        """Prove again that what answers is the base model. It must be cheap, as each look asks it.

        An engine that cannot echo also proves one of its adapters now and then; one that fails is let go of.

        Raises:
            BaseRefused: something else answers.
            Transient: it could not be tried.
        """

    @property
    def held(self) -> set[str]:
        """Ids of all adapters it has anything of, proven or not."""

    async def prepare(self, folders: Mapping[str, Path]) -> list[str]:
        """Make ready to load these verified adapters (id -> folder); returns those that can be loaded now.

        The turn of the others comes with a later call.
        """

    async def load(self, folder: Path) -> Proof:
        """Take the adapter in `folder`, prove it, and remember the proof under its id.

        Raises:
            AdapterRefused: it is not what it says, or was proven to be another one.
            Transient: it could not be tried; that says nothing about the adapter.
        """

    async def unload(self, adapter_id: str) -> None:
        """Let go of an adapter and its proof."""

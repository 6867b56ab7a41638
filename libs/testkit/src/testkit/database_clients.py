"""Closes database clients whose event loop is over: each keeps threads awake for as long as the process lives."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from pymongo import timeout

from stores import mongo

CLIENT = "AsyncIOMotorClient"
"""What `stores.mongo.connect` makes clients with."""

GOODBYE_SECONDS = 0.5
"""How long a client tells the database of its end; after the last test there is none any more."""


class DatabaseClients:
    """The plugin: remembers every client that is made, and looks after each test."""

    def __init__(self) -> None:
        self._made: list[Any] = []
        self._make = vars(mongo)[CLIENT]

    def pytest_sessionstart(self) -> None:
        """Remember clients from now on."""
        vars(mongo)[CLIENT] = self._remember

    def pytest_unconfigure(self) -> None:
        """Remember none any more."""
        vars(mongo)[CLIENT] = self._make

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Generator[None, Any, Any]:
        """Close those that nobody can use any more, once the fixtures are gone."""
        result = yield
        for client in [*self._made]:
            loop = vars(client)["_io_loop"]  # None where it was never used: it has no threads
            if loop is not None and loop.is_closed():
                with timeout(GOODBYE_SECONDS):
                    client.close()
                self._made.remove(client)
        return result

    def _remember(self, *args: Any, **options: Any) -> Any:
        self._made.append(self._make(*args, **options))
        return self._made[-1]

"""The one way in which what a route leads to is asked: one of its replicas, or another where that one is away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TypeVar

from inference_proxy.engines import Engine, EngineAway, EngineLate, ModelLoading, Target, WrongModel
from inference_proxy.routing import Route, RouteTable

T = TypeVar("T")


class Asking:
    """Asks engines by routes.

    Args:
        engines: by kind, what models answer by.
        routes: choose among a model's replicas.
    """

    def __init__(self, engines: Mapping[str, Engine], routes: RouteTable) -> None:
        self._engines = engines
        self._routes = routes

    async def of(
        self, route: Route, ask: Callable[[Engine, Target], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        """What one of a route's replicas tells; another, once, where that one is away or not the model asked.

        Only what nobody was told a word of is asked again, and not what took all its time.
        """
        target, begun = self._routes.pick(route), False
        try:
            async with aclosing(ask(self._engines[target.kind], target)) as told:
                async for one in told:
                    begun = True
                    yield one
            return
        except EngineLate:
            raise
        except ModelLoading:
            self._routes.missed(route)
            raise
        except (EngineAway, WrongModel):
            other = self._routes.instead(route, target)
            if begun or other is None:
                raise
        async with aclosing(ask(self._engines[other.kind], other)) as told:
            async for one in told:
                yield one

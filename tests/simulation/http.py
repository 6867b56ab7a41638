"""Where a simulated process has its HTTP application: its routes are called directly, as functions.

Middleware, authentication and JSON are not simulated; building them anew at every start would be most of a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

Route = Callable[..., Awaitable[Any]]


class Routes:
    """What route modules take for a router."""

    def __init__(self, *, prefix: str = "", **_: Any) -> None:
        self._prefix = prefix
        self.found: dict[str, Route] = {}

    def _keep(self, method: str, path: str, **_: Any) -> Callable[[Route], Route]:
        def keep(route: Route) -> Route:
            self.found[f"{method} {self._prefix}{path}"] = route
            return route

        return keep

    get = partialmethod(_keep, "GET")
    post = partialmethod(_keep, "POST")
    put = partialmethod(_keep, "PUT")
    delete = partialmethod(_keep, "DELETE")


class Application:
    """What the runtime takes for the FastAPI application that it makes."""

    def __init__(
        self,
        _service: str,
        *,
        routers: Sequence[Routes],
        lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
        **_: Any,
    ) -> None:
        self.state = SimpleNamespace(stopping=False)
        self._lifespan = lifespan
        self._routes = {name: route for router in routers for name, route in router.found.items()}

    def running(self) -> AbstractAsyncContextManager[None]:
        """Its life, from the start of what it is joined from to the end of that."""
        return self._lifespan(self)

    async def ask(self, route: str, **arguments: Any) -> Any:
        """What a route answers, before it is made JSON.

        Args:
            route: method and path, as the route module names them.
            arguments: of the route's function.
        """
        return await self._routes[route](**arguments)

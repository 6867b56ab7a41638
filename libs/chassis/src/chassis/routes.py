"""The routes of a service, each of which refuses a query parameter that it does not read."""

from __future__ import annotations

from enum import Enum

from fastapi import APIRouter, Depends

from chassis.bodies import known_query


class Router(APIRouter):
    """Routes that an application takes as they are.

    What they have in common stands here and not at the application: of a router that is included there FastAPI makes
    every route a second time, and looks twice for the one that a request is for.

    Args:
        prefix: of their paths.
        tags: under which the reference shows them.
        include_in_schema: whether it shows them.
    """

    def __init__(
        self, *, prefix: str = "", tags: list[str | Enum] | None = None, include_in_schema: bool = True
    ) -> None:
        super().__init__(
            prefix=prefix, tags=tags, include_in_schema=include_in_schema, dependencies=[Depends(known_query)]
        )

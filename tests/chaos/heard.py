"""Which failures clients heard of that no death of a process explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from localstack.scale import service_of
from schemas.services import PUBLIC

DYING_SECONDS = 2.0
"""From the signal until the kernel has closed what the process held, on a machine that is busy."""


class Death(Protocol):
    """A process that was killed: whose it was and when, by the monotonic clock."""

    @property
    def victim(self) -> str:
        """Name of the program."""

    @property
    def at(self) -> float:
        """When."""


def service_asked(operation: str) -> str:
    """The service that an operation such as `GET files/x` asks, or the console where it is no route."""
    path = f"/v1/{operation.partition(' ')[2].partition('?')[0]}"
    for service, prefixes in PUBLIC.items():
        if any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes):
            return service
    return "console"


def unexplained(lines: Iterable[Mapping[str, Any]], deaths: Iterable[Death]) -> list[str]:
    """Requests without an answer, or with one of 500 and above, that were not under way to a replica when it died.

    Of a GET no death is an excuse: another replica is asked.

    Args:
        lines: of a history; each end of an operation names its `key`, and its `status` where there was an answer.
        deaths: of the run.
    """
    deaths, asked = tuple(deaths), {}
    found = []
    for line in lines:
        at = line["monotonic"]
        if line["outcome"] == "invoke":
            asked[line["number"], line["key"]] = at
            continue
        status = line.get("status")
        if status is not None and status < 500:
            continue
        began, service = asked[line["number"], line["key"]], service_asked(line["op"])
        heard = f"{line['op']}: {'no answer' if status is None else status} of {service}"
        if line["op"].startswith("GET "):
            found.append(f"{heard}, of which another replica is to be asked")
        elif not any(service_of(one.victim) == service and began - DYING_SECONDS <= one.at <= at for one in deaths):
            found.append(f"{heard}, of which no replica died meanwhile")
    return found

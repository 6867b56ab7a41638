"""How many replicas of each service a local stack runs, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from localstack.home import LOCAL_SERVICES

ALONE = "model_server"
SCALED = tuple(name for name in LOCAL_SERVICES if name != ALONE)
MOST_REPLICAS = 8


class BadScale(ValueError):
    """A number of replicas that cannot be started. The message says which, and what may be said instead."""


def read_scale(text: str) -> dict[str, int]:
    """Replicas by service, of `trainer=2,rag-indexer=2`; what is not named runs once.

    Raises:
        BadScale: a service is unknown, named twice or runs once only, or a number is none from 1 to `MOST_REPLICAS`.
    """
    wanted: dict[str, int] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        given, _, number = (one.strip() for one in part.partition("="))
        service = given.replace("-", "_")
        if service == ALONE:
            raise BadScale(
                f"'{part}': model-server runs once in a local stack, as adapters are placed on one server; "
                "leave it out. `--base` adds one for another base model. docs/production.md says how more of them run "
                "in production."
            )
        if service not in SCALED:
            known = ", ".join(name.replace("_", "-") for name in SCALED)
            raise BadScale(f"'{part}': no service is called '{given}'; there are: {known}.")
        if service in wanted:
            raise BadScale(f"'{part}': {given} is named twice.")
        if not re.fullmatch(r"[0-9]{1,3}", number) or not 1 <= int(number) <= MOST_REPLICAS:
            raise BadScale(f"'{part}': say how many as a number from 1 to {MOST_REPLICAS}, for example {given}=2.")
        wanted[service] = int(number)
    return {service: number for service, number in wanted.items() if number > 1}


def base_servers(more_bases: Sequence[str]) -> dict[str, str]:
    """The model servers of further base models, by their names as programs; the first serves the usual base."""
    return {f"{ALONE}-{number}": base for number, base in enumerate(more_bases, 2)}


def replicas(service: str, scale: Mapping[str, int]) -> list[str]:
    """Names of a service's replicas, as programs and logs: the first is called as the service."""
    return [service, *(f"{service}-{number}" for number in range(2, scale.get(service, 1) + 1))]


def service_of(program: str) -> str:
    """The service a replica is of; of another program its own name."""
    return re.sub(r"-[0-9]+$", "", program)


def balanced(service: str) -> str:
    """Name of the address that stands for all replicas of a service."""
    return f"{service}-all"

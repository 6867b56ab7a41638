"""Renews one lease from its own process, so that a busy worker cannot starve it, and ends the work when it is lost.

Run by `Heartbeat`; `python -m stores.heartbeat` reads its orders as JSON from standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from functools import partial

from chassis.children import die_with_parent
from chassis.settings import ServiceSettings
from stores.leases import Leases, keep_renewed
from stores.mongo import PyMongoError, connect


@dataclass(frozen=True)
class Orders:
    """Which lease to renew, how often, the process group to end when it is lost, and who gave the orders."""

    parent: int
    mongo_url: str
    mongo_database_prefix: str
    service: str
    collection: str
    document_id: str
    fence: int
    lease_seconds: float
    group: int


class Heartbeat:
    """The heartbeat process of one claimed job, as an async context manager.

    Args:
        settings: where MongoDB is.
        service: whose database.
        collection: name of the collection the job lies in.
        document_id: the job.
        fence: of the claim.
        lease_seconds: length of the lease; renewed at a quarter of that.
        group: process group killed when the lease is lost.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        service: str,
        collection: str,
        document_id: str,
        fence: int,
        lease_seconds: float,
        group: int,
    ) -> None:
        self._orders = Orders(
            parent=os.getpid(),
            mongo_url=settings.mongo_url.get_secret_value(),
            mongo_database_prefix=settings.mongo_database_prefix,
            service=service,
            collection=collection,
            document_id=document_id,
            fence=fence,
            lease_seconds=lease_seconds,
            group=group,
        )
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Heartbeat:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "stores.heartbeat", stdin=asyncio.subprocess.PIPE
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(self._orders)).encode())
        await self._process.stdin.drain()
        self._process.stdin.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


async def beat(orders: Orders) -> None:
    """Renew until the lease is lost or cannot be renewed in time, then kill the job's process group."""
    settings = ServiceSettings(
        mongo_url=orders.mongo_url,  # type: ignore[arg-type]
        mongo_database_prefix=orders.mongo_database_prefix,
    )
    leases = Leases(connect(settings, orders.service)[orders.collection])

    def away(error: PyMongoError) -> None:
        print(f"heartbeat of {orders.document_id}: {type(error).__name__}", file=sys.stderr)

    renew = partial(leases.renew, orders.document_id, orders.fence, orders.lease_seconds)
    await keep_renewed(renew, orders.lease_seconds, away)
    os.killpg(orders.group, signal.SIGKILL)


def main() -> None:
    """Read the orders and beat."""
    orders = Orders(**json.load(sys.stdin))
    die_with_parent(orders.parent)
    try:
        asyncio.run(beat(orders))
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main()

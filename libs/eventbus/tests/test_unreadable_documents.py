"""A document that is no aggregate any more holds up no other, is never lost, and is told to the operator."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from chassis.settings import ServiceSettings
from eventbus import Aggregate, AggregateStore
from eventbus.aggregates.repository import UNREADABLE
from stores.mongo import connect
from testkit import Space

ODD: dict[str, dict[str, Any]] = {
    "another type": {"$set": {"size": "seven"}},
    "no tenant": {"$set": {"tenant_id": None}},
    "a field less": {"$unset": {"size": ""}},
}


class Parcel(Aggregate):
    """A small aggregate to test with."""

    created_at: int
    size: int


@pytest.fixture
def parcels(space: Space) -> AggregateStore[Parcel]:
    database = connect(space.settings(ServiceSettings, "ingest"), "ingest")
    return AggregateStore(database["parcels"], Parcel, "ingest", lambda: None)


def passed_over() -> float:
    return float(UNREADABLE.labels("parcels")._value.get())


async def fill(parcels: AggregateStore[Parcel], change: dict[str, Any]) -> None:
    """Three parcels, of which the oldest is odd."""
    for number in range(3):
        await parcels.add(Parcel(id=f"p-{number}", tenant_id="tenant_a", created_at=number, size=1))
    await parcels.collection.update_one({"_id": "p-0"}, change)


@pytest.mark.parametrize("odd", ODD)
async def test_what_looks_at_all_tenants_looks_at_the_others(parcels: AggregateStore[Parcel], odd: str) -> None:
    await fill(parcels, ODD[odd])
    before = passed_over()
    assert {parcel.id async for parcel in parcels.readable({})} == {"p-1", "p-2"}
    assert passed_over() == before + 1
    with pytest.raises(ValidationError):  # a list of which nothing may be missing
        _ = [parcel async for parcel in parcels.for_service({})]


@pytest.mark.parametrize("odd", ODD)
async def test_a_worker_gets_the_others_and_finds_it_again_once_it_is_mended(
    parcels: AggregateStore[Parcel], odd: str
) -> None:
    await fill(parcels, ODD[odd])

    async def claimed() -> set[str]:
        found = set[str]()
        while parcel := await parcels.claim({}, "worker", 60):
            found.add(parcel.id)
        return found

    before = passed_over()
    assert await claimed() == {"p-1", "p-2"}
    assert passed_over() == before + 1, "it is put off, not tried again at once"
    mended = {"tenant_id": "tenant_a", "size": 1, "lease.until_ms": 0}
    await parcels.collection.update_one({"_id": "p-0"}, {"$set": mended})
    assert await claimed() == {"p-0"}

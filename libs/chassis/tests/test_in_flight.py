"""What is under way at the same time is limited: in all, and of each tenant."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from chassis.errors import RateLimited
from chassis.in_flight import InFlight


def in_flight(most: int, most_each: int, for_newcomers: int = 0) -> InFlight:
    return InFlight("uploads", most=most, most_each=most_each, retry_after=5, for_newcomers=for_newcomers)


def test_one_tenant_cannot_take_every_place() -> None:
    places = in_flight(3, 2)
    with places.entered("a"), places.entered("a"):
        with pytest.raises(RateLimited, match="2 of your uploads") as refused, places.entered("a"):
            pass
        assert refused.value.retry_after == 5
        with places.entered("b"), pytest.raises(RateLimited, match="Too many uploads"), places.entered("c"):
            pass
        assert places.tenants == ["a"]
    assert places.tenants == []
    with places.entered("a"):
        pass


def test_one_takes_as_many_places_as_it_needs() -> None:
    places = in_flight(4, 3)
    assert places.most_at_once == 3
    with places.entered("a", 2):
        with pytest.raises(RateLimited), places.entered("a", 2):
            pass
        with pytest.raises(RateLimited), places.entered("b", 3):
            pass
        with places.entered("b", 2):
            pass
    with places.entered("a", 3):
        pass


def test_four_tenants_who_take_all_they_can_leave_places_for_others() -> None:
    places = in_flight(16, 4, for_newcomers=8)
    with ExitStack() as held:
        taken = dict.fromkeys("abcd", 0)
        for _ in range(10):
            for tenant in taken:
                try:
                    held.enter_context(places.entered(tenant))
                except RateLimited:
                    continue
                taken[tenant] += 1
        assert set(taken.values()) == {2}
        for tenant in "efghijkl":
            held.enter_context(places.entered(tenant))
        with pytest.raises(RateLimited):
            held.enter_context(places.entered("m"))
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(places.entered("a"))
        with pytest.raises(RateLimited, match="4 of your uploads"):
            held.enter_context(places.entered("a"))

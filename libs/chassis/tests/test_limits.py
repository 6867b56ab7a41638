"""Requests and tokens a minute."""

from __future__ import annotations

import time

import pytest

from chassis import limits
from chassis.errors import RateLimited
from chassis.limits import Allowance, Limiter


def requests(of: str, each_minute: int) -> Allowance:
    return Allowance(of, each_minute, 1)


def admitted(limiter: Limiter, *allowances: Allowance) -> int:
    """How many requests pass at once."""
    for count in range(1000):
        try:
            limiter.admit(allowances)
        except RateLimited:
            return count
    return 1000


def test_a_limit_is_counted_by_name_and_says_when_to_come_back() -> None:
    limiter = Limiter("requests")
    assert admitted(limiter, requests("one", 2)) == 2
    with pytest.raises(RateLimited) as caught:
        limiter.admit([requests("one", 2)])
    assert caught.value.retry_after == pytest.approx(30, abs=1)
    assert admitted(limiter, requests("other", 3)) == 3
    headers = limiter.headers([requests("one", 2)])
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"


def test_keys_share_what_their_tenant_has() -> None:
    limiter, tenant = Limiter("requests"), requests("tenant", 5)
    assert admitted(limiter, requests("one", 3), tenant) == 3
    assert admitted(limiter, requests("two", 1000), tenant) == 2
    assert admitted(limiter, requests("three", 1000), tenant) == 0
    assert admitted(limiter, requests("elsewhere", 1000), requests("other tenant", 5)) == 5


def test_who_is_refused_takes_nothing_of_the_others() -> None:
    limiter, tenant = Limiter("requests"), requests("tenant", 5)
    assert admitted(limiter, requests("one", 1), tenant) == 1
    for _ in range(10):
        with pytest.raises(RateLimited):
            limiter.admit([requests("one", 1), tenant])
    assert admitted(limiter, requests("two", 10), tenant) == 4


def test_the_headers_tell_of_the_limit_that_ends_first() -> None:
    limiter, both = Limiter("requests"), [requests("one", 10), requests("tenant", 4)]
    limiter.admit(both)
    assert limiter.headers(both)["x-ratelimit-remaining-requests"] == "3"
    assert limiter.headers([]) == {}


def test_a_changed_limit_holds_at_once() -> None:
    limiter = Limiter("requests")
    limiter.admit([requests("tenant", 1000)])
    assert admitted(limiter, requests("tenant", 3)) == 3


def test_what_was_used_comes_back_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, at = Limiter("tokens"), time.monotonic()
    one = [Allowance("one", 1, 60)]
    limiter.charge(one, 60 + 5)
    for later, there in ((4.0, False), (5.0, False), (6.1, True)):
        monkeypatch.setattr(limits.time, "monotonic", lambda later=later: at + later + 0.1)
        if there:
            limiter.admit(one, 0)
        else:
            with pytest.raises(RateLimited):
                limiter.admit(one, 0)


def test_a_crowd_of_names_does_not_fill_the_memory_nor_renew_who_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUCKETS", 10)
    limiter = Limiter("requests")
    assert admitted(limiter, requests("busy", 2)) == 2
    for number in range(100):
        limiter.admit([requests(f"key {number}", 1)])
        assert admitted(limiter, requests("busy", 2)) == 0
    assert len(limiter._buckets) == 10


def test_what_is_used_is_told_once_and_what_is_left_over_all_replicas_is_learnt() -> None:
    limiter, tenant = Limiter("requests"), requests("tenant", 5)
    limiter.admit([tenant])
    limiter.charge([tenant, requests("key", 9)], 2)
    limiter.admit([requests("nobody", 1)], 0)
    assert limiter.take_untold() == {"tenant": (5, 3), "key": (9, 2)}
    assert limiter.take_untold() == {}
    limiter.admit([tenant])
    limiter.learn({"tenant": 1.5, "stranger": 3})
    assert limiter.headers([tenant])["x-ratelimit-remaining-requests"] == "0"  # one more was used meanwhile

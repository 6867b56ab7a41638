"""On whose account a request is answered: what it may name, what it counts against, and what is kept of it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Protocol

from prometheus_client import Counter

from chassis.auth import OF_SERVICE, Principal
from chassis.errors import Forbidden, Invalid
from chassis.in_flight import InFlight
from inference_proxy.answers import Answer
from inference_proxy.domain import Chat, KeptAnswer
from inference_proxy.limits import Spending
from inference_proxy.records import Records
from inference_proxy.routing import Route, RouteTable

EVALUATION_TOKENS = Counter(
    "evaluation_tokens_total", "Tokens read and written to test candidates; no tenant's limits count them.", ["kind"]
)


class Admission(Protocol):
    """An account on which requests are answered; everything after it is the same for all."""

    def admit(self, principal: Principal, requests: int) -> None:
        """Count the requests, before any work is spent.

        Raises:
            RateLimited: there are too many.
            Forbidden: the caller has no such account.
        """
        ...

    async def route(self, principal: Principal, model: str) -> Route:
        """Who answers for a model that may be named.

        Raises:
            NotFound: none of that name may be.
            ModelLoading: no replica holds it at the moment.
        """
        ...

    def entered(self, principal: Principal, places: int = 1) -> AbstractContextManager[None]:
        """Have places while the context lasts.

        Raises:
            Invalid: that many are never free.
            RateLimited: they are taken.
        """
        ...

    async def settle(self, answer: Answer, *, cancelled: bool) -> None:
        """Charge what an answer took, however it ended, and keep its record."""
        ...


class TenantAdmission:
    """What a tenant's people and keys ask, and pay for.

    Args:
        routes: who answers for a model in production.
        spending: their requests and tokens a minute.
        places: for answers at the same time.
        records: where answers are recorded.
    """

    def __init__(self, routes: RouteTable, spending: Spending, places: InFlight, records: Records) -> None:
        self._routes = routes
        self._spending = spending
        self._places = places
        self._records = records

    def admit(self, principal: Principal, requests: int) -> None:
        """Take the requests from what the caller has; see `Admission`."""
        self._spending.admit(principal, requests)

    async def route(self, principal: Principal, model: str) -> Route:
        """Who answers for a base model, or for a model in production that the caller may see; see `Admission`."""
        return await self._routes.find(principal, model)

    def entered(self, principal: Principal, places: int = 1) -> AbstractContextManager[None]:
        """Have places among the tenant's; see `Admission`."""
        return _entered(self._places, principal, places)

    async def settle(self, answer: Answer, *, cancelled: bool) -> None:
        """Charge the tokens and keep the record, with the content only where that was asked for."""
        used = answer.usage
        self._spending.charge(answer.principal, used["total_tokens"])
        if not used["total_tokens"]:
            return
        kept, choices = answer.asked.kept, answer.choices
        answers = [KeptAnswer(content=one.text, finish_reason=one.finish_reason) for one in choices if kept]
        chat = Chat(
            id=answer.id,
            tenant_id=answer.principal.tenant_id,
            owner=answer.principal.owner,
            created_at=answer.created,
            model=answer.asked.model,
            adapter_id=answer.route.adapter_id,
            handed_over=answer.handed_over.by if answer.handed_over else None,
            key_id=answer.principal.key_id,
            prompt_tokens=used["prompt_tokens"],
            completion_tokens=used["completion_tokens"],
            latency_ms=round((time.monotonic() - answer.began) * 1000),
            finish_reason="cancelled" if cancelled else choices[0].finish_reason,
            cost=answer.cost,
            retrieved=[source["file_id"] for source in answer.retrieved],
            stored=kept is not None,
            metadata=kept.metadata if kept else {},
            messages=kept.messages if kept else [],
            answer=answers[0] if answers else None,
            further_answers=answers[1:],
        )
        await self._records.keep(chat)


class EvaluationAdmission:
    """What a service asks to test a candidate: nobody's chat, and none of the tenant's limits.

    Args:
        routes: who answers for a model version, also one that is not in production.
        places: for answers at the same time; apart from those of people.
    """

    def __init__(self, routes: RouteTable, places: InFlight) -> None:
        self._routes = routes
        self._places = places

    def admit(self, principal: Principal, requests: int) -> None:  # noqa: ARG002 - as every account's
        """Let services through that act for themselves; one that acts for somebody is answered as they are."""
        if principal.user_id is not None or principal.key_id != f"{OF_SERVICE}{principal.caller}":
            raise Forbidden("Candidates are for services that test them.")

    async def route(self, principal: Principal, model: str) -> Route:
        """Who answers for a base model or a version of one of the tenant's models; see `Admission`."""
        return await self._routes.version(principal, model)

    def entered(self, principal: Principal, places: int = 1) -> AbstractContextManager[None]:
        """Have places among those for tests; see `Admission`."""
        return _entered(self._places, principal, places)

    async def settle(self, answer: Answer, *, cancelled: bool) -> None:  # noqa: ARG002 - as every account's
        """Count the tokens; the answer carries them and its cost to whoever pays for the test."""
        used = answer.usage
        EVALUATION_TOKENS.labels("prompt").inc(used["prompt_tokens"])
        EVALUATION_TOKENS.labels("completion").inc(used["completion_tokens"])


def _entered(free: InFlight, principal: Principal, places: int) -> AbstractContextManager[None]:
    if places > free.most_at_once:
        raise Invalid(f"n: at most {free.most_at_once} answers in a request.", param="n")
    return free.entered(principal.tenant_id, places)

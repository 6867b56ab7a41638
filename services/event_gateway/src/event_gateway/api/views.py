"""How webhook endpoints, deliveries and receipts are shown."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from event_gateway.domain import Delivery, Endpoint, Received


class Counts(BaseModel):
    """Deliveries to an endpoint that are not over."""

    waiting: int
    parked: int


class EndpointView(BaseModel):
    """An endpoint: never its secret."""

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    skipped: int
    signing_secret_hint: str
    off: str | None

    @classmethod
    def of(cls, endpoint: Endpoint) -> EndpointView:
        """An endpoint as shown."""
        shared = set(EndpointView.model_fields) & set(Endpoint.model_fields) - {"off"}
        return cls(**endpoint.model_dump(include=shared), signing_secret_hint=endpoint.hint, off=endpoint.off or None)


class EndpointWithCounts(EndpointView):
    """An endpoint with what waits for it."""

    deliveries: Counts


class EndpointWithSecret(EndpointView):
    """An endpoint with its secret, which is shown only now."""

    signing_secret: str


class EndpointDeleted(BaseModel):
    """An endpoint that was deleted."""

    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    id: str
    deleted: bool = True


class Tried(BaseModel):
    """How an endpoint answered to a sample."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool = True


class TypeList(BaseModel):
    """Types of event."""

    object: Literal["list"] = "list"
    data: list[str]


class DeliveryView(BaseModel):
    """A delivery."""

    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    id: str
    created_at: int
    event_id: str
    event_type: str
    state: Literal["waiting", "delivered", "parked"]
    attempts: int
    tried_at: int | None
    status: int | None
    replays: int
    problem: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryView:
        """A delivery as shown."""
        shared = set(cls.model_fields) & set(Delivery.model_fields) - {"problem"}
        return cls(**delivery.model_dump(include=shared), problem=delivery.problem or None)


class Receipt(BaseModel):
    """An event that came in, as its sender is told: the same whenever it is sent again."""

    object: Literal["event.receipt"] = "event.receipt"
    id: str
    source: str
    type: str
    time: str | None
    subject: str | None
    accepted_at: int

    @classmethod
    def of(cls, received: Received) -> Receipt:
        """What its sender is told."""
        shared = set(cls.model_fields) & set(Received.model_fields) - {"id"}
        return cls(**received.model_dump(include=shared), id=received.event_id, accepted_at=received.created_at)


class Receipts(BaseModel):
    """Events that came in together."""

    object: Literal["list"] = "list"
    data: list[Receipt]

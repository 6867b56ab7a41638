"""The event gateway's settings."""

from __future__ import annotations

from pydantic import Field

from chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the event gateway reads from the environment besides the settings every service has."""

    events_kept_seconds: int = Field(
        7 * 86_400, ge=60, description="How long events can be read, and how long a repeated one is known."
    )
    events_kept_per_tenant: int = Field(10_000, ge=10, description="Most events of a tenant that can be read.")
    events_refused_per_tenant: int = Field(1000, ge=10, description="Most refused events of a tenant that are kept.")
    event_streams: int = Field(500, ge=1, description="Open streams of events of this replica.")
    event_streams_per_tenant: int = Field(20, ge=1, description="Open streams of one tenant of this replica.")
    webhooks_to_inside: bool = Field(
        False,
        description="Whether webhooks may go to loopback, private and other inside addresses, and over plain HTTP.",
    )
    webhooks_per_tenant: int = Field(20, ge=1, description="Most webhook endpoints of a tenant.")
    webhook_seconds: float = Field(10.0, gt=0, description="How long one delivery may take.")
    webhook_attempts: int = Field(8, ge=1, description="Attempts at a delivery before it is parked.")
    webhook_first_pause: float = Field(
        5.0, gt=0, description="Seconds before the second attempt; four times as long before each further one."
    )
    webhook_longest_pause: float = Field(6 * 3600.0, gt=0, description="Longest pause between two attempts.")
    webhook_waiting: int = Field(
        1000,
        ge=10,
        description="Most deliveries to one endpoint that wait; events beyond are not sent to it, and counted.",
    )
    webhook_deliveries_at_a_time: int = Field(8, ge=1, description="Deliveries under way in this replica.")
    webhook_deliveries_per_tenant: int = Field(4, ge=1, description="Of these, most of one tenant.")
    webhook_deliveries_each: int = Field(2, ge=1, description="Of these, most to one endpoint.")

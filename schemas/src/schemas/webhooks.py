"""Signatures of webhooks, by Standard Webhooks 1.0: whoever receives one checks that it is ours, and fresh.

The `openai` SDK checks the same by `client.webhooks.unwrap`. Source: https://www.standardwebhooks.com
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from pydantic import JsonValue

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
TOLERANCE_SECONDS = 300
"""How far a webhook's time may be from now; an older one is sent again by somebody else."""

OPENAI_NAMES = {
    "finetune.succeeded.v1": "fine_tuning.job.succeeded",
    "finetune.failed.v1": "fine_tuning.job.failed",
    "finetune.cancelled.v1": "fine_tuning.job.cancelled",
}
"""Names by which webhooks tell of events that OpenAI's API has too; others keep their own."""


class WebhookRefused(ValueError):
    """Not sent by whoever has the secret, or too old."""


def signed_headers(secret: str, webhook_id: str, timestamp: int, body: bytes, *further: str) -> dict[str, str]:
    """The headers that a delivery carries.

    Args:
        secret: `whsec_` and base64.
        webhook_id: the same for each attempt at one delivery.
        timestamp: unix seconds of this attempt.
        body: as it is sent.
        further: secrets that are valid beside it, for a while after it was changed.
    """
    signatures = [_signature(one, webhook_id, str(timestamp), body) for one in (secret, *further)]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }


def verified(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> dict[str, JsonValue]:
    """The event in a webhook, once its signature is proved.

    Args:
        secret: as shown when the endpoint was made.
        headers: of the request, by names in small letters.
        body: its bytes as they came.
        now: unix seconds.

    Raises:
        WebhookRefused: a header is missing, the signature is another, or its time is over `TOLERANCE_SECONDS` off.
    """
    try:
        webhook_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        given = headers["webhook-signature"].split()
        late = abs(now - int(timestamp))
    except (KeyError, ValueError) as error:
        raise WebhookRefused(f"A webhook needs the header {error}.") from error
    if late > TOLERANCE_SECONDS:
        raise WebhookRefused(f"The webhook's time is {late:.0f} s off.")
    expected = f"v1,{_signature(secret, webhook_id, timestamp, body)}"
    if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
        raise WebhookRefused("The webhook's signature is not one by this secret.")
    event: dict[str, JsonValue] = json.loads(body)
    return event


def _signature(secret: str, webhook_id: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

"""Which events a tenant's people may read, and which of their fields, none of which holds content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chassis.auth import Principal
from chassis.errors import Forbidden, Invalid
from chassis.roles import ROLES, covers
from chassis.text import quoted
from schemas import Envelope, Event

CloudEvent = Mapping[str, Any]
"""An event as it is shown, in CloudEvents' JSON form."""


@dataclass(frozen=True)
class Seen:
    """What may be seen of one type.

    Attributes:
        scope: what one's role must be allowed to do.
        fields: of the payload.
    """

    scope: str
    fields: tuple[str, ...]


VISIBLE: dict[str, Seen] = {
    "file.uploaded.v1": Seen("files:read", ("file_id", "purpose")),
    "file.deleted.v1": Seen("files:read", ("file_id",)),
    "dataset.prepared.v1": Seen(
        "files:read", ("dataset_id", "file_id", "project_id", "purpose", "task", "rows", "labels")
    ),
    "dataset.rejected.v1": Seen("files:read", ("file_id", "purpose", "code", "line")),
    "dataset.deleted.v1": Seen("files:read", ("dataset_id", "file_id")),
    "document.indexed.v1": Seen("retrieval:read", ("file_id", "vector_store_id", "chunks")),
    "labeling.requested.v1": Seen("labeling:read", ("file_id", "rows")),
    "labels.published.v1": Seen("labeling:read", ("project_id", "publication", "file_id", "rows")),
    "labels.deleted.v1": Seen("labeling:read", ("project_id", "file_id")),
    "finetune.requested.v1": Seen("fine_tuning:read", ("job_id", "base_model", "training_file", "validation_file")),
    "finetune.started.v1": Seen("fine_tuning:read", ("job_id",)),
    "finetune.succeeded.v1": Seen("fine_tuning:read", ("job_id", "model_id")),
    "finetune.failed.v1": Seen("fine_tuning:read", ("job_id", "code")),
    "finetune.cancelled.v1": Seen("fine_tuning:read", ("job_id",)),
    "model.registered.v1": Seen(
        "models:read", ("model_id", "name", "arm", "generates", "job_id", "base_model", "adapter_id", "task")
    ),
    "model.waiting.v1": Seen("models:read", ("model_id", "arm", "job_id", "waiting_for", "revision", "evaluation_id")),
    "model.promoted.v1": Seen(
        "models:read", ("model_id", "name", "arm", "job_id", "base_model", "adapter_id", "decided_by")
    ),
    "model.rejected.v1": Seen(
        "models:read", ("model_id", "arm", "job_id", "adapter_id", "evaluation_id", "code", "withdrawn")
    ),
    "model.pinned.v1": Seen(
        "models:read", ("model_id", "name", "arm", "job_id", "decided_by", "revision", "hand_over_below")
    ),
    "model.unpinned.v1": Seen("models:read", ("model_id", "name", "arm", "job_id", "decided_by", "revision")),
    "model.downloaded.v1": Seen("models:read", ("model_id", "job_id", "adapter_id", "downloaded_by")),
    "model.retired.v1": Seen("models:read", ("model_id", "arm", "job_id", "adapter_id")),
    "model.deleted.v1": Seen("models:read", ("model_id", "name", "arm", "job_id", "adapter_id")),
    "evaluation.completed.v1": Seen(
        "evals:read",
        (
            *("evaluation_id", "model_id", "verdict", "metric", "scores", "usage"),
            *("beaten_by", "below_base", "cascade", "earlier_verdicts"),
        ),
    ),
    "feedback.recorded.v1": Seen(
        "labeling:read", ("feedback_id", "chat_id", "model", "rating", "has_correction", "producer")
    ),
    "feedback.deleted.v1": Seen("labeling:read", ("feedback_id",)),
    "drift.detected.v1": Seen("models:read", ("drift_id", "model", "metric", "value", "threshold", "producer")),
    "key.revoked.v1": Seen("organization:read", ("key_id",)),
    "key.rotated.v1": Seen("organization:read", ("key_id", "ends_at")),
}
"""By type. What is not named is for Sartor's services alone: addresses of objects, replicas, each answer given."""


def readable_types(principal: Principal, asked: Iterable[str] = ()) -> list[str]:
    """The types that somebody reads: all that their key's role and its owner's of today may, or those asked for.

    Raises:
        Invalid: there is no such type to be read.
        Forbidden: the role may not read it.
    """
    role = ROLES.get(principal.role, frozenset())
    today = ROLES.get(principal.owner_role or principal.role, frozenset())
    own = {name for name, seen in VISIBLE.items() if covers(role, seen.scope) and covers(today, seen.scope)}
    wanted = set(asked)
    for name in sorted(wanted - own):
        if name in VISIBLE:
            raise Forbidden(f"types: role '{principal.role}' may not read {name}.", param="types")
        raise Invalid(f"types: {quoted(name)} is none of {', '.join(sorted(own))}.", param="types")
    return sorted(wanted or own)


def cloudevent_of(envelope: Envelope, event: Event) -> CloudEvent:
    """An event as it is shown, in CloudEvents' JSON form."""
    payload = event.model_dump(mode="json", include=set(VISIBLE[event.type].fields))
    attributes = {
        "specversion": envelope.specversion,
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "time": envelope.time.isoformat(),
        "subject": envelope.subject,
        "tenantid": envelope.tenantid,
        "causationid": envelope.causationid,
        "datacontenttype": "application/json",
    }
    return {**{name: value for name, value in attributes.items() if value}, "data": payload}

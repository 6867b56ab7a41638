"""Names of models, and the ids of the versions that may serve under one."""

from __future__ import annotations

import re
from typing import get_args

from chassis.ids import derived_id
from schemas.artifacts import ArmKind

# What may not stand in the suffix of a model's name: ':' separates its parts, '/' would split the path of its address.
NOT_IN_SUFFIX = re.compile(r"[^\w.-]+")

ARMS: tuple[ArmKind, ...] = get_args(ArmKind)


def model_name(base_model: str, organization: str, suffix: str, job_id: str) -> str:
    """The name of a job's model: `ft:{base}:{organization}:{suffix}:{8 hex digits that follow from the job}`.

    Characters of the suffix that have a meaning in names or addresses become `-`; it is cut at 64 characters.
    """
    short = derived_id("", job_id)[:8]
    return f"ft:{base_model}:{organization}:{NOT_IN_SUFFIX.sub('-', suffix)[:64]}:{short}"


def version_id(name: str, arm: ArmKind) -> str:
    """Id of the version that serves a name as an arm; an adapter's is the name."""
    return f"{name}@{arm}"


def is_version_id(model_id: str) -> bool:
    """Whether this is the id of an arm's version, which is nobody's name."""
    return name_of(model_id) != model_id


def name_of(model_id: str) -> str:
    """The name that a version of this id serves under."""
    name, _, kind = model_id.rpartition("@")
    return name if kind in ARMS and name else model_id


def versions_of(name: str) -> list[str]:
    """Ids of all versions that a name can have: the adapter's first."""
    return [name, *(version_id(name, kind) for kind in ARMS)]

"""A pin: a person chooses the version by which a name answers, whatever tests say."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import TypedDict

from chassis.errors import Invalid, WriteRefused
from registry.domain.model import Model
from registry.domain.parts import Decision, Pin
from schemas import ModelPinned, ModelUnpinned
from schemas.artifacts import ArmKind


class Unsaid(Enum):
    """What a person said nothing of."""

    BOUND = auto()


Bound = float | None | Unsaid
"""The confidence below which an arm hands over; None: it does not; unsaid: as it is pinned already."""


class PinFacts(TypedDict):
    """What is said of every pin and of every end of one; see `ModelPinned`."""

    tenant_id: str
    model_id: str
    job_id: str
    name: str
    decided_by: str
    revision: int
    arm: ArmKind | None


def is_pinned(model: Model) -> bool:
    """Whether a person pinned it; that means nothing any more once it is out of production."""
    return model.pin.since is not None and model.state == "production"


def pins_of(versions: Iterable[Model]) -> list[Model]:
    """Those of a name's versions that are pinned; the last of them counts, and the others are about to be none."""
    return sorted(filter(is_pinned, versions), key=_order)


def hands_over_below(model: Model) -> float | None:
    """The confidence below which a pinned arm leaves the answer to the next; None where it answers whatever."""
    return model.pin.hand_over_below if is_pinned(model) else None


def decisions_of(model: Model) -> list[Decision]:
    """What was decided about it, in its order; of its pins, and the ends of these, the last."""
    about_pin = [model.pin.decision] if model.pin.decision else []
    return sorted([*model.decisions, *about_pin], key=_at)


def pin(model: Model, former: Model | None, by: str, note: str, at: int, hand_over_below: float | None = None) -> None:
    """A person has the version's name answer by it, whatever tests say.

    Args:
        model: the version.
        former: the one that was pinned before, whose place it takes; itself where it hands over by another bound now.
        by: who says so.
        note: why.
        at: now, in Unix seconds.
        hand_over_below: see `Pin`.

    Raises:
        WriteRefused: it is not in production.
        Invalid: it shall hand over, and does not tell how sure it is.
    """
    if hand_over_below is not None and (model.arm is None or model.generates):
        what = "an arm by which the base model answers" if model.generates else "an adapter"
        raise Invalid(
            f"hand_over_below: {model.id} is {what}, which does not say how sure it is. Only another arm hands over: "
            f"pin one of GET /v1/registry/models?name={model.name}, or leave it out.",
            param="hand_over_below",
        )
    if model.state != "production":
        raise WriteRefused(
            f"Model {model.id} cannot be pinned: it is {model.state}. Only a version in production can be; see "
            f"GET /v1/registry/models?name={model.name}&state=production.",
            code="wrong_state",
        )
    since = max(at, (former.pin.since or 0) + 1) if former else at
    decision = Decision(outcome="pin", by=by, at=at, note=note)
    model.pin = Pin(since=since, changes=model.pin.changes + 1, decision=decision, hand_over_below=hand_over_below)
    model.record(ModelPinned(**_facts(model, by), hand_over_below=hand_over_below))


def unpin(model: Model, ended: Pin, by: str, note: str, at: int) -> None:
    """The version is no longer pinned; nothing happens where that pin is over, though another may have followed it."""
    if model.pin != ended or not is_pinned(model):
        return
    model.pin = Pin(changes=ended.changes + 1, decision=Decision(outcome="unpin", by=by, at=at, note=note))
    model.record(ModelUnpinned(**_facts(model, by)))


def _facts(model: Model, by: str) -> PinFacts:
    return {
        "tenant_id": model.tenant_id,
        "model_id": model.id,
        "job_id": model.job_id,
        "name": model.name,
        "decided_by": by,
        "revision": model.pin.changes,
        "arm": model.arm_kind,
    }


def _order(model: Model) -> tuple[int, str]:
    return model.pin.since or 0, model.id


def _at(decision: Decision) -> int:
    return decision.at

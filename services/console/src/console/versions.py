"""The versions of a model beside each other: what each is, whether it answers, its worth on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from console.answering import HOW, TITLES, kind_of
from console.answers import VersionAnswer
from schemas import Interval, Usage
from schemas.artifacts import Cascade

OVER = ("rejected", "retired")
"""States of a version that comes into no use any more."""

LEFT, WIDTH, ROW = 12, 296, 46
"""Of the picture: where 0 is, how long a scale of 1 is, the height of a version."""


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes:
        kind: `head`, `nearest`, `shown` or `adapter`.
        serves: it answers at the moment who asks for the name.
        pinned: it does so because a person said so, whatever tests say.
        sure_from: per cent that a pinned arm must be sure, or leaves the answer to the next; None: it does not.
        metric: that decided about it; empty while it is not tested.
        value: by that metric, with 95 % confidence between `low` and `high`, on `rows` rows.
    """

    id: str
    kind: str
    state: str
    serves: bool
    pinned: bool
    sure_from: float | None = None
    metric: str = ""
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    rows: int = 0

    @classmethod
    def of(cls, card: VersionAnswer) -> Version:
        """What a card tells."""
        below = card.get("hand_over_below")
        version = cls(
            card["id"],
            kind_of(card),
            card["state"],
            bool(card.get("serves")),
            bool(card.get("pinned")),
            sure_from=None if below is None else round(100 * below, 6),
        )
        tested = card.get("evaluation")
        if not tested or not (score := tested["scores"].get("candidate")):
            return version
        value, low, high = score["value"], score["low"], score["high"]
        return replace(version, metric=tested["metric"], value=value, low=low, high=high, rows=score["n"])

    @property
    def title(self) -> str:
        """What it is."""
        return TITLES[self.kind]

    @property
    def how(self) -> str:
        """How it answers."""
        return HOW[self.kind]


@dataclass(frozen=True)
class Together:
    """What an arm and the adapter of a name did together in the adapter's test.

    Attributes:
        alone: the adapter's own score in it.
        took: what its own answers took; None where that is not known.
        in_use: whether the adapter is: until then the base model answers what the arm leaves.
    """

    cascade: Cascade
    alone: Interval
    took: Usage | None
    in_use: bool

    @classmethod
    def of(cls, card: VersionAnswer) -> Together | None:
        """What the card of an adapter tells; None of one that is over, and where no test of this release says so."""
        tested = None if card["state"] in OVER else card.get("evaluation")
        if not tested or not tested.get("cascade"):
            return None
        took = tested.get("usage", {}).get("candidate")
        try:
            return cls(
                Cascade.model_validate(tested["cascade"]),
                Interval.model_validate(tested["scores"].get("candidate")),
                Usage.model_validate(took) if took else None,
                card["state"] == "production",
            )
        except ValidationError:
            return None


@dataclass(frozen=True)
class Bar:
    """A version in the picture: its interval from `low` to `high` and its value, on a line at `y`."""

    title: str
    shown: str
    serves: bool
    y: int
    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Picture:
    """The tested versions on a scale from 0 to 1.

    Attributes:
        label: the same in words.
        axis: where the scale is drawn.
        ticks: places along it, with what stands there.
    """

    label: str
    bars: tuple[Bar, ...]
    axis: int
    ticks: tuple[tuple[float, str], ...]


def picture(versions: Sequence[Version]) -> Picture | None:
    """The versions that were tested by one measure from 0 to 1; None where there are no two of them to compare."""
    tested = [one for one in versions if one.metric]
    if len(tested) < 2 or len({one.metric for one in tested}) > 1 or any(one.high > 1 or one.low < 0 for one in tested):
        return None
    bars = tuple(
        Bar(
            one.title,
            f"{one.value:.2f}",
            one.serves,
            ROW * place + ROW - 14,
            _place(one.low),
            _place(one.high),
            _place(one.value),
        )
        for place, one in enumerate(tested)
    )
    said = "; ".join(f"{one.title} {one.value:.2f}, between {one.low:.2f} and {one.high:.2f}" for one in tested)
    ticks = tuple((_place(at), f"{at:g}") for at in (0.0, 0.25, 0.5, 0.75, 1.0))
    return Picture(said, bars, ROW * len(tested) + 8, ticks)


def _place(value: float) -> float:
    return round(LEFT + WIDTH * value, 1)

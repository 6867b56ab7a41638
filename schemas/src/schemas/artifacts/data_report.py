"""What the fit of an arm found out: what more rows would bring, how far its confidence holds, what looks wrong."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.refs import Label, Sentence

DATA_REPORT = "data_report.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class CurvePoint(_Part):
    """How often an arm was right that knew so many rows."""

    rows: int = Field(ge=0, description="Rows it was fitted to, on the average of the folds.")
    accuracy: float = Field(ge=0, le=1, description="Share of right answers to rows it was not fitted to.")
    low: float = Field(ge=0, le=1, description="Lower end of the 95 % interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the 95 % interval.")


class Gain(_Part):
    """What more rows would bring, if the odds of a right answer went on growing with rows as they did."""

    rows: int = Field(ge=1, description="Rows more, in all.")
    gain: float = Field(ge=0, le=1, description="By how much the share of right answers would rise.")
    low: float = Field(ge=0, le=1, description="The same, at the lower end of the 95 % interval of that growth.")
    high: float = Field(ge=0, le=1, description="The same, at the upper end.")

    @property
    def said(self) -> str:
        """By how much, for people."""
        gain, low, high = (round(100 * one) for one in (self.gain, self.low, self.high))
        if gain < 1:
            return "less than a point" if high <= 1 else f"less than a point, at most {high}"
        return f"about {gain} point{'' if gain == 1 else 's'} ({low} to {high})"


class LearningCurve(_Part):
    """How accuracy grew with rows, out of fold, and what twice as many would bring."""

    points: list[CurvePoint] = Field(max_length=8, description="From few rows to all that a fold leaves.")
    twice: Gain | None = Field(
        None, description="What as many rows again would bring; none where too few answers are wrong to tell."
    )

    @property
    def said(self) -> str:
        """What more rows would bring, for people."""
        if self.twice is None:
            return "What more rows would bring cannot be told: too few answers are wrong, or there are too few rows."
        return f"{self.twice.rows:,} rows more of the same kind would probably bring {self.twice.said}."


class WeakAnswers(_Part):
    """The answers of which more rows would bring the most."""

    answers: list[Label] = Field(
        min_length=1, max_length=4, description="As they stand in the rows, cut where they are long."
    )
    each: int = Field(ge=1, description="Rows more of each.")
    more: Gain = Field(description="What these would bring.")


class Confusion(_Part):
    """An answer that was given where another was wanted."""

    wanted: Label = Field(description="As it stands in the rows, cut where it is long.")
    given: Label = Field(description="What was said instead, cut where it is long.")
    times: int = Field(ge=1, description="Rows for which it was.")


class Suspect(_Part):
    """A row whose answer may be wrong: what was fitted to the others would say something else, and be sure of it."""

    question: Sentence = Field(description="What the row asks.")
    answer: Label = Field(description="What it answers, cut where it is long.")
    likelier: Label = Field(description="What the other rows would have answered, cut where it is long.")
    confidence: float = Field(ge=0, le=1, description="How sure they are of that.")


class ReliabilityBin(_Part):
    """Rows of which an arm was about as sure: how sure, and how often it was right."""

    rows: int = Field(ge=1, description="How many.")
    confidence: float = Field(ge=0, le=1, description="How sure it was, on the average.")
    accuracy: float = Field(ge=0, le=1, description="Share of right answers.")
    low: float = Field(ge=0, le=1, description="Lower end of the 95 % interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the 95 % interval.")


class Coverage(_Part):
    """What would become of the rows if an arm answered only where it is so sure."""

    confidence: float = Field(ge=0, le=1, description="Least confidence of an answer.")
    rows: int = Field(ge=1, description="That it would answer.")
    accuracy: float = Field(ge=0, le=1, description="Share of right answers to these.")
    low: float = Field(ge=0, le=1, description="Lower end of the 95 % interval.")
    high: float = Field(ge=0, le=1, description="Upper end of the 95 % interval.")
    others: float | None = Field(
        None, ge=0, le=1, description="Share of right answers to the other rows; none where these are too few to tell."
    )


class Reliability(_Part):
    """How often an arm is right where it is so sure, out of fold."""

    bins: list[ReliabilityBin] = Field(
        max_length=10,
        description="Of about as many rows each, from the least sure on; rows of one confidence are in one.",
    )
    coverage: list[Coverage] = Field(max_length=4, description="By the confidence that is asked for, growing.")


class DataReport(_Part):
    """The contents of an arm's `data_report.json`. It quotes rows, long ones cut, and is deleted with the arm."""

    version: Literal[1] = Field(1, description="Layout of this file.")
    arm: Literal["head", "nearest"] = Field(description="What was fitted.")
    rows: int = Field(ge=1, description="Rows it was fitted to.")
    curve: LearningCurve = Field(description="Accuracy by rows.")
    reliability: Reliability | None = Field(
        None,
        description="Whether it is right as often as it is sure; none where there are too few rows to tell, and in "
        "reports of earlier releases.",
    )
    weakest: WeakAnswers | None = Field(None, description="Where more rows would bring the most, if that can be told.")
    confusions: list[Confusion] = Field(max_length=20, description="Those that came most often first.")
    suspects: list[Suspect] = Field(max_length=50, description="The surest first.")
    suspects_found: int = Field(0, ge=0, description="All of them, also those that are not listed.")

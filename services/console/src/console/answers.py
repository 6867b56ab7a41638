"""What other services answer, as far as the pages read it."""

from __future__ import annotations

from typing import Generic, NotRequired, TypedDict, TypeVar

T = TypeVar("T")


class Listing(TypedDict, Generic[T]):
    """A page of a list, the newest first."""

    data: list[T]
    has_more: bool


class FileAnswer(TypedDict, total=False):
    """An upload."""

    id: str
    filename: str
    status: str
    status_details: str | None
    kind: str | None
    created_at: int


class WaitingFor(TypedDict):
    """What a job waits for, whom, and since when (unix seconds)."""

    what: str | None
    who: NotRequired[str | None]
    since: NotRequired[int | None]


class MethodAnswer(TypedDict):
    """How a job trains."""

    type: NotRequired[str]


class ErrorAnswer(TypedDict, total=False):
    """Why a job failed."""

    code: str | None
    message: str | None


class JobAnswer(TypedDict):
    """A fine-tuning job."""

    id: str
    status: str
    training_file: str
    fine_tuned_model: str | None
    stage: NotRequired[str]
    method: NotRequired[MethodAnswer | None]
    error: NotRequired[ErrorAnswer | None]
    waiting_for: NotRequired[WaitingFor | None]
    answers_by: NotRequired[str | None]
    estimated_finish: NotRequired[int | None]


class StepAnswer(TypedDict, total=False):
    """What an event of a job says of a step."""

    step: int
    total_steps: int
    train_loss: float


class EventAnswer(TypedDict):
    """An event of a job."""

    id: str
    type: str
    message: str
    data: StepAnswer


class Counts(TypedDict):
    """How much of an evaluation is done."""

    done: int
    total: int


class EvaluationAnswer(TypedDict):
    """A test of a model."""

    id: str
    job_id: str
    model: str
    progress: Counts
    evidence: NotRequired[str | None]
    arm: NotRequired[str | None]
    usage: NotRequired[dict[str, dict[str, float | None]]]


class TextAnswer(TypedDict):
    """What one system answered to a row."""

    text: str


class RowAnswer(TypedDict):
    """A held-out row, with the answer of each system."""

    answers: dict[str, TextAnswer]


class ClassAnswer(TypedDict):
    """How well the rows of one class are told."""

    f1: float


class DocumentAnswer(TypedDict):
    """A held-out document, with its perplexity to each system."""

    perplexity: dict[str, float]


class Unit(TypedDict):
    """Over what an interval is taken."""

    unit: str


class EvidenceAnswer(TypedDict, total=False):
    """The report of an evaluation."""

    rows: list[RowAnswer]
    classes: dict[str, list[ClassAnswer]]
    documents: list[DocumentAnswer]
    interval_over: Unit


class PointAnswer(TypedDict):
    """How often an arm was right that knew so many rows."""

    rows: int
    accuracy: float
    low: float
    high: float


class CurveAnswer(TypedDict):
    """How accuracy grew with rows."""

    points: list[PointAnswer]


class BinAnswer(TypedDict):
    """How often an arm was right where it was so sure."""

    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float


class CoverageAnswer(BinAnswer):
    """What would become of the rows if an arm answered only from a confidence on."""

    others: float | None


class ReliabilityAnswer(TypedDict):
    """Whether an arm is right as often as it is sure."""

    bins: list[BinAnswer]
    coverage: list[CoverageAnswer]


class DataReportAnswer(TypedDict):
    """What the rows of a job tell."""

    said: list[str]
    curve: CurveAnswer
    reliability: NotRequired[ReliabilityAnswer | None]
    confusions: list[dict[str, str | int]]
    suspects: list[dict[str, str | float]]
    suspects_found: int


class ScoreAnswer(TypedDict):
    """A mean over held-out rows, with its interval and their number."""

    value: float
    low: float
    high: float
    n: int


class TestedAnswer(TypedDict):
    """What the test of a version found, by system."""

    metric: str
    scores: dict[str, ScoreAnswer]
    usage: NotRequired[dict[str, dict[str, float | None]]]
    cascade: NotRequired[dict[str, object] | None]


class DownloadAnswer(TypedDict):
    """Who took copies of a version's files, how many, and when the last."""

    by: str
    at: int
    times: int


class VersionAnswer(TypedDict):
    """A version of a model: its fine-tune, or an arm."""

    id: str
    job_id: str
    state: str
    created_at: int
    name: NotRequired[str]
    arm: NotRequired[str | None]
    generates: NotRequired[bool]
    serves: NotRequired[bool]
    pinned: NotRequired[bool]
    hand_over_below: NotRequired[float | None]
    waiting_for: NotRequired[str | None]
    evaluation: NotRequired[TestedAnswer | None]
    downloadable: NotRequired[bool]
    downloads: NotRequired[list[DownloadAnswer]]
    promoted_at: NotRequired[int | None]
    deleted_at: NotRequired[int | None]


class KeptAnswer(TypedDict):
    """Something that stays where another thing is deleted."""

    id: str
    because: str


class DeletedAnswer(TypedDict):
    """Something that was deleted."""

    kept: NotRequired[list[KeptAnswer]]


class RatingAnswer(TypedDict):
    """A person's rating of an answer, or a service's."""

    id: str
    rating: str
    producer: NotRequired[str]


class KeyAnswer(TypedDict):
    """An API key."""

    name: str
    hint: str
    event_types: NotRequired[list[str]]
    last_used_at: int | None
    revoked_at: int | None


class ModelAnswer(TypedDict):
    """A model, or a tenant's name for one."""

    id: str
    owned_by: str


class Invitation(TypedDict):
    """The way in that was made for a person."""

    path: str
    expires_at: int


class InvitedAnswer(TypedDict):
    """A person who may come in by an invitation."""

    email: str
    invitation: Invitation

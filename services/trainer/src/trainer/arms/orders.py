"""What is said between the service and the process that fits: a line of JSON, then bytes."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from schemas.artifacts import ArmKind, DataReport, EmbedderFacts


class Order(BaseModel):
    """What is to be fitted; behind it come the vectors, little-endian float32, row by row.

    Attributes:
        kinds: that are tried.
        generates: the base model answers, shown the closest rows: `answers` are rows, each of a place of its own.
        embedder: who made the vectors.
        answers: those that differ, each once: one may be as long as a page.
        places: of each row, which of these is its answer.
        groups: of each row, a number that rows which ask the same have in common.
        probes: questions that may become probes, by row.
        seed: of the fit.
        dataset: for the manifest, as the next two.
        code_version: of what fits.
        created_at: of the job.
    """

    kinds: list[ArmKind]
    generates: bool = False
    embedder: EmbedderFacts
    answers: list[str]
    places: list[int]
    groups: list[int]
    probes: dict[int, str]
    seed: int
    dataset: dict[str, str]
    code_version: str
    created_at: int


class Made(BaseModel):
    """What came of it; behind it come the files, one after the other, and then what the rows tell, as JSON.

    Attributes:
        kind: the arm that was chosen; None where none is worth a test.
        metrics: what was measured out of fold, of every kind tried.
        sizes: the files by name, in their order.
        why_not: the reason where there is none, for the job's owner.
    """

    kind: ArmKind | None = None
    metrics: dict[str, float] = {}
    sizes: dict[str, int] = {}
    why_not: str = ""


@dataclass(frozen=True)
class MadeArm:
    """An arm as the process gives it back.

    Attributes:
        kind: how it answers.
        metrics: what was measured out of fold, of every kind tried.
        files: the manifest last.
        report: what the rows tell, where that could be found out.
    """

    kind: ArmKind
    metrics: dict[str, float]
    files: dict[str, bytes]
    report: DataReport | None


class NoArm(Exception):
    """No arm is worth a test; the message says why, to the job's owner."""

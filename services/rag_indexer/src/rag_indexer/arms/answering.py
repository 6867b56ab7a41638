"""What an arm says to questions, on the account of people or of tests."""

from __future__ import annotations

from functools import partial

import numpy as np
from prometheus_client import Counter, Histogram

from arms import FittedArm
from chassis.in_flight import InFlight
from rag_indexer.arms.held import HeldArms
from rag_indexer.arms.reading import expect_own, wrong
from rag_indexer.embedding import Embedding, Vectors
from rag_indexer.fair_executor import Lane
from schemas.http.rag_indexer import ArmAnswer, ArmAnswers, ArmAsked, Likely

SECONDS = Histogram("arm_answer_seconds", "From the questions to an arm until its answers.", ["asked_by"])
CPU_SECONDS = Counter("arm_cpu_seconds_total", "Processor time of what arms were asked.", ["asked_by"])


class AskArm:
    """Has an arm of the tenant that asks answer questions.

    Args:
        arms: those that are held.
        embedding: makes vectors of the questions.
        of_people: places of people's questions.
        of_tests: places of those that tests ask, which leave people's alone.
    """

    def __init__(self, arms: HeldArms, embedding: Embedding, of_people: InFlight, of_tests: InFlight) -> None:
        self._arms = arms
        self._embedding = embedding
        self._of_people = of_people
        self._of_tests = of_tests

    async def ask(self, tenant_id: str, asked: ArmAsked) -> ArmAnswers:
        """One answer to each question.

        Raises:
            RateLimited: no place is left.
            NotFound, Conflict, Transient: the arm does not answer here; see `HeldArms.get`.
        """
        asked_by, lane, places = self._account(asked)
        who = f"{tenant_id} {asked_by}"
        with places.entered(tenant_id), SECONDS.labels(asked_by).time():
            expect_own(tenant_id, asked.manifest)
            arm = await self._arms.get(asked.manifest, who, lane)
            if arm.arm_id != asked.arm_id:
                raise wrong(asked.manifest, f"the manifest of {arm.arm_id}, not of the arm that is asked")
            if arm.manifest.generates != asked.generates:  # of an earlier release: a row is no answer
                raise wrong(asked.manifest, "another kind of arm than it is asked as: one that generates finds rows")
            said = await self._embedding.questions(asked.questions, who, partial(_likeliest, arm, asked.top), lane)
        CPU_SECONDS.labels(asked_by).inc(sum(took.cpu_seconds for _, took in said))
        return ArmAnswers(
            arm_id=arm.arm_id,
            kind=arm.manifest.kind,
            embedder=arm.manifest.embedder,
            answers=[
                ArmAnswer(
                    answer=likeliest[0].answer,
                    confidence=likeliest[0].confidence,
                    top=likeliest[: asked.top],
                    tokens=took.tokens,
                    cpu_seconds=took.cpu_seconds,
                )
                for likeliest, took in said
            ],
        )

    def _account(self, asked: ArmAsked) -> tuple[str, Lane, InFlight]:
        return ("tests", "background", self._of_tests) if asked.testing else ("people", "people", self._of_people)


def _likeliest(arm: FittedArm, top: int, vectors: Vectors) -> list[list[Likely]]:
    """The likeliest answers to each question, at least one, the likeliest first."""
    confidences = arm.arm.confidences(vectors)
    places = np.argsort(-confidences, axis=1, kind="stable")[:, : max(1, top)]
    return [
        [Likely(answer=arm.answers[place], confidence=min(1.0, float(row[place]))) for place in chosen]
        for row, chosen in zip(confidences, places, strict=True)
    ]

"""What would become of an upload, by the code that decides and no service: split, fit, out of fold, test and gate."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bench.data_sets import Row

from arms import Numbers, question_of, unpack
from evaluator.domain import SEED, Evaluation, Plan
from evaluator.report import Report, build_report
from evaluator.rows import Row as HeldOut
from evaluator.rows import parse_rows, sample
from evaluator.settings import Settings as EvaluatorSettings
from evaluator.store import Answer
from evaluator.suites import ARM_SUITES
from ingest.cleaning import Splits, split
from ingest.publishing import SPLIT_SEED
from ingest.settings import Settings as IngestSettings
from rag_indexer.embedding import Embedder
from registry.domain import Model
from schemas import DatasetRef, EvaluationCompleted, FinetuneArmFitted, ObjectRef
from schemas.artifacts import ARM_ANSWERS, ARM_FINGERPRINT, ARM_NUMBERS, MANIFEST, ChatRow, EmbedderFacts, write_row
from trainer.arms import rows as training_rows
from trainer.arms.orders import Made, NoArm, Order
from trainer.arms.process import make

NOWHERE = ObjectRef(bucket="none", key="none", sha256="0" * 64, size=1)
AT = 1


class Deciding:
    """Decides about uploads; of each question it asks the embedder once.

    Args:
        embedder: as services have one.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, Numbers] = {}

    def on(self, uploaded: Sequence[Row], seed: int) -> tuple[str, str]:
        """What becomes of the arm of an upload, `answers`, `refused` or `no arm`, and why.

        Args:
            uploaded: its rows.
            seed: of the job.
        """
        parts = _splits(uploaded)
        try:
            made, files = self._fit(parts, seed)
        except NoArm as error:
            return "no arm", str(error)
        if made.kind is None:
            return "no arm", made.why_not
        report = self._test(parts, made, files)
        model = Model.register_arm(_fitted(parts, made, self._embedder.facts()), "bench", AT)
        model.judge(_completed(model, report), "auto", AT)
        return "answers" if model.state == "production" else "refused", report.verdict.reason

    def _vectors(self, questions: Sequence[str]) -> Numbers:
        new = [question for question in dict.fromkeys(questions) if question not in self._known]
        if new:
            self._known.update(zip(new, self._embedder.queries(new), strict=True))
        return np.stack([self._known[question] for question in questions])

    def _fit(self, parts: Splits, seed: int) -> tuple[Made, dict[str, bytes]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.jsonl"
            path.write_bytes(_jsonl(parts.train))
            rows = list(training_rows.read(path, training_rows.choose(path, seed, shown_below=0)))
        questions = [row.question for row in rows]
        answers = list(dict.fromkeys(row.answer for row in rows))
        order = Order(
            kinds=["head", "nearest"],
            embedder=self._embedder.facts(),
            answers=answers,
            places=[answers.index(row.answer) for row in rows],
            groups=[training_rows.group_of(question) for question in questions],
            probes=dict(enumerate(questions)),
            seed=seed,
            dataset={},
            code_version="",
            created_at=AT,
        )
        made, files, _ = make(order, self._vectors(questions))
        return made, files

    def _test(self, parts: Splits, made: Made, files: dict[str, bytes]) -> Report:
        arm = unpack(files[MANIFEST], {name: files[name] for name in (ARM_NUMBERS, ARM_ANSWERS, ARM_FINGERPRINT)})
        heldout, train = parse_rows(_jsonl(parts.heldout), "heldout"), parse_rows(_jsonl(parts.train), "train")
        asked = sample([row for row in heldout if row.taught], _rows_asked(), SEED, _stratum(parts))
        said: list[Answer] = []
        if asked:
            likely = arm.arm.confidences(self._vectors([question_of(row.messages) for row in asked]))
            said = [
                Answer(system="candidate", row=row.index, text=arm.answers[int(place)])
                for row, place in zip(asked, likely.argmax(axis=1), strict=True)
            ]
        evaluation = Evaluation(
            id="ev-1",
            tenant_id="bench",
            created_at=AT,
            model_id="m",
            job_id="j",
            base_model="b",
            adapter_id="a",
            arm=made.kind,
            dataset=_dataset(parts),
        )
        plan = Plan(
            rows=[row.index for row in asked], examples=[], systems=["candidate"], max_tokens=1, stop=[], seed=SEED
        )
        least = EvaluatorSettings.model_fields["evaluator_min_rows"].default
        suite = ARM_SUITES[parts.task]
        return build_report(evaluation, suite, plan, heldout, train, said, min_rows=least, earlier=0)


def _splits(uploaded: Sequence[Row]) -> Splits:
    shares = IngestSettings.model_fields
    return split(
        [json.loads(row.line) for row in uploaded],
        validation_share=shares["ingest_validation_share"].default,
        heldout_share=shares["ingest_heldout_share"].default,
        seed=SPLIT_SEED,
    )


def _jsonl(rows: Sequence[ChatRow]) -> bytes:
    return "".join(f"{write_row(row)}\n" for row in rows).encode()


def _rows_asked() -> int:
    return int(EvaluatorSettings.model_fields["evaluator_rows"].default)


def _stratum(parts: Splits) -> Callable[[HeldOut], str]:
    return lambda row: row.label if parts.task == "classification" else ""


def _dataset(parts: Splits) -> DatasetRef:
    return DatasetRef(task=parts.task, train=NOWHERE, heldout=NOWHERE, dataset_id="d", manifest=NOWHERE)


def _fitted(parts: Splits, made: Made, embedder: EmbedderFacts) -> FinetuneArmFitted:
    assert made.kind is not None
    return FinetuneArmFitted(
        tenant_id="bench",
        job_id="j",
        base_model="b",
        arm=made.kind,
        arm_id="a",
        arm_manifest=NOWHERE,
        embedder=embedder,
        training_file="f",
        rows=len(parts.train),
        fit_seconds=0,
        metrics=made.metrics,
        seed=0,
        dataset=_dataset(parts),
    )


def _completed(model: Model, report: Report) -> EvaluationCompleted:
    return EvaluationCompleted(
        tenant_id="bench",
        evaluation_id="ev-1",
        model_id=model.id,
        verdict=report.verdict.kind,
        reason=report.verdict.reason,
        metric="accuracy",
        scores={},
        evidence=NOWHERE,
    )

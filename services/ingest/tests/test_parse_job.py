"""What the worker and its parser write for each other comes back whole, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ingest.parse_job import (
    DocumentFile,
    KeptFile,
    ParseJob,
    ParseResult,
    RejectedFile,
    UnlabelledFile,
    read_job,
    read_result,
    write_job,
    write_result,
)
from schemas import RowCounts
from schemas.artifacts import DatasetFacts

JOB = ParseJob(
    filename="返品.xlsx",
    purpose="user_data",
    columns={"text": "message"},
    bad_rows="skip",
    sha256="0" * 64,
    seed="s",
    fewest_rows=10,
    validation_share=0.05,
    heldout_share=0.15,
    memory_bytes=2**30,
    seconds=120,
    max_file_bytes=2**29,
)
DATASET = DatasetFacts(
    format="CSV",
    task="generation",
    labels=0,
    system="",
    duplicates=1,
    teach_nothing=0,
    rows=RowCounts(train=8, validation=1, heldout=2),
    note="1 exact duplicate was removed.",
)


@pytest.mark.parametrize(
    "result",
    [
        RejectedFile(code="not_utf8", message="a.csv, line 3: …", line=3),
        RejectedFile(code="unreadable", message="a.csv: …"),
        KeptFile(rows=3),
        DocumentFile(title="返金"),
        UnlabelledFile(rows=2, note=None),
        DATASET,
    ],
    ids=lambda result: result.kind,
)
def test_a_job_and_each_kind_of_result_come_back_as_they_were(tmp_path: Path, result: ParseResult) -> None:
    write_job(tmp_path, JOB)
    write_result(tmp_path, result)
    assert read_job(tmp_path) == JOB
    assert read_result(tmp_path) == result


def test_what_is_no_result_is_not_taken_for_one(tmp_path: Path) -> None:
    for text in ('{"kind": "dataset", "rows": 3}', '{"kind": "kept", "rows": 3, "note": ""}', '{"kind": "done"}', "{}"):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ValidationError):
            read_result(tmp_path)

"""The files of a dataset are what their contracts say, and those of earlier releases are still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from ingest.domain import Dataset
from ingest.parse import work
from ingest.parse_job import ParseJob
from ingest.store.files import DATASET_SIZES
from schemas import DatasetPrepared, DatasetRef, ObjectRef, RowCounts
from schemas.artifacts import (
    SPLITS,
    BadRow,
    ChatRole,
    ChatRow,
    DatasetFacts,
    DatasetManifest,
    is_learned,
    read_chat_row,
    read_text_row,
    rows_file,
    write_row,
)
from schemas.export import ROOT

REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
MANIFEST = json.loads((ROOT / "examples/artifacts/dataset-manifest/1.json").read_text())
JOB = ParseJob(
    filename="rows.jsonl",
    purpose="user_data",
    columns={},
    bad_rows="refuse",
    sha256="0" * 64,
    seed="s",
    fewest_rows=10,
    validation_share=0.1,
    heldout_share=0.2,
    memory_bytes=2**30,
    seconds=60,
    max_file_bytes=2**20,
)


def committed(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / f"json/artifacts/{name}.schema.json").read_text())
    return document


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_what_ingest_writes_of_conversations_are_chat_rows(tmp_path: Path) -> None:
    roles = [role for role in get_args(ChatRole) if role != "assistant"]
    rows = [
        [
            *({"role": role, "content": f"{role} {number}", "name": "Ada"} for role in roles),
            {"role": "assistant", "content": "not this", "weight": 0},
            {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now?"}]},
            {"role": "assistant", "content": f"answer {number}", "weight": 1},
        ]
        for number in range(20)
    ]
    (tmp_path / "upload").write_text("".join(json.dumps({"messages": row, "tools": [1]}) + "\n" for row in rows))
    facts = work(tmp_path, JOB)
    assert isinstance(facts, DatasetFacts)
    written = {split: lines(tmp_path / rows_file(split)) for split in SPLITS}
    assert {split: len(found) for split, found in written.items()} == facts.rows.model_dump()
    for line in (line for found in written.values() for line in found):
        jsonschema.validate(json.loads(line), committed("chat-row"))
        row = read_chat_row(line)
        assert row == json.loads(line), "nothing is written that the contract does not know"
        assert [is_learned(message) for message in row["messages"]] == [False] * (len(roles) + 2) + [True]


def test_what_ingest_writes_of_rows_without_answers_are_text_rows(tmp_path: Path) -> None:
    (tmp_path / "upload").write_text("".join(json.dumps({"text": f"返金 {number}"}) + "\n" for number in range(3)))
    assert work(tmp_path, JOB).kind == "unlabelled"
    found = lines(tmp_path / "records.jsonl")
    for line in found:
        jsonschema.validate(json.loads(line), committed("text-row"))
    assert [read_text_row(line) for line in found] == [{"text": f"返金 {number}"} for number in range(3)]


def test_the_line_of_a_row_is_the_same_in_every_release() -> None:
    """A validation file is rid of the training file's rows by their lines, and each may be of another release."""
    row: ChatRow = {
        "messages": [{"role": "user", "content": 'a\n"返金"'}, {"role": "assistant", "content": "b", "weight": 0}]
    }
    assert write_row(row) == (
        '{"messages": [{"role": "user", "content": "a\\n\\"返金\\""}, '
        '{"role": "assistant", "content": "b", "weight": 0}]}'
    )
    assert write_row({"text": "é\u2028"}) == '{"text": "é\u2028"}'


@pytest.mark.parametrize(("weight", "learned"), [("true", True), ("1.0", True), ("1", True), ("0", False)])
def test_weights_of_the_first_release_are_read(weight: str, learned: bool) -> None:
    """It kept them as they were sent, and what is equal to 0 or 1 was accepted."""
    line = f'{{"messages": [{{"role": "assistant", "content": "a", "weight": {weight}}}]}}'
    assert [is_learned(message) for message in read_chat_row(line)["messages"]] == [learned]


def test_fields_of_a_later_release_are_left_out() -> None:
    line = b'{"messages": [{"role": "user", "content": "a", "name": "n"}], "tools": []}'
    assert read_chat_row(line) == {"messages": [{"role": "user", "content": "a"}]}
    assert read_text_row('{"text": "a", "title": "t"}') == {"text": "a"}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}', "messages.1.content: "),
        ('{"messages": [{"role": "secret", "content": "a"}]}', "messages.0.role: "),
        ('{"messages": [{"role": "user", "content": {"secret": 1}}]}', "messages.0.content: "),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}', "messages.0.weight: "),
        ('{"messages": []}', "messages: "),
        ('{"text": "secret"}', "messages: "),
        ('{"messages": [{"secret"', "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_row_is_refused_by_its_field_and_not_quoted(line: str, place: str) -> None:
    with pytest.raises(BadRow) as refused:
        read_chat_row(line)
    assert str(refused.value).startswith(place)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def dataset(manifest: dict[str, Any]) -> Dataset:
    whole = DatasetRef(dataset_id="ds-1", task="generation", manifest=REF, train=REF, validation=REF, heldout=REF)
    counts = RowCounts(train=8, validation=1, heldout=1)
    prepared = DatasetPrepared(tenant_id="tenant_a", dataset=whole, file_id="file-1", purpose="user_data", rows=counts)
    document = {"id": "ds-1", "tenant_id": "tenant_a", "created_at": 1, "card": "# Card"}
    return Dataset.model_validate({**document, "prepared": prepared, "manifest": manifest})


def test_a_manifest_is_stored_as_it_was_and_its_card_is_found_by_the_same_query() -> None:
    stored = dataset(MANIFEST).to_document()
    assert stored["manifest"] == MANIFEST
    paths = [path.split(".") for path in DATASET_SIZES if path.startswith("manifest.")]
    assert paths == [["manifest", "parts", "card", "size"]]
    assert stored["manifest"]["parts"]["card"]["size"] == 640


def test_a_manifest_of_the_first_release_is_read() -> None:
    later = ("system", "teach_nothing", "note")
    result = {name: value for name, value in MANIFEST["result"].items() if name not in later}
    first = dataset({**MANIFEST, "result": result})
    assert isinstance(first.manifest, DatasetManifest)
    assert (first.system, first.manifest.result.teach_nothing, first.manifest.result.note) == ("", 0, None)


def test_of_a_deleted_dataset_nothing_is_left_in_its_manifest() -> None:
    deleted = dataset({**MANIFEST, "result": {**MANIFEST["result"], "system": "Be brief."}})
    assert deleted.system == "Be brief."
    deleted.outlive_file()
    deleted.delete()
    stored = deleted.to_document()
    assert (stored["manifest"], stored["card"]) == ({}, "")
    assert Dataset.model_validate({**stored, "id": "ds-1"}).system == ""

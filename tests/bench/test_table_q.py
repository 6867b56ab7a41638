"""The arithmetic of Table Q: intervals, the choice judged, cells that are finished, and cuts that share no row."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from bench.cells import Cell, Judged, base_of, is_better, summary, table
from bench.data_sets import CLASSES, DATA_SETS, NoSet, Row
from bench.kept import Kept, Key, Unfit
from bench.shares import interval
from bench.table_q import always_the_commonest, keys

BASE = "b"


def judged(right: int, asked: int = 100) -> Judged:
    return Judged(marks="1" * right + "0" * (asked - right))


def cell(served: str, kinds: str = "head,nearest", seed: int = 1, **right: int) -> Cell:
    return Cell(
        key=Key(data_set="xsid-ja", rows=60, seed=seed, kinds=kinds, base=BASE),
        judged={name: judged(count) for name, count in right.items()},
        served=served,
        stays=served,
        came_to="answers" if served else "refused",
        seconds=8.25 if served else None,
        out_of_fold={"head_accuracy": 0.75},
        reason="",
        said=["The job was made."],
    )


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (90, 100, 0.8238, 0.9510), (0, 0, 0, 1)],
)
def test_an_interval_is_that_of_clopper_and_pearson(right: int, asked: int, low: float, high: float) -> None:
    assert interval(right, asked) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize(("gains", "losses", "better"), [(6, 0, True), (5, 0, False), (8, 1, True), (7, 1, False)])
def test_better_beyond_doubt_is_by_the_rows_on_which_two_differ(gains: int, losses: int, better: bool) -> None:
    one, other = Judged(marks="1" * gains + "0" * losses + "11"), Judged(marks="0" * gains + "1" * losses + "11")
    assert is_better(one, other) is better
    assert is_better(other, one) is False


def test_the_choice_is_judged_by_the_best_also_where_that_was_asked_in_another_stack() -> None:
    near = cell("head", head=80, base=20, commonest=30)
    best = cell("nearest", kinds="nearest", nearest=81, base=20, commonest=30)
    said = summary([near, best])
    assert "best judged: 1 of 1 " in said
    assert "both cheap arms were asked: 1 of 1;" in said
    better = cell("nearest", kinds="nearest", nearest=82, base=20, commonest=30)
    assert "best judged: 0 of 1 " in summary([near, better])
    assert "beyond doubt on the same rows: 0 of 1 " in summary([near, better])


def test_where_nothing_answers_the_base_model_is_what_is_left() -> None:
    said = summary([cell("", base=20, commonest=90), cell("head", seed=2, head=10, base=20, commonest=0)])
    assert "best judged: 0 of 2 " in said
    assert "beyond doubt on the same rows: 2 of 2 " in said
    assert "Below the base model beyond doubt: 1 of 2 (50.0 %, " in said
    assert "what is left: 1 of 2 " in said


def test_a_row_of_the_table_shows_every_arm_with_its_interval_and_the_one_that_serves() -> None:
    cells = [cell("head", head=90, base=20), cell("nearest", kinds="nearest", nearest=80, base=20)]
    head, _, row = table(cells).splitlines()
    shown = dict(zip(*([part.strip() for part in line.split("|")] for line in (head, row)), strict=True))
    assert (shown["head"], shown["nearest"], shown["adapter"]) == ("0.90 (0.82-0.95)", "0.80 (0.71-0.87)", "-")
    assert (shown["serves"], shown["seconds"], shown["out of fold"]) == ("head", "8.2", "head 0.75")


def test_finished_cells_are_kept_and_one_that_was_not_written_to_its_end_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cells.jsonl"
    kept = Kept(path, Cell)
    kept.begin()
    first, second = cell("head", head=90, base=20), cell("", seed=2, base=30)
    kept.add(first)
    kept.add(second)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    again = Kept(path, Cell)
    again.resume()
    assert again.finished == [first]
    assert (again.has(first.key), again.has(second.key)) == (True, False)
    again.add(second)
    assert path.read_bytes() == whole


def test_a_file_with_cells_is_never_overwritten_nor_one_with_something_else_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text("a table\n")
    with pytest.raises(Unfit, match="--resume"):
        Kept(path, Cell).begin()
    with pytest.raises(Unfit, match="line 1"):
        Kept(path, Cell).resume()
    assert path.read_text() == "a table\n"


def test_the_base_model_is_asked_once_a_seed() -> None:
    cells = [cell("head", head=90, base=20)]
    key = Key(data_set="xsid-ja", rows=20, seed=1, base=BASE)
    assert base_of(key, cells) == judged(20)
    assert base_of(key.model_copy(update={"seed": 2}), cells) is None
    assert base_of(key.model_copy(update={"base": "another"}), cells) is None


def test_what_is_asked_for_is_every_set_with_its_sizes_and_seeds() -> None:
    asked: dict[str, Any] = {"base": BASE, "adapters": False, "rows": None, "seeds": 5}
    every = list(keys(Namespace(only=[one.name for one in CLASSES], **asked), "head,nearest"))
    assert len(every) == len(set(every)) == 45
    assert {key.rows for key in every if key.data_set == "xsid-ja"} == {20, 60, 100}
    part = Namespace(only=["banking77-12"], **{**asked, "rows": [60], "seeds": 2})
    assert [(key.rows, key.seed) for key in keys(part, "head")] == [(60, 1), (60, 2)]


def made(folder: Path, count: int, name: str = "xsid-ja") -> list[Row]:
    (folder / name).mkdir(exist_ok=True)
    records = [
        {"text": f"question {number % count}", "label": "a" if number % 3 else "b"} for number in range(2 * count)
    ]
    (folder / name / "open.jsonl").write_text("\n".join(map(json.dumps, records)))
    return DATA_SETS[name].rows(folder)


def test_no_upload_of_a_seed_holds_a_row_that_is_tested(tmp_path: Path) -> None:
    data_set, rows = DATA_SETS["xsid-ja"], made(tmp_path, 151)
    assert len(rows) == 151, "rows that ask the same are one"
    cuts = {(count, seed): data_set.cut(rows, count, seed) for count in data_set.sizes for seed in (1, 2)}
    for (count, seed), (uploaded, tested) in cuts.items():
        assert (len(set(uploaded)), len(set(tested)), set(uploaded) & set(tested)) == (count, 51, set())
        assert tested == cuts[20, seed][1]
        assert uploaded[:20] == cuts[20, seed][0]
    assert cuts[20, 1] != cuts[20, 2]


def test_a_set_that_is_missing_or_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSet, match=r"jsquad.open\.jsonl"):
        DATA_SETS["jsquad"].rows(tmp_path)
    with pytest.raises(NoSet, match="120 rows are too few to upload 110"):
        DATA_SETS["xsid-ja"].cut(made(tmp_path, 120), 110, 1)


def test_the_commonest_answer_is_that_of_the_upload_and_is_measured_on_the_other_rows() -> None:
    def row(answer: str) -> Row:
        return Row("s", "q", answer)

    assert always_the_commonest(map(row, "aab"), map(row, "abba")).marks == "1001"


@pytest.mark.parametrize(
    ("name", "record", "question", "right", "wrong"),
    [
        (
            "restaurant8k",
            {"text": "for 2", "requested": ["people"], "slots": {"people": "2"}},
            "people",
            '{"people": "2"}',
            "{}",
        ),
        ("jsquad", {"title": "t", "context": "c", "question": "q", "answers": ["x", "the x"]}, "q", "The  X", "y"),
        ("instruction-ja", {"messages": [{"role": "user", "content": "何"}], "chosen": "これ"}, "何", "これ ", "それ"),
    ],
)
def test_records_are_asked_with_what_counts_as_right(
    tmp_path: Path, name: str, record: dict[str, Any], question: str, right: str, wrong: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "open.jsonl").write_text(json.dumps(record))
    [row] = DATA_SETS[name].rows(tmp_path)
    assert question in row.question
    assert (row.is_right(right), row.is_right(wrong)) == (True, False)
    assert [message["role"] for message in json.loads(row.line)["messages"]] == ["system", "user", "assistant"]

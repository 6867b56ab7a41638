"""Nobody carries a dataset in pieces: its parts are named where it is made, and handed on as one reference."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from tests.architecture.trees import tree_of

from schemas import EVENTS, CarriesDataset, DatasetRef, ObjectRef, Task
from schemas.datasets import flat

ROOT = Path(__file__).parents[2]

PARTS = {
    name
    for name, field in DatasetRef.model_fields.items()
    if ObjectRef in (field.annotation, *get_args(field.annotation))
}
OTHER_NAMES = {"dataset_manifest"}
"""As version 1 of some events has it."""

SOURCES = sorted(
    path
    for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py", "cli/src/**/*.py")
    for path in ROOT.glob(pattern)
)
SPELLED = ROOT / "schemas/src/schemas/refs.py"


def copied(tree: ast.AST) -> Iterator[str]:
    """Calls that are given two parts of a dataset one by one, each read from a field of its name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        parts = {
            one.arg
            for one in node.keywords
            if one.arg in PARTS | OTHER_NAMES and isinstance(one.value, ast.Attribute) and one.value.attr in PARTS
        }
        if len(parts) > 1:
            yield f"line {node.lineno}: {ast.unparse(node.func)}({', '.join(sorted(parts))})"


def gathered(tree: ast.AST) -> Iterator[str]:
    """Two parts of a dataset that are fetched by their names from one object."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.DictComp, ast.ListComp, ast.GeneratorExp)):
            names = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)} & (PARTS | OTHER_NAMES)
            fetched = any(isinstance(one, ast.Name) and one.id == "getattr" for one in ast.walk(node))
            if fetched and len(names) > 1:
                yield f"line {node.lineno}: {', '.join(sorted(map(str, names)))}"


def declared(tree: ast.AST) -> Iterator[str]:
    """Classes with two references to parts of a dataset as fields of their own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            fields = {
                one.target.id
                for one in node.body
                if isinstance(one, ast.AnnAssign)
                and isinstance(one.target, ast.Name)
                and one.target.id in PARTS | OTHER_NAMES
                and "ObjectRef" in ast.unparse(one.annotation)
            }
            if len(fields) > 1:
                yield f"line {node.lineno}: {node.name}({', '.join(sorted(fields))})"


def spelled(tree: ast.AST) -> Iterator[str]:
    """Literals that list the tasks again."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            listed = {one.value for one in ast.walk(node.slice) if isinstance(one, ast.Constant)}
            if set(get_args(Task)) <= listed:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def found(tree: ast.AST) -> list[str]:
    return [*copied(tree), *gathered(tree), *declared(tree), *spelled(tree)]


def test_no_dataset_is_carried_in_pieces() -> None:
    pieces = {source: found(tree_of(source)) for source in (str(path.relative_to(ROOT)) for path in SOURCES)}
    assert {path: lines for path, lines in pieces.items() if lines} == {}


@pytest.mark.parametrize(
    "piece",
    [
        "ModelRegistered(model_id=it.id, heldout=trained.heldout, train=trained.train)",
        "Trained(heldout=self.dataset.heldout, dataset_manifest=self.dataset.manifest)",
        "parts = {name: getattr(dataset, name) for name in ('heldout', 'train')}",
        "class Lineage(Part):\n    dataset_manifest: ObjectRef\n    heldout: ObjectRef",
        "class Evaluation(Aggregate):\n    train: ObjectRef\n    validation: ObjectRef | None = None",
        "task: Literal['classification', 'generation']",
    ],
)
def test_a_piece_is_found(piece: str) -> None:
    assert len(found(ast.parse(piece))) == 1


@pytest.mark.parametrize(
    "whole",
    [
        "ModelRegistered(model_id=it.id, dataset=trained.dataset)",
        "RowCounts(train=len(splits.train), heldout=len(splits.heldout))",
        "DatasetDeleted(dataset_id=it.id, heldout=it.dataset.heldout)",
        "class Card(BaseModel):\n    dataset_manifest: ObjectRef\n    adapter_manifest: ObjectRef",
        "kind: Literal['classification', 'free_text']",
    ],
)
def test_what_hands_a_dataset_on_is_no_piece(whole: str) -> None:
    assert found(ast.parse(whole)) == []


def test_an_event_carries_a_dataset_whole() -> None:
    """A new event that names two parts carries the dataset; version 1 of three writes the parts beside it."""
    for name, event in EVENTS.items():
        assert len(PARTS & set(event.model_fields)) <= 1, name
        beside = PARTS & set(event.model_computed_fields)
        assert not beside or issubclass(event, CarriesDataset), name


def test_the_parts_beside_it_are_of_no_type_to_who_would_read_them() -> None:
    """So the type checker refuses what reads `event.heldout`; `event.dataset.heldout` it knows."""
    assert get_type_hints(flat)["return"] is object


def test_the_tasks_are_spelled_once() -> None:
    sources = {path: str(path.relative_to(ROOT)) for path in (ROOT / "schemas/src").rglob("*.py")}
    schemas = {path: list(spelled(tree_of(source))) for path, source in sources.items()}
    assert [path for path, lines in schemas.items() if lines] == [SPELLED]

"""Arms learn what can be told apart, know how sure they may be, and are read back only as they were packed."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from arms import (
    MOST_CLASSES,
    MOST_ROWS,
    Facts,
    FittedArm,
    Head,
    Nearest,
    Numbers,
    Shown,
    WrongArm,
    fit,
    kinds_for,
    pack,
    prove,
    question_of,
    sample,
    unpack,
)
from arms.files import FILES
from schemas.artifacts import (
    ARM_ANSWERS,
    ARM_FINGERPRINT,
    ARM_NUMBERS,
    MANIFEST,
    ArmKind,
    ArmManifest,
    EmbedderFacts,
    arm_id_of,
)
from schemas.http.rag_indexer import QUESTION_CHARACTERS

KINDS: tuple[ArmKind, ...] = ("head", "nearest")
WIDTH = 16
EMBEDDER = EmbedderFacts(id="made-up", digest="ab" * 32, dimensions=WIDTH)
ANSWERS = ["card_arrival", "lost_card", "top_up", "close_account"]


def rows(count: int, noise: float, seed: int = 1) -> tuple[Numbers, np.ndarray]:
    """Unit vectors around one centre for each answer, in a narrow cone as those of texts, and the answers."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(len(ANSWERS), WIDTH))
    places = (np.arange(count) % len(ANSWERS)).astype(np.int32)
    vectors = centres[places] + chance.normal(size=(count, WIDTH)) * noise + 4
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), places


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_can_be_told_apart_are_learned(kind: ArmKind) -> None:
    fitted = fit(kind, *rows(80, 0.2), seed=1)
    vectors, places = rows(400, 0.2, seed=2)
    likely = fitted.arm.confidences(vectors)
    assert fitted.accuracy == 1
    assert likely.dtype == np.float32
    assert likely.shape == (400, len(ANSWERS))
    assert np.allclose(likely.sum(axis=1), 1, atol=1e-4)
    assert (likely.argmax(axis=1) == places).mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_the_confidence_is_how_often_it_is_right_and_so_is_the_accuracy_out_of_fold(kind: ArmKind) -> None:
    fitted = fit(kind, *rows(400, 1.2), seed=1)
    vectors, places = rows(2000, 1.2, seed=2)
    likely = fitted.arm.confidences(vectors)
    right = likely.argmax(axis=1) == places
    assert 0.4 < right.mean() < 0.95
    assert fitted.accuracy == pytest.approx(right.mean(), abs=0.06)
    assert likely.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.06)
    sure = likely.max(axis=1) > np.median(likely.max(axis=1))
    assert right[sure].mean() > right[~sure].mean() + 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_ask_the_same_are_no_measure_of_each_other(kind: ArmKind) -> None:
    vectors, places = rows(200, 1.6)
    chance = np.random.default_rng(9)
    again = vectors + chance.normal(size=vectors.shape).astype(np.float32) * 0.001
    groups = np.tile(np.arange(200), 2)
    fitted = fit(kind, np.vstack([vectors, again]), np.tile(places, 2), 1, groups)
    asked, answers = rows(2000, 1.6, seed=2)
    right = (fitted.arm.confidences(asked).argmax(axis=1) == answers).mean()
    assert right < 0.9
    assert fitted.accuracy == pytest.approx(right, abs=0.06)


def test_nearest_gives_the_answer_of_the_closest_row() -> None:
    vectors, places = rows(60, 1.5)
    arm = fit("nearest", vectors, places, seed=1).arm
    asked, _ = rows(50, 1.5, seed=3)
    closest = places[(asked @ vectors.T).argmax(axis=1)]
    assert (arm.confidences(asked).argmax(axis=1) == closest).all()


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_chance_are_not_learned_out_of_fold(kind: ArmKind) -> None:
    vectors, _ = rows(200, 0.5)
    places = np.random.default_rng(5).integers(0, 4, 200).astype(np.int32)
    assert fit(kind, vectors, places, seed=1).accuracy < 0.45


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [[0], [0, 0], [0, 1], [0, 0, 1], [0, 0, 0, 0, 1, 2], list(range(12)), [0] * 12])
def test_few_rows_and_answers_of_one_row_are_fitted(kind: ArmKind, places: list[int]) -> None:
    vectors, _ = rows(len(places), 0.5)
    fitted = fit(kind, vectors, np.array(places, dtype=np.int32), seed=1)
    likely = fitted.arm.confidences(vectors)
    assert likely.shape == (len(places), max(places) + 1)
    assert np.isfinite(likely).all()
    assert 0 <= fitted.accuracy <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_question_with_different_answers_is_no_end(kind: ArmKind) -> None:
    vectors, places = rows(40, 0.3)
    same = np.repeat(vectors[:1], 12, axis=0)
    fitted = fit(kind, np.vstack([vectors, same]), np.append(places, np.arange(12) % 4).astype(np.int32), seed=1)
    likely = fitted.arm.confidences(vectors)
    assert np.isfinite(likely).all()
    assert 0.5 < fitted.accuracy < 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_and_seed_give_the_same_bytes(kind: ArmKind) -> None:
    assert packed(kind) == packed(kind)
    assert list(packed(kind))[-1] == MANIFEST


def test_numbers_that_are_none_and_too_many_rows_are_refused() -> None:
    vectors, places = rows(20, 0.3)
    vectors[3, 2] = np.nan
    with pytest.raises(ValueError, match="no number"):
        fit("head", vectors, places, seed=1)
    many = np.ones((MOST_ROWS + 1, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="rows"):
        fit("nearest", many, np.zeros(len(many), dtype=np.int32), seed=1)


@pytest.mark.parametrize(
    ("places", "kinds"),
    [
        ([0, 0, 1, 1], ["head", "nearest"]),
        ([0, 0, 1], ["nearest"]),
        ([0, 0, 0, 0], ["nearest"]),
        ([*range(MOST_CLASSES)] * 2, ["head", "nearest"]),
        ([*range(MOST_CLASSES + 1)] * 2, ["nearest"]),
    ],
)
def test_a_head_needs_rows_for_its_answers(places: list[int], kinds: list[ArmKind]) -> None:
    assert kinds_for(np.array(places, dtype=np.int32)) == kinds


def test_a_sample_keeps_the_shares_of_the_answers_and_every_answer() -> None:
    places = np.array([0] * 900 + [1] * 90 + [2] * 9 + [3], dtype=np.int32)
    chosen = sample(places, seed=1, most=100)
    assert list(chosen) == sorted(set(chosen))
    assert np.bincount(places[chosen], minlength=4) == pytest.approx([89, 9, 1, 1], abs=1)
    assert list(chosen) == list(sample(places, seed=1, most=100))
    assert list(chosen) != list(sample(places, seed=2, most=100))
    assert list(sample(places, seed=1, most=2000)) == list(range(1000))


def test_a_question_is_what_was_said_without_the_system_message() -> None:
    said = [
        {"role": "system", "content": "Answer with a label."},
        {"role": "user", "content": "My card"},
        {"role": "assistant", "content": "Which one?"},
        {"role": "tool", "content": "{}"},
        {"role": "user", "content": [{"type": "text", "text": "has not"}, {"type": "text", "text": "come."}]},
    ]
    assert question_of(said) == "My card\nWhich one?\nhas not\ncome."
    assert question_of([{"role": "user", "content": None}]) == ""
    long = question_of([{"role": "user", "content": "a" * QUESTION_CHARACTERS}, {"role": "user", "content": "end"}])
    assert len(long) == QUESTION_CHARACTERS
    assert long.endswith("\nend")


def packed(kind: ArmKind) -> dict[str, bytes]:
    vectors, places = rows(80, 0.6)
    questions = [f"question {number}" for number in range(80)]
    fitted = fit(kind, vectors, places, seed=1)
    facts = Facts(rows=80, dataset={"dataset_id": "ds-1"}, seed=1, metrics={f"{kind}_accuracy": fitted.accuracy})
    return pack(fitted.arm, ANSWERS, questions, vectors, EMBEDDER, facts)


def read(files: dict[str, bytes]) -> FittedArm:
    return unpack(files[MANIFEST], {name: files[name] for name in files if name != MANIFEST})


def again(files: dict[str, bytes], **changes: bytes) -> dict[str, bytes]:
    """The files with other contents, which the manifest names."""
    from arms.files import _digest

    files = {**files, **changes}
    manifest = json.loads(files[MANIFEST])
    for name in FILES:
        manifest["files"][name] = {"sha256": _digest(files[name]), "size": len(files[name])}
    return {**files, MANIFEST: json.dumps(manifest).encode()}


def vectors_of(fitted: FittedArm) -> Numbers:
    vectors, _ = rows(80, 0.6)
    return np.stack([vectors[int(probe.question.split()[1])] for probe in fitted.probes])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_packed_answers_the_same_once_it_is_read_back(kind: ArmKind) -> None:
    files = packed(kind)
    fitted = read(files)
    vectors, places = rows(80, 0.6)
    assert fitted.arm_id == arm_id_of(files[MANIFEST])
    assert fitted.answers == ANSWERS
    assert isinstance(fitted.arm, Head if kind == "head" else Nearest)
    assert fitted.arm.shape == (len(ANSWERS), WIDTH)
    assert (fitted.arm.confidences(vectors) == fit(kind, vectors, places, seed=1).arm.confidences(vectors)).all()
    assert 1 <= len(fitted.probes) <= 8
    assert len({probe.question for probe in fitted.probes}) == len(fitted.probes)
    prove(fitted, vectors_of(fitted))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_each_other_byte_is_refused(kind: ArmKind, name: str) -> None:
    files = packed(kind)
    content = bytearray(files[name])
    content[len(content) // 2] ^= 1
    with pytest.raises(WrongArm, match=name.replace(".", r"\.")):
        read({**files, name: bytes(content)})
    del files[name]
    with pytest.raises(WrongArm, match="missing"):
        unpack(files[MANIFEST], files)


Change = Callable[[dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        ("head", lambda it: it["coefficients"].__setitem__((0, 0), np.nan), "no number"),
        ("head", lambda it: it["intercepts"].__setitem__(0, np.inf), "no number"),
        ("head", lambda it: it.pop("intercepts"), "holds"),
        ("head", lambda it: it.update(intercepts=np.zeros(5, dtype=np.float32)), "holds"),
        ("head", lambda it: it.update(coefficients=it["coefficients"].astype(np.float64)), "holds"),
        ("head", lambda it: it.update(coefficients=it["coefficients"][:, 1:].copy()), "holds"),
        ("nearest", lambda it: it["vectors"].__setitem__((5, 5), np.nan), "no number"),
        ("nearest", lambda it: it["places"].__setitem__(5, 4), "names an answer"),
        ("nearest", lambda it: it["places"].__setitem__(5, -1), "names an answer"),
        ("nearest", lambda it: it["temperature"].__setitem__(0, 0), "temperature"),
        ("nearest", lambda it: it.update(vectors=it["vectors"][1:].copy(), places=it["places"][1:].copy()), "holds"),
        ("nearest", lambda it: it.update(more=np.zeros(1, dtype=np.float32)), "holds"),
    ],
)
def test_numbers_that_are_not_an_arms_are_refused(kind: ArmKind, change: Change, why: str) -> None:
    from safetensors.numpy import load, save

    files = packed(kind)
    tensors = {name: one.copy() for name, one in load(files[ARM_NUMBERS]).items()}
    change(tensors)
    with pytest.raises(WrongArm, match=why):
        read(again(files, **{ARM_NUMBERS: save(tensors)}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (ARM_ANSWERS, b'["a", "b", "c"]'),
        (ARM_ANSWERS, b'["a", "b", "c", "c"]'),
        (ARM_ANSWERS, b'["a", "b", "c", 4]'),
        (ARM_ANSWERS, b'{"a": 1}'),
        (ARM_ANSWERS, b"no json"),
        (ARM_ANSWERS, b"\xff"),
        (ARM_NUMBERS, b"no numbers"),
        (ARM_NUMBERS, b""),
        (ARM_FINGERPRINT, b'{"version": 1, "probes": []}'),
        (ARM_FINGERPRINT, b'{"version": 1, "probes": [{"question": "a", "answer": 4, "confidence": 0.5}]}'),
        (ARM_FINGERPRINT, b"no json"),
    ],
)
def test_files_that_are_not_an_arms_are_refused(name: str, content: bytes) -> None:
    with pytest.raises(WrongArm, match=name.replace(".", r"\.")):
        read(again(packed("head"), **{name: content}))


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_a_manifest_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(WrongArm, match=r"manifest\.json"):
        unpack(content, packed("head"))


def test_a_manifest_that_names_other_files_is_refused() -> None:
    files = packed("head")
    manifest = ArmManifest.model_validate_json(files[MANIFEST])
    fewer = manifest.model_copy(update={"files": {ARM_NUMBERS: manifest.files[ARM_NUMBERS]}})
    with pytest.raises(WrongArm, match="names"):
        unpack(fewer.model_dump_json().encode(), files)


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_that_answers_otherwise_is_not_proved(kind: ArmKind) -> None:
    fitted = read(packed(kind))
    vectors = vectors_of(fitted)
    turned = -vectors
    nan = vectors.copy()
    nan[0, 0] = np.nan
    for others in (turned, nan, vectors[1:], vectors[:, 1:]):
        with pytest.raises(WrongArm, match=r"fingerprint\.json"):
            prove(fitted, others)


@pytest.mark.parametrize("by", [0.03, -0.03])
def test_a_confidence_that_differs_is_not_proved(by: float) -> None:
    files = packed("head")
    said = json.loads(files[ARM_FINGERPRINT])
    middle = min(said["probes"], key=lambda probe: abs(probe["confidence"] - 0.7))
    middle["confidence"] += by
    fitted = read(again(files, **{ARM_FINGERPRINT: json.dumps(said).encode()}))
    with pytest.raises(WrongArm, match="confidence"):
        prove(fitted, vectors_of(fitted))


def test_where_no_answer_is_clear_the_clearest_question_is_the_probe() -> None:
    vectors = np.eye(2, dtype=np.float32)
    arm = Nearest(vectors, np.array([0, 1], dtype=np.int32), 1e3, 2)
    files = pack(
        arm, ["a", "b"], ["question 0", "question 1"], vectors, EMBEDDER.model_copy(update={"dimensions": 2}), Facts(2)
    )
    fitted = read(files)
    assert len(fitted.probes) == 1
    prove(fitted, vectors[[int(fitted.probes[0].question[-1])]])


def packed_to_show(count: int = 20) -> dict[str, bytes]:
    vectors, _ = rows(count, 0.6)
    answers = [f"row {number}" for number in range(count)]
    questions = [f"question {number}" for number in range(count)]
    return pack(Shown(vectors), answers, questions, vectors, EMBEDDER, Facts(rows=count))


def test_rows_to_show_are_found_by_how_close_they_are_once_they_are_read_back() -> None:
    fitted = read(packed_to_show())
    vectors, _ = rows(20, 0.6)
    assert isinstance(fitted.arm, Shown)
    assert (fitted.manifest.kind, fitted.manifest.generates, fitted.arm.vectors.shape) == (
        "nearest",
        True,
        (20, WIDTH),
    )
    similar = fitted.arm.confidences(vectors)
    assert (similar.argmax(axis=1) == np.arange(20)).all()
    assert similar.max() <= 1
    assert fitted.arm.confidences(-vectors).min() == 0
    prove(fitted, vectors_of(fitted))
    with pytest.raises(WrongArm, match=r"fingerprint\.json"):
        prove(fitted, -vectors_of(fitted))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"kind": "head"}, "shows none"),
        ({"rows": 21}, "shows none"),
        ({"generates": False}, "holds"),
        ({"answers": 19, "rows": 19}, "not 19 different answers"),
    ],
)
def test_a_manifest_of_rows_to_show_that_says_otherwise_is_refused(said: dict[str, object], why: str) -> None:
    files = packed_to_show()
    manifest = {**json.loads(files[MANIFEST]), **said}
    with pytest.raises(WrongArm, match=why):
        read({**files, MANIFEST: json.dumps(manifest).encode()})

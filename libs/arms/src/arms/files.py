"""The files an arm is handed on in: packed with a fingerprint and the manifest last, read back without trust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from arms.answering import Arm, Head, Nearest, Numbers, Shown
from schemas.artifacts import (
    ARM_ANSWERS,
    ARM_FINGERPRINT,
    ARM_NUMBERS,
    ARM_TOLERANCE,
    MANIFEST,
    ArmFingerprint,
    ArmManifest,
    ArmProbe,
    EmbedderFacts,
    arm_id_of,
)
from schemas.artifacts.adapter import FileFacts

MOST_PROBES = 8
CLEAR = 2 * ARM_TOLERANCE
"""By how much the likeliest answer of a probe is ahead of the next, where any is."""

FILES = (ARM_NUMBERS, ARM_ANSWERS, ARM_FINGERPRINT)

M = TypeVar("M", bound=BaseModel)


class WrongArm(Exception):
    """The files are not those of an arm, or do not answer as it does; the message says what is wrong."""


@dataclass(frozen=True)
class Facts:
    """What a manifest says besides what follows from the numbers."""

    rows: int
    dataset: dict[str, str] | None = None
    code_version: str = ""
    seed: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    created_at: int = 0


@dataclass(frozen=True, eq=False)
class FittedArm:
    """An arm with its answers, as read back.

    Attributes:
        arm_id: follows from the manifest.
        manifest: what it says of itself.
        arm: what gives confidences.
        answers: by place.
        probes: what it must answer again.
    """

    arm_id: str
    manifest: ArmManifest
    arm: Arm
    answers: list[str]
    probes: list[ArmProbe]


def pack(
    arm: Arm, answers: Sequence[str], questions: Sequence[str], vectors: Numbers, embedder: EmbedderFacts, facts: Facts
) -> dict[str, bytes]:
    """The files of an arm by their names, the manifest last; the same arm gives the same bytes.

    Args:
        arm: what was fitted.
        answers: by place.
        questions: of which some become probes, such as those of the rows it was fitted on.
        vectors: (questions, dimensions), theirs.
        embedder: who made them.
        facts: what else the manifest says.
    """
    from safetensors.numpy import save  # the trainer's service, which only chooses rows, does without

    fingerprint = ArmFingerprint(version=1, probes=_probes(arm, questions, vectors))
    files = {
        ARM_NUMBERS: save(_tensors(arm)),
        ARM_ANSWERS: json.dumps(list(answers), ensure_ascii=False).encode(),
        ARM_FINGERPRINT: fingerprint.model_dump_json(indent=1).encode(),
    }
    manifest = ArmManifest(
        files={name: FileFacts(sha256=_digest(content), size=len(content)) for name, content in files.items()},
        kind=arm.kind,
        generates=isinstance(arm, Shown),
        embedder=embedder,
        rows=facts.rows,
        answers=len(answers),
        dataset=facts.dataset,
        code_version=facts.code_version,
        seed=facts.seed,
        metrics=facts.metrics,
        created_at=facts.created_at,
    )
    return {**files, MANIFEST: manifest.model_dump_json(indent=1).encode()}


def unpack(manifest: bytes, files: Mapping[str, bytes]) -> FittedArm:
    """Read an arm back.

    Args:
        manifest: the bytes of its manifest, whose digest the caller knows.
        files: the others by their names.

    Raises:
        WrongArm: a file is missing or another than the manifest says, or holds no arm of its kind.
    """
    said = _parsed(ArmManifest, manifest, MANIFEST)
    if set(said.files) != set(FILES):
        raise WrongArm(f"{MANIFEST}: names {sorted(said.files)}, and not {sorted(FILES)}")
    for name, facts in said.files.items():
        content = files.get(name)
        if content is None or len(content) != facts.size or _digest(content) != facts.sha256:
            raise WrongArm(f"{name}: missing, or not the bytes that the manifest names")
    answers = _answers(files[ARM_ANSWERS], said.answers)
    arm = _arm(files[ARM_NUMBERS], said)
    probes = _parsed(ArmFingerprint, files[ARM_FINGERPRINT], ARM_FINGERPRINT).probes
    if any(probe.answer >= len(answers) for probe in probes):
        raise WrongArm(f"{ARM_FINGERPRINT}: a probe names an answer that there is not")
    return FittedArm(arm_id_of(manifest), said, arm, answers, probes)


def prove(fitted: FittedArm, probe_vectors: Numbers) -> None:
    """Measure again what the fingerprint says.

    Args:
        fitted: the arm.
        probe_vectors: (probes, dimensions), of the questions of `fitted.probes` by this machine's embedder.

    Raises:
        WrongArm: it gives another answer, or a confidence differs by more than `ARM_TOLERANCE`.
    """
    expected = (len(fitted.probes), fitted.manifest.embedder.dimensions)
    if probe_vectors.shape != expected or not np.isfinite(probe_vectors).all():
        raise WrongArm(f"{ARM_FINGERPRINT}: its vectors are not {expected} finite numbers")
    for probe, likely in zip(fitted.probes, fitted.arm.confidences(probe_vectors), strict=True):
        measured = float(likely[probe.answer])
        ahead = float(likely.max()) - measured
        if ahead > ARM_TOLERANCE or not abs(measured - probe.confidence) <= ARM_TOLERANCE:
            raise WrongArm(
                f"{ARM_FINGERPRINT}: a probe's answer has the confidence {measured:.3f} here and "
                f"{probe.confidence:.3f} there; another's is ahead by {ahead:.3f}"
            )


def _probes(arm: Arm, questions: Sequence[str], vectors: Numbers) -> list[ArmProbe]:
    """Of the questions whose answer is clear, some from the least sure to the surest; else the clearest one."""
    likely = arm.confidences(vectors)
    places = likely.argmax(axis=1)
    surest = likely[np.arange(len(likely)), places]
    likely[np.arange(len(likely)), places] = 0
    ahead = surest - likely.max(axis=1)
    order = np.argsort(ahead, kind="stable")
    clear = order[ahead[order] >= CLEAR]
    chosen = (
        clear[np.unique(np.linspace(0, len(clear) - 1, MOST_PROBES).round().astype(int))] if len(clear) else order[-1:]
    )
    return [
        ArmProbe(question=questions[one], answer=int(places[one]), confidence=min(1.0, float(surest[one])))
        for one in chosen
    ]


def _tensors(arm: Arm) -> dict[str, np.ndarray]:
    if isinstance(arm, Head):
        return {"coefficients": np.ascontiguousarray(arm.coefficients), "intercepts": arm.intercepts}
    if isinstance(arm, Shown):
        return {"vectors": np.ascontiguousarray(arm.vectors)}
    temperature = np.array([arm.temperature], dtype=np.float32)
    return {"vectors": np.ascontiguousarray(arm.vectors), "places": arm.places, "temperature": temperature}


def _arm(content: bytes, said: ArmManifest) -> Arm:
    """The numbers of an arm, each of the shape and kind that its manifest implies."""
    answers, dimensions = said.answers, said.embedder.dimensions
    if said.generates:
        if said.kind != "nearest" or said.rows != answers:
            raise WrongArm(f"{MANIFEST}: a {said.kind} of {answers} answers and {said.rows} rows shows none")
        return Shown(_loaded(content, {"vectors": (answers, dimensions)})["vectors"])
    if said.kind == "head":
        tensors = _loaded(content, {"coefficients": (answers, dimensions), "intercepts": (answers,)})
        return Head(tensors["coefficients"], tensors["intercepts"])
    tensors = _loaded(content, {"vectors": (said.rows, dimensions), "places": (said.rows,), "temperature": (1,)})
    places, temperature = tensors["places"], float(tensors["temperature"][0])
    if places.min() < 0 or places.max() >= answers or temperature <= 0:
        raise WrongArm(f"{ARM_NUMBERS}: a row names an answer that there is not, or the temperature is not above 0")
    return Nearest(tensors["vectors"], places, temperature, answers)


def _loaded(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors: dict[str, np.ndarray] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WrongArm(f"{ARM_NUMBERS}: cannot be read ({error})") from error
    kinds = {name: np.int32 if name == "places" else np.float32 for name in shapes}
    found = {name: (one.shape, one.dtype.type) for name, one in tensors.items()}
    if found != {name: (shape, kinds[name]) for name, shape in shapes.items()}:
        raise WrongArm(f"{ARM_NUMBERS}: holds {found}, and not {dict(shapes)}")
    if not all(np.isfinite(one).all() for one in tensors.values()):
        raise WrongArm(f"{ARM_NUMBERS}: holds what is no number")
    return tensors


def _answers(content: bytes, count: int) -> list[str]:
    try:
        answers = json.loads(content)
    except ValueError as error:
        raise WrongArm(f"{ARM_ANSWERS}: cannot be read ({error})") from error
    if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
        raise WrongArm(f"{ARM_ANSWERS}: not a list of texts")
    if len(answers) != count or len(set(answers)) != count:
        raise WrongArm(f"{ARM_ANSWERS}: not {count} different answers")
    return answers


def _parsed(model: type[M], content: bytes, name: str) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise WrongArm(f"{name}: not what its schema says ({error.error_count()} errors)") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Rows that arms are studied on: how hard they are is known."""

from __future__ import annotations

import numpy as np

from arms import Numbers, Places
from schemas.artifacts import ArmKind

KINDS: tuple[ArmKind, ...] = ("head", "nearest")
ANSWERS = [f"answer {number}" for number in range(6)]
WIDTH = 24


def rows(count: int, noise: float, seed: int) -> tuple[Numbers, Places]:
    """Unit vectors around one centre for each answer, of which the last two lie close together."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(len(ANSWERS), WIDTH))
    centres[-1] = centres[-2] + 0.25 * centres[-1]
    places = chance.permutation(np.arange(count) % len(ANSWERS)).astype(np.int32)
    vectors = centres[places] + chance.normal(size=(count, WIDTH)) * noise + 2
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), places

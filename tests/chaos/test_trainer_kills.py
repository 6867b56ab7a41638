"""A fine-tune whose worker and training process are killed ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from testkit import Space
from testkit.space import Addresses
from tests.chaos.trainer_kills import SAVE_EVERY, Kill, Outcome, train, twenty


def corner(addresses: Addresses, folder: Path, name: str) -> Space:
    (folder / name).mkdir()
    return Space(addresses, folder / name)


def check(outcome: Outcome, undisturbed: Outcome) -> None:
    assert outcome.adapter_sha256 == undisturbed.adapter_sha256
    assert outcome.adapters == undisturbed.adapters
    assert len(outcome.adapters) == 1
    assert len({event_id for event_id, _ in outcome.trained}) == 1
    assert [event.adapter_id for _, event in outcome.trained[:1]] == list(outcome.adapters)
    lost = [death.step - death.kept for death in outcome.deaths]
    assert max(lost) <= SAVE_EVERY, lost


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_killed_fine_tune_ends_as_if_nothing_had_happened(
    addresses: Addresses, tmp_path: Path, tiny_models: Path
) -> None:
    undisturbed = await train(corner(addresses, tmp_path, "one"), tiny_models, 12, [])
    kills = [Kill("upload"), Kill("save"), Kill("adapter upload")]
    outcome = await train(corner(addresses, tmp_path, "two"), tiny_models, 12, kills)
    check(outcome, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(2400)
async def test_twenty_kills(addresses: Addresses, tmp_path: Path, tiny_models: Path) -> None:
    seed = int(os.environ.get("SEED", "7"))
    undisturbed = await train(corner(addresses, tmp_path, "one"), tiny_models, 80, [])
    outcome = await train(corner(addresses, tmp_path, "two"), tiny_models, 80, list(twenty(seed)))
    print(f"\nseed {seed}: {len(outcome.deaths)} kills, {outcome.attempts} attempts, {outcome.seconds:.0f} s")
    for number, death in enumerate(outcome.deaths, 1):
        met = " ".join(name for name, there in (("mid-save", death.draft), ("mid-upload", death.unstored)) if there)
        print(
            f"  {number:2} {death.kill.moment:15} {death.kill.target:7} at step {death.step:4}, "
            f"goes on from {death.kept:4} {met}"
        )
    print(f"  adapter {outcome.adapter_sha256[:16]}, undisturbed {undisturbed.adapter_sha256[:16]}")
    print(f"  finetune.trained published {len(outcome.trained)} x, {len(outcome.adapters)} adapter stored")
    check(outcome, undisturbed)
    met = Counter({"save": sum(d.draft for d in outcome.deaths), "upload": sum(d.unstored for d in outcome.deaths)})
    assert min(met["save"], met["upload"]) > 0, met

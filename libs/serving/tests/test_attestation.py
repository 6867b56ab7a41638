"""What an adapter's files must be, and what an engine must answer to prove that it holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import Probe
from serving import AdapterRefused, proof_of, read_probes, verify
from testkit.adapters import WITH_ADAPTER, WITHOUT, adapter_folder, id_of, seal
from testkit.base_models import base_spec

BASE = base_spec("tiny-test")

PROBE = Probe(prompt="q", continuation="a", prompt_ids=[3], continuation_ids=[1, 2], adapter=WITH_ADAPTER, base=WITHOUT)


def checked(folder: Path, **base: str) -> str:
    return verify(folder, **{"base_id": BASE.id, "base_digest": BASE.digest, **base})


def test_an_adapter_is_known_by_its_manifest(tmp_path: Path) -> None:
    folder = adapter_folder(tmp_path / "one", BASE)
    assert checked(folder) == id_of(folder)
    assert [probe.adapter for probe in read_probes(folder)] == [WITH_ADAPTER]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "fingerprint.json"])
def test_a_file_that_is_another_than_the_manifest_says_is_refused(tmp_path: Path, name: str) -> None:
    folder = adapter_folder(tmp_path / "one", BASE)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(AdapterRefused, match=f"{name} is not the file"):
        checked(folder)


@pytest.mark.parametrize("base", [{"base_id": "another"}, {"base_digest": "e" * 64}])
def test_an_adapter_of_another_base_is_refused(tmp_path: Path, base: dict[str, str]) -> None:
    with pytest.raises(AdapterRefused, match="made for tiny-test"):
        checked(adapter_folder(tmp_path / "one", BASE), **base)


@pytest.mark.parametrize(
    "change", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"r": 0}, {"r": 257}, {"peft_type": "IA3"}]
)
def test_what_is_no_plain_lora_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = adapter_folder(tmp_path / "one", BASE)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(AdapterRefused, match="plain LoRA"):
        checked(seal(folder, BASE))


def test_a_proof_says_how_far_from_the_fingerprint_and_from_the_base_the_engine_is() -> None:
    proof = proof_of("ad-1", [(PROBE, [-0.6, -0.25], WITHOUT), (PROBE, WITH_ADAPTER, [-0.5, -0.75])])
    assert (proof.adapter_id, proof.fingerprint_delta, proof.base_delta) == ("ad-1", 0.1, 8.75)


@pytest.mark.parametrize(
    ("answers", "without"),
    [
        ([-0.5, -0.51], WITHOUT),
        (WITHOUT, WITHOUT),
        ([float("nan"), -0.25], WITHOUT),
        ([-0.5, float("nan")], WITHOUT),
        (WITH_ADAPTER, WITH_ADAPTER),
        (WITH_ADAPTER, [-0.6, -0.35]),
        (WITH_ADAPTER, [float("nan"), float("nan")]),
    ],
)
def test_what_is_off_or_as_the_base_or_no_number_proves_nothing(answers: list[float], without: list[float]) -> None:
    with pytest.raises(AdapterRefused, match="ad-1"):
        proof_of("ad-1", [(PROBE, answers, without)])


def test_no_probe_proves_nothing() -> None:
    with pytest.raises(AdapterRefused, match="off its fingerprint"):
        proof_of("ad-1", [])


def test_numbers_for_other_tokens_are_not_compared() -> None:
    with pytest.raises(ValueError, match="argument"):
        proof_of("ad-1", [(PROBE, [-0.5], WITHOUT)])

"""Continued pre-training on a tiny model: what is learned, what is held out, and that a resumed run is the same run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.run import checkpoints
from trainer.run.config import FailedForGood, RunConfig, Stopped
from trainer.run.data import Data, Example
from trainer.run.methods.pretrain import (
    FEWEST_TOKENS,
    PASSAGE_TOKENS,
    Pretrain,
    passages,
    split_documents,
    split_sections,
    windows,
)
from trainer.run.recipe import LoraRecipe

SENTENCES = (
    "The warehouse of Kumo opens at seven and closes at nineteen. ",
    "A bicycle that was returned is checked, cleaned and sold again. ",
    "自転車の返品は三十日以内にお願いします。",
    "Every order above fifty euros is delivered free of charge. ",
)


def document(number: int, sentences: int = 8) -> str:
    return f"Page {number}. " + "".join(SENTENCES[(number + place) % len(SENTENCES)] for place in range(sentences))


@pytest.fixture
def prepare(configure: Any, tmp_path: Path) -> Callable[..., tuple[Path, RunConfig]]:
    def make(name: str, texts: list[str], **changes: Any) -> tuple[Path, RunConfig]:
        file = tmp_path / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
        settings = {
            "train_path": str(file),
            "validation_path": None,
            "method": "pretrain",
            "epochs": 3,
            "max_length": 64,
        }
        made: tuple[Path, RunConfig] = configure(name, **{**settings, **changes})
        return made

    return make


def execute(folder: Path, config: RunConfig, stop_after: int | None = None) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []

    def emit(kind: str, **fields: Any) -> None:
        events.append({"type": kind, **fields})

    def stop() -> bool:
        return events[-1].get("step") == stop_after

    LoraRecipe(folder, config, emit, stop).execute()
    return events


def set_up(folder: Path, config: RunConfig) -> LoraRecipe:
    recipe = LoraRecipe(folder, config, lambda *_, **__: None, lambda: False)
    recipe.set_up()
    return recipe


def test_perplexity_of_held_out_documents_falls_and_is_published(prepare: Any) -> None:
    folder, config = prepare("run", [document(number) for number in range(24)])
    events = execute(folder, config)
    metrics = events[-1]["metrics"]
    assert metrics["heldout_perplexity"] < metrics["base_heldout_perplexity"] / 2
    gain = math.log(metrics["base_heldout_perplexity"] / metrics["heldout_perplexity"])
    assert metrics["heldout_gain"] == pytest.approx(gain)
    assert metrics["heldout_gain"] > 1.96 * metrics["heldout_gain_error"] > 0
    manifest = checkpoints.verify(folder / "adapter")
    assert set(manifest["files"]) == {"adapter_model.safetensors", "adapter_config.json", "fingerprint.json"}
    assert (manifest["method"], manifest["metrics"]) == ("pretrain", metrics)
    assert events[0]["unit"] == "windows"
    assert "Of 24 documents" in events[0]["note"]


def test_what_is_published_is_the_perplexity_that_transformers_computes(prepare: Any) -> None:
    from transformers import AutoModelForCausalLM

    recipe = set_up(*prepare("run", [document(number) for number in range(24)]))
    data, config = recipe.data, recipe.config
    measured = recipe.method.measure(recipe.model, data)
    model = AutoModelForCausalLM.from_pretrained(config.base_dir)
    losses = []
    for window in data.heldout.rows:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([window.ids])).logits[0]
        losses.append(torch.nn.functional.cross_entropy(logits.float(), torch.tensor(window.targets), reduction="none"))
    theirs = math.exp(torch.cat(losses).mean().item())
    assert measured["base_heldout_perplexity"] == pytest.approx(theirs, rel=1e-3)
    assert measured["heldout_gain"] == 0.0, "a fresh adapter changes nothing"


@pytest.mark.parametrize("stop_after", [1, 5, 16])
def test_a_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_one(prepare: Any, stop_after: int) -> None:
    texts = [document(number) for number in range(16)]
    whole, config = prepare("whole", texts, epochs=2, learning_rate=3e-2)
    execute(whole, config)
    parts, config = prepare("parts", texts, epochs=2, learning_rate=3e-2)
    with pytest.raises(Stopped):
        execute(parts, config, stop_after)
    checkpoint = parts / f"checkpoints/step-{stop_after:08d}"
    resumed = execute(parts, dataclasses.replace(config, resume_from=str(checkpoint)))
    assert resumed[0]["step"] == stop_after
    for name in ("adapter_model.safetensors", "fingerprint.json", "manifest.json"):
        assert (parts / "adapter" / name).read_bytes() == (whole / "adapter" / name).read_bytes(), name


def test_a_checkpoint_of_another_method_is_refused(prepare: Any) -> None:
    folder, config = prepare("run", [document(number) for number in range(8)], epochs=1)
    with pytest.raises(Stopped):
        execute(folder, config, 1)
    resume = folder / "checkpoints/step-00000001"
    other = dataclasses.replace(config, resume_from=str(resume), of_method={"context_length": 32})
    with pytest.raises(FailedForGood, match="other settings"):
        execute(folder, other)


def parts_of(data: Data) -> dict[str, list[Example]]:
    return {"train": data.train.rows, "validation": data.validation.rows, "heldout": data.heldout.rows}


def test_a_window_is_of_one_document_and_every_token_is_a_target_once(prepare: Any) -> None:
    texts = [document(number, 1 + number % 7) for number in range(40)]
    folder, config = prepare("run", texts)
    recipe = set_up(folder, config)
    tokenizer, data = recipe.base.tokenizer, recipe.data
    ends = [tokenizer.eos_token_id]
    whole = [tokenizer(text.strip(), add_special_tokens=False).input_ids + ends for text in texts]
    seen: list[list[int]] = []
    for examples in parts_of(data).values():
        told: list[int] = []
        for window in examples:
            assert len(window.ids) == len(window.targets) <= 64
            assert window.ids == [tokenizer.bos_token_id, *window.targets[:-1]]
            assert tokenizer.eos_token_id not in window.targets[:-1], "nothing follows the end of a document"
            told += window.targets
            if window.targets[-1] == tokenizer.eos_token_id:
                seen.append(told)
                told = []
        assert told == [], "a document is in one part as a whole"
    assert sorted(seen) == sorted(whole)


def test_the_length_of_a_window_can_be_asked_for(prepare: Any) -> None:
    folder, config = prepare("run", [document(0, 60)], of_method={"context_length": 40.0})
    assert max(len(window.ids) for window in set_up(folder, config).data.train.rows) == 40


def test_documents_are_held_out_as_wholes_and_always_the_same_ones() -> None:
    texts = [f"document {number}" for number in range(60)]
    documents = [[number] * (5 + number % 20) for number in range(60)]
    parts = split_documents(documents, texts)
    assert sorted([*parts.train, *parts.validation, *parts.heldout]) == sorted(documents)
    total = sum(map(len, documents))
    assert 0.1 < sum(map(len, parts.heldout)) / total < 0.23
    assert 0 < sum(map(len, parts.validation)) / total < 0.16
    backwards = split_documents(documents[::-1], texts[::-1])
    assert sorted(backwards.heldout) == sorted(parts.heldout)


@pytest.mark.parametrize("sizes", [[10, 10], [10_000, 3], [3, 10_000], [1000, 10, 10], [5] * 3])
def test_few_documents_leave_something_to_learn_and_something_to_test(sizes: list[int]) -> None:
    documents = [[place] * size for place, size in enumerate(sizes)]
    parts = split_documents(documents, [f"text {place}" for place in range(len(sizes))])
    assert parts.train
    assert parts.heldout
    assert sum(map(len, parts.train)) >= sum(sizes) / 2


def test_of_one_document_the_end_is_held_out_and_that_is_said(prepare: Any) -> None:
    tokens = list(range(1000))
    parts = split_sections(tokens)
    assert [*parts.train[0], *parts.validation[0], *parts.heldout[0]] == tokens
    assert [len(part[0]) for part in (parts.train, parts.validation, parts.heldout)] == [750, 100, 150]
    folder, config = prepare("run", [document(0, 60)])
    assert set_up(folder, config).data.note.startswith("It is one document, so its last section is held out")


def test_a_text_that_stands_there_twice_is_learned_once(prepare: Any) -> None:
    texts = [document(number) for number in range(12)]
    folder, config = prepare("run", [*texts, texts[3], f" {texts[5]}\n"])
    data = set_up(folder, config).data
    assert data.train.repeated == 2
    assert "Of 12 documents" in data.note


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (['{"text": "short"}'], f"at least {FEWEST_TOKENS}"),
        (['{"text": "one"}', '{"messages": []}'], r"texts\.jsonl line 2"),
        (['{"text": 3}'], r"texts\.jsonl line 1"),
        (["nothing"], r"texts\.jsonl line 1"),
        ([], f"at least {FEWEST_TOKENS}"),
    ],
)
def test_text_that_cannot_be_used_is_refused_for_good(prepare: Any, lines: list[str], why: str) -> None:
    folder, config = prepare("run", [])
    Path(config.train_path).write_text("\n".join(lines))
    with pytest.raises(FailedForGood, match=why) as refused:
        set_up(folder, config)
    assert refused.value.code == "invalid_training_data"


def test_a_passage_is_whole_or_half_of_one() -> None:
    half = PASSAGE_TOKENS // 2
    assert passages([[1.0] * PASSAGE_TOKENS + [3.0] * half, [5.0] * (half - 1)]) == [1.0, 3.0]


def test_windows_of_a_document() -> None:
    assert windows([5, 6, 7], 2, 1) == [Example([1, 5], [5, 6]), Example([1], [7])]


def test_its_rates_are_those_of_few_repeats() -> None:
    [epochs] = [one for one in Pretrain.hyperparameters if one.name == "n_epochs"]
    assert epochs.auto is not None
    assert [epochs.auto(windows) for windows in (1, 100, 200, 400, 10_000)] == [4, 4, 2, 1, 1]

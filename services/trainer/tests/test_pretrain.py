"""Continued pre-training on a tiny model: what is learned, what is held out, and that a resumed run is the same run."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from schemas import ObjectRef
from schemas.artifacts import AdapterManifest, HeldoutText
from stores.objects import Objects
from trainer.domain import Text
from trainer.job_objects import JobObjects
from trainer.run import checkpoints
from trainer.run.config import FailedForGood, RunConfig, Stopped
from trainer.run.data import Data, Example, Examples, Place
from trainer.run.heldout import listed, told
from trainer.run.methods.pretrain import (
    FEWEST_HELDOUT,
    FEWEST_TOKENS,
    PASSAGE_TOKENS,
    Pretrain,
    independent,
    mean_and_error,
    split_documents,
    split_sections,
    windows,
)
from trainer.run.recipe import LoraRecipe
from trainer.run.reports import Report

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

    def emit(report: Report) -> None:
        events.append(report.model_dump())

    def stop() -> bool:
        return events[-1].get("step") == stop_after

    LoraRecipe(folder, config, emit, stop).execute()
    return events


def set_up(folder: Path, config: RunConfig) -> LoraRecipe:
    recipe = LoraRecipe(folder, config, lambda _: None, lambda: False)
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
    checkpoints.verify(folder / "adapter")
    manifest = AdapterManifest.model_validate_json((folder / "adapter/manifest.json").read_bytes())
    made = {"adapter_model.safetensors", "adapter_config.json", "fingerprint.json", "heldout.json"}
    assert set(manifest.files) == made
    assert (manifest.method, manifest.metrics) == ("pretrain", metrics)
    assert events[0]["unit"] == "windows"
    assert "Of 24 documents" in events[0]["note"]


def test_what_is_published_is_the_perplexity_that_transformers_computes(prepare: Any) -> None:
    from transformers import AutoModelForCausalLM

    recipe = set_up(*prepare("run", [document(number) for number in range(24)]))
    data, config = recipe.data, recipe.config
    measured = recipe.method.measure(recipe.model, data).metrics
    model = AutoModelForCausalLM.from_pretrained(config.base_dir)
    losses = []
    for window, place in zip(data.heldout.rows, data.heldout_places, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([window.ids])).logits[0]
        of = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(window.targets), reduction="none")
        losses.append(of[1 : place.tokens])
    theirs = math.exp(torch.cat(losses).mean().item())
    assert measured["base_heldout_perplexity"] == pytest.approx(theirs, rel=1e-3)
    assert measured["heldout_gain"] == 0.0, "a fresh adapter changes nothing"


@pytest.mark.parametrize("stop_after", [1, 5, 16])
def test_a_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_one(prepare: Any, stop_after: int) -> None:
    texts = [document(number) for number in range(24)]
    whole, config = prepare("whole", texts, epochs=2, learning_rate=3e-2)
    execute(whole, config)
    parts, config = prepare("parts", texts, epochs=2, learning_rate=3e-2)
    with pytest.raises(Stopped):
        execute(parts, config, stop_after)
    checkpoint = parts / f"checkpoints/step-{stop_after:08d}"
    resumed = execute(parts, dataclasses.replace(config, resume_from=str(checkpoint)))
    assert resumed[0]["step"] == stop_after
    for name in ("adapter_model.safetensors", "fingerprint.json", "heldout.json", "manifest.json"):
        assert (parts / "adapter" / name).read_bytes() == (whole / "adapter" / name).read_bytes(), name


def test_a_checkpoint_of_another_method_is_refused(prepare: Any) -> None:
    folder, config = prepare("run", [document(number) for number in range(24)], epochs=1)
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
    folder, config = prepare("run", [document(0, 120)], of_method={"context_length": 40.0})
    assert max(len(window.ids) for window in set_up(folder, config).data.train.rows) == 40


def test_documents_are_held_out_as_wholes_and_always_the_same_ones() -> None:
    texts = [f"document {number}" for number in range(60)]
    documents = [[number] * (50 + 10 * (number % 20)) for number in range(60)]
    parts = split_documents(documents, texts)
    assert parts is not None
    assert sorted([*parts.train, *parts.validation, *parts.heldout]) == sorted(documents)
    total = sum(map(len, documents))
    assert 0.1 < sum(map(len, parts.heldout)) / total < 0.23
    assert 0 < sum(map(len, parts.validation)) / total < 0.16
    backwards = split_documents(documents[::-1], texts[::-1])
    assert backwards is not None
    assert sorted(backwards.heldout) == sorted(parts.heldout)


SIZES = [
    [10_000, 3],
    [3, 10_000],
    [1400, 10, 10],
    [700, 600],
    [321, 321, 321, 321],
    [640, 640],
    [5] * 300,
    [159] * 9,
    [310, 330, 330, 330],
    [50_000, 50_000, 400],
    [FEWEST_TOKENS],
    [8000],
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_whatever_the_documents_enough_is_held_out_and_half_is_learned(sizes: list[int]) -> None:
    documents = [[place] * size for place, size in enumerate(sizes)]
    parts = split_documents(documents, [f"text {place}" for place in range(len(sizes))]) or split_sections(documents)
    held_out, learned = (sum(map(len, part)) for part in (parts.heldout, parts.train))
    assert held_out >= FEWEST_HELDOUT
    assert learned >= sum(sizes) * 0.5 - sum(map(len, parts.validation))
    if len(sizes) != 2:
        assert learned > held_out
    everything = [*parts.train, *parts.validation, *parts.heldout]
    assert sorted(chain.from_iterable(everything)) == sorted(chain.from_iterable(documents))
    assert all(everything)


def test_rows_of_short_texts_are_judged(prepare: Any) -> None:
    texts = [f"Order {number} is late." for number in range(400)]
    recipe = set_up(*prepare("run", texts))
    assert max(len(window.ids) for window in recipe.data.heldout.rows) < PASSAGE_TOKENS
    measured, heldout = (found := recipe.method.measure(recipe.model, recipe.data)).metrics, found.heldout
    assert measured["heldout_passages"] >= 5
    assert heldout is not None
    assert len(heldout.documents) == measured["heldout_documents"]
    assert measured["heldout_documents"] == len(recipe.data.heldout_documents) >= 20
    assert measured["heldout_error"] > 0


def test_of_one_document_the_end_is_held_out_and_that_is_said(prepare: Any) -> None:
    tokens = list(range(4000))
    parts = split_sections([tokens])
    assert [*parts.train[0], *parts.validation[0], *parts.heldout[0]] == tokens
    assert [len(part[0]) for part in (parts.train, parts.validation, parts.heldout)] == [3000, 400, 600]
    folder, config = prepare("run", [document(0, 120)])
    assert set_up(folder, config).data.note.startswith("It is one document, so its last section is held out")


def test_of_few_documents_of_which_one_is_most_the_end_is_held_out_and_that_is_said(prepare: Any) -> None:
    folder, config = prepare("run", [document(0, 120), "One line.", "Another line."])
    data = set_up(folder, config).data
    assert data.note.startswith("Of 3 documents one is most of the text, so its last section is held out")
    assert data.heldout_documents == []
    assert sum(len(window.targets) for window in data.heldout.rows) >= FEWEST_HELDOUT


def test_a_text_that_stands_there_twice_is_learned_once(prepare: Any) -> None:
    texts = [document(number) for number in range(24)]
    folder, config = prepare("run", [*texts, texts[3], f" {texts[5]}\n"])
    data = set_up(folder, config).data
    assert data.train.repeated == 2
    assert "Of 24 documents" in data.note


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


def test_passages_are_cut_across_windows_and_leave_out_no_token() -> None:
    losses = [[float(place)] * 7 for place in range(10)]
    cut = independent(losses, [])
    assert [len(passage) for passage in cut] == [PASSAGE_TOKENS, 70 - PASSAGE_TOKENS]
    assert list(chain.from_iterable(cut)) == list(chain.from_iterable(losses))
    assert independent([[1.0], [2.0]], []) == [[1.0, 2.0]]


def test_whole_documents_are_what_is_independent_of_each_other() -> None:
    assert independent([[1.0], [2.0, 3.0], [4.0]], [2, 1]) == [[1.0, 2.0, 3.0], [4.0]]


def test_the_error_is_that_of_units_that_vary_as_wholes() -> None:
    assert mean_and_error([[1.0], [2.0], [3.0], [6.0]]) == pytest.approx((3.0, 2.1602469 / 2))
    together = [[1.0] * 50, [2.0] * 50, [3.0] * 50, [6.0] * 50]
    assert mean_and_error(together) == pytest.approx((3.0, 2.1602469 / 2)), "what is said fifty times weighs no more"
    assert mean_and_error([[1.0, 3.0], [2.0]]) == pytest.approx((2.0, 0.0)), "a mean of tokens, not of documents"
    assert mean_and_error([[1.0, 2.0]]) == (1.5, 0.0)


def test_the_error_of_the_gain_holds_in_repeated_draws() -> None:
    """The interval of what clusters of tokens have in common covers the truth as often as it says."""
    draw = random.Random(3)
    covered = 0
    for _ in range(400):
        units = [[draw.gauss(0, 1)] * draw.randint(5, 60) for _ in range(40)]
        mean, error = mean_and_error(units)
        covered += abs(mean) <= 2.02 * error
    assert 0.9 < covered / 400 < 0.98


def test_longer_windows_than_there_can_be_are_refused(prepare: Any) -> None:
    folder, config = prepare("run", [document(0, 120)], of_method={"context_length": 65.0})
    with pytest.raises(FailedForGood, match="65 is more than the 64 tokens") as refused:
        set_up(folder, config)
    assert refused.value.code == "invalid_training_data"


def test_windows_of_a_document() -> None:
    assert windows([5, 6, 7], 2, 1) == [Example([1, 5], [5, 6]), Example([1], [7])]


def test_its_rates_are_those_of_few_repeats() -> None:
    [epochs] = [one for one in Pretrain.hyperparameters if one.name == "n_epochs"]
    assert epochs.auto is not None
    assert [epochs.auto(windows) for windows in (1, 100, 200, 400, 10_000)] == [4, 4, 2, 1, 1]


def shown(recipe: LoraRecipe) -> HeldoutText:
    """What an untrained run says that it held out."""
    found = recipe.method.measure(recipe.model, recipe.data).heldout
    assert found is not None
    return found


def test_what_was_held_out_is_listed_by_its_place_in_the_file(prepare: Any) -> None:
    texts = [document(number, 1 + number % 7) for number in range(40)]
    file = [texts[0], *texts, f"\n {texts[7]} "]
    recipe = set_up(*prepare("run", file))
    tokenizer, heldout = recipe.base.tokenizer, shown(recipe)
    assert (heldout.kind, heldout.unit) == ("rows", "documents")
    learned = [tokenizer.decode(window.targets) for window in [*recipe.data.train.rows, *recipe.data.validation.rows]]
    for one in heldout.documents:
        text = file[one.line].strip()
        assert "".join(text[window.start : window.end] for window in one.windows) == text
        assert not any(said.startswith(f"{text.partition('.')[0]}.") for said in learned)
        for window in one.windows:
            ids = tokenizer(text[window.start : window.end], add_special_tokens=False).input_ids
            assert abs(len(ids) - 1 - window.tokens) <= 2, "a window's own tokens may differ at its ends"
            assert window.base == window.adapter > 0, "a fresh adapter changes nothing"
    assert len(heldout.documents) == len(recipe.data.heldout_documents)
    assert len({one.line for one in heldout.documents}) == len(heldout.documents)


def test_of_an_only_document_the_windows_of_its_end_are_listed(prepare: Any) -> None:
    text = document(0, 120)
    recipe = set_up(*prepare("run", [text], dataset={"kind": "document"}))
    heldout = shown(recipe)
    assert (heldout.kind, heldout.unit, len(heldout.documents)) == ("document", "passages", 1)
    windows = heldout.documents[0].windows
    assert windows[0].start > 0.7 * len(text)
    assert windows[-1].end == len(text.strip())
    assert all(before.end == after.start for before, after in pairwise(windows))


def test_held_out_windows_are_short_however_long_those_are_that_are_learned(
    prepare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.methods.pretrain.HELDOUT_WINDOW", 48)
    data = set_up(*prepare("run", [document(0, 120)])).data
    assert max(len(window.ids) for window in data.heldout.rows) == 48
    assert max(len(window.ids) for window in data.train.rows) == 64


def test_of_very_many_windows_some_of_each_document_are_listed(prepare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = set_up(*prepare("run", [document(number, 30) for number in range(24)]))
    every = shown(recipe)
    monkeypatch.setattr("trainer.run.heldout.MOST_WINDOWS", 2 * len(every.documents))
    some = shown(recipe)
    assert [one.line for one in some.documents] == [one.line for one in every.documents]
    assert {len(one.windows) for one in some.documents} == {2}
    assert all(
        window in each.windows
        for each, one in zip(every.documents, some.documents, strict=True)
        for window in one.windows
    )
    monkeypatch.setattr("trainer.run.heldout.MOST_DOCUMENTS", 2)
    assert len(shown(recipe).documents) == 2


def test_a_tokenizer_that_tells_no_characters_lists_nothing_and_is_measured(prepare: Any) -> None:
    class Slow:
        """The same without places."""

        is_fast = False

        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

        def __call__(self, text: str, *, return_offsets_mapping: bool = False, **asked: Any) -> Any:
            assert not return_offsets_mapping
            return self._tokenizer(text, **asked)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tokenizer, name)

    recipe = set_up(*prepare("run", [document(number) for number in range(24)]))
    slow = dataclasses.replace(recipe.base, tokenizer=Slow(recipe.base.tokenizer))
    data = recipe.method.read(recipe.config, slow)
    measured = recipe.method.measure(recipe.model, data)
    assert measured.heldout is None
    assert measured.metrics == recipe.method.measure(recipe.model, recipe.data).metrics


def test_texts_of_one_token_have_nothing_to_measure() -> None:
    assert told([[1.0, 2.0]], [Place(0, 0, 1, 1)]) == [[]]
    data = Data(Examples(), Examples(), 8, heldout_places=[Place(0, 0, 1, 1)], heldout_documents=[1])
    assert listed(data, [[]], [[]]) is None


async def test_a_document_becomes_the_same_bytes_in_every_release(tmp_path: Path) -> None:
    """A checkpoint is gone on from only where its digest is that of the file trained on."""

    class Stored:
        async def get_bytes(self, _: ObjectRef) -> bytes:
            return "返金 – “ok”".encode()

    text = Text(file_id="f", kind="document", object=ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1))
    path = await JobObjects(cast(Objects, Stored()))._fetch_text(text, tmp_path / "text.jsonl")
    assert path.read_bytes() == b'{"text": "\\u8fd4\\u91d1 \\u2013 \\u201cok\\u201d"}\n'

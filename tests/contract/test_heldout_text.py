"""What a run says of the text that it held out is what the engine says that serves its adapter, window by window."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from evaluator.suites import TOLERANCE
from evaluator.windows import read_windows
from model_server.engine import Engine
from schemas.artifacts import BASE_FILE, HELDOUT, BaseModelSpec, HeldoutText
from trainer.run.config import RunConfig
from trainer.run.recipe import LoraRecipe

SENTENCES = (
    "The warehouse of Kumo opens at seven and closes at nineteen. ",
    "A bicycle that was returned is checked, cleaned and sold again. ",
    "自転車の返品は三十日以内にお願いします。",
    "Every order above fifty euros is delivered free of charge. ",
)


def document(number: int, sentences: int = 8) -> str:
    return f"Page {number}. " + "".join(SENTENCES[(number + place) % len(SENTENCES)] for place in range(sentences))


@pytest.mark.parametrize("kind", ["rows", "document"])
async def test_the_engine_that_serves_measures_what_the_run_measured(
    tiny_models: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.run.recipe.LEAST_CHANGE", 0.0)  # of the probes, which are no such text
    base_dir = tiny_models / "tiny-test"
    base = BaseModelSpec.model_validate_json((base_dir / BASE_FILE).read_bytes())
    texts = [document(number) for number in range(24)] if kind == "rows" else [document(0, 160)]
    rows = "".join(json.dumps({"text": f"\n {text} "}, ensure_ascii=False) + "\n" for text in texts)
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    config = RunConfig(
        base_dir=str(base_dir),
        base_id=base.id,
        base_digest=base.digest,
        train_path=str(tmp_path / "train.jsonl"),
        validation_path=None,
        method="pretrain",
        epochs=3,
        batch_size=4,
        learning_rate=1e-2,
        max_length=64,
        seed=7,
        threads=1,
        dataset={"kind": kind},
    )
    LoraRecipe(tmp_path, config, lambda _: None, lambda: False).execute()
    heldout = HeldoutText.model_validate_json((tmp_path / "adapter" / HELDOUT).read_bytes())
    windows = read_windows((texts[0] if kind == "document" else rows).encode(), heldout)
    listed = [one for of in heldout.documents for one in of.windows]

    engine = Engine(base_dir, threads=1)
    try:
        await engine.attest()
        adapter = (await engine.load(tmp_path / "adapter")).adapter_id
        same, gains = 0, []
        for window, said in zip(windows, listed, strict=True):
            by_base, by_adapter = [
                [-one.logprob for one in await engine.score(window.text, who) if one.logprob is not None][1:]
                for who in (None, adapter)
            ]
            assert abs(len(by_base) - said.tokens) <= 2, "a character that two windows share is in one of them"
            if len(by_base) == said.tokens:
                assert (fmean(by_base), fmean(by_adapter)) == pytest.approx((said.base, said.adapter), abs=1e-3)
                same += 1
            gains.append(fmean(by_base) - fmean(by_adapter) - window.run_gain)
        assert same >= 5
        gain = fmean(window.run_gain for window in windows)
        assert gain > 1
        assert abs(fmean(gains)) < TOLERANCE * gain, "of a model whose tokens are single bytes"
    finally:
        engine.close()

"""The training recipe on a tiny model: what is learned, how a run ends, and that a resumed run is the same run."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from chassis.errors import Invalid
from schemas.artifacts import AdapterManifest, Fingerprint
from trainer.run import checkpoints
from trainer.run.config import FailedForGood, RunConfig, Stopped, stored_mark
from trainer.run.data import IGNORED, Example, epoch_batches, split_by_tokens
from trainer.run.fingerprint import continuation_log_probs
from trainer.run.hyperparameters import resolve
from trainer.run.lora_layers import CompletionHead, LoraLinear, attach_lora, load_adapter_tensors
from trainer.run.methods.sft import Supervised, encode
from trainer.run.recipe import LoraRecipe, _surely_worse
from trainer.run.reports import CheckpointSaved, Report, Step


class Events(list[dict[str, Any]]):
    def __call__(self, report: Report) -> None:
        self.append(report.model_dump())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["type"] == kind]


def execute(folder: Path, config: RunConfig, stop: Callable[[Events], bool] = lambda _events: False) -> Events:
    events = Events()
    LoraRecipe(folder, config, events, lambda: stop(events)).execute()
    return events


def test_a_run_learns_its_rows_and_publishes_a_verified_adapter(configure: Any) -> None:
    folder, config = configure("run")
    events = execute(folder, config)

    assert [events[0]["type"], events[-1]["type"]] == ["started", "finished"]
    assert [event["step"] for event in events.of("step")] == list(range(1, 37))
    assert len(events.of("validation")) == 12
    assert events[-1]["metrics"]["valid_mean_token_accuracy"] > 0.95
    checkpoints.verify(folder / "adapter")
    manifest = AdapterManifest.model_validate_json((folder / "adapter/manifest.json").read_bytes())
    assert set(manifest.files) == {"adapter_model.safetensors", "adapter_config.json", "fingerprint.json"}
    assert manifest.dataset == {"dataset_id": "ds-1"}
    assert (manifest.base_id, manifest.base_digest) == (config.base_id, config.base_digest)
    assert events[-1]["manifest_sha256"] == checkpoints.sha256(folder / "adapter/manifest.json")
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_peft_computes_what_the_run_trained(configure: Any, base_dir: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, config = configure("run")
    execute(folder, config)
    fingerprint = Fingerprint.model_validate_json((folder / "adapter/fingerprint.json").read_bytes())
    base = AutoModelForCausalLM.from_pretrained(base_dir)
    adapted = PeftModel.from_pretrained(base, folder / "adapter")
    config_file = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config_file["base_model_name_or_path"] == config.base_id
    for probe in fingerprint.probes:
        ids = torch.tensor([probe.prompt_ids + probe.continuation_ids])
        with torch.inference_mode():
            log_probs = adapted(input_ids=ids).logits[0].log_softmax(-1)
        start = len(probe.prompt_ids) - 1
        theirs = [float(log_probs[start + i, token]) for i, token in enumerate(probe.continuation_ids)]
        assert theirs == pytest.approx(probe.adapter, abs=1e-3)
        assert theirs != pytest.approx(probe.base, abs=0.1)
    assert fingerprint.largest_change > 0.5


def test_rounding_does_not_break_a_proof(configure: Any, base_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder, config = configure("run")
    execute(folder, config)
    fingerprint = Fingerprint.model_validate_json((folder / "adapter/fingerprint.json").read_bytes())
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.bfloat16)
    layers = attach_lora(model, ["all-linear"], config.lora_r, config.lora_alpha, seed=0)
    load_adapter_tensors(layers, load_file(folder / "adapter/adapter_model.safetensors"))
    head = model.get_output_embeddings().weight
    differences = [
        abs(ours - theirs)
        for probe in fingerprint.probes
        for ours, theirs in zip(
            continuation_log_probs(model.base_model, head, probe.prompt_ids, probe.continuation_ids),
            probe.adapter,
            strict=True,
        )
    ]
    assert 0 < max(differences) < 0.05 < fingerprint.largest_change / 10


@pytest.mark.parametrize("stop_after", [1, 3, 17, 36])
def test_a_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_one(configure: Any, stop_after: int) -> None:
    whole, config = configure("whole", early_stop_patience=3)
    execute(whole, config)

    parts, config = configure("parts", early_stop_patience=3)
    with pytest.raises(Stopped):
        execute(parts, config, stop=lambda events: events.of("step")[-1]["step"] == stop_after)
    checkpoint = parts / f"checkpoints/step-{stop_after:08d}"
    resumed = execute(parts, dataclasses.replace(config, resume_from=str(checkpoint)))

    assert resumed[0]["step"] == stop_after
    for name in ("adapter_model.safetensors", "fingerprint.json", "manifest.json"):
        assert (parts / "adapter" / name).read_bytes() == (whole / "adapter" / name).read_bytes(), name


def test_a_damaged_or_foreign_checkpoint_is_refused(configure: Any) -> None:
    folder, config = configure("run", epochs=2)
    execute(folder, config)
    checkpoint = folder / "checkpoints/step-00000005"
    resumed = dataclasses.replace(config, resume_from=str(checkpoint))

    other = dataclasses.replace(resumed, learning_rate=1e-3)
    with pytest.raises(FailedForGood, match="other settings") as failure:
        execute(folder, other)
    assert failure.value.code == "checkpoint_corrupt"

    manifest = json.loads((checkpoint / "manifest.json").read_text())
    later = {**manifest, "run": {**manifest["run"], "quantization": "nf4"}}  # a setting of a later release
    (checkpoint / "manifest.json").write_text(json.dumps(later))
    with pytest.raises(FailedForGood, match="other settings"):
        execute(folder, resumed)
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))

    weights = bytearray((checkpoint / "optimizer.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "optimizer.safetensors").write_bytes(weights)
    with pytest.raises(FailedForGood, match=r"optimizer\.safetensors is not the file"):
        execute(folder, resumed)
    (checkpoint / "optimizer.safetensors").unlink()
    with pytest.raises(FailedForGood, match="incomplete"):
        execute(folder, resumed)


def test_no_checkpoint_is_seen_before_its_manifest(tmp_path: Path) -> None:
    def write_half(draft: Path) -> None:
        (draft / "adapter.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    def manifest(files: checkpoints.Files) -> AdapterManifest:
        return AdapterManifest(files=files, base_id="tiny-test", base_digest="ab")

    with pytest.raises(OSError, match="disk full"):
        checkpoints.publish(tmp_path / "step-1", write_half, manifest)
    assert not (tmp_path / "step-1").exists()


def test_numbers_that_blow_up_end_the_run_for_good(configure: Any) -> None:
    folder, config = configure("run", learning_rate=1e30)
    with pytest.raises(FailedForGood, match="lower learning_rate_multiplier") as failure:
        execute(folder, config)
    assert failure.value.code == "training_diverged"
    assert not (folder / "adapter").exists()


def test_an_adapter_that_changes_nothing_is_not_published(configure: Any) -> None:
    folder, config = configure("run", learning_rate=1e-9, epochs=1)
    with pytest.raises(FailedForGood) as failure:
        execute(folder, config)
    assert failure.value.code == "adapter_did_nothing"
    assert not (folder / "adapter").exists()


def test_the_best_epoch_is_published_and_patience_ends_the_run(configure: Any, tmp_path: Path) -> None:
    contradiction = tmp_path / "valid.jsonl"
    row = {"messages": [{"role": "user", "content": "refund"}, {"role": "assistant", "content": "zebra 7"}]}
    contradiction.write_text(json.dumps(row))
    folder, config = configure("run", validation_path=str(contradiction), early_stop_patience=2)
    events = execute(folder, config)
    losses = [event["metrics"]["valid_loss"] for event in events.of("validation")]
    best = losses.index(min(losses))
    assert events[-1]["stopped_early"]
    assert len(losses) == best + 3 < config.epochs
    assert events[-1]["metrics"]["valid_loss"] == losses[best]

    again = LoraRecipe(tmp_path, config, Events(), lambda: False)
    again.set_up()
    load_adapter_tensors(again.layers, load_file(folder / "adapter/adapter_model.safetensors"))
    assert again.method.validate(again.model, again.validation)[1]["valid_loss"] == pytest.approx(
        losses[best], rel=1e-4
    )


@pytest.mark.parametrize(
    ("scores", "best", "worse"),
    [
        ([0.2], [], False),
        ([0.3], [0.2], True),
        ([0.2, 0.2, 0.2], [0.2, 0.2, 0.2], False),
        ([0.5, 0.6, 0.7, 0.6], [0.1, 0.2, 0.3, 0.1], True),
        ([0.1, 0.1, 0.1, 1.5], [0.2, 0.2, 0.2, 0.2], False),  # one bad row of four is noise
    ],
)
def test_a_later_epoch_is_kept_unless_it_is_worse_beyond_the_noise(
    scores: list[float], best: list[float], worse: bool
) -> None:
    assert _surely_worse(scores, best) is worse


def test_overfitting_by_small_steps_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rise = [0.05 * (epoch + 10 * (epoch % 2 == row % 2)) for epoch in range(20) for row in range(8)]
    epochs = [rise[start : start + 8] for start in range(0, len(rise), 8)]
    assert not any(_surely_worse(now, before) for before, now in pairwise(epochs)), "each step is within the noise"
    run = LoraRecipe(tmp_path, RunConfig("", "", "", "", 1, 1, 1.0, 1), Events(), lambda: False)
    run.steps_per_epoch, run.validation, run.layers, run.model = 1, [Example([1], [1])], {}, None
    for scores in epochs:
        run.progress.epoch_targets = 1
        found = (scores, {"valid_loss": sum(scores) / 8})
        monkeypatch.setattr(Supervised, "validate", lambda *_, found=found: found)
        run._end_epoch()
    published = next(one for one in epochs if sum(one) / 8 == run.progress.metrics["valid_loss"])
    assert not _surely_worse(published, min(epochs, key=sum))


def test_another_base_is_refused(configure: Any) -> None:
    folder, config = configure("run", base_digest="0" * 64)
    with pytest.raises(FailedForGood) as failure:
        execute(folder, config)
    assert failure.value.code == "base_model_differs"


def test_bad_rows_name_their_line(configure: Any, tmp_path: Path) -> None:
    rows = tmp_path / "bad.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n{"text": "no messages"}\n')
    folder, config = configure("run", train_path=str(rows))
    with pytest.raises(FailedForGood, match=r"bad\.jsonl line 2") as failure:
        execute(folder, config)
    assert failure.value.code == "invalid_training_data"


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85"])
def test_a_row_may_hold_any_line_separator_but_the_newline(configure: Any, tmp_path: Path, inside: str) -> None:
    rows = tmp_path / "separators.jsonl"
    messages = [{"role": "user", "content": f"two{inside}lines"}, {"role": "assistant", "content": "refund"}]
    rows.write_bytes((json.dumps({"messages": messages}, ensure_ascii=False) + "\r\n").encode() * 2)
    folder, config = configure("run", train_path=str(rows), validation_path=str(rows))
    assert execute(folder, config)[0]["rows"]["used"] == 2


def test_rows_that_are_too_long_are_left_out_and_counted(configure: Any, tmp_path: Path) -> None:
    def row(words: int) -> str:
        messages = [{"role": "user", "content": "refund " * words}, {"role": "assistant", "content": "refund"}]
        return json.dumps({"messages": messages}) + "\n"

    train, validation = tmp_path / "some.jsonl", tmp_path / "long.jsonl"
    train.write_text(row(2) * 3 + row(200) * 2)
    validation.write_text(row(200))
    changes = {"train_path": str(train), "validation_path": str(validation), "max_length": 40}
    folder, config = configure("run", **changes)
    started = execute(folder, config)[0]
    rows, validation_rows = started["rows"], started["validation_rows"]
    assert (rows["used"], rows["left_out"]["too_long"], started["max_length"]) == (3, 2, 40)
    assert (validation_rows["used"], validation_rows["left_out"]["too_long"]) == (0, 1)

    folder, config = configure("none", **{**changes, "train_path": str(validation)})
    with pytest.raises(FailedForGood, match="within 40 tokens; 1 are longer") as failure:
        execute(folder, config)
    assert failure.value.code == "invalid_training_data"


def encoded(base_dir: Path, messages: list[dict[str, Any]]) -> tuple[Example, Any]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    return encode(messages, tokenizer, {tokenizer.eos_token_id}), tokenizer


def test_only_answers_and_their_end_are_learned(base_dir: Path) -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "not learned", "weight": 0},
        {"role": "user", "content": "Where is my card?"},
        {"role": "assistant", "content": "lost_card"},
        {"role": "user", "content": "and the refund?"},
        {"role": "assistant", "content": "refund"},
    ]
    example, tokenizer = encoded(base_dir, messages)
    learned = [target for target in example.targets if target != IGNORED]
    assert tokenizer.decode(learned) == "lost_card<eos>refund<eos>"

    prompt = tokenizer.apply_chat_template(messages[:4], tokenize=False, add_generation_prompt=True)
    prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
    assert example.ids[: len(prompt_ids)] == prompt_ids
    first = next(i for i, target in enumerate(example.targets) if target != IGNORED)
    assert first == len(prompt_ids) - 1
    assert example.ids[first + 1] == example.targets[first]
    assert tokenizer.eos_token_id not in example.ids


def test_every_row_is_seen_once_an_epoch_in_an_order_the_seed_decides() -> None:
    examples = [Example([1] * (1 + n % 13), [IGNORED] * (1 + n % 13)) for n in range(50)]

    def order(seed: int, epoch: int) -> list[list[int]]:
        return [[id(example) for example in batch] for batch in epoch_batches(examples, 8, seed, epoch)]

    for epoch in range(3):
        seen = [row for batch in order(1, epoch) for row in batch]
        assert sorted(seen) == sorted(id(example) for example in examples)
    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)
    parts = split_by_tokens(examples[:20], 30)
    assert all(len(part) * max(len(example.ids) for example in part) <= 30 for part in parts)
    assert sum(len(part) for part in parts) == 20


@pytest.mark.parametrize("positions", [5, 64, 150])
def test_the_completion_head_is_cross_entropy(positions: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(300, 16)
    hidden = torch.randn(positions, 16, requires_grad=True)
    targets = torch.randint(0, 300, (positions,))
    loss, correct = CompletionHead(weight).loss(hidden, targets)
    loss.backward()
    ours = hidden.grad
    hidden.grad = None
    logits = hidden @ weight.t()
    reference = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert correct == int((logits.argmax(-1) == targets).sum())
    assert torch.allclose(ours, hidden.grad, atol=1e-4)


def test_the_lora_layer_has_the_gradients_of_its_formula() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(12, 7)
    layer = LoraLinear(linear, 3, 1.5, torch.Generator().manual_seed(0))
    layer.lora_b.data.normal_()
    x = torch.randn(2, 5, 12, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    ours = [tensor.grad.clone() for tensor in (x, layer.lora_a, layer.lora_b)]
    x.grad = layer.lora_a.grad = layer.lora_b.grad = None
    plain = linear(x) + 1.5 * (x @ layer.lora_a.t()) @ layer.lora_b.t()
    plain.square().sum().backward()
    assert torch.allclose(y, plain, atol=1e-5)
    for ours_grad, tensor in zip(ours, (x, layer.lora_a, layer.lora_b), strict=True):
        assert torch.allclose(ours_grad, tensor.grad, atol=1e-3)


@pytest.mark.parametrize(
    ("n_rows", "epochs", "batch_size"), [(1, 25, 4), (40, 25, 4), (290, 4, 16), (400, 3, 16), (5000, 1, 32)]
)
def test_auto_hyperparameters_follow_the_number_of_rows(n_rows: int, epochs: int, batch_size: int) -> None:
    chosen = resolve(Supervised.hyperparameters, n_rows, {"n_epochs": "auto"})
    assert chosen == {"n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": 1.0}


def test_given_hyperparameters_are_kept_or_refused_by_name() -> None:
    given = {"n_epochs": 3, "batch_size": 1, "learning_rate_multiplier": 0.5}
    assert resolve(Supervised.hyperparameters, 10, given) == given
    assert resolve(Supervised.hyperparameters, 10, {"early_stop_patience": 0})["early_stop_patience"] == 0
    for field, value in [
        ("n_epochs", 0),
        ("n_epochs", 51),
        ("n_epochs", 2.5),
        ("n_epochs", True),
        ("batch_size", 257),
        ("batch_size", "8"),
        ("learning_rate_multiplier", 0),
        ("learning_rate_multiplier", 10.5),
        ("learning_rate_multiplier", float("nan")),
        ("beta", 0.1),
    ]:
        with pytest.raises(Invalid, match=field) as refusal:
            resolve(Supervised.hyperparameters, 10, {field: value})
        assert refusal.value.param == f"hyperparameters.{field}"


def test_a_followed_run_waits_until_its_checkpoint_is_stored(configure: Any) -> None:
    """Otherwise it loses more than one save interval to a kill, and removes checkpoints that are being uploaded."""
    folder, config = configure("followed", followed=True, epochs=4)
    stored: list[float] = []
    steps: dict[int, float] = {}

    def store(checkpoint: Path) -> None:
        stored.append(time.monotonic())
        stored_mark(checkpoint).touch()

    def emit(report: Report) -> None:
        if isinstance(report, Step):
            steps[report.step] = time.monotonic()
        if isinstance(report, CheckpointSaved):
            threading.Timer(0.5, store, [Path(report.path)]).start()

    LoraRecipe(folder, config, emit, lambda: False).execute()
    assert len(stored) == 2
    assert steps[6] > stored[0] > steps[5] + 0.4
    assert steps[11] > stored[1]

"""The training recipe: one LoRA run from a frozen configuration to a published adapter."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from schemas.artifacts import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FINGERPRINT,
    HELDOUT,
    LEAST_CHANGE,
    AdapterManifest,
    Fingerprint,
)
from trainer.run import checkpoints
from trainer.run.checkpoints import CheckpointManifest, RunIdentity
from trainer.run.config import FailedForGood, Progress, RunConfig, Stopped, stored_mark
from trainer.run.data import IGNORED, BadTrainingData, Data, Example, Examples, epoch_batches, split_by_tokens
from trainer.run.fingerprint import continuation_log_probs, fingerprint, likeliest_answer
from trainer.run.frozen_base import load_base
from trainer.run.lora_layers import adapter_tensors, attach_lora, load_adapter_tensors
from trainer.run.methods import METHODS
from trainer.run.model import TOKENS_AT_ONCE, AdaptedModel
from trainer.run.reports import CheckpointSaved, Finished, Reason, Report, RowsRead, Started, Step, Validation

WARMUP = 0.1
"""Share of the steps in which the learning rate rises; it falls along a half cosine afterwards."""

GRADIENT_NORM = 1.0

CHECKPOINTS_KEPT = 2
STORED_SECONDS = 0.02
"""Between looks at whether the worker has stored a checkpoint."""


class LoraRecipe:
    """One run by the configured method: set up, train, publish.

    Args:
        folder: where checkpoints and the adapter appear.
        config: the frozen configuration.
        emit: receives the reports.
        stop: asked after every step.
    """

    def __init__(
        self, folder: Path, config: RunConfig, emit: Callable[[Report], None], stop: Callable[[], bool]
    ) -> None:
        self.folder = folder
        self.config = config
        self.emit = emit
        self.stop = stop
        self.method = METHODS[config.method]
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}

    def execute(self) -> None:
        """Run from the start, or the configured checkpoint, to the published adapter.

        Raises:
            FailedForGood: the base, the rows, the checkpoint or the numbers do not allow it.
            Stopped: a stop was asked for and the state is saved.
        """
        self.set_up()
        if self.config.resume_from:
            self._resume(Path(self.config.resume_from))
        self._say_start()
        self._train()
        self._publish_adapter()

    def set_up(self) -> None:
        """Load the base, read the examples, attach a fresh adapter.

        Raises:
            FailedForGood: the base, the rows or the hyperparameters do not allow it.
        """
        config = self.config
        torch.set_num_threads(config.threads)
        begun = checkpoints.identity_of(Path(config.resume_from)) if config.resume_from else None
        self.base = load_base(config, begun.arithmetic if begun else None)
        try:
            self.data: Data = self.method.read(config, self.base)
        except BadTrainingData as error:
            raise FailedForGood("invalid_training_data", str(error)) from error
        self.train, self.validation = self.data.train.rows, self.data.validation.rows
        self.steps_per_epoch = math.ceil(len(self.train) / config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        try:
            self.layers = attach_lora(
                self.base.model, config.target_modules, config.lora_r, config.lora_alpha, config.seed
            )
        except ValueError as error:
            raise FailedForGood("invalid_hyperparameters", str(error)) from error
        self.model = AdaptedModel(self.base, self.layers)
        self.parameters = [weight for layer in self.layers.values() for weight in (layer.lora_a, layer.lora_b)]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.learning_rate, weight_decay=0.0, fused=True)

    def _say_start(self) -> None:
        self.emit(
            Started(
                step=self.progress.step,
                total_steps=self.total_steps,
                epochs=self.config.epochs,
                rows=_read(self.data.train),
                validation_rows=_read(self.data.validation),
                unit=self.data.unit,
                note=self.data.note,
                max_length=self.data.longest,
                trainable_parameters=sum(parameter.numel() for parameter in self.parameters),
            )
        )

    def _train(self) -> None:
        started_at = time.monotonic()
        while self.progress.step < self.total_steps and not self.progress.stopped_early:
            epoch, position = divmod(self.progress.step, self.steps_per_epoch)
            batches = epoch_batches(self.train, self.config.batch_size, self.config.seed, epoch)
            for batch in batches[position:]:
                loss, accuracy, rate = self._step(batch)
                done = self.progress.step
                self.emit(
                    Step(
                        step=done,
                        total_steps=self.total_steps,
                        epoch=round(done / self.steps_per_epoch, 4),
                        train_loss=loss,
                        train_mean_token_accuracy=accuracy,
                        learning_rate=rate,
                        tokens=self.progress.tokens,
                        elapsed_s=round(time.monotonic() - started_at, 3),
                    )
                )
                if done % self.steps_per_epoch == 0:
                    self._end_epoch()
                if self.stop():
                    self._save_checkpoint()
                    raise Stopped
                if done % self.config.save_every_steps == 0 and done < self.total_steps:
                    self._wait_until_stored(self._save_checkpoint())

    def _step(self, batch: Sequence[Example]) -> tuple[float, float, float]:
        """One optimizer step; mean loss and token accuracy of the batch, and the learning rate used."""
        targets = sum(target != IGNORED for example in batch for target in example.targets)
        total_loss, total_correct = 0.0, 0
        for part in split_by_tokens(batch, TOKENS_AT_ONCE):
            loss, correct = self.method.loss(self.model, part)
            torch.autograd.backward(loss / targets)
            total_loss += loss.item()
            total_correct += correct
        if not math.isfinite(total_loss):
            raise FailedForGood(
                "training_diverged",
                f"The loss became {total_loss} at step {self.progress.step + 1}: lower learning_rate_multiplier.",
            )
        torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM, foreach=True)
        rate = self.config.learning_rate * _rate_at(self.progress.step, self.total_steps)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.progress.tokens += sum(len(example.ids) for example in batch)
        self.progress.epoch_loss += total_loss
        self.progress.epoch_correct += total_correct
        self.progress.epoch_targets += targets
        return total_loss / targets, total_correct / targets, rate

    def _end_epoch(self) -> None:
        """Close the epoch's books; with validation rows, keep the adapter unless it got worse, and count patience."""
        progress = self.progress
        metrics = {
            "train_loss": progress.epoch_loss / progress.epoch_targets,
            "train_mean_token_accuracy": progress.epoch_correct / progress.epoch_targets,
        }
        progress.epoch_loss, progress.epoch_correct, progress.epoch_targets = 0.0, 0, 0
        if not self.validation:
            progress.metrics = metrics
            return
        scores, metrics_now = self.method.validate(self.model, self.validation)
        metrics |= metrics_now
        self.emit(Validation(step=progress.step, epoch=progress.step // self.steps_per_epoch, metrics=metrics))
        if not progress.best_scores or statistics.fmean(scores) < statistics.fmean(progress.best_scores):
            progress.best_scores = scores
        if not _surely_worse(scores, progress.best_scores):
            progress.epochs_without_gain = 0
            progress.metrics = metrics
            self.best = adapter_tensors(self.layers)
        else:
            progress.epochs_without_gain += 1
            progress.stopped_early = progress.epochs_without_gain == self.config.early_stop_patience

    def _wait_until_stored(self, checkpoint: Path) -> None:
        """A run that goes on meanwhile would lose more than one save interval, and drop what is not stored yet."""
        while self.config.followed and not stored_mark(checkpoint).exists() and not self.stop():
            time.sleep(STORED_SECONDS)

    def _save_checkpoint(self) -> Path:
        folder = self.folder / "checkpoints"

        def write(draft: Path) -> None:
            _write(draft / "adapter.safetensors", adapter_tensors(self.layers))
            _write(draft / "optimizer.safetensors", _optimizer_tensors(self.optimizer))
            if self.best:
                _write(draft / "best.safetensors", self.best)
            (draft / "progress.json").write_text(json.dumps(asdict(self.progress)))

        target = folder / f"step-{self.progress.step:08d}"
        identity = self._identity()
        digest = checkpoints.publish(target, write, lambda files: CheckpointManifest(files=files, run=identity))
        for old in sorted(folder.glob("step-*"))[:-CHECKPOINTS_KEPT]:
            with contextlib.suppress(FileNotFoundError):  # the worker has moved it away to upload it
                shutil.rmtree(old.rename(folder / f".{old.name}.old"))
        self.emit(
            CheckpointSaved(
                step=self.progress.step,
                total_steps=self.total_steps,
                path=str(target),
                manifest_sha256=digest,
                metrics=self.progress.metrics,
            )
        )
        return target

    def _resume(self, folder: Path) -> None:
        try:
            checkpoints.verify(folder)
            if checkpoints.identity_of(folder) != self._identity():
                raise checkpoints.CorruptArtifact(f"{folder.name} belongs to a run with other settings.")
            load_adapter_tensors(self.layers, load((folder / "adapter.safetensors").read_bytes()))
            _load_optimizer(self.optimizer, load((folder / "optimizer.safetensors").read_bytes()))
            if (folder / "best.safetensors").exists():
                self.best = load((folder / "best.safetensors").read_bytes())
            self.progress = Progress(**json.loads((folder / "progress.json").read_text()))
        except (checkpoints.CorruptArtifact, ValueError, KeyError, TypeError) as error:
            raise FailedForGood("checkpoint_corrupt", f"{error} Resume from an earlier checkpoint.") from error

    def _identity(self) -> RunIdentity:
        return RunIdentity(
            method=self.config.method,
            hyperparameters=self.config.hyperparameters(),
            seed=self.config.seed,
            base_digest=self.config.base_digest,
            train_sha256=checkpoints.sha256(Path(self.config.train_path)),
            arithmetic=self.base.arithmetic,
        )

    def _publish_adapter(self) -> None:
        if self.best:
            load_adapter_tensors(self.layers, self.best)
        config = self.config

        probes = self._fingerprint()
        if (change := probes.largest_change) < LEAST_CHANGE:
            raise FailedForGood(
                "adapter_did_nothing",
                f"The adapter changes no probe by more than {change:.3f} nats: it would answer as the base model does. "
                "Train longer, or raise learning_rate_multiplier.",
            )

        def write(draft: Path) -> None:
            _write(draft / ADAPTER_WEIGHTS, adapter_tensors(self.layers), {"format": "pt"})
            (draft / ADAPTER_CONFIG).write_text(self._adapter_config())
            (draft / FINGERPRINT).write_text(probes.model_dump_json(indent=2), encoding="utf-8")
            if measured.heldout is not None:
                (draft / HELDOUT).write_text(measured.heldout.model_dump_json(), encoding="utf-8")

        measured = self.method.measure(self.model, self.data)
        metrics = self.progress.metrics | measured.metrics | {"fingerprint_change": change}
        digest = checkpoints.publish(
            self.folder / "adapter",
            write,
            lambda files: AdapterManifest(
                files=files,
                base_id=config.base_id,
                base_digest=config.base_digest,
                dataset=config.dataset,
                code_version=config.code_version,
                method=config.method,
                arithmetic=self.base.arithmetic,
                config=config.hyperparameters(),
                seed=config.seed,
                metrics=metrics,
                trained_tokens=self.progress.tokens,
                steps=self.progress.step,
                created_at=config.created_at,
            ),
        )
        self.emit(
            Finished(
                step=self.progress.step,
                total_steps=self.total_steps,
                stopped_early=self.progress.stopped_early,
                tokens=self.progress.tokens,
                path=str(self.folder / "adapter"),
                manifest_sha256=digest,
                metrics=metrics,
            )
        )

    def _fingerprint(self) -> Fingerprint:
        base = self.base

        def answer(prompt: list[int]) -> list[int]:
            return likeliest_answer(base.decoder, base.head, prompt, base.stop_ids)

        def log_probs(prompt: list[int], continuation: list[int]) -> list[float]:
            return continuation_log_probs(base.decoder, base.head, prompt, continuation)

        def base_log_probs(prompt: list[int], continuation: list[int]) -> list[float]:
            with self.model.without_adapter():
                return log_probs(prompt, continuation)

        return fingerprint(base.tokenizer, answer, log_probs, base_log_probs)

    def _adapter_config(self) -> str:
        """PEFT's `adapter_config.json`; servers match `base_model_name_or_path` with the base they serve."""
        facts = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.config.base_id,
            "r": self.config.lora_r,
            "lora_alpha": self.config.lora_alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "target_modules": sorted({path.rsplit(".", 1)[1] for path in self.layers}),
            "use_dora": False,
            "use_rslora": False,
        }
        return json.dumps(facts, indent=2)


def _read(examples: Examples) -> RowsRead:
    left_out: dict[Reason, int] = {
        "too_long": examples.too_long,
        "unweighted": examples.unweighted,
        "repeated": examples.repeated,
    }
    return RowsRead(used=len(examples.rows), left_out=left_out)


def _surely_worse(scores: Sequence[float], best: Sequence[float]) -> bool:
    """Whether rows score worse than before by more than the noise of so few rows: the one-standard-error rule.

    The later adapter wins otherwise: it was trained at a lower rate, and the least of several noisy losses is often
    a lucky one. Source: Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3.

    Args:
        scores: loss of each validation row now.
        best: the same of the epoch with the lowest mean so far; empty when there is none. Compared with the epoch kept
            last instead, an adapter that gets worse a little every epoch would be followed to its end.
    """
    if len(best) < 2:
        return bool(best) and scores[0] > best[0]
    change = [now - before for now, before in zip(scores, best, strict=True)]
    return statistics.fmean(change) > statistics.stdev(change) / math.sqrt(len(change))


def _rate_at(step: int, total_steps: int) -> float:
    """Linear warm-up, then a half cosine to zero; `step` counts from 0."""
    warmup = max(1, round(total_steps * WARMUP))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total_steps - warmup)))


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """What `save_file` writes; its own error of a full disk has no number, nor has `load_file`'s of a failing one."""
    path.write_bytes(save(tensors, metadata))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": tensor for i, tensors in state.items() for name, tensor in tensors.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        i, name = key.split(".", 1)
        state.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

"""The base model of a run: verified, loaded, and taken apart into decoder and head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from arithmetic import fastest, training
from chassis.exhaustion import exhaustion_named
from schemas.artifacts import BASE_FILE, BaseModelSpec
from trainer.run.checkpoints import sha256
from trainer.run.config import FailedForGood, RunConfig


@dataclass(frozen=True)
class FrozenBase:
    """A base model ready to be adapted.

    Attributes:
        model: the causal language model of transformers.
        decoder: its part below the head; ids [rows, tokens] -> hidden states.
        head: weight of the language-model head, [vocabulary, width].
        tokenizer: with the chat template.
        stop_ids: tokens that end an answer by themselves.
        context_length: longest sequence, in tokens.
        arithmetic: the type it computes in, as torch names it; empty where it is that of its weights.
    """

    model: PreTrainedModel
    decoder: PreTrainedModel
    head: Tensor
    tokenizer: PreTrainedTokenizerBase
    stop_ids: set[int]
    context_length: int
    arithmetic: str = ""


def load_base(config: RunConfig, arithmetic: str | None = None) -> FrozenBase:
    """Load the configured base after comparing every file with `base.json`.

    Args:
        config: names it.
        arithmetic: what it computes in, see `FrozenBase`; None: what is fast here.

    Raises:
        FailedForGood: the folder holds another base, or one this recipe cannot train.
    """
    logging.disable_progress_bar()
    base = _verified(Path(config.base_dir), config)
    tokenizer = AutoTokenizer.from_pretrained(config.base_dir, local_files_only=True)
    own: torch.dtype = getattr(torch, base.dtype)
    kind = fastest(own, base.parameters, training) if arithmetic is None else getattr(torch, arithmetic or base.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        config.base_dir, local_files_only=True, dtype=kind, attn_implementation="sdpa"
    ).eval()
    head = model.get_output_embeddings().weight
    if not _head_is_plain(model, head):
        raise FailedForGood(
            "base_model_unsupported", f"{base.id} scales or caps its logits, which this recipe cannot train."
        )
    stops = (tokenizer(text, add_special_tokens=False).input_ids for text in base.stop_tokens)
    return FrozenBase(
        model=model,
        decoder=model.base_model,
        head=head,
        tokenizer=tokenizer,
        stop_ids={ids[0] for ids in stops if len(ids) == 1},
        context_length=base.context_length,
        arithmetic="" if kind == own else str(kind).removeprefix("torch."),
    )


def _verified(folder: Path, config: RunConfig) -> BaseModelSpec:
    try:
        with exhaustion_named():
            base = BaseModelSpec.model_validate_json((folder / BASE_FILE).read_bytes())
            altered = [name for name, digest in base.files.items() if sha256(folder / name) != digest]
    except (OSError, ValueError) as error:
        raise FailedForGood("base_model_missing", f"{folder} is no finished base-model folder: {error}.") from error
    if altered:
        raise FailedForGood("base_model_differs", f"{folder}: {', '.join(altered)} was altered.")
    if (base.id, base.digest) != (config.base_id, config.base_digest):
        raise FailedForGood(
            "base_model_differs",
            f"{folder} holds {base.id} {base.digest[:12]}, not {config.base_id} {config.base_digest[:12]}.",
        )
    return base


def _head_is_plain(model: PreTrainedModel, head: Tensor) -> bool:
    """Whether the model's logits are its last hidden state times the head, and nothing more."""
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.inference_mode():
        ours = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0] @ head.t()
        return torch.allclose(model(input_ids=ids).logits[0].float(), ours.float(), rtol=0.02, atol=0.02)

"""Continued pre-training: every token of documents is learned, and held-out text says what that was worth."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.run.config import RunConfig
from trainer.run.data import BadTrainingData, Data, Example, Examples
from trainer.run.hyperparameters import BATCH_SIZE, LEARNING_RATE, Hyperparameter
from trainer.run.methods.method import Source

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.run.frozen_base import FrozenBase
    from trainer.run.model import AdaptedModel

HELDOUT_SHARE = 0.15
"""Share of the tokens never trained on, by which the model is judged."""

VALIDATION_SHARE = 0.1
"""Share of the tokens that choose the epoch."""

MOST_OVER = 1.5
"""A document is held out only where the share does not grow to more than so many times what is wanted."""

PASSAGE_TOKENS = 32
"""Held-out text is compared passage by passage: the interval of the gain comes from as many pairs."""

FEWEST_TOKENS = 400
"""With fewer, less than two held-out passages are left."""

WINDOWS_WANTED = 400
"""Windows a run should see in all, repeats included."""

MOST_EPOCHS = 4
"""At "auto". Up to four repeats of a text teach nearly as much as new text does, and more soon nothing.
Source: Muennighoff et al., "Scaling Data-Constrained Language Models", arXiv 2305.16264."""


@dataclass(frozen=True)
class Parts:
    """Documents, or sections of one, as tokens."""

    train: list[list[int]]
    validation: list[list[int]]
    heldout: list[list[int]]


def auto_epochs(n_windows: int) -> int:
    """The fewer windows, the more often each is seen, up to `MOST_EPOCHS`."""
    return min(max(round(WINDOWS_WANTED / n_windows), 1), MOST_EPOCHS)


class Pretrain:
    """Next-token cross-entropy on windows of documents."""

    name = "pretrain"
    title = "continued pre-training on documents"
    source: Source = "text"
    hyperparameters = (
        Hyperparameter("n_epochs", 1, 50, auto=auto_epochs),
        BATCH_SIZE,
        LEARNING_RATE,
        Hyperparameter("context_length", 32, 131_072),
    )
    """`context_length`: most tokens of a window; left out, as many as the base and the installation allow."""

    def read(self, config: RunConfig, base: FrozenBase) -> Data:
        """Windows of the texts in the training file, some documents held out."""
        asked = int(config.of_method.get("context_length", base.context_length))
        longest = min(config.max_length, base.context_length, asked)
        texts, repeated = read_texts(Path(config.train_path))
        end = base.tokenizer.eos_token_id
        start = base.tokenizer.bos_token_id if base.tokenizer.bos_token_id is not None else end
        documents = [[*base.tokenizer(text, add_special_tokens=False).input_ids, end] for text in texts]
        if (tokens := sum(map(len, documents))) < FEWEST_TOKENS:
            raise BadTrainingData(
                f"The text has {tokens} tokens, too few to learn and to test from; at least {FEWEST_TOKENS}."
            )
        parts = split_sections(documents[0]) if len(documents) == 1 else split_documents(documents, texts)

        def windows_of(part: list[list[int]]) -> list[Example]:
            return [window for tokens in part for window in windows(tokens, longest, start)]

        train = Examples(windows_of(parts.train), repeated=repeated)
        heldout = Examples(windows_of(parts.heldout))
        return Data(train, Examples(windows_of(parts.validation)), longest, heldout, "windows", _note(parts, documents))

    def loss(self, model: AdaptedModel, batch: Sequence[Example]) -> tuple[Tensor, int]:
        """Summed cross-entropy of every token, and how many were the likeliest."""
        return model.loss(batch)

    def validate(self, model: AdaptedModel, examples: Sequence[Example]) -> tuple[list[float], dict[str, float]]:
        """Mean loss of each window, and loss, perplexity and token accuracy of all tokens."""
        scores = model.score(examples)
        metrics = {
            "valid_loss": scores.loss,
            "valid_perplexity": math.exp(scores.loss),
            "valid_mean_token_accuracy": scores.accuracy,
        }
        return scores.means, metrics

    def measure(self, model: AdaptedModel, data: Data) -> dict[str, float]:
        """Perplexity of the held-out text with and without the adapter, and the gain in nats a token.

        The errors are standard errors over passages of `PASSAGE_TOKENS` tokens.
        """
        adapter = list(model.losses(data.heldout.rows))
        with model.without_adapter():
            base = list(model.losses(data.heldout.rows))
        loss, base_loss = (statistics.fmean(chain.from_iterable(losses)) for losses in (adapter, base))
        pairs = list(zip(passages(base), passages(adapter), strict=True))
        return {
            "heldout_perplexity": math.exp(loss),
            "heldout_error": _standard_error([after for _, after in pairs]),
            "base_heldout_perplexity": math.exp(base_loss),
            "base_heldout_error": _standard_error([before for before, _ in pairs]),
            "heldout_gain": base_loss - loss,
            "heldout_gain_error": _standard_error([before - after for before, after in pairs]),
            "heldout_passages": float(len(pairs)),
        }


def read_texts(path: Path) -> tuple[list[str], int]:
    """The different texts of a JSONL file of `{"text": …}`, in its order, and how many stood there again.

    Raises:
        BadTrainingData: a line holds no text.
    """
    texts: dict[str, None] = {}
    repeated = 0
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"].strip()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadTrainingData(f"{path.name} line {number}: no text ({error!r}).") from error
        repeated += text in texts
        texts[text] = None
    return list(texts), repeated


def windows(tokens: Sequence[int], longest: int, start: int) -> list[Example]:
    """A document cut into windows, of which every token is a target: the first of each is told from `start` alone."""
    return [
        Example([start, *part[:-1]], list(part))
        for part in (tokens[at : at + longest] for at in range(0, len(tokens), longest))
    ]


def split_documents(documents: Sequence[list[int]], texts: Sequence[str]) -> Parts:
    """Hold out whole documents, chosen by the digests of their texts, so that a text is always in the same part."""
    total = sum(map(len, documents))
    order = sorted(range(len(documents)), key=lambda place: hashlib.sha256(texts[place].encode()).digest())
    heldout = _up_to(HELDOUT_SHARE * total, order, documents) or [min(order, key=lambda place: len(documents[place]))]
    others = [place for place in order if place not in heldout]
    validation = _up_to(VALIDATION_SHARE * total, others, documents) if len(others) > 1 else []
    away = {*heldout, *validation}
    return Parts(
        train=[tokens for place, tokens in enumerate(documents) if place not in away],
        validation=[documents[place] for place in sorted(validation)],
        heldout=[documents[place] for place in sorted(heldout)],
    )


def split_sections(tokens: list[int]) -> Parts:
    """Hold out the end of an only document: sections beside each other, none of which has a token of another."""
    to_test = len(tokens) - round(HELDOUT_SHARE * len(tokens))
    to_validate = to_test - round(VALIDATION_SHARE * len(tokens))
    return Parts([tokens[:to_validate]], [tokens[to_validate:to_test]], [tokens[to_test:]])


def passages(losses: Iterable[list[float]]) -> list[float]:
    """Mean loss of each passage; what is left at the end of a window is one if it is half as long at least."""
    parts = (
        of_window[at : at + PASSAGE_TOKENS] for of_window in losses for at in range(0, len(of_window), PASSAGE_TOKENS)
    )
    return [statistics.fmean(part) for part in parts if 2 * len(part) >= PASSAGE_TOKENS]


def _up_to(wanted: float, order: Sequence[int], documents: Sequence[list[int]]) -> list[int]:
    taken: list[int] = []
    size = 0
    for place in order:
        if size < wanted and size + len(documents[place]) <= MOST_OVER * wanted:
            taken.append(place)
            size += len(documents[place])
    return taken


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _note(parts: Parts, documents: Sequence[list[int]]) -> str:
    tokens = {"learned": parts.train, "for validation": parts.validation, "held out": parts.heldout}
    if len(documents) == 1:
        shares = ", ".join(f"{sum(map(len, part))} tokens are {name}" for name, part in tokens.items())
        return f"It is one document, so its last section is held out, not a document: {shares}."
    shares = ", ".join(f"{len(part)} ({sum(map(len, part))} tokens) are {name}" for name, part in tokens.items())
    return f"Of {len(documents)} documents {shares}."

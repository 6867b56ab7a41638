"""Continued pre-training: every token of documents is learned, and held-out text says what that was worth."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import BadRow, read_text_row
from trainer.run.config import RunConfig
from trainer.run.data import BadTrainingData, Data, Example, Examples
from trainer.run.heldout import listed, places, told
from trainer.run.hyperparameters import BATCH_SIZE, LEARNING_RATE, Hyperparameter
from trainer.run.methods.method import Measured, Source

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
"""Of held-out text, how much counts as one passage; the end of an only document is compared passage by passage."""

FEWEST_HELDOUT = 10 * PASSAGE_TOKENS
"""Less held-out text decides nothing."""

HELDOUT_WINDOW = 512
"""Most tokens of a window of held-out text, however long those are that are learned: engines score it as a text."""

FEWEST_TOKENS = 4 * FEWEST_HELDOUT
"""With fewer, more than a quarter would have to be held out."""

WINDOWS_WANTED = 400
"""Windows a run should see in all, repeats included."""

MOST_EPOCHS = 4
"""At "auto". Up to four repeats of a text teach nearly as much as new text does, and more soon nothing.
Source: Muennighoff et al., "Scaling Data-Constrained Language Models", arXiv 2305.16264."""


@dataclass(frozen=True)
class Parts:
    """Documents, or sections of one, as tokens.

    Attributes:
        heldout_from: of each one held out, which document it is of, and with which token of that it begins.
    """

    train: list[list[int]]
    validation: list[list[int]]
    heldout: list[list[int]]
    heldout_from: list[tuple[int, int]] = field(default_factory=list)


CONTEXT_LENGTH = Hyperparameter("context_length", 32, 131_072)
"""Most tokens of a window; left out, as many as the base and the installation allow."""


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
        CONTEXT_LENGTH,
    )

    def read(self, config: RunConfig, base: FrozenBase) -> Data:
        """Windows of the texts in the training file, some documents held out."""
        allowed = min(config.max_length, base.context_length)
        longest = int(config.of_method.get(CONTEXT_LENGTH.name, allowed))
        if longest > allowed:
            raise BadTrainingData(
                f"{CONTEXT_LENGTH.name}: {longest} is more than the {allowed} tokens that the base model and this "
                "installation allow. Ask for fewer, or leave it out."
            )
        lines, repeated = read_texts(Path(config.train_path))
        texts = list(lines)
        end = base.tokenizer.eos_token_id
        start = base.tokenizer.bos_token_id if base.tokenizer.bos_token_id is not None else end
        documents = [[*base.tokenizer(text, add_special_tokens=False).input_ids, end] for text in texts]
        if (tokens := sum(map(len, documents))) < FEWEST_TOKENS:
            raise BadTrainingData(
                f"The text has {tokens} tokens, too few to learn and to test from; at least {FEWEST_TOKENS}."
            )
        whole = split_documents(documents, texts)
        parts = whole or split_sections(documents)

        heldout_longest = min(longest, HELDOUT_WINDOW)

        def windows_of(part: list[list[int]], longest: int = longest) -> list[Example]:
            return [window for tokens in part for window in windows(tokens, longest, start)]

        return Data(
            train=Examples(windows_of(parts.train), repeated=repeated),
            validation=Examples(windows_of(parts.validation)),
            longest=longest,
            heldout=Examples(windows_of(parts.heldout, heldout_longest)),
            heldout_places=[
                place
                for document, first in parts.heldout_from
                for place in places(texts[document], lines[texts[document]], base.tokenizer, first, heldout_longest)
            ],
            heldout_documents=[len(windows_of([tokens], heldout_longest)) for tokens in whole.heldout] if whole else [],
            kind="document" if (config.dataset or {}).get("kind") == "document" else "rows",
            unit="windows",
            note=_note(parts, len(documents), whole is not None),
        )

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

    def measure(self, model: AdaptedModel, data: Data) -> Measured:
        """Perplexity of the held-out text with and without the adapter, and the gain in nats a token.

        Each has a standard error over the held-out documents, or over the passages of the end of an only one. Only
        tokens that can be asked of an engine are measured, so that what it tells can be compared.
        """
        adapter = told(list(model.losses(data.heldout.rows)), data.heldout_places)
        with model.without_adapter():
            base = told(list(model.losses(data.heldout.rows)), data.heldout_places)
        if not any(base):
            return Measured()
        saved = [
            [before - after for before, after in zip(*pair, strict=True)] for pair in zip(base, adapter, strict=True)
        ]
        (loss, error), (base_loss, base_error), (gain, gain_error) = (
            mean_and_error(independent(losses, data.heldout_documents)) for losses in (adapter, base, saved)
        )
        metrics = {
            "heldout_perplexity": math.exp(loss),
            "heldout_error": error,
            "base_heldout_perplexity": math.exp(base_loss),
            "base_heldout_error": base_error,
            "heldout_gain": gain,
            "heldout_gain_error": gain_error,
            "heldout_passages": float(sum(map(len, adapter)) // PASSAGE_TOKENS),
            "heldout_documents": float(len(data.heldout_documents)),
        }
        return Measured(metrics, listed(data, base, adapter))


def read_texts(path: Path) -> tuple[dict[str, int], int]:
    """The different texts of a file of text rows with their lines, from 0, and how many stood there again.

    Raises:
        BadTrainingData: a line holds no text.
    """
    texts: dict[str, int] = {}
    repeated = 0
    for number, line in enumerate(path.read_bytes().split(b"\n")):
        if not line.strip():
            continue
        try:
            text = read_text_row(line)["text"].strip()
        except BadRow as error:
            raise BadTrainingData(f"{path.name} line {number + 1}: no text ({error}).") from error
        repeated += text in texts
        texts.setdefault(text, number)
    return texts, repeated


def windows(tokens: Sequence[int], longest: int, start: int) -> list[Example]:
    """A document cut into windows, of which every token is a target: the first of each is told from `start` alone."""
    return [
        Example([start, *part[:-1]], list(part))
        for part in (tokens[at : at + longest] for at in range(0, len(tokens), longest))
    ]


def split_documents(documents: Sequence[list[int]], texts: Sequence[str]) -> Parts | None:
    """Hold out whole documents, chosen by the digests of their texts, so that a text is always in the same part.

    None where no choice of them leaves enough on both sides: there is one alone, or one is most of the text.
    """
    total = sum(map(len, documents))
    order = sorted(range(len(documents)), key=lambda place: hashlib.sha256(texts[place].encode()).digest())
    heldout = _enough(order, documents)
    if not heldout:
        return None
    others = [place for place in order if place not in heldout]
    validation = _up_to(VALIDATION_SHARE * total, others, documents) if len(others) > 1 else []
    away = {*heldout, *validation}
    return Parts(
        train=[tokens for place, tokens in enumerate(documents) if place not in away],
        validation=[documents[place] for place in sorted(validation)],
        heldout=[documents[place] for place in sorted(heldout)],
        heldout_from=[(place, 0) for place in sorted(heldout)],
    )


def split_sections(documents: Sequence[list[int]]) -> Parts:
    """Hold out the end of the longest document: sections beside each other, none of which has a token of another."""
    longest = max(range(len(documents)), key=lambda place: len(documents[place]))
    tokens = documents[longest]
    to_test = len(tokens) - max(round(HELDOUT_SHARE * len(tokens)), FEWEST_HELDOUT)
    to_validate = max(to_test - round(VALIDATION_SHARE * len(tokens)), 0)
    learned = [tokens[:to_validate] if place == longest else one for place, one in enumerate(documents)]
    return Parts(
        train=list(filter(None, learned)),
        validation=list(filter(None, [tokens[to_validate:to_test]])),
        heldout=[tokens[to_test:]],
        heldout_from=[(longest, to_test)],
    )


def independent(losses: Sequence[list[float]], documents: Sequence[int]) -> list[list[float]]:
    """The losses of windows, joined to what varies by itself.

    Args:
        losses: of each held-out window, in order.
        documents: windows of each held-out document; none where the windows are the end of an only one, which is then
            cut into passages, the last of them with what is left over.
    """
    if documents:
        rest = iter(losses)
        return [list(chain.from_iterable(islice(rest, n_windows))) for n_windows in documents]
    tokens = list(chain.from_iterable(losses))
    n_passages = max(len(tokens) // PASSAGE_TOKENS, 1)
    cuts = [*(PASSAGE_TOKENS * number for number in range(n_passages)), len(tokens)]
    return [tokens[start:end] for start, end in pairwise(cuts)]


def mean_and_error(units: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean of all losses, and its standard error where those of a unit vary together; 0 of a single unit.

    Source: Miller, "Adding Error Bars to Evals", arXiv 2411.00640, section 2.2 (clustered standard errors), with the
    factor n / (n - 1) for few clusters.
    """
    n, size = len(units), sum(map(len, units))
    mean = sum(map(sum, units)) / size
    if n < 2:
        return mean, 0.0
    squares = sum((sum(unit) - mean * len(unit)) ** 2 for unit in units)
    return mean, math.sqrt(n / (n - 1) * squares) / size


def _enough(order: Sequence[int], documents: Sequence[list[int]]) -> list[int]:
    """Documents to hold out: about the share, and never less than decides nothing, nor more than half of the text."""
    total = sum(map(len, documents))
    taken = _up_to(max(HELDOUT_SHARE * total, FEWEST_HELDOUT), order, documents)
    size = sum(len(documents[place]) for place in taken)
    if size >= FEWEST_HELDOUT:
        return taken
    sizes = {place: size + len(documents[place]) for place in order if place not in taken}
    fitting = [place for place in sizes if FEWEST_HELDOUT <= sizes[place] <= total / 2]
    return [*taken, min(fitting, key=sizes.__getitem__)] if fitting else []


def _up_to(wanted: float, order: Sequence[int], documents: Sequence[list[int]]) -> list[int]:
    taken: list[int] = []
    size = 0
    for place in order:
        if size < wanted and size + len(documents[place]) <= MOST_OVER * wanted:
            taken.append(place)
            size += len(documents[place])
    return taken


def _note(parts: Parts, n_documents: int, whole: bool) -> str:
    tokens = {"learned": parts.train, "for validation": parts.validation, "held out": parts.heldout}
    if whole:
        shares = ", ".join(f"{len(part)} ({sum(map(len, part))} tokens) are {name}" for name, part in tokens.items())
        return f"Of {n_documents} documents {shares}."
    shares = ", ".join(f"{sum(map(len, part))} tokens are {name}" for name, part in tokens.items())
    which = "It is one document" if n_documents == 1 else f"Of {n_documents} documents one is most of the text"
    return f"{which}, so its last section is held out, not a document: {shares}."

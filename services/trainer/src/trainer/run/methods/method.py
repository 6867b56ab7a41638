"""What a training method is: how files become examples, what their loss is, what is published of the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from schemas.artifacts import HeldoutText
from trainer.run.config import RunConfig
from trainer.run.data import Data, Example
from trainer.run.hyperparameters import Hyperparameter

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.run.frozen_base import FrozenBase
    from trainer.run.model import AdaptedModel

Source = Literal["answers", "text"]
"""What a method learns from: a dataset of conversations, or text without answers (a document, or rows of texts)."""


@dataclass(frozen=True)
class Measured:
    """What is published of a finished adapter.

    Attributes:
        metrics: beside those of its last epoch.
        heldout: what was held out by the run itself, for those who test the adapter.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    heldout: HeldoutText | None = None


class Method(Protocol):
    """One way to train an adapter.

    The service reads the first four to take requests, so a method's file imports torch for its type checker only: it
    computes with what `AdaptedModel` gives it.
    """

    @property
    def name(self) -> str:
        """As `method.type` asks for it."""

    @property
    def title(self) -> str:
        """What it does, in words that follow "is for" or stand alone."""

    @property
    def source(self) -> Source:
        """What its training file must hold."""

    @property
    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """What can be set; anything else is refused by name."""

    def read(self, config: RunConfig, base: FrozenBase) -> Data:
        """The examples of the run's files, the same ones in every attempt.

        Raises:
            BadTrainingData: they cannot be trained on.
        """

    def loss(self, model: AdaptedModel, batch: Sequence[Example]) -> tuple[Tensor, int]:
        """The summed loss over the learned positions of a batch, and how many of them were right."""

    def validate(self, model: AdaptedModel, examples: Sequence[Example]) -> tuple[list[float], dict[str, float]]:
        """A score of each example, lower is better and in an order of its own, and metrics of all of them."""

    def measure(self, model: AdaptedModel, data: Data) -> Measured:
        """What is published of the finished adapter."""

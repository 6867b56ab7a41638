"""Supervised fine-tuning: the answers of conversations are learned, and the prompts before them are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import ChatMessage, is_learned, read_chat_row
from trainer.run.config import RunConfig
from trainer.run.data import IGNORED, BadTrainingData, Data, Example, Examples
from trainer.run.hyperparameters import BATCH_SIZE, EARLY_STOP_PATIENCE, LEARNING_RATE, N_EPOCHS
from trainer.run.methods.method import Measured, Source

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from trainer.run.frozen_base import FrozenBase
    from trainer.run.model import AdaptedModel


class Supervised:
    """OpenAI's `supervised`: cross-entropy of answers."""

    name = "supervised"
    title = "supervised fine-tuning on answers"
    source: Source = "answers"
    hyperparameters = (N_EPOCHS, BATCH_SIZE, LEARNING_RATE, EARLY_STOP_PATIENCE)

    def read(self, config: RunConfig, base: FrozenBase) -> Data:
        """The rows of the training and the validation file."""
        longest = min(config.max_length, base.context_length)

        def examples(path: str | None) -> Examples:
            return read_examples(Path(path), base.tokenizer, base.stop_ids, longest) if path else Examples()

        train, validation = examples(config.train_path), examples(config.validation_path)
        if not train.rows:
            raise BadTrainingData(
                f"{Path(config.train_path).name}: no row has an assistant message to learn within {longest} tokens; "
                f"{train.too_long} are longer, in {train.unweighted} every answer has the weight 0."
            )
        return Data(train, validation, longest)

    def loss(self, model: AdaptedModel, batch: Sequence[Example]) -> tuple[Tensor, int]:
        """Summed cross-entropy of the answers, and how many of their tokens were the likeliest."""
        return model.loss(batch)

    def validate(self, model: AdaptedModel, examples: Sequence[Example]) -> tuple[list[float], dict[str, float]]:
        """Mean loss of each row, and loss and token accuracy of all answers."""
        scores = model.score(examples)
        return scores.means, {"valid_loss": scores.loss, "valid_mean_token_accuracy": scores.accuracy}

    def measure(self, model: AdaptedModel, data: Data) -> Measured:  # noqa: ARG002
        """Nothing: ingest held rows out, and the evaluator asks the finished model for them."""
        return Measured()


def read_examples(path: Path, tokenizer: PreTrainedTokenizerBase, stop_ids: set[int], max_length: int) -> Examples:
    """Encode a file of chat rows.

    Raises:
        BadTrainingData: a line is not such a row.
    """
    examples: list[Example] = []
    too_long = unweighted = 0
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            example = encode(read_chat_row(line)["messages"], tokenizer, stop_ids)
        except (ValueError, KeyError, TypeError) as error:
            raise BadTrainingData(f"{path.name} line {number}: not a chat row ({error}).") from error
        if all(target == IGNORED for target in example.targets):
            unweighted += 1
        elif len(example.ids) > max_length:
            too_long += 1
        else:
            examples.append(example)
    return Examples(examples, too_long, unweighted)


def encode(messages: Sequence[ChatMessage], tokenizer: PreTrainedTokenizerBase, stop_ids: set[int]) -> Example:
    """Tokenise a conversation; only assistant messages (unless their `weight` is 0) and their end are learned.

    The tokens before an answer are those of the prompt the server will see. After the last token of an answer the model
    must predict end-of-sequence, whatever the template puts there for later turns, so that it learns to stop.

    Args:
        messages: of a chat row.
        tokenizer: with a chat template whose rendering of a conversation starts with that of its beginning.
        stop_ids: tokens that end an answer by themselves.

    Raises:
        BadTrainingData: the template rewrites earlier turns, so answers cannot be told from prompts.
    """
    ids: list[int] = []
    targets: list[int] = []
    encoded = ""
    for i, message in enumerate(messages):
        if not is_learned(message):
            continue
        prompt = _render(tokenizer, messages[:i], add_generation_prompt=True)
        answered = _render(tokenizer, messages[: i + 1], add_generation_prompt=False)
        if not (prompt.startswith(encoded) and answered.startswith(prompt)):
            raise BadTrainingData("The chat template renders a turn differently once another one follows.")
        answer_text = answered[len(prompt) :].rstrip()
        context = _tokens(tokenizer, prompt[len(encoded) :])
        answer = _tokens(tokenizer, answer_text)
        end = IGNORED if answer and answer[-1] in stop_ids else tokenizer.eos_token_id
        ids += context + answer
        targets += [IGNORED] * (len(context) - 1) + answer + [end]
        encoded = prompt + answer_text
    return Example(ids, targets)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> str:
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return text


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids

"""What answers for a model, in words: its fine-tune, or an arm that answers by the rows, sooner or instead."""

from __future__ import annotations

import math

from console.answers import JobAnswer, VersionAnswer

BY = {"head": "its head", "nearest": "its nearest rows", "adapter": "its fine-tune"}
"""By what a model answers, behind 'answers by'."""

TITLES = {
    "head": "Quick answers by its head",
    "nearest": "Quick answers by its nearest rows",
    "shown": "Quick answers, shown its nearest rows",
    "adapter": "Fine-tune",
}
"""The versions of a model."""

HOW = {
    "head": "a small classifier fitted on the meaning of your rows",
    "nearest": "the answer of your row that is closest in meaning to the question",
    "shown": "the base model, shown those of your rows that are closest in meaning to the question",
    "adapter": "the base model, trained on your rows",
}
"""How each of them answers."""


def kind_of(card: VersionAnswer) -> str:
    """What kind of version a card is of; `shown`: an arm by which the base model answers."""
    return "shown" if card.get("generates") else str(card.get("arm") or "adapter")


def name_of(card: VersionAnswer) -> str:
    """The name that a version serves under."""
    return str(card.get("name") or card["id"])


def answers(job: JobAnswer, now: int) -> str:
    """By what a job's model answers and what comes next, behind the model's name; empty where nobody says.

    Args:
        job: as the trainer shows it.
        now: in Unix seconds.
    """
    by = BY.get(str(job.get("answers_by")))
    if by is None or not job.get("fine_tuned_model"):
        return ""
    if job["status"] == "succeeded" or job["answers_by"] == "adapter":
        return f"answers by {by}"
    return f"answers now by {by}; {better(job, now)}"


def better(job: JobAnswer, now: int) -> str:
    """When the fine-tune of a job that answers by an arm is there, as far as that is known."""
    if job.get("stage") == "awaiting_approval":
        return "a better one waits for a decision"
    finish = job.get("estimated_finish")
    minutes = math.ceil((finish - now) / 60) if finish else 0
    if minutes < 1:
        return "a better one is on its way"
    return f"a better one in about {'a minute' if minutes == 1 else f'{minutes} minutes'}"

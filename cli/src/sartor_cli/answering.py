"""Which version of a model answers, in words: its adapter, or an arm that answers by embeddings before or instead."""

from __future__ import annotations

from typing import Any

from sartor_cli.stages import stage_of

WORDS = {"head": "its head", "nearest": "its nearest rows", "adapter": "its adapter"}
MEANWHILE = {"training": "training goes on", "testing": "its adapter is being tested"}
"""What a job does while an arm answers, by its stage."""

BETTER = "a better one is on its way"


def answers(job: dict[str, Any]) -> str:
    """By what a job's model answers; empty while it does not, and of an API that does not say."""
    by = WORDS.get(str(job.get("answers_by")))
    if by is None or not job.get("fine_tuned_model"):
        return ""
    if stage_of(job) == "ended" or job["answers_by"] == "adapter":
        return f"by {by}"
    return f"now by {by}; {MEANWHILE.get(stage_of(job), BETTER)}"


def kind_of(card: dict[str, Any]) -> str | None:
    """By what a version answers, in one word; None of an API that does not say."""
    if "arm" not in card:
        return None
    return f"{card['arm']}-shown" if card.get("generates") else str(card["arm"] or "adapter")

"""The dataset card: what is in a dataset version, for people."""

from __future__ import annotations

from ingest.cleaning import Splits, japanese_share
from ingest.parse_job import ParseJob


def write_card(job: ParseJob, format_name: str, splits: Splits) -> str:
    """The card as Markdown; counts only, no content but the labels themselves."""
    every = [*splits.train, *splits.validation, *splits.heldout]
    lines = [
        f"# Dataset from {job.filename}",
        "",
        f"- Format: {format_name}; task: {splits.task}",
        f"- Rows: {len(splits.train)} train, {len(splits.validation)} validation, {len(splits.heldout)} held out",
        f"- Exact duplicates removed: {splits.duplicates}; rows that teach nothing: {splits.teach_nothing}",
        f"- Rows with Japanese text: {japanese_share(every):.0%}",
        f"- Source: sha256 {job.sha256}",
        "- Split: rows that ask the same, or of which one begins with all of the other, are in the same split; every "
        "answer is split in the same shares, and small classes keep most of their rows for training.",
        "- Not checked: whether the answers are right, or whether the rows hold personal data.",
    ]
    if splits.labels:
        lines += ["", "| answer | rows |", "|---|---|"]
        lines += [f"| {_cell(label)} | {count} |" for label, count in splits.labels.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

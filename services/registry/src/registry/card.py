"""The model card as Markdown: one page a person can read, print and file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import JsonValue

from registry.domain import Arm, Evaluation, Model, decisions_of, hands_over_below, is_pinned
from schemas import Interval
from schemas.artifacts import Cascade

Cell = str | int | float
"""What stands in a table."""


def markdown(model: Model) -> str:
    """The card of a model in any state."""
    sections = [
        f"# {model.id}",
        _summary(model),
        "## Evaluation\n\n" + _evaluation(model),
        "## Decisions\n\n" + _decisions(model),
        *(["## Copies taken\n\n" + _downloads(model)] if model.downloads else []),
        "## Where it comes from\n\n" + _origin(model),
    ]
    if model.arm:
        sections += ["## How it answers\n\n" + _answering(model, model.arm)]
    else:
        sections += [
            "## How it was trained\n\n" + _training(model),
            "## Where it is held\n\n" + _residency(model),
        ]
    return "\n\n".join(sections) + "\n"


def readme(model: Model, license_of_base: str | None) -> str:
    """What goes with a copy of an adapter as its `README.md`: what it is and how to load it, and no word of people.

    Source: the model cards of https://huggingface.co/docs/hub/model-cards.
    """
    metadata: dict[str, JsonValue] = {
        "library_name": "peft",
        "base_model": model.base_model,
        "pipeline_tag": "text-generation",
        "tags": ["lora"],
    }
    # What JSON has is YAML as well, and needs no thought about what a name may hold.
    head = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in metadata.items())
    sections = [
        f"---\n{head}\n---",
        f"# {model.name}",
        _made_of(model, license_of_base),
        "## How to use it\n\n" + _loading(model),
        "## Evaluation\n\n" + _evaluation(model),
        "## How it was trained\n\n" + _training(model),
    ]
    return "\n\n".join(sections) + "\n"


def _made_of(model: Model, license_of_base: str | None) -> str:
    lineage = model.lineage
    return _table(
        ("", ""),
        [
            ("Adapter", f"`{model.adapter_id}`"),
            ("Adapter manifest (sha256)", f"`{model.adapter_manifest.sha256}`"),
            ("Base model", f"`{model.base_model}`"),
            ("Base model digest", f"`{lineage.base_digest}`" if lineage.base_digest else "-"),
            ("Licence of the base model", license_of_base or "-"),
            ("Task", lineage.dataset.task),
            ("Dataset manifest (sha256)", f"`{lineage.dataset.manifest_sha256}`"),
            ("Registered", _when(model.created_at)),
        ],
    )


def _loading(model: Model) -> str:
    return f"""\
It is a LoRA adapter in the layout of PEFT. Its base model is not in this folder:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("path/to/{model.base_model}")
tokenizer = AutoTokenizer.from_pretrained("path/to/{model.base_model}")
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

Ask it in the chat template of the base model. `manifest.json` names the SHA-256 of each file. `fingerprint.json` holds
some prompts with what the adapter answers to them and how likely that is, by which a copy can be told from another
adapter; such an answer may repeat what was learned."""


def _summary(model: Model) -> str:
    waits = f", waiting for {model.waiting_for}" if model.waiting_for else ""
    return _table(
        ("", ""),
        [
            ("State", f"{model.state}{waits}"),
            ("Serves under", f"`{model.name}`"),
            ("Answers by", f"arm `{model.arm.kind}`" if model.arm else "adapter"),
            ("Pinned", _pinned(model)),
            ("Base model", f"`{model.base_model}`"),
            ("Task", model.lineage.dataset.task),
            ("Organization", model.organization),
            ("Registered", _when(model.created_at)),
            ("In production since", _when(model.promoted_at)),
            ("Ended", _when(model.ended_at)),
            ("Deleted", _when(model.deleted_at)),
        ],
    )


def _pinned(model: Model) -> str:
    if not is_pinned(model):
        return "no"
    said, below = "by a person: its name answers by it, whatever tests say", hands_over_below(model)
    if below is None:
        return said
    to = "the adapter, where one is in production, or the base model"
    return f"{said}, where it is at least {below * 100:g} % sure; else {to} does"


def _evaluation(model: Model) -> str:
    found = model.evaluation
    if found is None:
        return "Not evaluated yet."
    scores = _table(
        ("System", found.metric, "95 % interval", "Rows"),
        [(name, f"{score.value:.3f}", _interval(score), score.n) for name, score in found.scores.items()],
    )
    if found.usage:
        scores += "\n\nWhat an answer took:\n\n" + _usage_of_systems(found)
    if found.cascade:
        scores += "\n\n" + _together(found.metric, found.cascade)
    others = [
        (name, f"{score.value:.3f}", _interval(score), score.n)
        for name, score in found.measured.items()
        if name != found.metric
    ]
    if others:
        scores += "\n\nMeasured of this model besides:\n\n"
        scores += _table(("Metric", "Value", "95 % interval", "Rows"), others)
    for said in filter(None, (found.comparison, found.superiority_of_base)):
        scores += f"\n\n{said}"
    said = f"**{found.verdict}**: {found.reason}\n\n{scores}\n\nEvidence: evaluation `{found.evaluation_id}`."
    if not found.earlier_verdicts:
        return said
    before = f"Models judged on the same held-out rows before this one: {found.earlier_verdicts}."
    return f"{said}\n\n{before} The best of many tries looks better than it is; new rows tell."


def _together(metric: str, cascade: Cascade) -> str:
    rows = [
        (
            f"{100 * one.below:g} %",
            f"{100 * one.handed_over:.0f} %",
            f"{one.score.value:.3f}{' (advised)' if one.below == cascade.advised else ''}",
            _interval(one.score),
            f"{one.took.seconds_median:.3g} s",
            f"{one.took.seconds_p95:.3g} s",
        )
        for one in cascade.steps
    ]
    head = ("Sure from", "Left to the adapter", metric, "95 % interval", "Median time", "95 % within")
    said = f"The arm `{cascade.arm}` first, and the adapter where it is less sure, on the same rows:"
    return f"{said}\n\n{_table(head, rows)}"


def _usage_of_systems(found: Evaluation) -> str:
    priced = any(one.cost is not None for one in found.usage.values())
    head = ("System", "Median time", "95 % within", "Tokens read", "Tokens written")
    rows = [
        (
            *(name, f"{one.seconds_median:.3g} s", f"{one.seconds_p95:.3g} s", f"{one.read:.1f}", f"{one.written:.1f}"),
            *(["-" if one.cost_of_thousand is None else f"{one.cost_of_thousand:.4g}"] if priced else []),
        )
        for name, one in found.usage.items()
    ]
    return _table((*head, "Cost of 1,000") if priced else head, rows)


def _decisions(model: Model) -> str:
    rows = [(_when(one.at), one.outcome, f"`{one.by}`", one.note) for one in decisions_of(model)]
    if not rows:
        return "None yet."
    return _table(("When", "Decision", "By", "Note"), rows)


def _downloads(model: Model) -> str:
    rows = [(f"`{one.by}`", one.times, _when(one.at)) for one in reversed(model.downloads)]
    return _table(("By", "Times", "Last"), rows)


def _origin(model: Model) -> str:
    lineage, made = model.lineage, "Arm" if model.arm else "Adapter"
    base = [] if not lineage.base_digest else [("Base model digest", f"`{lineage.base_digest}`")]
    return _table(
        ("Thing", "Id or digest"),
        [
            ("Training file", f"`{lineage.training_file}`"),
            ("Dataset version", f"`{lineage.dataset.dataset_id}`"),
            ("Dataset manifest (sha256)", f"`{lineage.dataset.manifest_sha256}`"),
            ("Held-out rows (sha256)", f"`{lineage.dataset.heldout.sha256}`"),
            ("Fine-tuning job", f"`{model.job_id}`"),
            *base,
            (made, f"`{model.adapter_id}`"),
            (f"{made} manifest (sha256)", f"`{model.adapter_manifest.sha256}`"),
        ],
    )


def _answering(model: Model, arm: Arm) -> str:
    lineage = model.lineage
    facts: list[tuple[str, Cell]] = [
        ("embedder", f"`{arm.embedder.id}`, {arm.embedder.dimensions} dimensions"),
        ("embedder's digest", f"`{arm.embedder.digest}`"),
        ("rows it was fitted on", arm.rows),
        ("time of the fit", f"{lineage.train_seconds:.1f} s"),
        ("seed", lineage.seed),
    ]
    facts += [(f"{name} (out of fold)", f"{value:.4g}") for name, value in lineage.metrics.items()]
    held = "Replicas of the base model answer" if arm.generates else "No replica holds it"
    how = f"By {arm.answers_by}. {held}.\n\n{_table(('Fact', 'Value'), facts)}"
    if arm.learning_curve is None:
        return how
    points = [
        (one.rows, f"{one.accuracy:.3f}", f"{one.low:.3f} to {one.high:.3f}") for one in arm.learning_curve.points
    ]
    grew = _table(("Rows it knew", "Accuracy out of fold", "95 % interval"), points)
    return f"{how}\n\n{arm.learning_curve.said}\n\n{grew}"


def _training(model: Model) -> str:
    lineage = model.lineage
    facts: list[tuple[str, Cell]] = [("method", lineage.method), ("seed", lineage.seed)]
    facts += [("trained tokens", lineage.trained_tokens)]
    facts += [("training time", f"{lineage.train_seconds:.1f} s"), *lineage.hyperparameters.items()]
    facts += [(f"{name} (measured)", f"{value:.4g}") for name, value in lineage.metrics.items()]
    return _table(("Setting", "Value"), facts)


def _residency(model: Model) -> str:
    failed = "".join(f"\n\n{failure.sentence}" for failure in model.load_failures)
    if not model.replicas:
        return f"No replica holds it.{failed}"
    held = _table(
        ("Replica", "Since", "Distance from the trainer's fingerprint", "Distance from the base model"),
        [
            (f"`{one.replica_id}`", _when(one.at), f"{one.fingerprint_delta:.2g}", f"{one.base_delta:.2g}")
            for one in model.replicas
        ],
    )
    return held + failed


def _interval(score: Interval) -> str:
    return f"{score.low:.3f} to {score.high:.3f}"


def _when(at: int | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else "-"


def _table(head: Iterable[str], rows: Iterable[Iterable[Cell]]) -> str:
    titles = list(head)
    lines = [_line(titles), _line(["---"] * len(titles)), *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Iterable[Cell]) -> str:
    shown = (str(cell).replace("\n", " ").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(shown)} |"

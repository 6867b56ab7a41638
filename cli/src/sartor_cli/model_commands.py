"""Commands for the models that jobs make, and for base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sartor_cli.adapter_folder import take
from sartor_cli.answering import kind_of
from sartor_cli.client import Client, stdout
from sartor_cli.options import After, ApiKey, BaseUrl, Json, Limit, given
from sartor_cli.tables import cell, show, show_deleted, show_rows
from sartor_cli.transfer_bar import transfer_bar

models = typer.Typer(help="Models.", no_args_is_help=True)

Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]


@models.command("list")
def list_models(
    state: Annotated[
        str | None,
        typer.Option(help="Instead: candidate, awaiting_approval, production, rejected or retired ones."),
    ] = None,
    limit: Limit = 20,
    after: After = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """List the models you may use, or those in another state."""
    client = Client(base_url=base_url, api_key=api_key)
    if state is None:
        found = client.call("GET", "/models")
        serving = {} if as_json else _serving(client)
        rows = [row | _answer_of(serving.get(row["id"], {})) for row in found["data"]]
        shown = found if as_json else {**found, "data": rows}
        show(shown, as_json=as_json, columns=("id", "answers_by", "pinned", "owned_by", "created"))
        return
    found = client.call("GET", "/registry/models", params=given(state=state, limit=limit, after=after))
    shown = found if as_json else {**found, "data": [card | _answer_of(card) for card in found["data"]]}
    show(shown, as_json=as_json, columns=("id", "answers_by", "pinned", "state", "waiting_for", "created_at"))


def _serving(client: Client) -> dict[str, dict[str, Any]]:
    """By name, the version by which each of one's own models answers at the moment."""
    found: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {"state": "production", "limit": 100}
    while True:
        page = client.call("GET", "/registry/models", params=params)
        found |= {card["name"]: card for card in page["data"] if card.get("serves")}
        if not page["has_more"]:
            return found
        params["after"] = page["data"][-1]["id"]


def _answer_of(card: dict[str, Any]) -> dict[str, Any]:
    """By what a version answers, and whether a person pinned it; nothing is shown where they did not."""
    return {"answers_by": kind_of(card), "pinned": card.get("pinned") or None}


@models.command("bases")
def list_bases(
    limit: Limit = 20, after: After = None, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """List base models: who answers for each, how many replicas of ours do, and whether it can be fine-tuned."""
    wanted = given(limit=limit, after=after)
    found = Client(base_url=base_url, api_key=api_key).call("GET", "/registry/base_models", params=wanted)
    show(
        found,
        as_json=as_json,
        columns=("id", "engine", "replicas", "fine_tuning", "default", "context_length", "created"),
    )


@models.command("show")
def show_model(model_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Show one of your models: its state, its scores, where it came from, and all versions of its name."""
    client = Client(base_url=base_url, api_key=api_key)
    card = client.call("GET", "/registry/models/{}", model_id)
    if as_json:
        show(card, as_json=True, columns=())
        return
    evaluation = card.get("evaluation") or {}
    scores = {f"score_{system}": score for system, score in (evaluation.get("scores") or {}).items()}
    scores |= {
        name: score for name, score in (evaluation.get("measured") or {}).items() if name != evaluation["metric"]
    }
    usage = {f"score_{system}": _usage(took) for system, took in (evaluation.get("usage") or {}).items()}
    facts = card | {
        name: f"{score['value']:.3f} ({_interval(score)}, {score['n']} rows){usage.get(name, '')}"
        for name, score in scores.items()
    }
    together = _together(evaluation.get("cascade") or {}, in_use=card.get("state") == "production")
    facts |= together
    facts |= {"verdict": evaluation.get("verdict"), "reason": evaluation.get("reason"), **_answer_of(card)}
    pinned = ("pinned", "hand_over_below") if card.get("hand_over_below") else ("pinned",)
    tested = (*scores, *together, "verdict", "reason")
    state = ("id", "name", "answers_by", "serves", *pinned, "state", "waiting_for", *tested)
    origin = ("base_model", "job_id", "dataset_id", "training_file", "task", "method", "hyperparameters", "seed")
    show(facts, as_json=False, columns=(*state, *origin, "trained_tokens", "created_at", "promoted_at", "ended_at"))
    if "name" in card:
        _show_versions(client.call("GET", "/registry/models", params={"name": card["name"]})["data"])


def _show_versions(cards: list[dict[str, Any]]) -> None:
    """The versions of a name in one table; of one that is alone all is said already."""
    if len(cards) < 2:
        return
    stdout.print("\nversions of the name, newest first")
    columns = ("version", "state", "waiting_for", "serves", "pinned", "measured", "interval", "rows", "id")
    show_rows(columns, [_version_row(card) for card in cards], numbers=("rows",))


def _version_row(card: dict[str, Any]) -> list[str]:
    evaluation = card.get("evaluation") or {}
    score = (evaluation.get("scores") or {}).get("candidate")
    measured = (
        [f"{evaluation['metric']} {score['value']:.3f}", _interval(score), str(score["n"])] if score else [""] * 3
    )
    state = [cell(name, (card | _answer_of(card)).get(name)) for name in ("state", "waiting_for", "serves", "pinned")]
    return [kind_of(card) or "", *state, *measured, card["id"]]


def _usage(took: dict[str, Any]) -> str:
    """What an answer of a system took in its test; empty of an API that says it otherwise."""
    answers, asked = took.get("answers"), ("seconds_median", "prompt_tokens", "completion_tokens")
    if not answers or any(took.get(name) is None for name in asked):
        return ""
    seconds, read, written = (took[name] for name in asked)
    cost = "" if took.get("cost") is None else f", {1000 * took['cost'] / answers:.4g} for 1,000"
    return f"; {1000 * seconds:.0f} ms, {read / answers:.0f} + {written / answers:.0f} tokens{cost}"


def _together(cascade: dict[str, Any], *, in_use: bool) -> dict[str, str]:
    """What the arm of a name does together with the adapter that was tested, by how sure the arm must be.

    Args:
        cascade: as the API tells it.
        in_use: whether the adapter is in production; nothing is advised else.
    """
    found = {}
    for step in cascade.get("steps") or []:
        score, left = step["score"], f"{100 * step['handed_over']:.0f} % left to the adapter"
        advised = ", advised" if in_use and step["below"] == cascade.get("advised") else ""
        value = f"{score['value']:.3f} ({_interval(score)}, {score['n']} rows); {left}{advised}"
        found[f"{cascade.get('arm')}_from_{step['below']:g}"] = value
    return found


def _interval(score: dict[str, Any]) -> str:
    return f"{score['low']:.3f} to {score['high']:.3f}"


@models.command("download")
def download_model(
    model_id: str,
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; if not given, one with the model's name.", show_default=False)
    ] = None,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Take a copy of a model's adapter: weights, settings and card in a folder that PEFT loads, each file compared."""
    with transfer_bar(quiet=as_json) as bar:
        task = bar.add_task("adapter", total=None)
        copy = take(
            Client(base_url=base_url, api_key=api_key),
            model_id,
            to,
            lambda came, total: bar.update(task, advance=came, total=total),
        )
    facts = {"id": copy.card["id"], "folder": str(copy.folder), "bytes": copy.size}
    origin = {name: copy.card[name] for name in ("adapter_id", "base_model")}
    show(facts | origin, as_json=as_json, columns=(*facts, *origin))


@models.command("delete")
def delete_model(model_id: str, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> None:
    """Delete a name with every version, or one arm of it (NAME@head); says what stays, and why."""
    done = Client(base_url=base_url, api_key=api_key).call("DELETE", "/models/{}", model_id)
    show_deleted(done, as_json=as_json)


@models.command("approve")
def approve_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Let a version that waits at the gate into use: an arm, NAME@head or NAME@nearest, or the adapter, NAME."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "approve", note, as_json=as_json)


@models.command("reject")
def reject_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Refuse a version that waits at the gate; another version of its name is decided on by itself."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "reject", note, as_json=as_json)


@models.command("pin")
def pin_model(
    model_id: str,
    note: Note = "",
    hand_over_below: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of an arm: where it is less sure than this (0.9), its adapter answers, or the base model.",
        ),
    ] = None,
    hand_nothing_over: Annotated[
        bool, typer.Option("--hand-nothing-over", help="Have an arm that hands over answer all by itself again.")
    ] = False,
    api_key: ApiKey = None,
    base_url: BaseUrl = None,
    as_json: Json = False,
) -> None:
    """Have a name answer by one version whatever tests say: an arm, NAME@head or NAME@nearest, or the adapter, NAME."""
    if hand_nothing_over and hand_over_below is not None:
        raise typer.BadParameter("--hand-over-below and --hand-nothing-over are opposites; give one of them.")
    client = Client(base_url=base_url, api_key=api_key)
    bound = {"hand_over_below": None} if hand_nothing_over else given(hand_over_below=hand_over_below)
    _decide(client, model_id, "pin", note, as_json=as_json, **bound)


@models.command("unpin")
def unpin_model(
    model_id: str, note: Note = "", api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False
) -> None:
    """Leave it to tests again by which version a name answers."""
    _decide(Client(base_url=base_url, api_key=api_key), model_id, "unpin", note, as_json=as_json)


def _decide(client: Client, model_id: str, decision: str, note: str, *, as_json: bool, **more: float | None) -> None:
    done = client.call("POST", f"/registry/models/{{}}/{decision}", model_id, json={"note": note, **more})
    shown = done if as_json else done | _answer_of(done)
    answering = ("id", "answers_by", "state", "waiting_for", "serves", "pinned")
    columns = (*answering, "hand_over_below") if done.get("hand_over_below") else answering
    show(shown, as_json=as_json, columns=columns)

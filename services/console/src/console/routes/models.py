"""The pages of models: all versions, one with its evidence and answers, the decision on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import ValidationError

from chassis.errors import Conflict, Invalid, NotFound, SartorError, Transient
from chassis.peers import Peer
from chassis.routes import Router
from chassis.streams import begun
from console.answering import TITLES, kind_of, name_of
from console.answers import (
    ClassAnswer,
    DataReportAnswer,
    DocumentAnswer,
    EvaluationAnswer,
    EvidenceAnswer,
    Listing,
    RowAnswer,
    VersionAnswer,
)
from console.curves import learning_curve, reliability_curve
from console.paging import Listed, cursor
from console.rendering import HEADERS
from console.sessions import Session
from console.versions import Together, Version, picture
from console.web import SEE_OTHER, Web
from schemas import Usage
from schemas.http.registry import folder_of

MODELS_SHOWN = 50
BASES_SHOWN = 100
ANSWERS_SHOWN = 20
CLASSES_SHOWN = 20
TEXTS_SHOWN = 20
CONFUSIONS_SHOWN = 10
SUSPECTS_SHOWN = 20
REPORT_SECONDS = 3.0
PIECE_SECONDS = 60.0
"""How long a piece of a download may take on its way."""


def model_routes(web: Web, registry: Peer, evaluator: Peer, trainer: Peer) -> Router:
    """Models, their evidence, what their rows tell, decisions."""
    router = Router(include_in_schema=False)

    @router.get("/models")
    async def models_page(request: Request, after: str | None = None) -> Response:
        session = await web.session(request)
        found: Listing[VersionAnswer] = await registry.get(
            "/v1/registry/models", params=cursor(MODELS_SHOWN, after), **session.who
        )
        bases = await registry.get("/v1/registry/base_models", params={"limit": BASES_SHOWN}, **session.who)
        cards = [{**card, "name": name_of(card), "title": TITLES[kind_of(card)]} for card in found["data"]]
        models = Listed(cards, found["has_more"], after)
        return web.page("models/models", session, models=models, bases=bases["data"])

    @router.post("/models/{model_id:path}/adapter")
    async def download(model_id: str, request: Request) -> Response:
        """A copy of the adapter, passed on as it comes; a form asks for it, as it is remembered who took one."""
        session = await web.session(request)
        await web.form(request, session)
        place = "/v1/registry/models/{}/adapter"
        pieces = registry.pieces(place, model_id, timeout=PIECE_SECONDS, **session.who)
        content = begun(await anext(pieces), pieces)
        named = {**HEADERS, "content-disposition": f'attachment; filename="{folder_of(model_id)}.zip"'}
        return StreamingResponse(content, media_type="application/zip", headers=named)

    @router.get("/models/{model_id:path}")
    async def model_page(
        model_id: str, request: Request, row: Annotated[int, Query(ge=0, le=1_000_000)] = 0
    ) -> Response:
        return await shown(await web.session(request), model_id, row)

    async def shown(session: Session, model_id: str, row: int = 0, problem: str = "", status: int = 200) -> Response:
        card: VersionAnswer = await registry.get("/v1/registry/models/{}", model_id, **session.who)
        name = name_of(card)
        found: Listing[VersionAnswer] = await registry.get("/v1/registry/models", params={"name": name}, **session.who)
        of_name = [one for one in found["data"] if name_of(one) == name and not one.get("deleted_at")]
        versions = [Version.of(one) for one in sorted(of_name, key=_age)]
        runs = await evaluator.get("/v1/evals/evaluations", params={"model": card["id"]}, **session.who)
        evaluation: EvaluationAnswer | None = next(iter(runs["data"]), None)
        usage = _usage(evaluation)
        unread = ""
        try:
            evidence = await _evidence(session, evaluation)
        except Transient as error:
            evidence, unread = {}, error.message
        report = await _report(session, card) if any(one.get("arm") for one in of_name) else None
        rows = sorted(evidence.get("rows", []), key=_alike)
        classes = evidence.get("classes", {}).get("candidate", [])
        texts = sorted(evidence.get("documents", []), key=_gained)
        return web.page(
            "models/model",
            session,
            card=card,
            model=name,
            version=Version.of(card),
            versions=versions,
            picture=picture(versions),
            evaluation=evaluation,
            usage=usage,
            together=next(filter(None, map(Together.of, of_name)), None),
            priced=any(one.cost is not None for one in usage.values()),
            may_decide=session.principal.may("models:approve"),
            may_take=card.get("downloadable") and session.principal.may("models:download"),
            answers=rows[row : row + ANSWERS_SHOWN],
            first=row,
            total=len(rows),
            step=ANSWERS_SHOWN,
            classes=sorted(classes, key=_f1)[:CLASSES_SHOWN],
            all_classes=len(classes),
            texts=texts[:TEXTS_SHOWN],
            all_texts=len(texts),
            unit=evidence.get("interval_over", {}).get("unit", "rows"),
            unread=unread,
            report=report,
            curve=learning_curve(report["curve"]["points"]) if report else None,
            reliability=reliability_curve(sure["bins"]) if report and (sure := report.get("reliability")) else None,
            confusions=report["confusions"][:CONFUSIONS_SHOWN] if report else [],
            suspects=report["suspects"][:SUSPECTS_SHOWN] if report else [],
            problem=problem,
            status=status,
        )

    async def _evidence(session: Session, evaluation: EvaluationAnswer | None) -> EvidenceAnswer:
        """The report with every held-out row; empty while the model is tested, and once the report is deleted.

        Raises:
            Transient: it cannot be read at the moment.
        """
        if evaluation is None or not evaluation.get("evidence"):
            return {}
        place = "/v1/evals/evaluations/{}/evidence"
        try:
            found: EvidenceAnswer = await evaluator.get(place, evaluation["id"], **session.who)
        except NotFound:
            return {}
        return found

    async def _report(session: Session, card: VersionAnswer) -> DataReportAnswer | None:
        """What the rows tell; None where there is no report, the reader may not see rows, or it cannot be read now."""
        place = "/v1/fine_tuning/jobs/{}/data_report"
        try:
            found: DataReportAnswer = await trainer.get(place, card["job_id"], timeout=REPORT_SECONDS, **session.who)
        except SartorError:  # the page does without
            return None
        return found

    @router.post("/decide")
    async def decide(request: Request) -> Response:
        """A person lets a tested model into use, or stops it."""
        session = await web.session(request)
        fields = await web.form(request, session)
        return await decided(session, fields, "approve" if "approve" in fields else "reject")

    @router.post("/pin")
    async def pin(request: Request) -> Response:
        """A person has a model answer by one version, or leaves it to tests again which one does."""
        session = await web.session(request)
        fields = await web.form(request, session)
        try:
            bound = _bound(fields.get("sure_from"))
        except Invalid as error:
            return await shown(session, fields.get("model", ""), problem=error.message, status=error.status)
        return await decided(session, fields, "unpin" if "unpin" in fields else "pin", **bound)

    async def decided(session: Session, fields: Mapping[str, str], act: str, **more: float | None) -> Response:
        model_id, said = fields.get("model", ""), {"note": fields.get("note", ""), **more}
        try:
            await registry.post("/v1/registry/models/{}/" + act, model_id, json=said, **session.who)
        except (Conflict, Transient) as error:
            return await shown(session, model_id, problem=error.message, status=error.status)
        return RedirectResponse(f"/models/{quote(model_id, safe='')}", SEE_OTHER)

    return router


def _bound(per_cent: str | None) -> dict[str, float | None]:
    """How sure an arm must be at least, of a form's field: not at all where that is empty, as before without the field.

    Raises:
        Invalid: it is no number of per cent.
    """
    if per_cent is None:
        return {}
    if not per_cent.strip():
        return {"hand_over_below": None}
    try:
        bound = float(per_cent) / 100
    except ValueError:
        bound = 0.0
    if not 0 < bound <= 1:
        raise Invalid("How sure they must be is a number of per cent, more than 0 and at most 100.", param="sure_from")
    return {"hand_over_below": bound}


def _usage(evaluation: EvaluationAnswer | None) -> dict[str, Usage]:
    """What an answer of each system took; without one of which another release of the evaluator says something else."""
    found: dict[str, Usage] = {}
    for system, took in evaluation.get("usage", {}).items() if evaluation else ():
        with suppress(ValidationError):
            found[system] = Usage.model_validate(took)
    return found


def _age(card: VersionAnswer) -> int:
    return card["created_at"]


def _f1(of_class: ClassAnswer) -> float:
    return float(of_class["f1"])


def _gained(document: DocumentAnswer) -> float:
    """How many times less surprised by a held-out document a candidate is than its base model."""
    found = document["perplexity"]
    return float(found["base"]) / float(found["candidate"])


def _alike(row: RowAnswer) -> bool:
    """Whether all systems gave one answer."""
    return len({answer["text"] for answer in row["answers"].values()}) == 1

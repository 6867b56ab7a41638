"""The pages on which somebody takes something back: what goes with it is said before, and its name is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from chassis.errors import SartorError
from chassis.peers import Peer
from chassis.routes import Router
from console.answering import TITLES, kind_of, name_of
from console.answers import DeletedAnswer, VersionAnswer
from console.sessions import Session
from console.web import SEE_OTHER, Web

MODELS_NAMED = 20


@dataclass(frozen=True)
class Doomed:
    """Something that is about to be deleted.

    Attributes:
        kind: what it is, in a word.
        name: what is to be typed.
        place: the page it has as long as it is there.
        goes: what goes with it, in sentences.
        stays: what does not.
        delete: asks its owner.
        left: the page to go on from.
    """

    kind: str
    name: str
    place: str
    goes: tuple[str, ...]
    stays: tuple[str, ...]
    delete: Callable[[], Awaitable[DeletedAnswer]]
    left: str


Look = Callable[[Session, str], Awaitable[Doomed]]


def deletion_routes(web: Web, ingest: Peer, trainer: Peer, registry: Peer, labeling: Peer, proxy: Peer) -> Router:
    """Files, models, labeling projects, ratings."""
    router = Router(include_in_schema=False)

    async def file(session: Session, file_id: str) -> Doomed:
        found = await ingest.get("/v1/files/{}", file_id, **session.who)
        wanted = {"training_file": file_id, "limit": MODELS_NAMED}
        jobs = await trainer.get("/v1/fine_tuning/jobs", params=wanted, **session.who)
        models = sorted({job["fine_tuned_model"] for job in jobs["data"] if job.get("fine_tuned_model")})
        goes = (
            "Its bytes, and what was read from them: nobody can search in it or ask about it any more.",
            "The dataset made of it, and jobs that wait for it.",
            "The rows that people were asked about, their answers, and the files published of them.",
        )
        stays = tuple(
            f"{model}, if it is in use, and the dataset for as long as that is. Delete it too." for model in models
        )
        return Doomed(
            "file",
            found["filename"],
            f"/files/{quote(file_id, safe='')}",
            goes,
            stays,
            lambda: ingest.request("DELETE", "/v1/files/{}", file_id, **session.who),
            "/",
        )

    async def model(session: Session, model_id: str) -> Doomed:
        card: VersionAnswer = await registry.get("/v1/registry/models/{}", model_id, **session.who)
        goes: tuple[str, ...] = (
            "The model, with its fine-tune and its quick answers: whoever asks for it is told that there is none.",
            "What they were made of, the evidence of their tests, and the dataset where its file is deleted already.",
            "The job that makes it, where that still runs.",
        )
        stays: tuple[str, ...] = (
            "The file it was made from.",
            "An alias that points at it; it answers nothing until it is pointed elsewhere.",
        )
        if model_id != name_of(card):
            goes = (
                f"{TITLES[kind_of(card)]} of this model alone: whoever asks for it is answered by another version, if "
                "one is in use.",
                "What it was made of, and the evidence of its tests.",
            )
            stays = ("The model's other versions, its job, and the file it was made from.",)
        return Doomed(
            "model",
            model_id,
            f"/models/{quote(model_id, safe='')}",
            goes,
            stays,
            lambda: registry.request("DELETE", "/v1/models/{}", model_id, **session.who),
            "/models",
        )

    async def project(session: Session, project_id: str) -> Doomed:
        found = await labeling.get("/v1/labeling/projects/{}", project_id, **session.who)
        goes = (
            f"Its {found['total']} rows and the {found['answered']} answers that people gave.",
            "The files published of them, and the datasets made of those, but for one that a model was made from.",
        )
        stays = ("The file that the rows came from.",) if found.get("file_id") else ()
        return Doomed(
            "labeling project",
            found["name"],
            f"/labeling/{quote(project_id, safe='')}",
            goes,
            stays,
            lambda: labeling.request("DELETE", "/v1/labeling/projects/{}", project_id, **session.who),
            "/labeling",
        )

    _add(router, web, "/files/{thing}/delete", file)
    _add(router, web, "/models/{thing:path}/delete", model)
    _add(router, web, "/labeling/{thing}/delete", project)

    @router.post("/labeling/feedback/{feedback_id}/delete")
    async def delete_rating(feedback_id: str, request: Request) -> Response:
        session = await web.session(request)
        await web.form(request, session)
        await proxy.request("DELETE", "/v1/feedback/{}", feedback_id, **session.who)
        return RedirectResponse("/labeling", SEE_OTHER)

    return router


def _add(router: Router, web: Web, place: str, look: Look) -> None:
    """The page that asks, and what it asks for."""

    @router.get(place)
    async def ask(thing: str, request: Request) -> Response:
        session = await web.session(request)
        return web.page("parts/delete", session, doomed=await look(session, thing), problem="")

    @router.post(place)
    async def delete(thing: str, request: Request) -> Response:
        session = await web.session(request)
        fields = await web.form(request, session)
        doomed = await look(session, thing)
        if " ".join(fields.get("name", "").split()) != " ".join(doomed.name.split()):
            problem = f"Type the name of the {doomed.kind} as it stands above; nothing was deleted."
            return web.page("parts/delete", session, status=400, doomed=doomed, problem=problem)
        try:
            done = await doomed.delete()
        except SartorError as error:
            return web.page("parts/delete", session, status=error.status, doomed=doomed, problem=error.message)
        return web.page("parts/deleted", session, doomed=doomed, kept=done.get("kept", []))

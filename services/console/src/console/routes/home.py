"""The first page (what needs somebody now, their models, the upload box), and the page of each upload."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from typing import TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from chassis.errors import NotFound, SartorError
from chassis.ids import now
from chassis.peers import Peer
from chassis.routes import Router
from console.answering import TITLES, answers, kind_of, name_of
from console.answers import FileAnswer, JobAnswer, Listing
from console.navigation import home_of
from console.paging import Listed, cursor
from console.progress import STAGES, Progress, Seen, Watcher, state_of
from console.routes.play import names_of
from console.sessions import Session
from console.streams import Streams
from console.web import SEE_OTHER, SignedOut, Web

POLL_SECONDS = 1.0
SLOWEST_POLL_SECONDS = 15.0
PAUSE_GROWTH = 1.2
"""What changes after a wait is seen after at most a fifth more of that wait."""

WATCH_SECONDS = 3600
MOST_STREAMS = 4
UPLOADS_SHOWN = 25
DECISIONS_SHOWN = 25
NO_FILES: Listing[FileAnswer] = {"data": [], "has_more": False}
NO_JOBS: Listing[JobAnswer] = {"data": [], "has_more": False}

L = TypeVar("L")
Stream = AbstractContextManager[asyncio.Event]


def home_routes(web: Web, watcher: Watcher, ingest: Peer, trainer: Peer, registry: Peer) -> Router:
    """Home, upload, the progress of an upload."""
    router = Router(include_in_schema=False)
    streams = Streams(MOST_STREAMS)

    @router.get("/")
    async def home(request: Request, after: str | None = None, decisions_after: str | None = None) -> Response:
        session = await web.anybody(request)
        may = session.principal.may
        if (place := home_of(session.principal)) != "/":
            return RedirectResponse(place, SEE_OTHER)
        wanted = {"state": "awaiting_approval", **cursor(DECISIONS_SHOWN, decisions_after)}
        files, jobs, models, undecided = await asyncio.gather(
            _asked(may("files:read"), NO_FILES, ingest, "/v1/files", cursor(UPLOADS_SHOWN, after), session),
            _asked(may("files:read"), NO_JOBS, trainer, "/v1/fine_tuning/jobs", {"limit": 100}, session),
            registry.get("/v1/models", **session.who),
            registry.get("/v1/registry/models", params=wanted, **session.who),
        )
        newest = await _newest_jobs(session, files["data"], jobs)
        states = {file["id"]: state_of(file, newest.get(file["id"])) for file in files["data"]}
        waiting = [
            {"id": card["id"], "name": name_of(card), "title": TITLES[kind_of(card)]}
            for card in undecided["data"]
            if card["waiting_for"] == "approval"
        ]
        made = {job["fine_tuned_model"]: job for job in reversed(jobs["data"]) if job.get("fine_tuned_model")}
        bases, own = names_of(models["data"])
        return web.page(
            "home/home",
            session,
            uploads=Listed(files["data"], files["has_more"], after),
            states=states,
            models=own,
            answering={name: answers(made[name], now()) for name in own if name in made},
            bases=bases,
            decisions=Listed(waiting, undecided["has_more"], decisions_after),
            may=may,
        )

    async def _newest_jobs(session: Session, files: list[FileAnswer], jobs: Listing[JobAnswer]) -> dict[str, JobAnswer]:
        """The newest job of each file. Jobs of older files are not in the page and are asked for one by one."""
        newest = {job["training_file"]: job for job in reversed(jobs["data"])}
        if not jobs["has_more"]:
            return newest
        unknown = [file["id"] for file in files if file["id"] not in newest and file["status"] == "processed"]
        wanted = ({"training_file": file_id, "limit": 1} for file_id in unknown)
        found = await asyncio.gather(
            *(trainer.get("/v1/fine_tuning/jobs", params=params, **session.who) for params in wanted)
        )
        return newest | {job["training_file"]: job for page in found for job in page["data"]}

    @router.post("/upload")
    async def upload(request: Request) -> Response:
        """The form's body goes on to ingest as it comes; the form token travels in the address."""
        session = await web.session(request)
        web.sessions.check_form(session.id, request.query_params.get("form_token"))
        headers = {
            name: request.headers[name] for name in ("content-type", "content-length") if name in request.headers
        }
        async with ingest.stream(
            "POST", "/v1/files", content=request.stream(), headers=headers, timeout=600, **session.who
        ) as answer:
            body = json.loads(await answer.aread())
        wants_json = "application/json" in request.headers.get("accept", "")
        if answer.status_code != 200:
            message = body["error"]["message"]
            if wants_json:
                return JSONResponse(body, status_code=answer.status_code)
            return web.problem(session, answer.status_code, message, body["error"].get("param"))
        place = f"/files/{body['id']}"
        return JSONResponse({"place": place}) if wants_json else RedirectResponse(place, SEE_OTHER)

    @router.get("/files/{file_id}")
    async def file_page(file_id: str, request: Request) -> Response:
        session = await web.session(request)
        progress = await watcher.look(session, file_id)
        return web.page("home/progress", session, progress=progress, stages=STAGES)

    @router.get("/files/{file_id}/events")
    async def file_events(file_id: str, request: Request) -> Response:
        session = await web.session(request)
        states = _watch(web, watcher, streams.opened(session.id), request, file_id)
        return StreamingResponse(states, media_type="text/event-stream")

    return router


async def _watch(web: Web, watcher: Watcher, stream: Stream, request: Request, file_id: str) -> AsyncIterator[bytes]:
    """Server-sent states of an upload, less often while none is new, until nothing can come or nobody may see it."""
    began, pause, shown, seen = time.monotonic(), POLL_SECONDS, "", Seen()
    with stream as displaced:
        while time.monotonic() - began < WATCH_SECONDS:
            try:
                progress = await watcher.look(await web.session(request), file_id, seen)
            except SignedOut:
                return
            except NotFound:
                progress = Progress(file_id, failed="This file was deleted.", over=True)
            except SartorError as error:
                progress = Progress(file_id, failed=error.message, over=not error.transient)
            state = progress.to_json()
            if progress.failed and not progress.over:
                state = ""
                yield b": a service is away\n\n"
            elif state != shown:
                pause = POLL_SECONDS
                yield f"data: {state}\n\n".encode()
            else:
                pause = min(PAUSE_GROWTH * pause, SLOWEST_POLL_SECONDS)
                yield b": nothing new\n\n"
            shown = state
            if progress.over:
                return
            if await _set_within(displaced, pause):
                yield b"event: displaced\ndata: {}\n\n"
                return


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _asked(may: bool, empty: L, peer: Peer, path: str, params: dict[str, str | int], session: Session) -> L:
    """A page of a list, or an empty one for who may not see it."""
    if not may:
        return empty
    found: L = await peer.get(path, params=params, **session.who)
    return found

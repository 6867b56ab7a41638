"""The pages of the main way: uploads, progress, models, chat, rating."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import Field

from chassis.auth import Peer
from chassis.bodies import Body
from chassis.errors import NotFound, SartorError, envelope
from console.paging import Listed, cursor
from console.progress import STAGES, Progress, Seen, Watcher, state_of
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
LONGEST_TEXT = 100_000

Stream = AbstractContextManager[asyncio.Event]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class Said(Body):
    """A message to a model, from the chat page."""

    model: Name
    message: Text
    system: Text = ""


class Rated(Body):
    """A rating, from the chat page."""

    completion_id: Name
    rating: Literal["up", "down"]
    correction: Text | None = None


def page_routes(web: Web, watcher: Watcher, peer: Callable[[str], Peer], base_model: str) -> APIRouter:
    """Home, upload, progress, model, chat."""
    router = APIRouter(include_in_schema=False)
    ingest, trainer, evaluator = peer("ingest"), peer("trainer"), peer("evaluator")
    registry, proxy = peer("registry"), peer("inference_proxy")
    streams = Streams(MOST_STREAMS)

    @router.get("/")
    async def home(request: Request, after: str | None = None, decisions_after: str | None = None) -> Response:
        session = await web.session(request)
        who = session.who
        files, jobs, models, undecided = await asyncio.gather(
            ingest.get("/v1/files", params=cursor(UPLOADS_SHOWN, after), **who),
            trainer.get("/v1/fine_tuning/jobs", params={"limit": 100}, **who),
            registry.get("/v1/models", **who),
            registry.get(
                "/v1/registry/models",
                params={"state": "awaiting_approval", **cursor(DECISIONS_SHOWN, decisions_after)},
                **who,
            ),
        )
        newest = await _newest_jobs(session, files["data"], jobs)
        states = {file["id"]: state_of(file, newest.get(file["id"])) for file in files["data"]}
        waiting = [card for card in undecided["data"] if card["waiting_for"] == "approval"]
        bases, own = _sorted(models["data"])
        uploads = Listed(files["data"], files["has_more"], after)
        decisions = Listed(waiting, undecided["has_more"], decisions_after)
        return web.page("home", session, uploads=uploads, states=states, models=own, bases=bases, decisions=decisions)

    async def _newest_jobs(session: Session, files: list[Any], jobs: dict[str, Any]) -> dict[str, Any]:
        """The newest job of each file; jobs come newest first, and those of older files are asked for one by one."""
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
            return web.page("problem", session, status=answer.status_code, message=message)
        place = f"/files/{body['id']}"
        return JSONResponse({"place": place}) if wants_json else RedirectResponse(place, SEE_OTHER)

    @router.get("/files/{file_id}")
    async def file_page(file_id: str, request: Request) -> Response:
        session = await web.session(request)
        progress = await watcher.look(session, file_id)
        return web.page("progress", session, progress=progress, stages=STAGES)

    @router.get("/files/{file_id}/events")
    async def file_events(file_id: str, request: Request) -> Response:
        session = await web.session(request)
        states = _watch(web, watcher, streams.opened(session.id), request, file_id)
        return StreamingResponse(states, media_type="text/event-stream")

    @router.get("/models/{model_id:path}")
    async def model_page(model_id: str, request: Request) -> Response:
        session = await web.session(request)
        card = await registry.get("/v1/registry/models/{}", model_id, **session.who)
        runs = await evaluator.get("/v1/evals/evaluations", params={"model": model_id}, **session.who)
        may_decide = session.principal.may("models:approve")
        return web.page("model", session, card=card, evaluation=next(iter(runs["data"]), None), may_decide=may_decide)

    @router.post("/decide")
    async def decide(request: Request) -> Response:
        """A person lets a tested model into use, or stops it."""
        session = await web.session(request)
        fields = await web.form(request, session)
        model_id, note = fields.get("model", ""), {"note": fields.get("note", "")}
        if "approve" in fields:
            await registry.post("/v1/registry/models/{}/approve", model_id, json=note, **session.who)
        else:
            await registry.post("/v1/registry/models/{}/reject", model_id, json=note, **session.who)
        return RedirectResponse(f"/models/{quote(model_id, safe='')}", SEE_OTHER)

    @router.get("/chat")
    async def chat_page(request: Request) -> Response:
        session = await web.session(request)
        bases, own = _sorted((await registry.get("/v1/models", **session.who))["data"])
        wanted = request.query_params.get("model")
        chosen = wanted if wanted in (*own, *bases) else next(iter([*own, *bases]), "")
        base, system = chosen, ""
        if chosen in own:
            base, system = await _origin(session, chosen)
        return web.page("chat", session, own=own, bases=bases, chosen=chosen, base=base, system=system)

    async def _origin(session: Session, model_id: str) -> tuple[str, str]:
        """The base a model was made from, and its training rows' system message, empty where that is not known."""
        try:
            card = await registry.get("/v1/registry/models/{}", model_id, **session.who)
        except NotFound:
            return base_model, ""
        try:
            dataset = await ingest.get("/v1/datasets/{}", card["dataset_id"], **session.who)
        except NotFound:
            return str(card["base_model"]), ""
        return str(card["base_model"]), str(dataset["system"])

    @router.post("/chat/say")
    async def say(said: Said, request: Request) -> Response:
        session = await web.session(request)
        web.sessions.check_form(session.id, request.headers.get("x-form-token"))
        return StreamingResponse(_relay(session, said), media_type="text/event-stream")

    async def _relay(session: Session, said: Said) -> AsyncIterator[bytes]:
        instruction = [{"role": "system", "content": said.system}] if said.system.strip() else []
        body = {
            "model": said.model,
            "messages": [*instruction, {"role": "user", "content": said.message}],
            "max_tokens": 64,
            "temperature": 0,
            "stream": True,
        }
        try:
            async with proxy.stream("POST", "/v1/chat/completions", json=body, timeout=300, **session.who) as answer:
                if answer.status_code != 200:
                    yield b"data: " + (await answer.aread()).replace(b"\n", b" ") + b"\n\n"
                    return
                async for chunk in answer.aiter_bytes():
                    yield chunk
        except SartorError as error:
            yield f"data: {json.dumps(envelope(error))}\n\n".encode()

    @router.post("/chat/rate")
    async def rate(rated: Rated, request: Request) -> Response:
        session = await web.session(request)
        web.sessions.check_form(session.id, request.headers.get("x-form-token"))
        body = rated.model_dump(exclude_none=True)
        return JSONResponse(await proxy.post("/v1/feedback", json=body, **session.who))

    return router


def _sorted(models: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Names of base models, and of one's own with their aliases."""
    bases = [model["id"] for model in models if model["owned_by"] == "base"]
    return bases, [model["id"] for model in models if model["owned_by"] != "base"]


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
            state = json.dumps(progress.as_dict(), ensure_ascii=False)
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

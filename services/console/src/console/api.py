"""The pages of the main way: uploads, progress, models, chat, rating."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel

from chassis.auth import Peer
from chassis.errors import NotFound, SartorError, envelope
from console.progress import STAGES, Known, Progress, Watcher, state_of
from console.sessions import Session
from console.web import SEE_OTHER, SignedOut, Web

POLL_SECONDS = 1.0
LONGEST_WATCH = 3600


class Said(BaseModel):
    """A message to a model, from the chat page."""

    model: str
    message: str
    system: str = ""


class Rated(BaseModel):
    """A rating, from the chat page."""

    completion_id: str
    rating: str
    correction: str | None = None


def page_routes(web: Web, watcher: Watcher, peer: Callable[[str], Peer], base_model: str) -> APIRouter:
    """Home, upload, progress, model, chat."""
    router = APIRouter(include_in_schema=False)
    ingest, trainer, evaluator = peer("ingest"), peer("trainer"), peer("evaluator")
    registry, proxy = peer("registry"), peer("inference_proxy")

    @router.get("/")
    async def home(request: Request) -> Response:
        session = await web.session(request)
        who = session.who
        files, jobs, models, undecided = await asyncio.gather(
            ingest.get("/v1/files", params={"limit": 50}, **who),
            trainer.get("/v1/fine_tuning/jobs", params={"limit": 50}, **who),
            registry.get("/v1/models", **who),
            registry.get("/v1/registry/models", params={"state": "awaiting_approval", "limit": 50}, **who),
        )
        by_file = {job["training_file"]: job for job in jobs["data"]}
        own = [model for model in models["data"] if model["id"].startswith("ft:")]
        waiting = [card for card in undecided["data"] if card["waiting_for"] == "approval"]
        states = {file["id"]: state_of(file, by_file.get(file["id"])) for file in files["data"]}
        return web.page("home", session, files=files["data"], states=states, models=own, undecided=waiting)

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
        await watcher.look(session, file_id)
        return StreamingResponse(_watch(web, watcher, request, file_id), media_type="text/event-stream")

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
        models = (await registry.get("/v1/models", **session.who))["data"]
        own = [model["id"] for model in models if model["id"].startswith("ft:")]
        chosen = request.query_params.get("model") or next(iter(own), "")
        system = await _learned_instruction(session, chosen) if chosen in own else ""
        return web.page("chat", session, own=own, chosen=chosen, base=base_model, system=system)

    async def _learned_instruction(session: Session, model_id: str) -> str:
        """The system message a model was trained with; empty where its dataset had none, or is gone."""
        try:
            card = await registry.get("/v1/registry/models/{}", model_id, **session.who)
            dataset = await ingest.get("/v1/datasets/{}", card["dataset_id"], **session.who)
        except NotFound:
            return ""
        return str(dataset["system"])

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


async def _watch(web: Web, watcher: Watcher, request: Request, file_id: str) -> AsyncIterator[bytes]:
    """Server-sent states of an upload, until there is nothing more to see or nobody may see it."""
    known: Known = []
    for _ in range(LONGEST_WATCH):
        try:
            progress = await watcher.look(await web.session(request), file_id, known)
        except SignedOut:
            return
        except NotFound:
            progress = Progress(file_id, failed="This file was deleted.", over=True)
        except SartorError as error:
            if error.transient:
                yield b": a service is away\n\n"
                await asyncio.sleep(POLL_SECONDS)
                continue
            progress = Progress(file_id, failed=error.message, over=True)
        yield f"data: {json.dumps(progress.as_dict(), ensure_ascii=False)}\n\n".encode()
        if progress.over:
            return
        await asyncio.sleep(POLL_SECONDS)

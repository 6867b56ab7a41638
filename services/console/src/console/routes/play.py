"""The chat page: base and own model side by side, and the rating of an answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import Field

from chassis.bodies import Body
from chassis.errors import NotFound, SartorError, envelope
from chassis.peers import Peer
from chassis.routes import Router
from console.answers import ModelAnswer
from console.sessions import Session
from console.web import Web

LONGEST_TEXT = 100_000

Name = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class ChatMessage(Body):
    """A message to a model, from the chat page."""

    model: Name
    message: Text
    system: Text = ""


class Rated(Body):
    """A rating, from the chat page."""

    completion_id: Name
    rating: Literal["up", "down"]
    correction: Text | None = None


class TakenBack(Body):
    """A rating to be taken back, from the chat page."""

    feedback_id: Name


def play_routes(web: Web, ingest: Peer, registry: Peer, proxy: Peer, base_model: str) -> Router:
    """Chat with one's models."""
    router = Router(include_in_schema=False)

    @router.get("/chat")
    async def chat_page(request: Request) -> Response:
        session = await web.session(request)
        bases, own = names_of((await registry.get("/v1/models", **session.who))["data"])
        wanted = request.query_params.get("model")
        chosen = wanted if wanted in (*own, *bases) else next(iter([*own, *bases]), "")
        base, system = chosen, ""
        if chosen in own:
            base, system = await _origin(session, chosen)
        return web.page("play/chat", session, own=own, bases=bases, chosen=chosen, base=base, system=system)

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
    async def say(message: ChatMessage, request: Request) -> Response:
        session = await web.session(request)
        web.sessions.check_form(session.id, request.headers.get("x-form-token"))
        return StreamingResponse(_relay(session, message), media_type="text/event-stream")

    async def _relay(session: Session, message: ChatMessage) -> AsyncIterator[bytes]:
        instruction = [{"role": "system", "content": message.system}] if message.system.strip() else []
        body = {
            "model": message.model,
            "messages": [*instruction, {"role": "user", "content": message.message}],
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

    @router.post("/chat/take-back")
    async def take_back(rating: TakenBack, request: Request) -> Response:
        session = await web.session(request)
        web.sessions.check_form(session.id, request.headers.get("x-form-token"))
        return JSONResponse(await proxy.request("DELETE", "/v1/feedback/{}", rating.feedback_id, **session.who))

    return router


def names_of(models: list[ModelAnswer]) -> tuple[list[str], list[str]]:
    """Names of base models, and of one's own with their aliases."""
    bases = [model["id"] for model in models if model["owned_by"] == "base"]
    return bases, [model["id"] for model in models if model["owned_by"] != "base"]

"""The HTTP routes of the proxy: OpenAI's chat and completions, and feedback."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AliasChoices, Field

from chassis.auth import Principal, require
from chassis.bodies import Body, Metadata, metadata_filter
from chassis.errors import Invalid, NotFound, SartorError, envelope
from chassis.hang_ups import unless_gone
from chassis.http import Page, page
from chassis.idempotency import answer_not_kept
from inference_proxy.answers import (
    chat_chunk,
    chat_completion,
    chat_logprobs,
    text_chunk,
    text_completion,
    text_logprobs,
    usage,
)
from inference_proxy.domain import Chat
from inference_proxy.limits import InFlight, Spending
from inference_proxy.requests import ChatAsked, CompletionAsked
from inference_proxy.store import Chats
from inference_proxy.use_cases import Answer, Answering, ForgetChat, LabelChat, Rating

log = structlog.get_logger()

Chatting = Annotated[Principal, require("chat:write")]
Limit = Annotated[int, Query(ge=1, le=100)]
DONE = b"data: [DONE]\n\n"


class StoredChange(Body):
    """What may be changed of a stored completion."""

    metadata: Metadata | None


class FeedbackAsked(Body):
    """A rating of an answer."""

    completion_id: str = Field(max_length=256, validation_alias=AliasChoices("completion_id", "chat_id"))
    rating: Literal["up", "down"]
    correction: str | None = Field(None, max_length=100_000)
    comment: str | None = Field(None, max_length=10_000)


def _event(payload: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(payload, ensure_ascii=False)}\n\n".encode()


async def _guarded(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A failure after the first byte can only be told inside the stream, which then has no `[DONE]`."""
    try:
        async with aclosing(rest) as stream:
            yield first
            async for event in stream:
                yield event
        yield DONE
    except SartorError as error:
        yield _event(envelope(error))
    except Exception as error:  # the boundary of a stream: the client must hear of it
        log.error("stream_crashed", exc_info=error)
        yield _event(envelope(SartorError("The answer broke off. Quote the x-request-id when you report it.")))


def inference_routes(answering: Answering, spending: Spending, in_flight: InFlight) -> APIRouter:
    """Chat and completions, whole or streamed."""
    router = APIRouter(prefix="/v1", tags=["inference"])

    @router.post("/chat/completions")
    async def create_chat(request: Request, asked: ChatAsked, principal: Chatting) -> Response:
        if not asked.store:
            answer_not_kept(request)
        spending.admit(principal)
        answer = await answering.prepare_chat(principal, asked)
        if asked.stream:
            return await _streamed(request, answer, _chat_events(answer))
        await _whole(request, answer)
        body = chat_completion(answer.header, answer.choices, logprobs=bool(asked.logprobs))
        return JSONResponse(body, headers=_headers(answer))

    @router.post("/completions")
    async def create_completion(request: Request, asked: CompletionAsked, principal: Chatting) -> Response:
        answer_not_kept(request)
        spending.admit(principal, len(asked.prompts))
        answer = await answering.prepare_completion(principal, asked)
        if asked.stream:
            return await _streamed(request, answer, _text_events(answer))
        await _whole(request, answer)
        body = text_completion(answer.header, answer.choices, asked.choices, asked.logprobs)
        return JSONResponse(body, headers=_headers(answer))

    def _headers(answer: Answer) -> dict[str, str]:
        return {"x-sartor-adapter": answer.route.adapter_id} if answer.route.adapter_id else {}

    async def _whole(request: Request, answer: Answer) -> None:
        """Generate the answer, and stop at once when the client hangs up."""
        with in_flight.entered(answer.principal.tenant_id, len(answer.prompts)):
            await unless_gone(request, answering.whole(answer))

    async def _streamed(request: Request, answer: Answer, events: AsyncGenerator[bytes, None]) -> StreamingResponse:
        """Answer when the first event is there: until then a refusal still has its own status."""
        counted = _counted(answer, events)
        first = await unless_gone(request, anext(counted))
        headers = {**_headers(answer), "cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(_guarded(first, counted), media_type="text/event-stream", headers=headers)

    async def _counted(answer: Answer, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        with in_flight.entered(answer.principal.tenant_id):
            async with aclosing(events) as stream:
                async for event in stream:
                    yield event

    async def _chat_events(answer: Answer) -> AsyncGenerator[bytes, None]:
        asked = answer.asked
        assert isinstance(asked, ChatAsked)
        header = {**answer.header, "usage": None} if asked.wants_usage else answer.header
        told: dict[int, int] = {}
        async with aclosing(answering.stream(answer)) as tokens:
            async for index, piece, shown in tokens:
                if index not in told:
                    told[index] = 0
                    yield _event(chat_chunk(header, index, {"role": "assistant", "content": ""}))
                choice = answer.choices[index]
                if shown:
                    new = choice.shown_tokens(told[index]) if asked.logprobs else []
                    told[index] += len(new)
                    yield _event(
                        chat_chunk(header, index, {"content": shown}, None, chat_logprobs(new) if new else None)
                    )
                if piece.finish_reason:
                    yield _event(chat_chunk(header, index, {}, piece.finish_reason))
        if asked.wants_usage:
            last = {
                **header,
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": usage(answer.choices, asked.choices),
            }
            yield _event(last)

    async def _text_events(answer: Answer) -> AsyncGenerator[bytes, None]:
        asked = answer.asked
        assert isinstance(asked, CompletionAsked)
        header = {**answer.header, "usage": None} if asked.wants_usage else answer.header
        told: dict[int, int] = {}
        async with aclosing(answering.stream(answer)) as tokens:
            async for index, piece, shown in tokens:
                if not shown and not piece.finish_reason:
                    continue
                start = told.get(index, 0)
                new = answer.choices[index].shown_tokens(start) if asked.logprobs is not None else []
                told[index] = start + len(new)
                logprobs = text_logprobs(new) if new else None
                yield _event(text_chunk(header, index, shown, piece.finish_reason, logprobs))
        if asked.wants_usage:
            last = {
                **header,
                "object": "text_completion",
                "choices": [],
                "usage": usage(answer.choices, asked.choices),
            }
            yield _event(last)

    return router


def stored_routes(chats: Chats, label: LabelChat, forget: ForgetChat) -> APIRouter:
    """Completions kept with `store: true`."""
    router = APIRouter(prefix="/v1/chat/completions", tags=["inference"])

    @router.get("", openapi_extra={"x-query-prefixes": ["metadata["]})
    async def list_stored(
        request: Request,
        principal: Chatting,
        model: str | None = None,
        limit: Limit = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "asc",
    ) -> Page:
        newest_first = order == "desc"
        found = await chats.stored_page(
            principal,
            model,
            metadata_filter(request),
            limit=limit + 1,
            after=after,
            newest_first=newest_first,
        )
        return page([_stored_view(chat) for chat in found], limit=limit)

    @router.get("/{chat_id}")
    async def retrieve_stored(chat_id: str, principal: Chatting) -> dict[str, Any]:
        return _stored_view(await chats.stored(principal, chat_id))

    @router.post("/{chat_id}")
    async def update_stored(chat_id: str, asked: StoredChange, principal: Chatting) -> dict[str, Any]:
        return _stored_view(await label.run(principal, chat_id, asked.metadata or {}))

    @router.get("/{chat_id}/messages")
    async def stored_messages(
        chat_id: str,
        principal: Chatting,
        limit: Limit = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "asc",
    ) -> Page:
        chat = await chats.stored(principal, chat_id)
        messages = [{**message, "id": f"{chat.id}-{index}"} for index, message in enumerate(chat.messages)]
        if order == "desc":
            messages.reverse()
        start = 0
        if after is not None:
            start = next((place + 1 for place, message in enumerate(messages) if message["id"] == after), -1)
            if start < 0:
                raise NotFound(f"No such message: '{after}'.", param="after")
        return page(messages[start : start + limit + 1], limit=limit)

    @router.delete("/{chat_id}")
    async def delete_stored(chat_id: str, principal: Chatting) -> dict[str, Any]:
        await forget.run(principal, chat_id)
        return {"object": "chat.completion.deleted", "id": chat_id, "deleted": True}

    return router


def _stored_view(chat: Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "object": "chat.completion",
        "created": chat.created_at,
        "model": chat.model,
        "metadata": chat.metadata,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer["content"], "refusal": None},
                "finish_reason": answer["finish_reason"],
                "logprobs": None,
            }
            for index, answer in enumerate(chat.answers)
        ],
        "usage": {
            "prompt_tokens": chat.prompt_tokens,
            "completion_tokens": chat.completion_tokens,
            "total_tokens": chat.prompt_tokens + chat.completion_tokens,
        },
    }


def feedback_routes(rating: Rating) -> APIRouter:
    """Ratings of answers."""
    router = APIRouter(prefix="/v1/feedback", tags=["feedback"])

    @router.post("")
    async def create_feedback(asked: FeedbackAsked, principal: Chatting) -> dict[str, Any]:
        if asked.correction is not None and not asked.correction.strip():
            raise Invalid("correction: is empty; leave it out.", param="correction")
        feedback = await rating.record(
            principal, asked.completion_id, asked.rating, correction=asked.correction, comment=asked.comment
        )
        return {
            "id": feedback.id,
            "object": "feedback",
            "created_at": feedback.created_at,
            "completion_id": feedback.chat_id,
            "model": feedback.model,
            "rating": feedback.rating,
        }

    @router.delete("/{feedback_id}")
    async def delete_feedback(feedback_id: str, principal: Chatting) -> dict[str, Any]:
        await rating.take_back(principal, feedback_id)
        return {"id": feedback_id, "object": "feedback.deleted", "deleted": True}

    return router

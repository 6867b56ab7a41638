"""The HTTP routes of the proxy: OpenAI's chat and completions, and feedback."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AliasChoices, Field

from chassis.auth import Principal, internal, require
from chassis.bodies import Body, Metadata, metadata_filter
from chassis.errors import Invalid
from chassis.hang_ups import unless_gone
from chassis.http import Page, behind, page
from chassis.idempotency import answer_not_kept
from chassis.routes import Router
from inference_proxy.answering import Answering
from inference_proxy.answers import Answer
from inference_proxy.requests import ChatAsked, CompletionAsked, EvaluationAsked, ScoreAsked, TokenCountAsked
from inference_proxy.store import Chats
from inference_proxy.streams import ChatShape, Shape, TextShape, from_first, parts
from inference_proxy.use_cases import ForgetChat, LabelChat, Rating
from inference_proxy.views import ChatDeleted, ChatView, FeedbackTakenBack, FeedbackView
from schemas.http.inference_proxy import EvaluationAnswer, TextScore, TokenCount

Chatting = Annotated[Principal, require("chat:write")]
Internal = Annotated[Principal, internal()]
Limit = Annotated[int, Query(ge=1, le=100)]


class StoredChange(Body):
    """What may be changed of a stored completion."""

    metadata: Metadata | None


class FeedbackAsked(Body):
    """A rating of an answer."""

    completion_id: str = Field(max_length=256, validation_alias=AliasChoices("completion_id", "chat_id"))
    rating: Literal["up", "down"]
    correction: str | None = Field(None, max_length=100_000)
    comment: str | None = Field(None, max_length=10_000)


def provenance(answer: Answer) -> dict[str, str]:
    """Headers that say what gave an answer of a tenant's model, and which arm was too unsure to."""
    route, headers = answer.route, {}
    if route.adapter_id and route.answers_by:
        headers = {"x-sartor-adapter": route.adapter_id, "x-sartor-arm": route.answers_by}
    if left := answer.handed_over:
        headers.setdefault("x-sartor-arm", "base")
        headers["x-sartor-handed-over"] = f"{left.by};confidence={int(left.confidence * 1000) / 1000}"
    return headers


def inference_routes(answering: Answering) -> Router:
    """Chat and completions, whole or streamed."""
    router = Router(prefix="/v1", tags=["inference"])

    @router.post("/chat/completions")
    async def create_chat(request: Request, asked: ChatAsked, principal: Chatting) -> Response:
        if not asked.store:
            answer_not_kept(request)
        answer = await answering.begin(principal, asked)
        return await sent(request, answer, ChatShape(answer))

    @router.post("/completions")
    async def create_completion(request: Request, asked: CompletionAsked, principal: Chatting) -> Response:
        answer_not_kept(request)
        answer = await answering.begin(principal, asked)
        return await sent(request, answer, TextShape(answer))

    async def sent(request: Request, answer: Answer, shape: Shape) -> Response:
        """Answer when the first part is there: until then a refusal has its own status, and a hang-up ends the work."""
        told = parts(answering, answer, shape)
        first = await unless_gone(request, anext(told))
        headers = provenance(answer)
        if not answer.asked.stream:
            await told.aclose()
            return Response(first, media_type="application/json", headers=headers)
        headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(from_first(first, told), media_type="text/event-stream", headers=headers)

    return router


def evaluation_routes(answering: Answering) -> Router:
    """What the service asks that tests candidates, on an account of its own."""
    router = Router(prefix="/internal/evaluation", tags=["evaluation"])

    @router.post("/answers")
    async def create_answer(request: Request, asked: EvaluationAsked, principal: Internal) -> EvaluationAnswer:
        answer = await answering.begin(principal, asked.chat())
        await unless_gone(request, answering.whole(answer))
        [choice] = answer.choices
        return EvaluationAnswer(
            text=choice.text,
            finish_reason=choice.finish_reason,
            prompt_tokens=choice.prompt_tokens,
            completion_tokens=choice.completion_tokens,
            adapter_id=answer.route.adapter_id,
            cost=answer.cost,
            confidence=choice.confidence,
        )

    @router.post("/scores")
    async def create_score(request: Request, asked: ScoreAsked, principal: Internal) -> TextScore:
        answer = await answering.begin(principal, asked.completion())
        await unless_gone(request, answering.whole(answer))
        [choice] = answer.choices
        return TextScore(
            logprobs=choice.echoed_logprobs(),
            prompt_tokens=answer.usage["prompt_tokens"],
            adapter_id=answer.route.adapter_id,
            cost=answer.cost,
        )

    @router.post("/token_counts")
    async def count_tokens(request: Request, asked: TokenCountAsked, principal: Internal) -> TokenCount:
        counting = answering.count_tokens(principal, asked.model, asked.text)
        return TokenCount(tokens=await unless_gone(request, counting))

    return router


def stored_routes(chats: Chats, label: LabelChat, forget: ForgetChat) -> Router:
    """Completions kept with `store: true`."""
    router = Router(prefix="/v1/chat/completions", tags=["inference"])

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
        return page([ChatView.of(chat) for chat in found], limit=limit)

    @router.get("/{chat_id}")
    async def retrieve_stored(chat_id: str, principal: Chatting) -> ChatView:
        return ChatView.of(await chats.stored(principal, chat_id))

    @router.post("/{chat_id}")
    async def update_stored(chat_id: str, asked: StoredChange, principal: Chatting) -> ChatView:
        return ChatView.of(await label.run(principal, chat_id, asked.metadata or {}))

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
        return page(behind(messages, after, f"No such message: '{after}'."), limit=limit)

    @router.delete("/{chat_id}")
    async def delete_stored(chat_id: str, principal: Chatting) -> ChatDeleted:
        await forget.run(principal, chat_id)
        return ChatDeleted(id=chat_id)

    return router


def feedback_routes(rating: Rating) -> Router:
    """Ratings of answers."""
    router = Router(prefix="/v1/feedback", tags=["feedback"])

    @router.post("")
    async def create_feedback(asked: FeedbackAsked, principal: Chatting) -> FeedbackView:
        if asked.correction is not None and not asked.correction.strip():
            raise Invalid("correction: is empty; leave it out.", param="correction")
        feedback = await rating.record(
            principal, asked.completion_id, asked.rating, correction=asked.correction, comment=asked.comment
        )
        return FeedbackView.of(feedback)

    @router.delete("/{feedback_id}")
    async def delete_feedback(feedback_id: str, principal: Chatting) -> FeedbackTakenBack:
        await rating.take_back(principal, feedback_id)
        return FeedbackTakenBack(id=feedback_id)

    return router

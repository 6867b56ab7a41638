"""What the proxy does: answers, streamed or whole, and takes ratings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from chassis.auth import Principal
from chassis.errors import Invalid
from chassis.idempotency import request_id_for
from chassis.ids import new_id, now
from inference_proxy.answers import Generated, StopFilter, usage
from inference_proxy.bases import Bases
from inference_proxy.domain import Chat, Feedback, no_feedback
from inference_proxy.engines import Accepted, Engine, Piece, Prompt, Sampling, Target
from inference_proxy.limits import InFlight, Spending
from inference_proxy.records import Records
from inference_proxy.requests import ChatAsked, Common, CompletionAsked
from inference_proxy.retrieval import Retrieval
from inference_proxy.routing import Route, RouteTable
from inference_proxy.store import Chats
from schemas.artifacts import Price

LACKING = {"prompt": "prompt: this model answers chats only; ask /v1/chat/completions."}


@dataclass
class Answer:
    """An answer under way: what was asked, where it goes, what has come.

    Attributes:
        prompts: one per choice.
        price: what its tokens cost; None where nobody said.
        retrieved: sources put into the prompt.
    """

    id: str
    principal: Principal
    asked: Common
    route: Route
    prompts: list[Prompt]
    stop_tokens: Sequence[str]
    price: Price | None
    retrieved: list[dict[str, Any]] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    stored: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    created: int = field(default_factory=now)
    began: float = field(default_factory=time.monotonic)
    choices: list[Generated] = field(default_factory=list)

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token is told with its log-probability."""
        return self.asked.top is not None

    @property
    def cost(self) -> float | None:
        """What was generated costs, each choice with its prompt; None where no price is known."""
        if self.price is None:
            return None
        return sum(self.price.of(choice.prompt_tokens, choice.completion_tokens) for choice in self.choices)

    @property
    def header(self) -> dict[str, Any]:
        """Fields every chunk and answer carries."""
        header: dict[str, Any] = {
            "id": self.id,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": self.route.fingerprint,
        }
        return {**header, "sartor": {"retrieved": self.retrieved}} if self.retrieved else header


class Answering:
    """Admits, prepares, generates and records answers.

    Args:
        routes: who answers for a model.
        bases: base models.
        engines: by kind, what models answer by.
        retrieval: puts documents into prompts.
        records: where answers are recorded.
        spending: asked for a request, and charged with the tokens used.
        in_flight: places for answers at the same time.
    """

    def __init__(
        self,
        routes: RouteTable,
        bases: Bases,
        engines: Mapping[str, Engine],
        retrieval: Retrieval,
        records: Records,
        spending: Spending,
        in_flight: InFlight,
    ) -> None:
        self._routes = routes
        self._bases = bases
        self._engines = engines
        self._retrieval = retrieval
        self._records = records
        self._spending = spending
        self._in_flight = in_flight

    async def chat(self, principal: Principal, asked: ChatAsked) -> Answer:
        """Admit and check the request, find the model, make the prompt; nothing is generated yet.

        Raises:
            SartorError: the request is too many or wrong, or the model is not there.
        """
        self._spending.admit(principal)
        asked = asked.checked()
        messages = asked.plain_messages()
        route = await self._routes.find(principal, asked.model)
        base = await self._bases.get(route.base_id, principal.tenant_id)
        route.agree(base)
        base.check(len(messages), asked.logit_bias or ())
        augmented, retrieved = await self._retrieval.augment(principal, asked.stores, messages)
        prompt = await asyncio.to_thread(base.prompt, augmented)
        return Answer(
            id=request_id_for("chatcmpl-", new_id("chatcmpl-")),
            principal=principal,
            asked=asked,
            route=route,
            prompts=[prompt] * asked.choices,
            stop_tokens=base.stop_tokens,
            price=base.price,
            retrieved=retrieved,
            messages=asked.kept_messages(),
            stored=bool(asked.store),
            metadata=asked.metadata or {},
        )

    async def completion(self, principal: Principal, asked: CompletionAsked) -> Answer:
        """As `chat`, for raw prompts."""
        prompts = [Prompt("prompt", text=prompt) for prompt in asked.prompts for _ in range(asked.choices)]
        self._spending.admit(principal, len(asked.prompts))
        route = await self._routes.find(principal, asked.model)
        base = await self._bases.get(route.base_id, principal.tenant_id)
        route.agree(base)
        base.check(0, asked.logit_bias or ())
        return Answer(
            id=request_id_for("cmpl-", new_id("cmpl-")),
            principal=principal,
            asked=asked,
            route=route,
            prompts=prompts,
            stop_tokens=[],
            price=base.price,
        )

    async def stream(self, answer: Answer) -> AsyncGenerator[tuple[int, Piece, str], None]:
        """Generate choice after choice; yields (choice, token, text to show). Records the answer however it ends."""
        with self._in_flight.entered(answer.principal.tenant_id):
            finished = False
            try:
                for index in range(len(answer.prompts)):
                    answer.choices.append(Generated())
                    async with aclosing(self._choice(answer, index)) as pieces:
                        async for piece, shown in pieces:
                            yield index, piece, shown
                finished = True
            finally:
                await asyncio.shield(self._record(answer, cancelled=not finished))

    async def whole(self, answer: Answer) -> None:
        """Generate every choice at the same time; where one fails the others end too."""
        with self._in_flight.entered(answer.principal.tenant_id, len(answer.prompts)):
            answer.choices = [Generated() for _ in answer.prompts]
            try:
                async with asyncio.TaskGroup() as group:
                    for index in range(len(answer.prompts)):
                        group.create_task(self._exhaust(answer, index))
            except BaseException as error:  # a hang-up too: what was generated is recorded and charged
                await asyncio.shield(self._record(answer, cancelled=True))
                if isinstance(error, BaseExceptionGroup):
                    raise error.exceptions[0] from None
                raise
            await self._record(answer, cancelled=False)

    async def _exhaust(self, answer: Answer, index: int) -> None:
        async for _ in self._choice(answer, index):
            pass

    async def _choice(self, answer: Answer, index: int) -> AsyncGenerator[tuple[Piece, str], None]:
        prompt, sampling = answer.prompts[index], answer.asked.sampling(answer.stop_tokens, index)
        target = self._routes.pick(answer.route)
        engine = self._engines[target.kind]
        await _refuse_lacking(engine, target, prompt, sampling)
        texts = StopFilter(sampling.stop)
        generated = answer.choices[index]
        async with aclosing(engine.generate(target, prompt, sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Accepted):
                    generated.begin(piece)
                    continue
                shown = texts.feed("" if piece.special else piece.text)
                if piece.finish_reason:
                    shown += texts.flush()
                generated.take(piece, shown)
                yield piece, shown

    async def _record(self, answer: Answer, *, cancelled: bool) -> None:
        """Charge the tokens and keep the record, with the content only where that was asked for."""
        choices = answer.choices
        used = usage(choices, answer.asked.choices)
        prompt_tokens, completion_tokens = used["prompt_tokens"], used["completion_tokens"]
        self._spending.charge(answer.principal, used["total_tokens"])
        if not used["total_tokens"]:
            return
        kept = choices if answer.stored else []
        answers = [{"content": choice.text, "finish_reason": choice.finish_reason} for choice in kept]
        chat = Chat(
            id=answer.id,
            tenant_id=answer.principal.tenant_id,
            owner=answer.principal.owner,
            created_at=answer.created,
            model=answer.asked.model,
            adapter_id=answer.route.adapter_id,
            key_id=answer.principal.key_id,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            latency_ms=round((time.monotonic() - answer.began) * 1000),
            finish_reason="cancelled" if cancelled else choices[0].finish_reason,
            cost=answer.cost,
            retrieved=[source["file_id"] for source in answer.retrieved],
            stored=answer.stored,
            metadata=answer.metadata,
            messages=answer.messages if answer.stored else [],
            answer=answers[0] if answers else None,
            further_answers=answers[1:],
        )
        await self._records.keep(chat)


async def _refuse_lacking(engine: Engine, target: Target, prompt: Prompt, sampling: Sampling) -> None:
    """Refuse what the engine does not have: it would ignore it."""
    wanted = [prompt.param, *sampling.wanted]
    has = await engine.capabilities(target, wanted)
    for name in wanted:
        if name not in has:
            message = f"{name}: the engine of this model does not have it. Leave it out."
            raise Invalid(LACKING.get(name, message), param=name)


class LabelChat:
    """Replaces what its owner noted about a stored answer."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def run(self, principal: Principal, chat_id: str, metadata: dict[str, str]) -> Chat:
        """The answer with its new metadata.

        Raises:
            NotFound: there is none that the caller may see, or it was just deleted.
        """
        return await self._chats.change_stored(principal, chat_id, lambda chat: chat.label(metadata))


class ForgetChat:
    """Drops the content of a stored answer."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def run(self, principal: Principal, chat_id: str) -> None:
        """Drop what was said.

        Raises:
            NotFound: there is none that the caller may see, or it was just deleted.
        """
        await self._chats.change_stored(principal, chat_id, Chat.forget_content)


class Rating:
    """Takes ratings of answers, and gives them back."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    async def record(
        self,
        principal: Principal,
        chat_id: str,
        rating: Literal["up", "down"],
        *,
        correction: str | None,
        comment: str | None,
    ) -> Feedback:
        """Keep a rating.

        Raises:
            NotFound: this tenant got no such answer.
        """
        chat = await self._chats.chats.get(principal.tenant_id, chat_id, principal.only)
        feedback = Feedback(
            id=request_id_for("fb_", new_id("fb_")),
            tenant_id=principal.tenant_id,
            owner=principal.owner,
            created_at=now(),
            chat_id=chat_id,
            model=chat.model,
            rating=rating,
            correction=correction,
            comment=comment,
        )
        feedback.announce()
        return await self._chats.feedback.add_once(feedback)

    async def take_back(self, principal: Principal, feedback_id: str) -> None:
        """Delete a rating: its giver their own, who manages the organization anybody's.

        Raises:
            NotFound: there is none that the caller may delete, or it was deleted before.
        """
        theirs = {} if principal.may("organization:write") else {"owner": principal.owner}
        if await self._chats.feedback.find_one(principal.tenant_id, {**theirs, "_id": feedback_id}) is None:
            raise no_feedback(feedback_id)
        await self._chats.feedback.update(principal.tenant_id, feedback_id, Feedback.delete)

"""TGI's HTTP API (version 3), and a route that says which adapters are held."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import Counter, Gauge, Histogram
from pydantic import JsonValue

from chassis.hang_ups import HungUp, unless_gone
from chassis.routes import Router
from model_server.engine import Engine
from model_server.errors import (
    AdapterNotFound,
    BaseNotFound,
    BaseNotProven,
    InputTooLong,
    Overloaded,
    ParameterRefused,
)
from model_server.requests import BEYOND_TGI, MOST_STOPS, GenerateBody, TokenizeBody
from model_server.scoring import Scored
from model_server.sequence import Token
from schemas.http.model_server import IDENTITY, identity
from serving import Proof

REQUESTS = Counter("tgi_request_count", "Requests.", ["route"])
FAILURES = Counter("tgi_request_failure", "Refused or failed requests.", ["err"])
DURATION = Histogram("tgi_request_duration", "Seconds to the last token.")
PER_TOKEN = Histogram("tgi_request_mean_time_per_token_duration", "Seconds a token.")
GENERATED = Counter("tgi_request_generated_tokens_total", "Tokens generated.")
QUEUE = Gauge("tgi_queue_size", "Requests that wait.")


def refusal(error: Exception) -> JSONResponse:
    """TGI's error body with its status."""
    status, kind = 500, "incomplete_generation"
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, AdapterNotFound):
        status, kind, message = 404, "adapter_not_found", f"Adapter '{error}' is not loaded here."
    elif isinstance(error, BaseNotFound):
        status, kind, message = 404, "base_not_found", f"The base model with the digest '{error}' is not loaded here."
    elif isinstance(error, BaseNotProven):
        status, kind, message = 503, "base_not_proven", f"The files of '{error}' are not proven to be the base model's."
    elif isinstance(error, HungUp):
        status, kind, message = 499, "cancelled", "The caller hung up."
    elif isinstance(error, InputTooLong | ParameterRefused):
        status, kind, message = 422, "validation", f"Input validation error: {error}"
    elif isinstance(error, Overloaded):
        status, kind, message = 429, "overloaded", "Model is overloaded"
    FAILURES.labels(kind).inc()
    return JSONResponse({"error": message, "error_type": kind}, status_code=status)


def _token(token: Token) -> dict[str, JsonValue]:
    """TGI's token, and its own bytes: its text is what became whole with it."""
    return {
        "id": token.id,
        "text": token.text,
        "logprob": token.logprob,
        "special": token.special,
        "bytes": list(token.bytes),
    }


def _top(token: Token, special: set[int]) -> list[JsonValue]:
    return [
        {"id": one, "text": own.decode(errors="replace"), "logprob": value, "special": one in special, "bytes": [*own]}
        for one, own, value in token.top
    ]


def _timing(last: Token, began: float) -> dict[str, str]:
    total = time.perf_counter() - began
    DURATION.observe(total)
    PER_TOKEN.observe(total / last.generated_tokens)
    GENERATED.inc(last.generated_tokens)
    return {
        "x-compute-type": "cpu",
        "x-prompt-tokens": str(last.prompt_tokens),
        "x-generated-tokens": str(last.generated_tokens),
        "x-total-time": str(round(total * 1000)),
        "x-inference-time": str(round(total * 1000)),
        "x-time-per-token": str(round(total * 1000 / last.generated_tokens)),
    }


async def _rest(first: Token, tokens: AsyncGenerator[Token, None]) -> AsyncIterator[Token]:
    async with aclosing(tokens):
        yield first
        async for token in tokens:
            yield token


async def _all(tokens: AsyncGenerator[Token, None]) -> list[Token]:
    """Every token of an answer."""
    async with aclosing(tokens) as stream:
        return [token async for token in stream]


def routes(engine: Engine) -> Router:
    """TGI's routes on `engine`."""
    router = Router()
    special = engine.vocabulary.special

    def check_base(request: Request) -> None:
        """Compute nothing before the base is proven, and nothing for who asks for another one.

        Raises:
            BaseNotProven: what is loaded may be another one.
            BaseNotFound: it is named in the question and not loaded here.
        """
        if not engine.proven:
            raise BaseNotProven(engine.base.id)
        digest = request.headers.get(IDENTITY, "").partition(":")[0]
        if digest not in ("", engine.base.digest):
            raise BaseNotFound(digest)

    def echo(told: Token | Scored) -> dict[str, str]:
        return {IDENTITY: identity(engine.base.digest, told.adapter_id)}

    @router.post("/generate")
    async def generate(request: Request, body: GenerateBody) -> Response:
        REQUESTS.labels("generate").inc()
        QUEUE.set(engine.queued)
        began = time.perf_counter()
        try:
            check_base(request)
            scored, tokens = await unless_gone(request, _answered(body))
        except Exception as error:  # the boundary: every failure becomes TGI's error body
            return refusal(error)
        last = tokens[-1] if tokens else None
        text = last.generated_text if last else ""
        answer: dict[str, JsonValue] = {"generated_text": body.inputs + text if body.asked.return_full_text else text}
        if body.asked.details:
            answer["details"] = {
                "finish_reason": last.finish_reason if last else "length",
                "generated_tokens": len(tokens),
                "seed": body.asked.seed,
                "prefill": [_prefill(place, one) for place, one in enumerate(scored)],
                "tokens": [_token(token) for token in tokens],
                "top_tokens": [_top(token, special) for token in tokens] if tokens and tokens[0].top else None,
            }
        timing = _timing(last, began) if last else {"x-prompt-tokens": str(len(scored))}
        return JSONResponse(answer, headers={**timing, **echo(last or scored[-1])})

    async def _answered(body: GenerateBody) -> tuple[list[Scored], list[Token]]:
        """What the prompt's tokens are worth, where that is asked for, and every token of the answer."""
        given, scored = body.asked, list[Scored]()
        if given.decoder_input_details:
            scored = await engine.score(body.inputs, given.adapter_id, given.top_n_tokens or 0)
        return scored, await _all(engine.generate(body.request())) if body.generates else []

    def _prefill(place: int, one: Scored) -> dict[str, JsonValue]:
        """A token of the prompt in TGI's form, with the bytes, likeliest tokens and `special` of a generated one."""
        named: dict[str, JsonValue] = {
            "special": place < engine.begins,
            "top_tokens": [_named(other, value) for other, value in one.top],
        }
        return {**_named(one.id, one.logprob), **named}

    def _named(one: int, logprob: float | None) -> dict[str, JsonValue]:
        own = engine.vocabulary.bytes_of(one)
        return {"id": one, "text": own.decode(errors="replace"), "logprob": logprob, "bytes": [*own]}

    @router.post("/generate_stream")
    async def generate_stream(request: Request, body: GenerateBody) -> Response:
        REQUESTS.labels("generate_stream").inc()
        QUEUE.set(engine.queued)
        began = time.perf_counter()
        try:
            check_base(request)
            if body.asked.decoder_input_details or not body.generates:
                raise ParameterRefused("`decoder_input_details` is not supported when streaming")
            stream = engine.generate(body.request())
            first = await unless_gone(request, anext(stream))  # so that a refusal still has its own status
        except Exception as error:  # the boundary: every failure becomes TGI's error body
            return refusal(error)
        headers = {"x-prompt-tokens": str(first.prompt_tokens), "cache-control": "no-cache", **echo(first)}
        events = _generate_events(_rest(first, stream), body, special, began)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    @router.post("/tokenize")
    async def tokenize(request: Request, body: TokenizeBody) -> Response:
        try:
            check_base(request)
        except (BaseNotFound, BaseNotProven) as error:
            return refusal(error)
        return await asyncio.to_thread(_tokenized, body)

    def _tokenized(body: TokenizeBody) -> Response:
        encoded = engine.tokenizer(body.inputs, add_special_tokens=body.add_special_tokens, return_offsets_mapping=True)
        return JSONResponse(
            [
                {
                    "id": one,
                    "text": engine.vocabulary.bytes_of(one).decode(errors="replace"),
                    "start": start,
                    "stop": stop,
                }
                for one, (start, stop) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
            ],
            headers={IDENTITY: identity(engine.base.digest, None)},
        )

    @router.get("/info")
    async def info() -> dict[str, JsonValue]:
        return {
            "model_id": engine.base.id,
            "model_sha": engine.base.digest,
            "model_dtype": str(engine.kind),
            "model_device_type": "cpu",
            "max_total_tokens": engine.max_tokens,
            "max_input_tokens": engine.max_tokens - 1,
            "max_stop_sequences": MOST_STOPS,
            "router": "sartor-model-server",
            "version": "3.3.7",
            "beyond_tgi": [*BEYOND_TGI],
        }

    @router.get("/health")
    async def health() -> Response:
        if not engine.alive:
            return JSONResponse({"error": "unhealthy", "error_type": "healthcheck"}, status_code=503)
        return Response()

    @router.get("/adapters")
    async def adapters() -> list[Proof]:
        return list(engine.proofs.values())

    return router


async def _generate_events(
    tokens: AsyncIterator[Token], body: GenerateBody, special: set[int], began: float
) -> AsyncIterator[bytes]:
    given = body.asked
    index = 0
    try:
        async for token in tokens:
            index += 1
            details, text = None, None
            if token.finish_reason:
                _timing(token, began)
                text = body.inputs + token.generated_text if given.return_full_text else token.generated_text
                details = {
                    "finish_reason": token.finish_reason,
                    "generated_tokens": token.generated_tokens,
                    "seed": given.seed,
                    "input_length": token.prompt_tokens,
                }
            event = {
                "index": index,
                "token": _token(token),
                "top_tokens": _top(token, special) or None,
                "generated_text": text,
                "details": details,
            }
            yield f"data:{json.dumps(event, ensure_ascii=False)}\n\n".encode()
    except Exception as error:  # the boundary: a stream that has begun can only say so inside
        message = {"error": f"{type(error).__name__}: {error}", "error_type": "incomplete_generation"}
        yield f"data:{json.dumps(message)}\n\n".encode()

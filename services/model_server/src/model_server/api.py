"""TGI's HTTP API (version 3): generate, stream, chat, tokenize, info; and which adapters are held."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, ConfigDict, Field

from model_server.engine import Engine
from model_server.errors import AdapterNotFound, InputTooLong, Overloaded
from model_server.sequence import GenerateRequest, Token

REQUESTS = Counter("tgi_request_count", "Requests.", ["route"])
FAILURES = Counter("tgi_request_failure", "Refused or failed requests.", ["err"])
DURATION = Histogram("tgi_request_duration", "Seconds to the last token.")
PER_TOKEN = Histogram("tgi_request_mean_time_per_token_duration", "Seconds a token.")
GENERATED = Counter("tgi_request_generated_tokens_total", "Tokens generated.")
QUEUE = Gauge("tgi_queue_size", "Requests that wait.")

OPENAI_REASONS = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}
MOST_STOPS = 16


class Parameters(BaseModel):
    """TGI's generation parameters; those it does not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    adapter_id: str | None = None
    max_new_tokens: int | None = Field(100, ge=1)
    do_sample: bool = False
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: list[str] = Field(default_factory=list, max_length=MOST_STOPS)
    repetition_penalty: float | None = Field(None, gt=0)
    top_n_tokens: int | None = Field(None, ge=0, le=20)
    details: bool = True
    return_full_text: bool | None = False


class GenerateBody(BaseModel):
    """The body of `/generate` and `/generate_stream`."""

    inputs: str = Field(min_length=1)
    parameters: Parameters | None = None
    stream: bool = False

    def request(self) -> GenerateRequest:
        """For the engine."""
        given = self.parameters or Parameters()
        return GenerateRequest(
            inputs=self.inputs,
            adapter_id=given.adapter_id,
            max_new_tokens=given.max_new_tokens or 100,
            do_sample=given.do_sample,
            temperature=given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
            seed=given.seed,
            stop=given.stop,
            repetition_penalty=given.repetition_penalty,
            top_n_tokens=given.top_n_tokens or 0,
        )


class ChatBody(BaseModel):
    """The body of `/v1/chat/completions`; `model` is the adapter, unless it is the base or `tgi`."""

    model_config = ConfigDict(extra="ignore")

    model: str = "tgi"
    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: list[str] | None = Field(None, max_length=MOST_STOPS)
    seed: int | None = None
    stream: bool = False


class TokenizeBody(BaseModel):
    """The body of `/tokenize`."""

    inputs: str
    add_special_tokens: bool = True


def refusal(error: Exception) -> JSONResponse:
    """TGI's error body with its status."""
    status, kind = 500, "incomplete_generation"
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, AdapterNotFound):
        status, kind, message = 404, "adapter_not_found", f"Adapter '{error}' is not loaded here."
    elif isinstance(error, InputTooLong):
        status, kind, message = 422, "validation", f"Input validation error: {error}"
    elif isinstance(error, Overloaded):
        status, kind, message = 429, "overloaded", "Model is overloaded"
    FAILURES.labels(kind).inc()
    return JSONResponse({"error": message, "error_type": kind}, status_code=status)


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _top(token: Token) -> list[dict[str, Any]]:
    return [{"id": one, "text": text, "logprob": value, "special": False} for one, text, value in token.top]


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


async def _first(tokens: AsyncGenerator[Token, None]) -> Token:
    """The first token, so that a refusal still has its own status."""
    return await anext(tokens)


async def _rest(first: Token, tokens: AsyncGenerator[Token, None]) -> AsyncIterator[Token]:
    async with aclosing(tokens):
        yield first
        async for token in tokens:
            yield token


def routes(engine: Engine) -> APIRouter:
    """TGI's routes on `engine`."""
    router = APIRouter()

    @router.post("/generate")
    async def generate(body: GenerateBody) -> Response:
        REQUESTS.labels("generate").inc()
        QUEUE.set(engine.queued)
        began = time.perf_counter()
        try:
            async with aclosing(engine.generate(body.request())) as stream:
                tokens = [token async for token in stream]
        except Exception as error:  # the boundary: every failure becomes TGI's error body
            return refusal(error)
        last = tokens[-1]
        wants_full = body.parameters is not None and body.parameters.return_full_text
        answer = {
            "generated_text": body.inputs + last.generated_text if wants_full else last.generated_text,
            "details": {
                "finish_reason": last.finish_reason,
                "generated_tokens": last.generated_tokens,
                "seed": body.parameters.seed if body.parameters else None,
                "prefill": [],
                "tokens": [_token(token) for token in tokens],
                "top_tokens": [_top(token) for token in tokens] if tokens[0].top else None,
            },
        }
        return JSONResponse(answer, headers=_timing(last, began))

    @router.post("/generate_stream")
    async def generate_stream(body: GenerateBody) -> Response:
        REQUESTS.labels("generate_stream").inc()
        QUEUE.set(engine.queued)
        stream = engine.generate(body.request())
        began = time.perf_counter()
        try:
            first = await _first(stream)
        except Exception as error:  # the boundary: every failure becomes TGI's error body
            return refusal(error)
        headers = {"x-prompt-tokens": str(first.prompt_tokens), "cache-control": "no-cache"}
        events = _generate_events(_rest(first, stream), began)
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    @router.post("/v1/chat/completions")
    async def chat(body: ChatBody) -> Response:
        REQUESTS.labels("chat").inc()
        QUEUE.set(engine.queued)
        prompt = engine.render(body.messages)
        request = GenerateRequest(
            inputs=prompt,
            adapter_id=None if body.model in ("tgi", engine.base_id) else body.model,
            max_new_tokens=body.max_tokens or 100,
            do_sample=body.temperature is None or body.temperature > 0,
            temperature=body.temperature or None,
            top_p=body.top_p,
            seed=body.seed,
            stop=[*(body.stop or []), *engine.stop_texts],
        )
        stream = engine.generate(request)
        began = time.perf_counter()
        try:
            first = await _first(stream)
        except Exception as error:  # the boundary: every failure becomes TGI's error body
            return refusal(error)
        header = {"id": "", "created": int(time.time()), "model": body.model, "system_fingerprint": engine.base_id}
        tokens = _rest(first, stream)
        if body.stream:
            return StreamingResponse(_chat_events(tokens, header), media_type="text/event-stream")
        async for token in tokens:
            last = token
        usage = {
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.generated_tokens,
            "total_tokens": last.prompt_tokens + last.generated_tokens,
        }
        text = _before(last.generated_text, request.stop)
        message = {"role": "assistant", "content": text}
        reason = OPENAI_REASONS[str(last.finish_reason)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        answer = {**header, "object": "chat.completion", "choices": [choice], "usage": usage}
        return JSONResponse(answer, headers=_timing(last, began))

    @router.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> list[dict[str, Any]]:
        encoded = engine.tokenizer(body.inputs, add_special_tokens=body.add_special_tokens, return_offsets_mapping=True)
        return [
            {"id": one, "text": engine.tokenizer.decode([one]), "start": start, "stop": stop}
            for one, (start, stop) in zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        ]

    @router.get("/info")
    async def info() -> dict[str, Any]:
        return {
            "model_id": engine.base_id,
            "model_sha": engine.base["digest"],
            "model_dtype": f"torch.{engine.base['dtype']}",
            "model_device_type": "cpu",
            "max_total_tokens": engine.max_tokens,
            "max_input_tokens": engine.max_tokens - 1,
            "max_stop_sequences": MOST_STOPS,
            "router": "sartor-model-server",
            "version": "3.3.7",
        }

    @router.get("/health")
    async def health() -> Response:
        if not engine.alive:
            return JSONResponse({"error": "unhealthy", "error_type": "healthcheck"}, status_code=503)
        return Response()

    @router.get("/adapters")
    async def adapters() -> list[dict[str, Any]]:
        return [
            {
                "adapter_id": proof.adapter_id,
                "fingerprint_delta": proof.fingerprint_delta,
                "base_delta": proof.base_delta,
            }
            for proof in engine.proofs.values()
        ]

    return router


def _before(text: str, stops: list[str]) -> str:
    """The text up to the first stop sequence."""
    cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text


async def _generate_events(tokens: AsyncIterator[Token], began: float) -> AsyncIterator[bytes]:
    index = 0
    try:
        async for token in tokens:
            index += 1
            details = None
            if token.finish_reason:
                _timing(token, began)
                details = {
                    "finish_reason": token.finish_reason,
                    "generated_tokens": token.generated_tokens,
                    "seed": None,
                    "input_length": token.prompt_tokens,
                }
            event = {
                "index": index,
                "token": _token(token),
                "top_tokens": _top(token) or None,
                "generated_text": token.generated_text if token.finish_reason else None,
                "details": details,
            }
            yield f"data:{json.dumps(event, ensure_ascii=False)}\n\n".encode()
    except Exception as error:  # the boundary: a stream that has begun can only say so inside
        body = {"error": f"{type(error).__name__}: {error}", "error_type": "incomplete_generation"}
        yield f"data:{json.dumps(body)}\n\n".encode()


async def _chat_events(tokens: AsyncIterator[Token], header: dict[str, Any]) -> AsyncIterator[bytes]:
    async for token in tokens:
        delta = {"role": "assistant", "content": "" if token.special else token.text}
        reason = OPENAI_REASONS[token.finish_reason] if token.finish_reason else None
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**header, "object": "chat.completion.chunk", "choices": [choice]}
        yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
    yield b"data: [DONE]\n\n"

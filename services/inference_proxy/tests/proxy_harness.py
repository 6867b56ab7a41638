"""A running proxy for tests, and the services and the engine it asks, played by one application on a real port."""

from __future__ import annotations

import asyncio
import codecs
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
import openai
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from played_arms import Arms

from chassis.auth import Principal, hash_key
from chassis.errors import Forbidden, NotFound, SartorError, Unauthenticated
from chassis.http import error_response
from chassis.ids import new_id
from inference_proxy.app import build
from inference_proxy.settings import Settings
from schemas import ChatCompleted
from schemas.http.model_server import IDENTITY, identity
from schemas.http.rag_indexer import SearchResults
from schemas.http.registry import PROVIDER_MODEL
from testkit import Addresses, Space, eventually, running
from testkit.base_models import base_spec

BASE = "tiny-base"
DIGEST = "d" * 64
QUESTION = [{"role": "user", "content": "Where is my bicycle?"}]
PROMPT_TOKENS = 11
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"


@dataclass
class StubPeers:
    """Accounts, registry, rag_indexer and a TGI engine before answers that a test chooses; it keeps what is asked.

    Attributes:
        pieces: the tokens of an answer, as TGI tells them: text only.
        spelled: the tokens of an answer as our model server tells them: bytes, and the text they make whole.
        reason: TGI's reason why an answer ended.
        beyond_tgi: parameters the engine says it has besides TGI's.
        refusal: TGI's status and error body instead of an answer.
        refused_from: how many are answered before.
        refused_after: words that those have had when the refusal comes.
        strange: what it says instead of a prompt's worth, or of a text's tokens.
        breaks: after the pieces the stream says that it failed, just ends, or is cut, instead of ending the answer.
        dies: when it is cut.
        endless: the pieces come again and again.
        queued: the first piece does not come, nor a text's tokens.
        capabilities: what the engine declared.
        base_digest: of the base that the engine holds.
        swapped: by the adapter asked for, '' for none, the one that the engine computes with instead.
        silent_echo: the engine does not name what it computes with.
        providers: by name, base models of other providers, as the registry tells of them.
        prices: by name, what base models cost that are as the one played here.
        routes: by model, the registry's route; told to whoever asks, so it is the proxy that must look at the tenant.
        keys: by hash, what accounts says of an API key.
        found: by tenant and store, what a search finds.
        versions: by model, the registry's route to a version that is tested, in production or not.
        prompts: bodies the engine was sent to be answered.
        scored: bodies the engine was sent to tell what their prompts are worth.
        counted: bodies the engine was sent to tell their tokens.
        identities: the models that they named.
        searches: questions the indexer was asked.
        arms: that the indexer holds.
        words: pieces that endless answers have had.
        hung_up: streams of the engine that the proxy left.
    """

    space: Space
    url: str = ""
    pieces: tuple[str, ...] = ("In ", "the ", "shed.")
    spelled: tuple[bytes, ...] = ()
    reason: str = "eos_token"
    beyond_tgi: tuple[str, ...] = ("presence_penalty", "logit_bias", "score")
    refusal: tuple[int, dict[str, str]] | None = None
    refused_from: int = 0
    refused_after: int = 0
    strange: Any = None
    breaks: Literal["", "said", "silent", "cut"] = ""
    dies: bool = False
    endless: bool = False
    queued: bool = False
    capabilities: tuple[str, ...] = ("echo",)
    base_digest: str = DIGEST
    swapped: dict[str, str] = field(default_factory=dict)
    silent_echo: bool = False
    providers: dict[str, dict[str, Any]] = field(default_factory=dict)
    prices: dict[str, dict[str, float]] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    found: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompts: list[dict[str, Any]] = field(default_factory=list)
    scored: list[dict[str, Any]] = field(default_factory=list)
    counted: list[dict[str, Any]] = field(default_factory=list)
    identities: list[str | None] = field(default_factory=list)
    searches: list[str] = field(default_factory=list)
    arms: Arms = field(default_factory=Arms)
    words: int = 0
    hung_up: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.exception_handler(SartorError)
        async def refuse(_: Request, error: SartorError) -> Response:
            return error_response(error)

        @app.post("/internal/keys/verify")
        async def verify(request: Request) -> dict[str, Any]:
            known = self.keys.get((await request.json())["key_hash"])
            if known is None:
                raise Unauthenticated("This API key is unknown or revoked.")
            return known

        @app.get("/internal/base_models")
        async def base_models() -> list[str]:
            return [BASE]

        @app.get("/internal/base_models/{base_id:path}")
        async def base_model(base_id: str) -> dict[str, Any]:
            if base_id in self.providers:
                raise NotFound("It has no weights here.", code=PROVIDER_MODEL)
            if base_id != BASE and base_id not in self.prices:
                raise NotFound(f"No base model '{base_id}'.")
            spec = base_spec(base_id, chat_template=TEMPLATE, stop_tokens=["<end>"]).model_dump()
            return {**spec, "price": self.prices.get(base_id)}

        @app.get("/internal/provider_models/{base_id:path}")
        async def provider_model(base_id: str) -> dict[str, Any]:
            return self.providers[base_id]

        @app.get("/internal/routes/{model:path}")
        async def route(model: str) -> dict[str, Any]:
            if model in self.routes:
                return self.routes[model]
            if model == BASE or model in self.prices:
                return {**as_route(model, "", "", self.held(self.url)), "base_model": model}
            raise NotFound(f"No model '{model}'.")

        @app.get("/internal/versions/{model:path}")
        async def version(model: str) -> dict[str, Any]:
            if model not in self.versions:
                raise NotFound(f"No version '{model}'.")
            return self.versions[model]

        @app.post("/v1/vector_stores/{store}/search")
        async def search(store: str, request: Request) -> SearchResults:
            caller = self.caller(request, "rag_indexer")
            if not caller.may("retrieval:read"):
                raise Forbidden("This key may not do 'retrieval:read'.")
            tenant = caller.tenant_id
            if (tenant, store) not in self.found:
                raise NotFound(f"No vector store found with id '{store}'.", param="vector_store_id")
            query = (await request.json())["query"]
            self.searches.append(query)
            found = [{"attributes": {}, **one} for one in self.found[tenant, store]]
            return SearchResults.model_validate({"search_query": [query], "data": found})

        @app.post("/internal/arms/answers")
        async def arms(request: Request) -> Response:
            return await self.arms.answer(self.caller(request, "rag_indexer"), request)

        @app.get("/info")
        async def info() -> dict[str, Any]:
            return {"model_id": BASE, "beyond_tgi": list(self.beyond_tgi)} if self.beyond_tgi else {"model_id": BASE}

        @app.post("/tokenize")
        async def tokenize(request: Request) -> Response:
            body = await request.json()
            assert body["add_special_tokens"] is False
            self.counted.append(body)
            self.identities.append(request.headers.get(IDENTITY))
            await eventually(lambda: not self.queued, within=30)
            if instead := self.instead():
                return instead
            told = [{"id": ord(one), "text": one, "start": at, "stop": at + 1} for at, one in enumerate(body["inputs"])]
            return JSONResponse(told, headers=self.echo(None))

        @app.post("/generate_stream")
        async def generate_stream(request: Request) -> Response:
            body = await request.json()
            self.prompts.append(body)
            self.identities.append(request.headers.get(IDENTITY))
            if self.refusal and len(self.prompts) > self.refused_from:
                await eventually(lambda: self.words >= self.refused_after)
                return JSONResponse(self.refusal[1], status_code=self.refusal[0])
            headers = {"x-prompt-tokens": str(PROMPT_TOKENS), **self.echo(body["parameters"]["adapter_id"])}
            return StreamingResponse(self.events(), media_type="text/event-stream", headers=headers)

        @app.post("/generate")
        async def generate(request: Request) -> JSONResponse:
            body = await request.json()
            self.identities.append(request.headers.get(IDENTITY))
            self.scored.append(body)
            if instead := self.instead():
                return instead
            parameters = body["parameters"]
            assert parameters["decoder_input_details"]
            assert parameters["max_new_tokens"] == (0 if "score" in self.beyond_tgi else 1)
            answer = {"generated_text": "", "details": {"prefill": self.prefill(body["inputs"], parameters)}}
            return JSONResponse(answer, headers=self.echo(parameters["adapter_id"]))

        return app

    def instead(self) -> JSONResponse | None:
        """A refusal, or something strange, in an answer's place."""
        if self.refusal:
            return JSONResponse(self.refusal[1], status_code=self.refusal[0])
        return None if self.strange is None else JSONResponse(self.strange, headers=self.echo(None))

    def prefill(self, text: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """A prompt's tokens: its bytes in threes from our engine, its words from TGI; after the begin-of-text token."""
        if "score" not in self.beyond_tgi:
            words = re.findall(r"\S+\s*", text)
            return [as_prefill("<s>", None), *(as_prefill(word, -0.25) for word in words)]
        own = text.encode()
        threes = [own[at : at + 3] for at in range(0, len(own), 3)]
        named = [{**as_prefill("?", -0.25), "bytes": [*three], "special": False} for three in threes]
        tops = [{"id": 7, "text": "x", "bytes": [120], "logprob": -0.125}] * (parameters["top_n_tokens"] or 0)
        first = {**as_prefill("<s>", None), "bytes": [*b"<s>"], "special": True, "top_tokens": []}
        return [first, *({**one, "top_tokens": tops} for one in named)]

    def held(self, *urls: str) -> list[dict[str, Any]]:
        """Replicas of an engine such as the one played here, as the registry tells of them."""
        declared = {"engine": "tgi", "capabilities": list(self.capabilities)}
        return [{"replica_id": f"r{at}", "replica_url": url, **declared} for at, url in enumerate(urls, 1)]

    def echo(self, adapter_id: str | None) -> dict[str, str]:
        """Names what the engine computes with."""
        used = self.swapped.get(adapter_id or "", adapter_id)
        return {} if self.silent_echo else {IDENTITY: identity(self.base_digest, used or None)}

    def caller(self, request: Request, service: str) -> Principal:
        return self.space.tokens(service).verify(request.headers["authorization"].removeprefix("Bearer "))

    def told(self) -> list[dict[str, Any]]:
        """The tokens of an answer."""
        if not self.spelled:
            return [as_token(text) for text in self.pieces]
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        return [{**as_token(characters.decode(own)), "bytes": list(own)} for own in self.spelled]

    async def events(self) -> AsyncGenerator[str, None]:
        """TGI's server-sent events of an answer."""
        done = False
        try:
            if self.queued:
                await asyncio.Event().wait()
            while self.endless:
                yield event(as_token("word "))
                self.words += 1
                await asyncio.sleep(0.02)
            told = self.told()
            whole = "".join(token["text"] for token in told)
            for place, token in enumerate(told):
                ends = place == len(told) - 1 and not self.breaks
                yield event(token, generated=whole if ends else None, tokens=len(told), reason=self.reason)
            if self.breaks == "said":
                yield f"data:{json.dumps({'error': 'CUDA out of memory', 'error_type': 'incomplete_generation'})}\n\n"
            if self.breaks == "cut":
                await eventually(lambda: self.dies, within=20)
                raise ConnectionError("the engine dies")
            done = True
        finally:
            self.hung_up += not done


def as_route(model: str, tenant_id: str, adapter_id: str, replicas: list[dict[str, Any]]) -> dict[str, Any]:
    """The registry's route to a model on the base played here."""
    named = {"model": model, "aliases": [], "owner": "", "state": "production", "tenant_id": tenant_id}
    return {**named, "base_model": BASE, "base_digest": DIGEST, "adapter_id": adapter_id, "replicas": replicas}


def as_token(text: str) -> dict[str, Any]:
    return {"id": 5, "text": text, "logprob": -0.5, "special": False}


def as_prefill(text: str, logprob: float | None) -> dict[str, Any]:
    return {"id": 5, "text": text, "logprob": logprob}


def event(token: dict[str, Any], *, generated: str | None = None, tokens: int = 0, reason: str = "eos_token") -> str:
    """One event of `/generate_stream`; with the whole text, the last one."""
    details = {"finish_reason": reason, "generated_tokens": tokens, "seed": None, "input_length": PROMPT_TOKENS}
    whole = generated is not None
    body = {
        "index": 1,
        "token": token,
        "top_tokens": [token],
        "generated_text": generated,
        "details": details if whole else None,
    }
    return f"data:{json.dumps(body)}\n\n"


@dataclass
class Harness:
    """A running proxy, what it asks, and one test's two tenants."""

    space: Space
    url: str
    stubs: StubPeers
    publish: Any
    seen: Any
    keys_dir: Path = Path()
    a: str = field(default_factory=lambda: new_id("tenant_a"))
    b: str = field(default_factory=lambda: new_id("tenant_b"))

    def model(self, tenant: str = "", replica: str | None = None) -> str:
        """A tenant's model in production, held by the engine played here or by a named replica ('' for none)."""
        name = f"ft:{BASE}:acme::{new_id('')[:8]}"
        url = self.stubs.url if replica is None else replica
        held = self.stubs.held(*filter(None, [url]))
        self.stubs.routes[name] = as_route(name, tenant or self.a, f"ad-{name[-8:]}", held)
        return name

    def candidate(self, tenant: str = "", *, held: bool = True) -> str:
        """A version of a tenant's model that is only tested yet, and whether a replica holds it."""
        name = self.model(tenant, None if held else "")
        self.stubs.versions[name] = {**self.stubs.routes.pop(name), "state": "candidate"}
        return name

    def provider_model(self, url: str, price: dict[str, float] | None = None, **engine: Any) -> str:
        """A base model that the provider at `url` answers for."""
        name = f"far-{new_id('')[:8]}"
        asked = {"kind": "openai", "url": f"{url}/v1", "model": "their-name", **engine}
        self.stubs.providers[name] = {"id": name, "engine": asked, "context_length": 4096, "price": price}
        return name

    def adapter(self, model: str) -> str:
        return str(self.stubs.routes[model]["adapter_id"])

    def key(self, tenant: str = "", role: str = "owner", scopes: tuple[str, ...] = ("*",), **limits: int) -> str:
        """An API key that accounts knows."""
        key = new_id("sk-")
        allowed = {"requests_per_minute": 1000, "tokens_per_minute": 100_000, **limits}
        self.stubs.keys[hash_key(key)] = {
            "tenant_id": tenant or self.a,
            "key_id": f"key_{key[-6:]}",
            "role": role,
            "scopes": list(scopes),
            "allowances": [{"of": key, **allowed}],
        }
        return key

    def sdk(self, tenant: str = "", key: str = "") -> openai.AsyncOpenAI:
        credential = key or self.space.bearer("inference_proxy", tenant or self.a)
        return openai.AsyncOpenAI(api_key=credential, base_url=f"{self.url}/v1", max_retries=0)

    def http(self, tenant: str = "", key: str = "") -> httpx2.AsyncClient:
        credential = key or self.space.bearer("inference_proxy", tenant or self.a)
        headers = {"authorization": f"Bearer {credential}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def completed(self) -> ChatCompleted:
        """The only answer that this test's tenants got; an event may come more than once."""
        mine = await eventually(
            lambda: [one for one in self.seen.of(ChatCompleted) if one.tenant_id in (self.a, self.b)]
        )
        assert len({one.chat_id for one in mine}) == 1
        return mine[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One proxy for the tests of this module; each brings its own tenants."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    stubs = StubPeers(space)
    async with running(stubs.app()) as there:
        peers = dict.fromkeys(("accounts_url", "registry_url", "rag_indexer_url"), there)
        keys_dir = tmp_path_factory.mktemp("providers")
        more = {"key_cache_seconds": 3600, "inference_keys_dir": keys_dir, **peers}
        settings = space.settings(Settings, "inference_proxy", **more)
        async with (
            running(build(settings)) as url,
            space.publisher("registry") as publish,
            space.probe("chats", "feedback") as seen,
        ):
            shared = {"space": space, "url": url, "stubs": stubs, "publish": publish, "seen": seen}
            yield {**shared, "there": there, "keys_dir": keys_dir}


@pytest.fixture
def harness(shared: dict[str, Any]) -> Harness:
    """The shared proxy; what it asks forgot what earlier tests taught it."""
    fresh = StubPeers(shared["space"], url=shared["there"])
    shared["stubs"].__dict__.update(fresh.__dict__)
    return Harness(**{name: value for name, value in shared.items() if name != "there"})

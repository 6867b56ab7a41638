"""The registry's HTTP routes: OpenAI's `/v1/models`, our `/v1/registry`, and what other services ask."""

from __future__ import annotations

from contextlib import ExitStack, aclosing
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from chassis.auth import Principal, internal, require
from chassis.bodies import Body
from chassis.errors import NotFound
from chassis.http import Page, behind, page
from chassis.in_flight import InFlight
from chassis.routes import Router
from chassis.text import quoted
from registry.card import markdown
from registry.catalogue import Catalogue
from registry.domain import Model, State, Unsaid
from registry.store import Models
from registry.use_cases import Archive, Downloading, Gate, Naming, Pinning, Serving
from registry.views import (
    AliasDeleted,
    AliasView,
    BaseView,
    KeptAlias,
    ModelCard,
    ModelDeleted,
    OpenAIModel,
    adapter_to_load,
    route_view,
)
from schemas.artifacts import BaseModelSpec, ProviderModelSpec
from schemas.http.registry import AdapterToLoad, ModelRoute

Reads = Annotated[Principal, require("models:read")]
Writes = Annotated[Principal, require("models:write")]
Deletes = Annotated[Principal, require("models:write", "own:delete")]
Approves = Annotated[Principal, require("models:approve")]
Downloads = Annotated[Principal, require("models:download")]
Internal = Annotated[Principal, internal()]

ZIP = "application/zip"

Limit = Annotated[int, Query(ge=1, le=100, description="Most items on the page.")]
After = Annotated[str | None, Query(max_length=256, description="Id of the last item of the previous page.")]
Order = Annotated[str, Query(pattern="^(asc|desc)$", description="By age.")]


async def before_word(request: Request, model: str) -> str:
    """The model of an address that goes on with a word, such as `…/adapter`.

    Raises:
        NotFound: that word was sent as a part of the id: who passes an id on would be led to another address by it.
    """
    path: str = request.scope["path"]
    word = path.rpartition("/")[2]
    if not request.scope.get("raw_path", path.encode()).endswith(f"/{word}".encode()):
        raise NotFound(f"There is no model {quoted(f'{model}/{word}')}.", code="model_not_found")
    return model


Before = Annotated[str, Depends(before_word)]


class ArchiveStream(StreamingResponse):
    """An archive on its way out, which keeps its place among those under way until it is over."""

    def __init__(self, archive: Archive, place: ExitStack) -> None:
        headers = {"content-disposition": f'attachment; filename="{archive.name}"', "x-content-type-options": "nosniff"}
        if archive.size is not None:
            headers["content-length"] = str(archive.size)
        super().__init__(archive.content, media_type=ZIP, headers=headers)
        self._content = archive.content
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._place:
            async with aclosing(self._content):
                await super().__call__(scope, receive, send)


class ModelList(BaseModel):
    """OpenAI's list of models, which has no pages."""

    object: str = "list"
    data: list[OpenAIModel]


class DecisionRequest(Body):
    """What a person says with a decision."""

    note: str = Field("", max_length=2000, description="Why; shown on the card.")


class PinRequest(DecisionRequest):
    """What a person says with a pin."""

    hand_over_below: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Of an arm: where it is less sure of an answer than this, the adapter gives it, or the base model "
        "where no adapter is in production. null: it answers however unsure it is. Left out: as it is pinned "
        "already, else null.",
    )


class AliasRequest(Body):
    """Where an alias shall point."""

    model: str = Field(max_length=256, description="One of the tenant's models in production.")


def who(principal: Principal) -> str:
    """The name a decision is recorded under."""
    return principal.user_id or principal.key_id


def deletable(principal: Principal) -> dict[str, str]:
    """The condition that leaves the models its caller may delete: all that they see, or their own."""
    return principal.only if principal.may("models:write") else {"owner": principal.owner}


def model_routes(serving: Serving, gate: Gate, naming: Naming) -> Router:
    """OpenAI's models API: base models, the tenant's models in production and its aliases."""
    router = Router(prefix="/v1/models")

    @router.get("")
    async def list_models(principal: Reads) -> ModelList:
        bases, models, aliases = await serving.visible(principal.tenant_id, principal.only)
        shown = [OpenAIModel.of_base(base) for base in bases]
        shown += [OpenAIModel.of_model(model) for model in models]
        shown += [OpenAIModel.of_model(model, name=alias.name) for alias, model in aliases]
        return ModelList(data=shown)

    @router.get("/{model:path}")
    async def retrieve_model(model: str, principal: Reads) -> OpenAIModel:
        return OpenAIModel.of(await serving.resolve(principal.tenant_id, model, principal.only), name=model)

    @router.delete("/{model:path}")
    async def delete_model(model: str, principal: Deletes) -> ModelDeleted:
        await serving.refuse_delete_of_others(principal.tenant_id, model)
        await gate.delete(principal.tenant_id, model, who(principal), deletable(principal))
        aliases = await naming.of_nothing(principal.tenant_id, model)
        return ModelDeleted(id=model, kept=[KeptAlias(id=name) for name in aliases])

    return router


def registry_routes(
    models: Models,
    gate: Gate,
    pinning: Pinning,
    naming: Naming,
    serving: Serving,
    downloading: Downloading,
    downloads: InFlight,
    catalogue: Catalogue,
) -> Router:
    """Model versions in every state, cards, copies of adapters, decisions of people, aliases, and the catalogue."""
    router = Router(prefix="/v1/registry")

    async def card_of(principal: Principal, model: Model) -> ModelCard:
        return ModelCard.of(model, await serving.serves(principal.tenant_id, [model]))

    @router.get("/base_models", dependencies=[require("models:read")])
    async def list_base_models(limit: Limit = 20, after: After = None, order: Order = "asc") -> Page:
        bases = catalogue.all() if order == "asc" else catalogue.all()[::-1]
        rest = behind(bases, after, f"There is no base model {quoted(after or '')}.")
        default, held = catalogue.default_id(), await serving.held(rest[: limit + 1])
        return page([BaseView.of(base, default, held.get(base.id)) for base in rest[: limit + 1]], limit=limit)

    @router.get("/models")
    async def list_versions(
        principal: Reads,
        limit: Limit = 20,
        after: After = None,
        order: Order = "desc",
        state: State | None = None,
        base_model: Annotated[str | None, Query(max_length=256)] = None,
        name: Annotated[str | None, Query(max_length=256, description="All versions of one name.")] = None,
    ) -> Page:
        found = await models.page_of(
            principal.tenant_id,
            principal.only,
            state=state,
            base_model=base_model,
            name=name,
            limit=limit + 1,
            after=after,
            newest_first=order == "desc",
        )
        served = await serving.serves(principal.tenant_id, found)
        return page([ModelCard.of(model, served) for model in found], limit=limit)

    # Addresses that end in a word come before `/models/{model:path}`, which would take them for part of the name.
    @router.get("/models/{model:path}/card")
    async def show_card(model: Before, principal: Reads) -> Response:
        found = await models.version(principal.tenant_id, model, principal.only)
        return Response(markdown(found), media_type="text/markdown; charset=utf-8")

    @router.get("/models/{model:path}/adapter", response_model=None, responses={200: {"content": {ZIP: {}}}})
    async def download_adapter(model: Before, principal: Downloads) -> ArchiveStream:
        with ExitStack() as place:
            place.enter_context(downloads.entered(principal.tenant_id))
            archive = await downloading.adapter(principal.tenant_id, model, principal.only, who(principal))
            return ArchiveStream(archive, place.pop_all())

    @router.get("/models/{model:path}")
    async def show_version(model: str, principal: Reads) -> ModelCard:
        return await card_of(principal, await models.version(principal.tenant_id, model, principal.only))

    @router.post("/models/{model:path}/approve")
    async def approve(model: Before, principal: Approves, request: DecisionRequest | None = None) -> ModelCard:
        note = request.note if request else ""
        return await card_of(principal, await gate.approve(principal.tenant_id, model, who(principal), note))

    @router.post("/models/{model:path}/reject")
    async def reject(model: Before, principal: Approves, request: DecisionRequest | None = None) -> ModelCard:
        note = request.note if request else ""
        return await card_of(principal, await gate.reject(principal.tenant_id, model, who(principal), note))

    @router.post("/models/{model:path}/pin")
    async def pin(model: Before, principal: Approves, request: PinRequest | None = None) -> ModelCard:
        said = request or PinRequest()
        bound = said.hand_over_below if "hand_over_below" in said.model_fields_set else Unsaid.BOUND
        return await card_of(principal, await pinning.pin(principal.tenant_id, model, who(principal), said.note, bound))

    @router.post("/models/{model:path}/unpin")
    async def unpin(model: Before, principal: Approves, request: DecisionRequest | None = None) -> ModelCard:
        note = request.note if request else ""
        return await card_of(principal, await pinning.unpin(principal.tenant_id, model, who(principal), note))

    _add_alias_routes(router, naming)
    return router


def _add_alias_routes(router: Router, naming: Naming) -> None:
    @router.get("/aliases")
    async def list_aliases(principal: Reads, limit: Limit = 20, after: After = None, order: Order = "desc") -> Page:
        found = await naming.select(principal.tenant_id, limit=limit + 1, after=after, order=order)
        return page([AliasView.of(alias) for alias in found], limit=limit)

    @router.put("/aliases/{name}")
    async def put_alias(name: str, request: AliasRequest, principal: Writes) -> AliasView:
        return AliasView.of(await naming.point(principal.tenant_id, name, request.model, who(principal)))

    @router.get("/aliases/{name}")
    async def get_alias(name: str, principal: Reads) -> AliasView:
        return AliasView.of(await naming.get(principal.tenant_id, name))

    @router.delete("/aliases/{name}")
    async def delete_alias(name: str, principal: Writes) -> AliasDeleted:
        alias = await naming.delete(principal.tenant_id, name)
        return AliasDeleted(id=alias.id, name=name)


def internal_routes(serving: Serving, catalogue: Catalogue) -> Router:
    """What other services ask; a token without a tenant speaks for the installation."""
    router = Router(prefix="/internal")

    @router.get("/base_models", dependencies=[internal()])
    async def base_models() -> list[BaseModelSpec]:
        return catalogue.with_weights()

    @router.get("/base_models/{base_id:path}", dependencies=[internal()])
    async def base_model(base_id: str) -> BaseModelSpec:
        return catalogue.weights(base_id)

    @router.get("/provider_models/{base_id:path}", dependencies=[internal()])
    async def provider_model(base_id: str) -> ProviderModelSpec:
        return catalogue.provider_model(base_id)

    @router.get("/routes")
    async def routes(principal: Internal) -> list[ModelRoute]:
        return [route_view(route) for route in await serving.routes(principal.tenant_id)]

    @router.get("/routes/{model:path}")
    async def route(model: str, principal: Internal) -> ModelRoute:
        return route_view(await serving.route(principal.tenant_id, model))

    @router.get("/versions/{model:path}")
    async def version(model: str, principal: Internal) -> ModelRoute:
        return route_view(await serving.version(principal.tenant_id, model))

    @router.get("/arms/{model:path}")
    async def arms(model: str, principal: Internal) -> list[ModelRoute]:
        return [route_view(route) for route in await serving.arms(principal.tenant_id, model)]

    @router.get("/adapters")
    async def adapters(
        principal: Internal, base_model: str, replica_id: str = "", base_digest: str = "", lives: bool = True
    ) -> list[AdapterToLoad]:
        found = await serving.to_load(principal.tenant_id, base_model, replica_id, base_digest, lives=lives)
        return [adapter_to_load(model, replica_id) for model in found]

    return router

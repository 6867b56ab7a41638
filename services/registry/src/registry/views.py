"""How the registry's things look from outside."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from pydantic import BaseModel

from registry.alias import Alias, AliasChange
from registry.catalogue import Base
from registry.domain import (
    Awaited,
    Decision,
    Download,
    Evaluation,
    Lineage,
    LoadFailure,
    Model,
    Replica,
    State,
    decisions_of,
    hands_over_below,
    has_files,
    is_pinned,
)
from registry.use_cases import HandOver, Route
from schemas import ObjectRef, ReplicaReady
from schemas.artifacts import ArmKind, BaseModelSpec, LearningCurve, Price
from schemas.http.registry import AdapterToLoad, ArmRoute, HandOverRoute, ModelRoute, RouteReplica


class OpenAIModel(BaseModel):
    """OpenAI's model object."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str

    @classmethod
    def of_base(cls, base: Base) -> OpenAIModel:
        """A base model, which the installation owns."""
        return cls(id=base.id, created=base.created, owned_by="base")

    @classmethod
    def of_model(cls, model: Model, name: str = "") -> OpenAIModel:
        """A fine-tuned model under its own name, or under an alias."""
        return cls(id=name or model.name, created=model.created_at, owned_by=model.organization)

    @classmethod
    def of(cls, found: Model | Base, name: str) -> OpenAIModel:
        """What `name` stands for, under that name."""
        return cls.of_base(found) if isinstance(found, Base) else cls.of_model(found, name)


class BaseView(BaseModel):
    """A base model of the catalogue."""

    id: str
    object: Literal["registry.base_model"] = "registry.base_model"
    created: int
    default: bool
    engine: Literal["own", "openai"]
    fine_tuning: bool
    digest: str | None = None
    context_length: int | None = None
    parameters: int | None = None
    vocab_size: int | None = None
    dtype: str | None = None
    license: str | None = None
    price: Price | None = None
    replicas: int | None = None

    @classmethod
    def of(cls, base: Base, default: str, replicas: int | None) -> BaseView:
        """Leave out what only services need, such as the chat template and a provider's address.

        Args:
            base: of the catalogue.
            default: id of the default one.
            replicas: how many living ones proved it; None where another provider serves it.
        """
        spec = base.spec
        facts = spec.model_dump(include=set(cls.model_fields) - {"engine", "replicas"})
        has_weights = isinstance(spec, BaseModelSpec)
        engine = "own" if isinstance(spec, BaseModelSpec) else spec.engine.kind
        return cls(
            **facts,
            created=base.created,
            default=base.id == default,
            engine=engine,
            fine_tuning=has_weights,
            replicas=replicas,
        )


class ModelCard(BaseModel):
    """A model version with everything known of it: what it came from, how it scored, who decided, where it is held.

    Attributes:
        name: it serves under, as versions of other kinds may.
        arm: how it answers where it is an arm; `adapter_id` and `adapter_manifest` are the arm's then.
        generates: of an arm, whether the base model answers, shown the rows that it finds.
        learning_curve: of an arm, how often it was right by how many rows it knew.
        serves: it answers at the moment who asks by the name.
        pinned: a person has the name answer by it, whatever tests say.
        hand_over_below: of a pinned arm, how sure it must be at least, or leaves the answer to the next.
        downloadable: there are files of an adapter, of which a copy can be taken.
        downloads: who took one, the last hundred who did.
    """

    id: str
    object: Literal["registry.model"] = "registry.model"
    name: str
    arm: ArmKind | None
    generates: bool
    learning_curve: LearningCurve | None
    serves: bool
    pinned: bool
    hand_over_below: float | None
    created_at: int
    state: State
    waiting_for: Awaited | None
    waiting_since: int | None
    base_model: str
    base_digest: str
    adapter_id: str
    adapter_manifest: ObjectRef
    job_id: str
    dataset_id: str
    dataset_manifest: ObjectRef
    training_file: str
    task: str
    method: str
    hyperparameters: dict[str, float | int | str]
    seed: int
    metrics: dict[str, float]
    trained_tokens: int
    train_seconds: float
    evaluation: Evaluation | None
    decisions: list[Decision]
    downloadable: bool
    downloads: list[Download]
    replicas: list[Replica]
    load_failures: list[LoadFailure]
    promoted_at: int | None
    ended_at: int | None
    deleted_at: int | None

    @classmethod
    def of(cls, model: Model, serving: Collection[str] = ()) -> ModelCard:
        """The card of a model; `serving` holds the ids of versions that serve their names."""
        shared = set(cls.model_fields) & set(Model.model_fields) - {"arm", "decisions"}
        own = {name: getattr(model, name) for name in shared}
        traced = {name: getattr(model.lineage, name) for name in set(cls.model_fields) & set(Lineage.model_fields)}
        dataset = model.lineage.dataset
        return cls(
            **own,
            **traced,
            name=model.name,
            arm=model.arm_kind,
            generates=model.generates,
            learning_curve=model.arm.learning_curve if model.arm else None,
            serves=model.id in serving,
            pinned=is_pinned(model),
            hand_over_below=hands_over_below(model),
            decisions=decisions_of(model),
            downloadable=has_files(model),
            dataset_id=dataset.dataset_id,
            dataset_manifest=dataset.manifest,
            task=dataset.task,
            waiting_for=model.waiting_for,
        )


class KeptAlias(BaseModel):
    """An alias that pointed at a model which was deleted."""

    object: Literal["model.alias"] = "model.alias"
    id: str
    because: str = "it points at the model and answers 404 until it is pointed at another one, or deleted"


class ModelDeleted(BaseModel):
    """A model that was taken back, and what stays."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
    kept: list[KeptAlias]


class AliasDeleted(BaseModel):
    """An alias that is no more."""

    id: str
    object: Literal["model.alias.deleted"] = "model.alias.deleted"
    name: str
    deleted: bool = True


class AliasView(BaseModel):
    """A tenant's name for a model, and where it pointed before."""

    id: str
    object: Literal["model.alias"] = "model.alias"
    name: str
    model: str
    created_at: int
    updated_at: int
    updated_by: str
    history: list[AliasChange]

    @classmethod
    def of(cls, alias: Alias) -> AliasView:
        """An alias."""
        last = alias.history[-1]
        return cls(
            id=alias.id,
            name=alias.name,
            model=alias.model,
            created_at=alias.created_at,
            updated_at=last.at,
            updated_by=last.by,
            history=alias.history,
        )


def route_view(route: Route) -> ModelRoute:
    """The route to a model, for whoever asks its replicas."""
    model, replicas = route.model, _replicas(route.replicas)
    if isinstance(model, BaseModelSpec):
        return ModelRoute(
            model=model.id,
            aliases=[],
            tenant_id="",
            owner="",
            base_model=model.id,
            base_digest=model.digest,
            adapter_id="",
            state="production",
            replicas=replicas,
        )
    arm = model.arm
    return ModelRoute(
        model=model.name,
        aliases=route.aliases,
        tenant_id=model.tenant_id,
        owner=model.owner,
        base_model=model.base_model,
        base_digest=model.lineage.base_digest,
        adapter_id=model.adapter_id,
        state=model.state,
        replicas=replicas,
        version=model.id if arm else "",
        arm=ArmRoute(kind=arm.kind, generates=arm.generates, manifest=model.adapter_manifest, embedder=arm.embedder)
        if arm
        else None,
        stands_in=route.stands_in,
        hand_over=_hand_over_view(route.hand_over) if route.hand_over else None,
    )


def _hand_over_view(hand_over: HandOver) -> HandOverRoute:
    adapter = hand_over.adapter
    return HandOverRoute(
        below=hand_over.below,
        adapter_id=adapter.adapter_id if adapter else "",
        base_digest=adapter.lineage.base_digest if adapter else "",
        replicas=_replicas(hand_over.replicas),
    )


def _replicas(ready: Iterable[ReplicaReady]) -> list[RouteReplica]:
    return [RouteReplica(**said.model_dump(include=set(RouteReplica.model_fields))) for said in ready]


def adapter_to_load(model: Model, replica_id: str) -> AdapterToLoad:
    """The adapter of a model, for a replica that should hold it."""
    return AdapterToLoad(
        adapter_id=model.adapter_id,
        model_id=model.id,
        tenant_id=model.tenant_id,
        manifest=model.adapter_manifest,
        awaited=model.waiting_for in ("evaluation", "replica"),
        resident=model.is_held_by(replica_id),
    )

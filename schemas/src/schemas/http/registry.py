"""What `registry` answers other services.

`GET /v1/registry/models/{model}/adapter` is a zip of one folder, whose name `folder_of` tells.
`GET /internal/base_models` is of `BaseModelSpec`, `GET /internal/provider_models/{id}` a `ProviderModelSpec`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.artifacts.arm import ArmKind, EmbedderFacts
from schemas.refs import ObjectRef

PROVIDER_MODEL = "provider_model"
"""Code of the 404 to who asks for the weights of a base model that another provider serves."""


NO_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
"""What a model's name may hold and the name of a file should not."""


def folder_of(model: str) -> str:
    """The folder in which a copy of a model's adapter lies, from the model's name."""
    return NO_FILE_NAME.sub("-", model)


class RouteReplica(BaseModel):
    """A replica that proved a model's base, and its adapter where it has one."""

    model_config = ConfigDict(frozen=True)

    replica_id: str = Field(description="The replica.")
    replica_url: str = Field(description="Where its engine answers.")
    engine: str = Field("tgi", description="Kind of the engine: whose HTTP API answers there.")
    capabilities: list[str] = Field(
        default_factory=list,
        description="What it does beyond that API; `echo`: each answer names the base and the adapter it comes from.",
    )


class ArmRoute(BaseModel):
    """What answers for a model whose serving version is an arm."""

    model_config = ConfigDict(frozen=True)

    kind: ArmKind = Field(description="How it answers.")
    generates: bool = Field(
        False, description="Whether the base model answers, shown the rows it finds: then the replicas are the base's."
    )
    manifest: ObjectRef = Field(description="Manifest of its files; they lie beside it.")
    embedder: EmbedderFacts = Field(description="What its questions are embedded by.")


class HandOverRoute(BaseModel):
    """When an arm leaves an answer to the next, and to whom: the adapter of its name, or else the base model."""

    model_config = ConfigDict(frozen=True)

    below: float = Field(gt=0, le=1, description="It does where it is less sure than this.")
    adapter_id: str = Field(
        "",
        description="Content-addressed id of the adapter in production; empty: there is none, the base model answers.",
    )
    base_digest: str = Field("", description="Digest of the files of the base model that the adapter stands on.")
    replicas: list[RouteReplica] = Field(
        default_factory=list, description="Who proved that they hold the adapter and its base, and is alive."
    )


class ModelRoute(BaseModel):
    """`GET /internal/routes/{model}`: a model, whose it is, on which base and adapter it stands, and who proved both.

    A base model has no tenant, no owner and no adapter: these are empty. The `adapter_id` of an arm is the arm's id.
    """

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="The model's own name, where it was asked for by an alias too.")
    aliases: list[str] = Field(description="Names of the tenant's that point to it.")
    tenant_id: str = Field(description="The tenant it belongs to.")
    owner: str = Field(description="Person, or key of nobody, whose it is: an end user sees their own only.")
    base_model: str = Field(description="Base model id.")
    base_digest: str = Field("", description="Digest of the base model's files.")
    adapter_id: str = Field(description="Content-addressed id of the adapter.")
    state: Literal["candidate", "awaiting_approval", "production", "retired", "rejected"] = Field(
        description="Where it stands in its life."
    )
    replicas: list[RouteReplica] = Field(description="Who proved that they hold both, and is alive.")
    version: str = Field("", description="The version that serves the name, where that is not its own.")
    arm: ArmRoute | None = Field(None, description="What answers, where that version is an arm.")
    stands_in: bool = Field(
        False, description="Whether that arm answers only until a replica holds the adapter, which is in production."
    )
    hand_over: HandOverRoute | None = Field(
        None, description="Of an arm that a person has leave to the next what it is unsure of."
    )


class AdapterToLoad(BaseModel):
    """Of `GET /internal/adapters`: an adapter that a replica of its base model should hold."""

    model_config = ConfigDict(frozen=True)

    adapter_id: str = Field(description="Content-addressed id of the adapter.")
    model_id: str = Field(description="The model it serves.")
    tenant_id: str = Field(description="The tenant it belongs to.")
    manifest: ObjectRef = Field(description="Manifest of the adapter's files; they lie beside it.")
    awaited: bool = Field(False, description="The model's evaluation or promotion waits for a replica that holds it.")
    resident: bool = Field(False, description="The registry takes it for resident on the replica that asks.")

"""A running registry for tests, with what they need to talk to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import openai
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from chassis.errors import Transient
from chassis.ids import new_id
from registry.app import build
from registry.settings import Settings
from schemas import (
    AdapterResident,
    DatasetRef,
    EvaluationCompleted,
    Event,
    FinetuneArmFitted,
    FinetuneTrained,
    Interval,
    ModelPromoted,
    ModelRegistered,
    ObjectRef,
    ReplicaReady,
    TenantCreated,
    TenantPolicy,
    Usage,
)
from schemas.artifacts import BASE_FILE, PROVIDER_FILE, ArmKind, Cascade, CascadeStep, EmbedderFacts
from testkit import Addresses, Space, eventually, running
from testkit.base_models import base_spec
from testkit.stub_peer import StubPeer

BASE = "tiny-base"
E = TypeVar("E", bound=Event)


class Accounts(StubPeer):
    """Stands where the accounts service is, which is down: what the registry knows comes from events."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.knows: dict[str, str] = {}

    async def get(self, path: str, *ids: str, tenant_id: str, **options: Any) -> Any:
        self.asked.append(path.format(*ids))
        if tenant_id not in self.knows:
            raise Transient("accounts cannot be reached")
        slug = self.knows[tenant_id]
        return {"tenant_id": tenant_id, "name": slug, "slug": slug, "policy": TenantPolicy().model_dump()}


def together(arm: ArmKind) -> Cascade:
    """What an arm would do together with the adapter that is tested."""
    score = Interval(value=0.98, low=0.91, high=1.0, n=58)
    took = Usage(answers=58, prompt_tokens=9, completion_tokens=9, seconds_median=0.1, seconds_p95=0.1, cost=None)
    step = CascadeStep(below=0.9, handed_over=0.25, score=score, over_adapter=score, took=took)
    return Cascade(arm=arm, steps=[step], advised=0.9)


@dataclass
class Harness:
    """A running registry, and one test's two tenants in it."""

    url: str
    space: Space
    publish: Any
    seen: Any
    accounts: Accounts
    models_dir: Path
    a: str = field(default_factory=lambda: new_id("tenant_a"))
    b: str = field(default_factory=lambda: new_id("tenant_b"))
    bases: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, kind: type[E]) -> list[E]:
        """Events of one kind about this test's tenants."""
        return [event for event in self.seen.of(kind) if event.tenant_id in (self.a, self.b)]

    def http(self, tenant: str | None = None, role: str | None = None) -> httpx2.AsyncClient:
        headers = self.space.headers("registry", self.a if tenant is None else tenant, role=role)
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    def sdk(self, role: str | None = None) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            api_key=self.space.bearer("registry", self.a, role=role),
            base_url=f"{self.url}/v1",
            max_retries=0,
            _strict_response_validation=True,
        )

    async def digest(self, *events: Event) -> None:
        """Publish events and wait until the registry is done with each, one way or the other."""
        before = consumed()
        for event in events:
            await self.publish(event)
        wanted = before + Counter(event.type for event in events)
        await eventually(lambda: consumed() >= wanted)

    def job(self, number: int, tenant: str | None = None) -> str:
        return f"ftjob-{tenant or self.a}-{number}"

    async def trained(self, number: int, tenant: str | None = None, **changes: Any) -> str:
        """A trained adapter; returns the id of the candidate that it became."""
        event = self.training(number, tenant, **changes)
        await self.publish(event)
        return await self._registered(event.job_id, arm=False)

    async def fitted(self, number: int, tenant: str | None = None, **changes: Any) -> str:
        """A fitted arm; returns the id of the candidate that it became."""
        event = self.fitting(number, tenant, **changes)
        await self.publish(event)
        return await self._registered(event.job_id, arm=True)

    async def _registered(self, job_id: str, *, arm: bool) -> str:
        def found() -> list[ModelRegistered]:
            made = [one for one in self.seen.of(ModelRegistered) if one.job_id == job_id]
            return [one for one in made if (one.arm is not None) == arm]

        [made] = await eventually(found)
        return str(made.model_id)

    def fitting(self, number: int, tenant: str | None = None, **changes: Any) -> FinetuneArmFitted:
        trained = self.training(number, tenant)
        facts: dict[str, Any] = {
            **{name: getattr(trained, name) for name in ("tenant_id", "job_id", "base_model", "suffix", "dataset")},
            "arm": "head",
            "arm_id": f"arm-{trained.tenant_id}-{number}",
            "arm_manifest": ref("arm/manifest.json"),
            "embedder": EmbedderFacts(id="tiny-embedder", digest="a" * 64, dimensions=8),
            "training_file": "file-1",
            "rows": 288,
            "fit_seconds": 4.2,
            "metrics": {"head_accuracy": 0.958, "nearest_accuracy": 0.941},
            "seed": 7,
        }
        return FinetuneArmFitted(**{**facts, **changes})

    def training(self, number: int, tenant: str | None = None, **changes: Any) -> FinetuneTrained:
        tenant = tenant or self.a
        facts: dict[str, Any] = {
            "tenant_id": tenant,
            "job_id": self.job(number, tenant),
            "base_model": BASE,
            "base_digest": "d" * 64,
            "suffix": "support",
            "adapter_id": f"ad-{tenant}-{number}",
            "adapter_manifest": ref("manifest.json"),
            "dataset": DatasetRef(
                dataset_id="ds-1",
                task="classification",
                manifest=ref("dataset"),
                train=ref("train"),
                heldout=ref("heldout"),
            ),
            "training_file": "file-1",
            "trained_tokens": 100,
            "train_seconds": 1.0,
            "metrics": {"train_loss": 0.1},
            "hyperparameters": {"n_epochs": 3},
            "seed": 7,
        }
        return FinetuneTrained(**{**facts, **changes})

    def resident(self, number: int, tenant: str | None = None, replica: str = "r1") -> AdapterResident:
        tenant = tenant or self.a
        return AdapterResident(
            tenant_id=tenant,
            adapter_id=f"ad-{tenant}-{number}",
            model_id="",
            replica_id=replica,
            replica_url=f"http://{replica}",
            fingerprint_delta=0.01,
            base_delta=1.5,
        )

    def ready(self, replica: str = "r1", base: str = BASE, digest: str = "d" * 64, url: str = "") -> ReplicaReady:
        self.bases[replica] = (base, digest)
        return ReplicaReady(
            tenant_id="",
            replica_id=replica,
            replica_url=url or f"http://{replica}",
            engine="tgi",
            base_model=base,
            base_digest=digest,
            capabilities=["echo"],
        )

    async def asks(self, *replicas: str) -> None:
        """These replicas ask what they must hold of the base that they said last: they live."""
        async with self.http("") as http:
            for replica in replicas:
                base, digest = self.bases.get(replica, (BASE, "d" * 64))
                params = {"base_model": base, "base_digest": digest, "replica_id": replica}
                assert (await http.get("/internal/adapters", params=params)).status_code == 200

    async def held_by(self, model: str) -> list[str]:
        """The replicas on the model's route, in their order."""
        async with self.http() as http:
            route = (await http.get(f"/internal/routes/{model}")).json()
        return [one["replica_id"] for one in route["replicas"]]

    def evaluated(
        self, model: str, verdict: Any, tenant: str | None = None, beaten_by: Any = None, below_base: Any = None
    ) -> EvaluationCompleted:
        scores = {"candidate": Interval(value=0.98, low=0.91, high=1.0, n=58)}
        if beaten_by:
            scores[beaten_by] = Interval(value=0.966, low=0.9, high=1.0, n=58)
        if below_base:
            scores |= {"base": Interval(value=0.97, low=0.9, high=1.0, n=58)}
            scores |= {below_base: Interval(value=0.81, low=0.7, high=0.9, n=58)}
        return EvaluationCompleted(
            tenant_id=tenant or self.a,
            evaluation_id=f"ev-{model[-8:]}",
            model_id=model,
            verdict=verdict,
            reason="57 of 58 against 3 of 58.",
            metric="accuracy",
            scores=scores,
            beaten_by=beaten_by,
            below_base=below_base,
            cascade=together(beaten_by) if beaten_by else None,
            evidence=ref("evidence"),
        )

    async def promoted(self, number: int, tenant: str | None = None) -> str:
        model = await self.trained(number, tenant)
        await self.digest(self.ready(), self.resident(number, tenant))
        await self.publish(self.evaluated(model, "pass", tenant))

        async def promoted() -> bool:
            await self.asks("r1")
            return any(one.model_id == model for one in self.seen.of(ModelPromoted))

        await eventually(promoted)
        return model

    async def answering(self, number: int, tenant: str | None = None, **changes: Any) -> str:
        """An arm in production; returns its name."""
        version = await self.fitted(number, tenant, **changes)
        await self.publish(self.evaluated(version, "pass", tenant))
        await eventually(lambda: any(one.model_id == version for one in self.seen.of(ModelPromoted)))
        return version.rpartition("@")[0]

    async def card(self, model: str, tenant: str | None = None) -> dict[str, Any]:
        async with self.http(tenant) as http:
            return dict((await http.get(f"/v1/registry/models/{model}")).json())


def consumed() -> Counter[str]:
    """Events the registry is done with, by type."""
    [family] = [one for one in REGISTRY.collect() if one.name == "events_consumed"]
    found: Counter[str] = Counter()
    for sample in family.samples:
        if sample.name.endswith("_total"):
            found[sample.labels["type"]] += int(sample.value)
    return found


def ref(name: str) -> ObjectRef:
    return ObjectRef(bucket="b", key=f"tenants/x/{name}", sha256="0" * 64, size=1)


def write_provider(models_dir: Path, name: str, spec: dict[str, Any]) -> None:
    """A folder with a provider's model."""
    (models_dir / name).mkdir(exist_ok=True)
    (models_dir / name / PROVIDER_FILE).write_text(json.dumps(spec))


def write_base(models_dir: Path, name: str, **facts: Any) -> None:
    (models_dir / name).mkdir()
    spec = base_spec(name, **{"license": "gemma", **facts})
    (models_dir / name / BASE_FILE).write_text(spec.model_dump_json())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One registry for the tests of this module; each brings its own tenants.

    Its database's clock is the machine's: what a replica's silence leads to is tried where a test moves the clock.
    """
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    models_dir = tmp_path_factory.mktemp("models")
    write_base(models_dir, BASE)
    accounts = Accounts()
    settings = space.settings(Settings, "registry", models_dir=models_dir, base_model=BASE)
    async with (
        running(build(settings, peers={"accounts": accounts})) as url,
        space.publisher("trainer") as publish,
        space.probe("models") as seen,
    ):
        yield {
            "url": url,
            "space": space,
            "publish": publish,
            "seen": seen,
            "accounts": accounts,
            "models_dir": models_dir,
        }


@pytest_asyncio.fixture(loop_scope="module")
async def harness(shared: dict[str, Any]) -> Harness:
    """The shared registry, which has heard of this test's tenants."""
    made = Harness(**shared)
    made.accounts.asked.clear()
    await made.digest(
        *(
            TenantCreated(tenant_id=tenant, name=slug, slug=slug, policy=TenantPolicy())
            for tenant, slug in ((made.a, "acme"), (made.b, "bolt"))
        )
    )
    return made

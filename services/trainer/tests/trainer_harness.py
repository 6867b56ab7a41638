"""A running trainer for tests, and the services it asks, played by one application on a real port."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2
import openai
import pytest
import pytest_asyncio
from fastapi import FastAPI, Request, Response
from openai.types.fine_tuning import FineTuningJob

from chassis.errors import NotFound, SartorError
from chassis.http import error_response
from chassis.ids import new_id
from schemas import (
    DatasetPrepared,
    DatasetRef,
    DatasetRejected,
    DocumentParsed,
    Event,
    FinetuneFailed,
    LabelingRequested,
    ModelPromoted,
    ModelRejected,
    ModelWaiting,
    ObjectRef,
    Purpose,
    RowCounts,
    TenantPolicy,
)
from schemas.artifacts import BaseModelSpec
from schemas.http.ingest import FileText
from schemas.http.registry import PROVIDER_MODEL
from testkit import Addresses, Space, eventually, running
from testkit.base_models import base_spec
from trainer.app import build
from trainer.domain import Adapter
from trainer.settings import Settings

BASE, OTHER_BASE = "tiny-base", "other-base"
FAR_BASE = "far-base"
"""Another provider's."""
REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)
E = TypeVar("E", bound=Event)


def ref(content: str) -> ObjectRef:
    """An object of that content."""
    return ObjectRef(bucket="b", key="k", sha256=hashlib.sha256(content.encode()).hexdigest(), size=1)


class StubPeers:
    """Ingest, registry and accounts before facts that a test made up."""

    def __init__(self, space: Space) -> None:
        self.files: dict[tuple[str, str], dict[str, Any]] = {}
        self.texts: dict[tuple[str, str], FileText] = {}
        self.policies: dict[str, TenantPolicy] = {}
        self._tokens = space.tokens("ingest")

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.exception_handler(SartorError)
        async def refuse(_: Request, error: SartorError) -> Response:
            return error_response(error)

        @app.get("/v1/files/{file_id}")
        async def file(file_id: str, request: Request) -> dict[str, Any]:
            caller = self._tokens.verify(request.headers["authorization"].removeprefix("Bearer "))
            if (caller.tenant_id, file_id) not in self.files:
                raise NotFound(f"No such file: '{file_id}'.")
            return self.files[caller.tenant_id, file_id]

        @app.get("/v1/files")
        async def files() -> dict[str, Any]:
            return {"object": "list", "data": []}

        @app.get("/internal/files/{file_id}/text")
        async def text(file_id: str, request: Request) -> FileText:
            caller = self._tokens.verify(request.headers["authorization"].removeprefix("Bearer "))
            if (caller.tenant_id, file_id) not in self.texts:
                raise NotFound(f"File '{file_id}' is no text.", code="no_text")
            return self.texts[caller.tenant_id, file_id]

        @app.get("/internal/base_models")
        async def base_models() -> list[BaseModelSpec]:
            return [base_spec(BASE), base_spec(OTHER_BASE)]

        @app.get("/internal/base_models/{base_id:path}")
        async def base_model(base_id: str) -> dict[str, str]:
            if base_id == FAR_BASE:
                raise NotFound(f"'{base_id}' is another provider's model.", code=PROVIDER_MODEL)
            if base_id not in (BASE, OTHER_BASE):
                raise NotFound(f"No base model '{base_id}'.")
            return {"id": base_id}

        @app.get("/internal/tenants/{tenant_id}")
        async def tenant(tenant_id: str) -> dict[str, Any]:
            policy = self.policies.get(tenant_id, TenantPolicy())
            return {"tenant_id": tenant_id, "slug": "acme", "policy": policy.model_dump()}

        return app


@dataclass
class Harness:
    """A running trainer without its worker, so that jobs stay queued, and one test's two tenants."""

    space: Space
    url: str
    peers: StubPeers
    publish: Any
    seen: Any
    jobs: Any
    store: Any
    a: str = field(default_factory=lambda: new_id("tenant_a"))
    b: str = field(default_factory=lambda: new_id("tenant_b"))

    def sdk(self, tenant: str = "") -> openai.AsyncOpenAI:
        key = self.space.bearer("trainer", tenant or self.a)
        return openai.AsyncOpenAI(
            api_key=key, base_url=f"{self.url}/v1", max_retries=0, _strict_response_validation=True
        )

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers=self.space.headers("trainer", self.a), timeout=20)

    def file(self, tenant: str = "", **facts: Any) -> str:
        """A file that ingest knows."""
        file_id = new_id("file-")
        known = {"id": file_id, "purpose": "fine-tune", "status": "uploaded", "status_details": None, **facts}
        self.peers.files[tenant or self.a, file_id] = known
        return file_id

    async def job(self, file: str = "", **asked: Any) -> FineTuningJob:
        return await self.sdk().fine_tuning.jobs.create(model=BASE, training_file=file or self.file(), **asked)

    async def status(self, job: FineTuningJob) -> str:
        return str((await self.sdk().fine_tuning.jobs.retrieve(job.id)).status)

    async def becomes(self, job: FineTuningJob, status: str) -> FineTuningJob:
        async def now() -> Any:
            found = await self.sdk().fine_tuning.jobs.retrieve(job.id)
            return found if found.status == status else None

        found: FineTuningJob = await eventually(now)
        return found

    async def shown(self, job: FineTuningJob) -> dict[str, Any]:
        """A job as the API shows it, with the fields that OpenAI's types do not have."""
        async with self.http() as http:
            return dict((await http.get(f"/v1/fine_tuning/jobs/{job.id}")).json())

    async def evaluating(self, file: str = "", **asked: Any) -> FineTuningJob:
        """A job whose adapter is stored."""
        job = await self.job(file, **asked)
        await self.publish(self.prepared(job.training_file))
        await self.becomes(job, "queued")
        await self.train(job)
        return job

    async def train(self, job: FineTuningJob) -> None:
        """A queued job's adapter is stored."""
        adapter = Adapter(
            adapter_id="ad-1", manifest=REF, base_digest="d", trained_tokens=9, train_seconds=1, metrics={}
        )
        claimed = await self.store.claim({"_id": job.id}, "nobody", 60)
        assert claimed is not None
        for step in (lambda it: it.start(2), lambda it: it.finish_training(adapter, 2)):
            await self.store.update(self.a, job.id, step)
        await self.store.leases.release(job.id, claimed.lease.fence)  # as a worker does

    def waiting(self, job: FineTuningJob, waiting_for: Any, revision: int = 1, reason: str = "") -> ModelWaiting:
        facts = {name: value for name, value in self.model(job).items() if name != "adapter_id"}
        return ModelWaiting(**facts, waiting_for=waiting_for, revision=revision, reason=reason)

    async def messages(self, job: FineTuningJob) -> list[str]:
        """What happened to a job, oldest first."""
        return [event.message async for event in self.sdk().fine_tuning.jobs.list_events(job.id)][::-1]

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen.of(kind) if event.tenant_id in (self.a, self.b)]

    async def digest(self, event: DatasetPrepared, *, times: int = 1) -> None:
        """Publish a dataset's event and wait until the trainer is done with it: a later one of its key had effect."""
        for _ in range(times):
            await self.publish(event)
        later = await self.job()
        await self.publish(self.prepared(later.training_file, dataset=event.dataset))
        await self.becomes(later, "queued")
        await self.sdk().fine_tuning.jobs.cancel(later.id)

    async def decide(self, *decisions: Event) -> None:
        """Publish the registry's decisions and wait until the trainer is done with them."""
        later = await self.job()
        for event in (*decisions, self.rejected(later)):
            await self.publish(event)
        await eventually(lambda: [one for one in self.of(FinetuneFailed) if one.job_id == later.id])

    def promoted(self, job: FineTuningJob) -> ModelPromoted:
        return ModelPromoted(**self.model(job), base_model=BASE, decided_by="gate")

    def rejected(self, job: FineTuningJob, reason: str = "no better than its base") -> ModelRejected:
        return ModelRejected(**self.model(job), reason=reason)

    def model(self, job: FineTuningJob) -> dict[str, str]:
        return {"tenant_id": self.a, "model_id": f"ft:{self.a}", "job_id": job.id, "adapter_id": "ad-1"}

    async def state(self, job: FineTuningJob) -> str:
        """A job's own state; the API shows a paused one as queued."""
        return str((await self.jobs.find_one({"_id": job.id}))["state"])

    def document(self, file: str, size: int = 4000) -> DocumentParsed:
        """A file became a document."""
        text = ObjectRef(bucket="b", key="text.md", sha256="1" * 64, size=size)
        return DocumentParsed(
            tenant_id=self.a, file_id=file, filename="help.md", title="Help", purpose="assistants", text=text
        )

    def unlabelled(self, file: str, rows: int = 9) -> LabelingRequested:
        """A file became rows of text."""
        records = ObjectRef(bucket="b", key="records.jsonl", sha256="2" * 64, size=4000)
        return LabelingRequested(tenant_id=self.a, file_id=file, rows=rows, records=records)

    def not_rows(self, file: str, code: str, purpose: Purpose = "user_data") -> DatasetRejected:
        """A file became no dataset."""
        return DatasetRejected(tenant_id=self.a, file_id=file, purpose=purpose, code=code, message=f"no rows: {code}")

    def prepared(self, file: str, **changes: Any) -> DatasetPrepared:
        parts = {name: ref(f"{file}/{name}") for name in ("manifest", "train", "validation", "heldout")}
        facts: dict[str, Any] = {
            "tenant_id": self.a,
            "dataset": DatasetRef(dataset_id=f"ds-{file}", task="classification", **parts),
            "file_id": file,
            "purpose": "fine-tune",
            "rows": RowCounts(train=300, validation=20, heldout=80),
            "labels": 3,
        }
        return DatasetPrepared(**{**facts, **changes})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One trainer for the tests of this module; each brings its own tenants."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    peers = StubPeers(space)
    async with running(peers.app()) as there:
        urls = dict.fromkeys(("accounts_url", "registry_url", "ingest_url"), there)
        app = build(space.settings(Settings, "trainer", base_model=BASE, trainer_open_jobs=5, trainer_arms="", **urls))
        for name in ("worker", "waiting-jobs"):  # tests work and measure themselves
            del app.state.service._background[name]
        store, _ = app.state.service._stores
        jobs = store.collection
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.sweep.SWEEP_SECONDS", 1.0)
            async with (
                running(app) as url,
                space.publisher("ingest") as publish,
                space.probe("finetunes") as seen,
            ):
                yield {
                    "space": space,
                    "url": url,
                    "peers": peers,
                    "publish": publish,
                    "seen": seen,
                    "jobs": jobs,
                    "store": store,
                }


@pytest.fixture
def harness(shared: dict[str, Any]) -> Harness:
    return Harness(**shared)

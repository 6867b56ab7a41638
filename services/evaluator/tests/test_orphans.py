"""Evidence that decided nothing goes; the evaluation's own stays."""

from __future__ import annotations

from chassis.settings import ServiceSettings
from evaluator.domain import Evaluation, State
from evaluator.store import Artifacts, Evaluations
from eventbus import AggregateStore
from schemas import DatasetRef, ObjectRef
from stores.mongo import connect
from stores.orphans import OrphanSweep
from testkit import Space

TENANT = "tenant_a"
REF = ObjectRef(bucket="b", key="k", sha256="0" * 64, size=1)


def evaluation(name: str, state: State) -> Evaluation:
    return Evaluation(
        id=name,
        tenant_id=TENANT,
        created_at=1,
        state=state,
        model_id=f"model-{name}",
        job_id="ftjob-1",
        base_model="base",
        adapter_id="ad-1",
        dataset=DatasetRef(task="classification", train=REF, heldout=REF),
    )


async def test_evidence_of_attempts_that_decided_nothing_is_removed(space: Space) -> None:
    database = connect(space.settings(ServiceSettings, "evaluator"), "evaluator")
    store = AggregateStore(database["evaluations"], Evaluation, "evaluator", lambda: None)
    objects = space.objects()
    await objects.prepare()
    evaluations = Evaluations(store, database["deleted_rows"])
    artifacts = Artifacts(objects)
    keys = {}
    for name, state in {"done": "completed", "called-off": "cancelled", "going-on": "running"}.items():
        one = evaluation(name, state)  # type: ignore[arg-type]
        late = one.model_copy(update={"lease": one.lease.model_copy(update={"fence": 7})})
        kept = await artifacts.put_evidence(one, {})
        keys[name] = (kept.key, (await artifacts.put_evidence(late, {})).key)
        one.evidence = kept if state == "completed" else None
        await store.add(one)
    folders = {"evaluations": evaluations.orphaned_evidence}
    await OrphanSweep(objects, "evaluator", folders, every=1, age=-60).sweep()
    assert await objects.keys("tenants/") == sorted([keys["done"][0], *keys["going-on"]])

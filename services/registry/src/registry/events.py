"""The events the registry consumes."""

from __future__ import annotations

from eventbus import Handlers
from registry.store import Replicas, Tenants
from registry.use_cases import Gate
from schemas import (
    AdapterEvicted,
    AdapterLoadFailed,
    AdapterResident,
    DatasetDeleted,
    EvaluationCompleted,
    FinetuneArmFitted,
    FinetuneCancelled,
    FinetuneTrained,
    ReplicaReady,
    TenantCreated,
    TenantPolicyChanged,
)


def subscriptions(gate: Gate, tenants: Tenants, replicas: Replicas) -> Handlers:
    """Each event consumed, with what it leads to."""

    async def on_tenant_created(event: TenantCreated) -> None:
        await tenants.learn(event.tenant_id, event.slug, event.policy)

    async def on_tenant_policy_changed(event: TenantPolicyChanged) -> None:
        await tenants.change_policy(event.tenant_id, event.policy, event.revision)

    async def on_finetune_trained(event: FinetuneTrained) -> None:
        await gate.register(event)

    async def on_finetune_arm_fitted(event: FinetuneArmFitted) -> None:
        await gate.register(event)

    async def on_finetune_cancelled(event: FinetuneCancelled) -> None:
        await gate.cancel(event)

    async def on_dataset_deleted(event: DatasetDeleted) -> None:
        await gate.lose_rows(event)

    async def on_evaluation_completed(event: EvaluationCompleted) -> None:
        await gate.judge(event)

    async def on_adapter_resident(event: AdapterResident) -> None:
        await gate.hold(event)

    async def on_adapter_load_failed(event: AdapterLoadFailed) -> None:
        await gate.note_load_failure(event)

    async def on_adapter_evicted(event: AdapterEvicted) -> None:
        await gate.drop(event)

    async def on_replica_ready(event: ReplicaReady) -> None:
        await replicas.ready(event)

    return {
        TenantCreated: on_tenant_created,
        TenantPolicyChanged: on_tenant_policy_changed,
        FinetuneTrained: on_finetune_trained,
        FinetuneArmFitted: on_finetune_arm_fitted,
        FinetuneCancelled: on_finetune_cancelled,
        DatasetDeleted: on_dataset_deleted,
        EvaluationCompleted: on_evaluation_completed,
        AdapterResident: on_adapter_resident,
        AdapterLoadFailed: on_adapter_load_failed,
        AdapterEvicted: on_adapter_evicted,
        ReplicaReady: on_replica_ready,
    }

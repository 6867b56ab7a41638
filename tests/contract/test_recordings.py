"""Releases run side by side: today's code takes what each recorded release said, and says nothing that one cannot read.

In a rolling update the old release's messages reach the new consumers and the new release's the old consumers, so a
change of the contract may only add. A recording is not made again: what fails here is mended in the code.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from fastapi import FastAPI

from chassis.settings import ServiceSettings
from event_gateway.domain import VISIBLE
from registry.store import Replicas
from runtime import Service
from schemas import (
    EVENTS,
    TOPICS,
    AdapterResident,
    DocumentParsed,
    EvaluationCompleted,
    Event,
    FeedbackRecorded,
    FileDeleted,
    FileUploaded,
    FinetuneFailed,
    FinetuneSucceeded,
    FinetuneTrained,
    LabelingRequested,
    LabelsPublished,
    ModelPromoted,
    ModelRegistered,
    ReplicaReady,
    TenantCreated,
    TenantPolicyChanged,
    parse,
    read_envelope,
    to_message,
)
from schemas.artifacts import BaseModelSpec
from schemas.export import ROOT, incompatible, schema
from schemas.http.accounts import TenantFacts
from schemas.services import SERVICES
from schemas.topics import BY_NAME
from stores.objects import Objects
from testkit import Space, eventually, running
from testkit.base_models import base_spec
from testkit.injector import Message, inject, recorded
from testkit.space import Seen
from tests.contract import record
from tests.contract.record import UNANSWERED
from tests.contract.recordings import Recording, recordings

Built = Callable[[str], FastAPI]
Database = Any

OF_THE_CLIENT = {"correlation_id"}
"""A header that FastStream adds to each message; nobody reads it."""


@pytest.fixture(scope="module", params=recordings(), ids=lambda path: path.stem)
def recording(request: pytest.FixtureRequest) -> Recording:
    return Recording.load(request.param)


def said(recording: Recording) -> Seen:
    """The recorded events, as today's code reads them."""
    envelopes = [(read_envelope(message.headers), message.value) for message in recording.messages]
    return Seen([(envelope, parse(EVENTS[envelope.type], value)) for envelope, value in envelopes])


def test_there_is_a_recording() -> None:
    assert recordings()


def test_a_recording_is_not_written_over(recording: Recording, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["record", recording.release])
    monkeypatch.setattr(record, "record", lambda: pytest.fail("it went on"))
    assert record.main() == 1
    recording.save(tmp_path / "copy")
    assert Recording.load(tmp_path / "copy") == recording
    with pytest.raises(FileExistsError):
        recording.save(tmp_path / "copy")


def test_every_type_of_the_release_was_recorded(recording: Recording) -> None:
    assert {message.header("ce_type") for message in recording.messages} == set(recording.schemas)


def lost(was: Any, is_now: Any, path: str = "") -> list[str]:
    """What stood in `was` and does not stand in `is_now`, which may hold more."""
    if isinstance(was, dict) and isinstance(is_now, dict):
        return [one for name in was for one in lost(was[name], is_now.get(name), f"{path}/{name}")]
    return [] if was == is_now else [path]


def test_nothing_of_a_recorded_message_is_lost(recording: Recording) -> None:
    """Read and written again by today's code, it holds all it held: attributes, key and fields."""
    for message in recording.messages:
        envelope = read_envelope(message.headers)
        event = parse(EVENTS[envelope.type], message.value)
        key, value, headers = to_message(envelope, event.model_dump(mode="json"))
        attributes = {name: text.decode() for name, text in message.headers if name not in OF_THE_CLIENT}
        assert key == message.key
        assert (envelope.type, lost(attributes, headers)) == (envelope.type, [])
        assert (envelope.type, lost(json.loads(message.value), json.loads(value))) == (envelope.type, [])


def test_a_consumer_of_the_release_reads_what_is_said_today(recording: Recording) -> None:
    for name, committed in recording.schemas.items():
        assert (name, incompatible(committed, schema(EVENTS[name], name))) == (name, [])
        for example in (ROOT / "examples" / name).glob("*.json"):
            event = parse(EVENTS[name], example.read_bytes())
            jsonschema.validate({**event.model_dump(mode="json"), "a_field_of_the_future": 1}, committed)


@pytest.mark.parametrize("service", SERVICES)
async def test_what_watches_takes_recorded_messages(service: str, recording: Recording, built: Built) -> None:
    """The bus logs what a cache cannot take and goes on; here it fails."""
    bus = built(service).state.service.bus
    watched = [event for _, event in said(recording).events if type(event) in bus.watchers]
    assert watched
    for event in watched:
        await bus.watchers[type(event)](event)


async def evaluations_are_made(database: Database, events: Seen) -> None:
    made = {one["_id"] async for one in database["evaluations"].find()}
    assert made == {event.evaluation_id for event in events.of(EvaluationCompleted)}


async def labels_become_files(database: Database, events: Seen) -> None:
    published = {event.project_id for event in events.of(LabelsPublished)}
    made = {one["_id"]: one["project_id"] async for one in database["files"].find()}
    assert set(made.values()) == published
    assert set(made) <= {event.file_id for event in events.of(FileUploaded)}


async def projects_and_ratings_are_kept(database: Database, events: Seen) -> None:
    projects = {one["file_id"]: one["tasks"] async for one in database["projects"].find()}
    assert projects == {event.file_id: event.rows for event in events.of(LabelingRequested)}
    ratings = {one["_id"]: one["rating"] async for one in database["feedback"].find()}
    assert ratings == {event.feedback_id: event.rating for event in events.of(FeedbackRecorded)}


async def events_can_be_read(database: Database, events: Seen) -> None:
    kept = await database["events"].find().sort("number", 1).to_list()
    shown = {envelope.id for envelope, event in events.events if event.type in VISIBLE and event.tenant_id}
    assert {one["_id"] for one in kept} == shown
    for tenant in {one["tenant_id"] for one in kept}:
        numbers = [one["number"] for one in kept if one["tenant_id"] == tenant]
        assert numbers == list(range(1, len(numbers) + 1))


async def documents_come_and_go(database: Database, events: Seen) -> None:
    gone = {one["_id"]: one.get("gone", False) async for one in database["documents"].find()}
    parsed, deleted = events.of(DocumentParsed), {event.file_id for event in events.of(FileDeleted)}
    assert gone == {event.file_id: event.file_id in deleted for event in parsed}
    own = await database["stores"].find().to_list()
    assert {one["tenant_id"] for one in own} == {event.tenant_id for event in parsed if event.purpose == "user_data"}


async def models_pass_the_gate_again(database: Database, events: Seen) -> None:
    models = await database["models"].find().to_list()
    registered = {event.model_id: event.adapter_id for event in events.of(ModelRegistered)}
    assert {one["_id"]: one["adapter_id"] for one in models} == registered
    promoted = {event.model_id for event in events.of(ModelPromoted) if event.decided_by == "gate"}
    assert {one["_id"] for one in models if one["state"] == "production"} == promoted
    policies = {event.tenant_id: event.policy.model_dump() for event in events.of(TenantPolicyChanged)}
    assert {one["_id"]: one["policy"] async for one in database["tenants"].find()} == policies


async def jobs_are_made_and_end_as_before(database: Database, events: Seen) -> None:
    ends = {event.job_id: "succeeded" for event in events.of(FinetuneSucceeded)}
    ends |= {event.job_id: "failed" for event in events.of(FinetuneFailed)}
    assert {one["_id"]: one["state"] async for one in database["jobs"].find()} == ends


EFFECTS: dict[str, Callable[[Database, Seen], Awaitable[None]]] = {
    "evaluator": evaluations_are_made,
    "event_gateway": events_can_be_read,
    "ingest": labels_become_files,
    "labeling": projects_and_ratings_are_kept,
    "rag_indexer": documents_come_and_go,
    "registry": models_pass_the_gate_again,
    "trainer": jobs_are_made_and_end_as_before,
}


def test_every_service_that_handles_events_is_replayed_to(built: Built) -> None:
    assert {service for service in SERVICES if built(service).state.service.bus.handles} == set(EFFECTS)


@pytest.mark.parametrize("service", EFFECTS)
async def test_what_handles_takes_recorded_messages(
    service: str, recording: Recording, space: Space, tiny_models: Path
) -> None:
    """Through Kafka and the bus into its own documents: nothing dead-lettered, nothing parked, the effect it had."""
    events = said(recording)
    await put_records(space, events)
    async with running(elsewhere(events)) as peer:
        peers = dict.fromkeys(("accounts_url", "ingest_url", "registry_url"), peer)
        app = alone(space, service, models_dir=tiny_models, base_model="tiny-test", **peers)
        database = app.state.service.database
        async with running(app):
            await replay(space, app.state.service, recording.messages)
        dead_letters = [f"{space.prefix}-{topic.dead_letters}" for topic in TOPICS]
        letters = await recorded(space.addresses.kafka_bootstrap, *dead_letters)
        assert [(one.header("ce_type"), one.header("x-error")) for one in letters] == []
        assert await database["parked"].find().to_list() == []
        await EFFECTS[service](database, events)


def elsewhere(events: Seen) -> FastAPI:
    """Accounts as the recording tells of it, ingest, which has every file, and registry, which has every base model."""
    tenants = {event.tenant_id: event for event in events.of(TenantCreated)}
    app = FastAPI()

    @app.get("/internal/tenants/{tenant_id}")
    async def tenant(tenant_id: str) -> TenantFacts:
        return TenantFacts.model_validate(tenants[tenant_id].model_dump())

    @app.get("/internal/base_models/{model}")
    async def base_model(model: str) -> BaseModelSpec:
        return base_spec(model)

    @app.get("/v1/files/{file_id}")
    async def file(file_id: str) -> dict[str, str]:
        return {"id": file_id}

    return app


def alone(space: Space, service: str, **facts: Any) -> FastAPI:
    """A service that consumes and does nothing by itself: no background work, nothing published."""
    settings = importlib.import_module(f"{service}.settings").Settings
    facts = {"trainer_arms": "", **facts}  # nobody fits any here, and a job whose adapter is refused would wait for it
    known = {name: value for name, value in facts.items() if name in settings.model_fields}
    app: FastAPI = importlib.import_module(f"{service}.app").build(space.settings(settings, service, **known))
    app.state.service._background.clear()
    app.state.service._relay = None
    return app


async def put_records(space: Space, events: Seen) -> None:
    """The rows of the tour where the messages say that they lie; a recording keeps none."""
    for event in events.of(LabelingRequested):
        objects = Objects(space.settings(ServiceSettings, "labeling", objects_bucket=event.records.bucket))
        await objects.prepare()
        assert (await objects.put_bytes(event.records.key, UNANSWERED)).sha256 == event.records.sha256
        objects.close()


async def go_on(service: Service, event: Event, events: Sequence[Event]) -> None:
    """What the trainer's worker, or a replica, had done by the time its event was recorded.

    A release whose replicas did not say which base they proved is replayed with replicas that do: in an upgrade they
    come first.
    """
    if isinstance(event, FinetuneTrained):
        await service.database["jobs"].update_one({"_id": event.job_id}, {"$set": {"state": "evaluating"}})
    if isinstance(event, AdapterResident) and service.name == "registry":
        trained = {one.adapter_id: one for one in events if isinstance(one, FinetuneTrained)}[event.adapter_id]
        base = {"base_model": trained.base_model, "base_digest": trained.base_digest}
        facts = {"tenant_id": "", "engine": "tgi", "capabilities": ["echo"], **base}
        replicas = Replicas(service.database["replicas"], 60)
        await replicas.ready(ReplicaReady(replica_id=event.replica_id, replica_url=event.replica_url, **facts))
        await replicas.heard(event.replica_id, **base)


async def replay(space: Space, service: Service, messages: Sequence[Message]) -> None:
    """Publish what a service subscribes to, each message once the one before is committed."""
    kafka, group = space.addresses.kafka_bootstrap, f"{space.prefix}-{service.name.replace('_', '-')}"
    topics = {event.topic for event in service.bus.handlers}
    places = [
        TopicPartition(f"{space.prefix}-{name}", one) for name in topics for one in range(BY_NAME[name].partitions)
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    sent = 0

    async def committed() -> bool:
        offsets = await admin.list_consumer_group_offsets(group, partitions=places)
        return sum(max(0, place.offset) for place in offsets.values()) == sent

    try:
        events = [parse(EVENTS[message.header("ce_type")], message.value) for message in messages]
        for message, event in zip(messages, events, strict=True):
            await go_on(service, event, events)
            if message.topic in topics:
                await inject(kafka, [replace(message, topic=f"{space.prefix}-{message.topic}")])
                sent += 1
                await eventually(committed)
    finally:
        await admin.close()

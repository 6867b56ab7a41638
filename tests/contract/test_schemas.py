"""The public contract: what is committed is current, compatible, exampled, and says the truth about the code."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jsonschema
import pytest
from annotated_types import MaxLen
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from chassis.clock import utc_now
from eventbus.messages.event_size import MOST_EVENT_BYTES
from schemas import EVENTS, TOPICS, Envelope, MalformedEvent, parse, read_envelope, to_message
from schemas.artifacts import ARTIFACTS
from schemas.envelope import Event
from schemas.export import ROOT, incompatible, render, schema
from schemas.topics import EVERY_HTTP_SERVICE

EXAMPLES = sorted((ROOT / "examples").glob("*.v*/*.json"))
ARTIFACT_EXAMPLES = sorted((ROOT / "examples/artifacts").glob("*/*.json"))


def test_exported_files_are_current() -> None:
    stale = [path.name for path, text in render().items() if not path.exists() or path.read_text() != text]
    assert not stale, "run `python -m schemas.export`"


def test_no_file_is_left_of_an_event_that_is_gone() -> None:
    assert {path.name.removesuffix(".schema.json") for path in (ROOT / "json").glob("*.json")} == set(EVENTS)


def test_every_artifact_has_a_schema_and_an_example() -> None:
    exported = {path.name.removesuffix(".schema.json") for path in (ROOT / "json/artifacts").iterdir()}
    assert exported == {path.parent.name for path in ARTIFACT_EXAMPLES} == set(ARTIFACTS)


@pytest.mark.parametrize("path", ARTIFACT_EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_examples_of_artifacts_match_the_committed_schema_and_come_back_whole(path: Path) -> None:
    text = path.read_text()
    contract: TypeAdapter[Any] = TypeAdapter(ARTIFACTS[path.parent.name])
    artifact = contract.validate_json(text)
    assert contract.dump_python(artifact, mode="json", exclude_unset=True) == json.loads(text)
    committed = json.loads((ROOT / f"json/artifacts/{path.parent.name}.schema.json").read_text())
    jsonschema.validate(contract.dump_python(artifact, mode="json"), committed)


def test_every_event_has_an_example() -> None:
    assert {path.parent.name for path in EXAMPLES} == set(EVENTS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_examples_parse_and_match_the_committed_schema(path: Path) -> None:
    event_type = EVENTS[path.parent.name]
    event = parse(event_type, path.read_bytes())
    committed = json.loads((ROOT / "json" / f"{event_type.type}.schema.json").read_text())
    jsonschema.validate(event.model_dump(mode="json"), committed)
    assert event.aggregate_id


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_older_consumer_ignores_a_new_field(path: Path) -> None:
    newer = {**json.loads(path.read_text()), "a_field_of_the_future": 1}
    assert parse(EVENTS[path.parent.name], json.dumps(newer).encode()) == parse(
        EVENTS[path.parent.name], path.read_bytes()
    )


@pytest.mark.parametrize(
    ("change", "compatible"),
    [
        (lambda s: s["properties"].update(note={"type": "string"}), True),
        (lambda s: (s["properties"].update(note={"type": "string"}), s["required"].append("note")), False),
        (lambda s: s["properties"]["job_id"].update(type="integer"), False),
        (lambda s: (s["properties"].pop("job_id"), s["required"].remove("job_id")), False),
    ],
    ids=["optional field added", "required field added", "type changed", "field dropped"],
)
def test_the_compatibility_gate(change: object, compatible: bool) -> None:
    committed = schema(EVENTS["model.promoted.v1"], "model.promoted.v1")
    current = copy.deepcopy(committed)
    change(current)  # type: ignore[operator]
    assert (incompatible(committed, current) == []) is compatible


def _envelope() -> Envelope:
    return Envelope(
        id="evt_1",
        source="/sartor/ingest",
        type="file.deleted.v1",
        time=utc_now(),
        subject="file-1",
        seq=3,
        tenantid="t",
    )


def test_messages_are_cloudevents_in_binary_mode() -> None:
    """The CloudEvents SDK reads what we write."""
    key, value, headers = to_message(_envelope(), {"tenant_id": "t", "file_id": "file-1"})
    message = KafkaMessage(headers={name: text.encode() for name, text in headers.items()}, key=key, value=value)
    event = from_binary(message, JSONFormat())
    assert event.get_id() == "evt_1"
    assert event.get_type() == "file.deleted.v1"
    assert event.get_subject() == "file-1"
    assert event.get_data() == {"tenant_id": "t", "file_id": "file-1"}


def test_an_envelope_survives_the_wire() -> None:
    envelope = _envelope()
    _, _, headers = to_message(envelope, {})
    assert read_envelope([(name, text.encode()) for name, text in headers.items()]) == envelope


def test_an_event_of_the_installation_itself_has_no_tenant_and_can_be_read() -> None:
    """CloudEvents knows no empty attributes, so an empty one is left out."""
    envelope = _envelope().model_copy(update={"tenantid": ""})
    _, _, headers = to_message(envelope, {})
    assert "ce_tenantid" not in headers
    assert read_envelope(headers) == envelope


def test_a_message_without_attributes_is_malformed() -> None:
    with pytest.raises(MalformedEvent, match="source"):
        read_envelope({"ce_id": "1"})


def test_topic_names_hold_no_dots_and_events_are_unique() -> None:
    assert all("." not in topic.name and "_" not in topic.name for topic in TOPICS)
    assert len(EVENTS) == sum(len(topic.events) for topic in TOPICS)
    assert all(event.topic == topic.name for topic in TOPICS for event in topic.events)


@pytest.mark.parametrize("service", sorted({name for topic in TOPICS for name in (*topic.producers, *topic.consumers)}))
def test_the_catalogue_names_every_consumer(service: str, built: Callable[[str], FastAPI]) -> None:
    """What each service subscribes to in code is what `topics.py` says."""
    importlib.import_module(service)
    consumed = {event.topic for event in built(service).state.service.bus.consumed}
    own = {topic.name for topic in TOPICS if service in topic.producers}
    said = {topic.name for topic in TOPICS if service in topic.consumers}
    assert consumed - own == said - own
    assert said & own <= consumed
    assert set(EVERY_HTTP_SERVICE) >= set(TOPICS[0].consumers)


def _largest(annotation: Any, metadata: Sequence[Any] = ()) -> Any:
    """A value of this type that takes as much room as its schema admits; each character takes six bytes in JSON."""
    inner = [two for one in metadata if isinstance(one, FieldInfo) for two in one.metadata]
    most = next((one.max_length for one in [*metadata, *inner] if isinstance(one, MaxLen)), None)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _largest(arguments[0], arguments[1:])
    if origin is Literal:
        return max(arguments, key=len)
    if origin in (UnionType, Union):
        return max((_largest(one) for one in arguments), key=lambda value: len(json.dumps(value, default=str)))
    if origin is list:
        assert most is not None, "a list without a maximum"
        return [_largest(arguments[0])] * most
    if origin is dict:
        assert most is not None, "a dict without a maximum"
        key = _largest(arguments[0])
        return {f"{number:02}{key[2:]}": _largest(arguments[1]) for number in range(most)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _largest_of(annotation)
    if annotation is str:
        assert most is not None, "a text without a maximum"
        return "\x01" * most
    return {int: 2**63 - 1, float: 2.2250738585072014e-308, bool: False, type(None): None}[annotation]


def _largest_of(model: type[BaseModel]) -> BaseModel:
    values = {}
    for name, field in model.model_fields.items():
        try:
            values[name] = _largest(field.annotation, field.metadata)
        except AssertionError as error:
            raise AssertionError(f"{model.__name__}.{name}: {error}") from error
    return model.model_construct(**values)


@pytest.mark.parametrize("event_type", EVENTS.values(), ids=EVENTS)
def test_an_event_is_small_whatever_its_fields_hold(event_type: type[Event]) -> None:
    """Half of them come from people; a broker refuses more than 1 MiB, and ours 80 KiB."""
    data = _largest_of(event_type).model_dump(mode="json", warnings=False)
    jsonschema.validate(data, schema(event_type, event_type.type))
    _, value, _ = to_message(_envelope(), data)
    assert len(value) <= MOST_EVENT_BYTES


@pytest.mark.parametrize("event_type", [EVENTS["dataset.rejected.v1"], EVENTS["finetune.failed.v1"]])
def test_what_people_are_told_is_cut_and_is_text(event_type: type[Event]) -> None:
    ids = {"tenant_id": "t", "file_id": "file-1", "purpose": "user_data", "job_id": "ftjob-1", "code": "wrong"}
    event = event_type.model_validate({**ids, "message": "cut \ud83d" + "x" * 2_000_000})
    message = event.model_dump()["message"]
    assert message.startswith(r"cut \ud83dxxx")
    assert message.endswith("x…")
    assert len(message) == 2000

"""A dataset is handed on whole, from ingest to the evaluation; what earlier releases said and stored is understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from evaluator.domain import Evaluation
from evaluator.domain import Plan as Questions
from ingest.domain import Dataset
from registry.card import markdown
from registry.domain import Model
from registry.views import ModelCard
from schemas import (
    EVENTS,
    CarriesDataset,
    DatasetPrepared,
    DatasetRef,
    Event,
    FinetuneTrained,
    ModelRegistered,
    ObjectRef,
    RowCounts,
    parse,
)
from schemas.export import ROOT, schema
from stores.leases import Lease
from tests.contract.recordings import Recording, recordings
from trainer.domain import Adapter, Job, Text

CARRIERS = [DatasetPrepared, FinetuneTrained, ModelRegistered]
TENANT = "tenant_a"


def ref(name: str) -> ObjectRef:
    return ObjectRef(bucket="b", key=f"tenants/{TENANT}/{name}", sha256=name.ljust(64, "0"), size=1)


WHOLE = DatasetRef(
    dataset_id="ds-1",
    task="classification",
    manifest=ref("manifest"),
    train=ref("train"),
    validation=ref("validation"),
    heldout=ref("heldout"),
)
PREPARED = DatasetPrepared(
    tenant_id=TENANT,
    dataset=WHOLE,
    file_id="file-1",
    purpose="user_data",
    rows=RowCounts(train=80, validation=5, heldout=15),
)
ADAPTER = Adapter(
    adapter_id="ad-1", manifest=ref("adapter"), base_digest="d", trained_tokens=9, train_seconds=1, metrics={}
)


def without_whole(document: dict[str, Any]) -> dict[str, Any]:
    """A message or document as releases before `dataset` wrote it, at whatever depth."""
    return {
        name: without_whole(value) if isinstance(value, dict) else value
        for name, value in document.items()
        if not (name == "dataset" and "heldout" in document)
    }


def trained_on(text: Text | None = None) -> Job:
    job = Job(
        id="ftjob-1",
        tenant_id=TENANT,
        created_at=1,
        organization="o",
        base_model="b",
        training_file="file-1",
        seed=1,
        method="supervised" if text is None else "pretrain",
        lease=Lease(fence=1),
    )
    if text is None:
        job.enqueue(PREPARED, PREPARED, {"n_epochs": 1}, 2)
    else:
        job.enqueue_text(text, {"n_epochs": 1}, 2)
    job.start(3)
    job.finish_training(ADAPTER, 4)
    return job


def said(job: Job) -> FinetuneTrained:
    [event] = [one for one in job.take_pending() if isinstance(one, FinetuneTrained)]
    return event


def registered(model: Model) -> ModelRegistered:
    [event] = [one for one in model.take_pending() if isinstance(one, ModelRegistered)]
    return event


def over_kafka(event: Event) -> Any:
    return parse(type(event), event.model_dump_json().encode())


def test_what_ingest_says_of_a_dataset_arrives_whole_at_the_evaluation() -> None:
    """A part that the reference gains arrives too: nobody between names the parts."""
    trained = over_kafka(said(trained_on()))
    model = Model.register(trained, "acme", 5)
    evaluation = Evaluation.of(over_kafka(registered(model)), 6)
    assert evaluation.dataset == model.lineage.dataset == trained.dataset == WHOLE


def test_a_text_is_handed_on_as_a_dataset_of_itself() -> None:
    text = Text(file_id="file-1", kind="document", object=ref("text"))
    parts = dict.fromkeys(("manifest", "train", "heldout"), text.object)
    whole = DatasetRef(dataset_id="file-1", task="generation", **parts)
    assert over_kafka(said(trained_on(text))).dataset == whole
    assert whole.splits == [text.object, text.object]


@pytest.mark.parametrize("kind", CARRIERS)
def test_its_parts_stand_beside_it_for_consumers_of_version_1(kind: type[Event]) -> None:
    event = parse(kind, (ROOT / f"examples/{kind.type}/1.json").read_bytes())
    written = json.loads(event.model_dump_json())
    beside = {name: value for name, value in written.items() if name in WHOLE.model_fields_set}
    assert {"task", "train", "heldout"} <= set(beside)
    assert beside == {name: written["dataset"][name] for name in beside}
    document = schema(kind, kind.type)
    assert "dataset" in document["properties"]
    assert "dataset" not in document["required"], "an earlier release's message has none"


@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
def test_what_a_recorded_release_said_in_parts_is_read_whole(path: Any) -> None:
    read = []
    for message in Recording.load(path).messages:
        kind = EVENTS[message.header("ce_type")]
        if not issubclass(kind, CarriesDataset):
            continue
        written = without_whole(json.loads(message.value))
        event: Any = parse(kind, json.dumps(written).encode())
        parts = {**written, "manifest": written.get("dataset_manifest", written.get("manifest"))}
        expected = DatasetRef.model_validate({name: parts[name] for name in DatasetRef.model_fields if name in parts})
        assert (kind, event.dataset) == (kind, expected)
        assert kind is ModelRegistered or (event.dataset.dataset_id and event.dataset.manifest)
        read.append(kind)
    assert set(read) == set(CARRIERS)


@pytest.mark.parametrize("part", ["dataset_id", "task", "manifest", "train", "validation", "heldout"])
@pytest.mark.parametrize("release", ["before", "now"])
def test_a_message_without_one_of_its_parts_is_refused(part: str, release: str) -> None:
    document = json.loads(PREPARED.model_dump_json())
    if release == "before":
        document = without_whole(document)
        del document[part]
    else:
        del document["dataset"][part]
    with pytest.raises(ValidationError, match=rf"dataset.*{part}|dataset\n|{part}"):
        DatasetPrepared.model_validate(document)


def test_the_whole_one_counts_where_both_are_said() -> None:
    document = {**json.loads(PREPARED.model_dump_json()), "task": "generation", "dataset_id": "ds-other"}
    assert DatasetPrepared.model_validate(document).dataset == WHOLE


def stored(aggregate: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(aggregate.to_document())), "id": aggregate.id}


def aggregates() -> list[Any]:
    job = trained_on()
    model = Model.register(said(job), "acme", 5)
    evaluation = Evaluation.of(registered(model), 6)
    dataset = Dataset(id="ds-1", tenant_id=TENANT, created_at=1, prepared=PREPARED, card="", manifest={})
    return [dataset, job, model, evaluation]


@pytest.mark.parametrize("aggregate", aggregates(), ids=lambda one: type(one).__name__)
def test_a_document_of_an_earlier_release_loads_and_can_be_changed(aggregate: Any) -> None:
    earlier = without_whole(stored(aggregate))
    assert '"heldout"' in json.dumps(earlier)
    assert not any("dataset" in one and "heldout" in one for one in nested(earlier))
    loaded = type(aggregate).model_validate(earlier)
    assert without_whole(stored(loaded)) == earlier, "found by the same queries, read by the release before"
    loaded.tenant_id = "tenant_b"
    assert loaded.tenant_id == "tenant_b"


def nested(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [document, *(one for value in document.values() if isinstance(value, dict) for one in nested(value))]


def test_an_evaluation_of_an_earlier_release_goes_on_with_its_rows() -> None:
    *_, evaluation = aggregates()
    loaded = Evaluation.model_validate(without_whole(stored(evaluation)))
    loaded.begin(7)
    loaded.fix_plan(Questions(rows=[1], examples=[], systems=["base"], max_tokens=8, stop=[], seed=1))
    assert (loaded.dataset.train, loaded.dataset.heldout) == (WHOLE.train, WHOLE.heldout)
    assert (loaded.dataset.dataset_id, loaded.dataset.manifest) == ("", None), "that release did not say them"


def test_answers_and_cards_name_the_parts_as_before() -> None:
    _, _, model, _ = aggregates()
    for one in (model, Model.model_validate(without_whole(stored(model)))):
        card = ModelCard.of(one)
        assert (card.dataset_id, card.dataset_manifest, card.task) == ("ds-1", WHOLE.manifest, "classification")
        page = markdown(one)
        assert "| Dataset version | `ds-1` |" in page
        assert f"| Dataset manifest (sha256) | `{ref('manifest').sha256}` |" in page
        assert f"| Held-out rows (sha256) | `{ref('heldout').sha256}` |" in page

"""What may come in, what may be seen, and how deliveries end: without a stack."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from gateway_harness import drift, feedback

from chassis.auth import Principal
from chassis.clock import utc_now
from chassis.errors import Conflict, Forbidden, Invalid, SartorError
from chassis.ids import derived_id
from chassis.roles import ROLES, SCOPES
from event_gateway.domain import (
    VISIBLE,
    Delivery,
    Endpoint,
    Outcome,
    Received,
    Sent,
    checked_data,
    cloudevent_of,
    new_secret,
    readable_types,
    sample_event,
    webhook_body,
)
from event_gateway.domain.received import ID_PREFIXES
from event_gateway.sending import WebhookSender, is_outside
from schemas import EVENTS, PUBLISHABLE, Envelope, parse
from schemas.export import ROOT

PRODUCER = Principal("tenant_a", key_id="key_1", role="engineer", event_types=tuple(PUBLISHABLE))


def checked(event: dict[str, Any], producer: Principal = PRODUCER) -> Any:
    return checked_data(Sent.model_validate(event), producer)


def test_an_outsider_moves_no_model_no_right_and_no_bill() -> None:
    """Written by hand: whatever is added here, somebody decides."""
    assert set(PUBLISHABLE) == {"feedback.recorded.v1", "drift.detected.v1"} == set(ID_PREFIXES)


def test_what_is_published_is_the_tenants_and_says_who_said_it() -> None:
    event = checked(feedback("7"))
    assert (event.tenant_id, event.producer, event.rating) == ("tenant_a", "key_1", "down")
    assert event.feedback_id == derived_id("fb_", "tenant_a", "rating-7")
    other = checked(feedback("7"), Principal("tenant_b", key_id="key_2", event_types=tuple(PUBLISHABLE)))
    assert other.feedback_id != event.feedback_id
    assert checked(drift()).value == 0.3


REFUSED: dict[str, tuple[dict[str, Any], type[SartorError], str, str]] = {
    "a type that is ours": ({"type": "model.promoted.v1"}, Forbidden, "event_type_not_allowed", "type"),
    "a type that is none": ({"type": "model.exploded.v1"}, Invalid, "unknown_event_type", "type"),
    "another tenant in the attributes": ({"tenantid": "tenant_b"}, Forbidden, "foreign_tenant", "tenantid"),
    "another tenant in the data": ({"data.tenant_id": "tenant_b"}, Forbidden, "foreign_tenant", "data.tenant_id"),
    "a tenant that is no text": ({"data.tenant_id": ["tenant_a"]}, Forbidden, "foreign_tenant", "data.tenant_id"),
    "a producer of one's choice": ({"data.producer": "key_9"}, Invalid, "invalid_event_data", "data"),
    "a field that is not there": ({"data.comment": "bad answer"}, Invalid, "invalid_event_data", "data"),
    "a rating that is none": ({"data.rating": "sideways"}, Invalid, "invalid_event_data", "data.rating"),
    "a flag that is a word": ({"data.has_correction": "yes"}, Invalid, "invalid_event_data", "data.has_correction"),
    "no model": ({"data.model": None}, Invalid, "invalid_event_data", "data.model"),
    "a model that is too long": ({"data.model": "m" * 257}, Invalid, "invalid_event_data", "data.model"),
    "no id": ({"data.feedback_id": ""}, Invalid, "invalid_event_data", "data.feedback_id"),
    "another subject": ({"subject": "rating-2"}, Invalid, "invalid_event_data", "subject"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_refused_names_the_place(why: str) -> None:
    changes, kind, code, param = REFUSED[why]
    event = feedback()
    for name, value in changes.items():
        place, _, field = name.rpartition(".")
        if place == "data":
            event["data"][field] = value
        else:
            event[name] = value
    with pytest.raises(kind) as refused:
        checked(event)
    assert (type(refused.value), refused.value.code, refused.value.param) == (kind, code, param)


def test_a_key_publishes_the_types_it_names_and_no_others() -> None:
    for types in ((), ("drift.detected.v1",)):
        with pytest.raises(Forbidden, match="this key publishes"):
            checked(feedback(), Principal("tenant_a", key_id="k", event_types=types))
    # not even one of ours that a key was somehow given
    with pytest.raises(Forbidden):
        checked(feedback() | {"type": "key.revoked.v1"}, Principal("t", key_id="k", event_types=("key.revoked.v1",)))


def test_the_same_event_is_known_whatever_the_order_of_its_fields() -> None:
    sent = Sent.model_validate(feedback())
    received = Received.of(sent, checked(feedback()), PRODUCER, 1)
    received.expect(Sent.model_validate(dict(reversed(feedback().items()))))
    with pytest.raises(Conflict) as conflict:
        received.expect(Sent.model_validate(feedback(rating="up")))
    assert conflict.value.code == "event_id_reused"


# Of what is not named here a service outside learns nothing; each is decided.
OURS_ALONE = {
    "tenant.created.v1",
    "tenant.policy_changed.v1",
    "document.parsed.v1",
    "finetune.arm_fitted.v1",
    "finetune.trained.v1",
    "finetune.adapter_deleted.v1",
    "evaluation.evidence_deleted.v1",
    "adapter.resident.v1",
    "adapter.load_failed.v1",
    "adapter.evicted.v1",
    "replica.ready.v1",
    "chat.completed.v1",
}


def test_every_type_is_shown_or_is_ours_alone() -> None:
    assert set(EVENTS) == set(VISIBLE) | OURS_ALONE
    assert not set(VISIBLE) & OURS_ALONE
    assert {seen.scope for seen in VISIBLE.values()} <= SCOPES


def written(name: str) -> dict[str, str]:
    """Every field that an event is written with, and its type."""
    event = EVENTS[name]
    beside = {field: str(facts.return_type) for field, facts in event.model_computed_fields.items()}
    return {field: str(facts) for field, facts in event.model_fields.items()} | beside


@pytest.mark.parametrize("name", VISIBLE)
def test_what_is_shown_is_ids_numbers_and_fixed_words(name: str) -> None:
    """Texts of people (`Label`, `Sentence`) and places of objects have types of their own."""
    fields = written(name)
    shown = {field: fields[field] for field in VISIBLE[name].fields}
    assert [field for field, said in shown.items() if "BeforeValidator" in said or "ObjectRef" in said] == []
    assert "key_hash" not in shown


def test_the_reader_of_types_sees_texts_and_places() -> None:
    assert "BeforeValidator" in written("file.uploaded.v1")["filename"]
    assert "ObjectRef" in written("file.uploaded.v1")["object"]
    assert "ObjectRef" in written("model.registered.v1")["heldout"]


def test_a_role_reads_what_it_may_and_no_more() -> None:
    def reads(role: str) -> set[str]:
        return set(readable_types(Principal("t", role=role)))

    assert reads("owner") == reads("admin") == set(VISIBLE)
    assert "key.revoked.v1" not in reads("engineer")
    assert {name.split(".")[0] for name in reads("approver")} == {"model", "evaluation", "finetune", "drift"}
    assert readable_types(Principal("t", role="approver"), ["model.promoted.v1"]) == ["model.promoted.v1"]
    with pytest.raises(Forbidden):
        readable_types(Principal("t", role="approver"), ["file.uploaded.v1"])
    with pytest.raises(Invalid):
        readable_types(Principal("t"), ["model.exploded.v1"])
    assert [role for role, granted in ROLES.items() if "events:publish" in granted] == ["admin", "engineer"]


def test_a_key_reads_no_more_than_its_persons_role_of_today() -> None:
    def reads(role: str, owner_role: str) -> set[str]:
        return set(readable_types(Principal("t", role=role, owner_role=owner_role)))

    assert reads("engineer", "owner") == reads("engineer", "") > reads("engineer", "approver")
    assert reads("auditor", "engineer") < reads("auditor", "")
    assert "key.revoked.v1" in reads("auditor", "") - reads("auditor", "engineer")
    assert reads("engineer", "no role that is known") == set()


def example(name: str) -> Any:
    return parse(EVENTS[name], next((ROOT / "examples" / name).glob("*.json")).read_bytes())


def shown(name: str) -> dict[str, Any]:
    event = example(name)
    envelope = Envelope(
        id="evt_1", source="/sartor/x", type=name, time=utc_now(), subject=event.aggregate_id, seq=1, tenantid="t"
    )
    return cloudevent_of(envelope, event)


@pytest.mark.parametrize("name", VISIBLE)
def test_a_webhook_tells_what_can_be_read(name: str) -> None:
    body = json.loads(webhook_body(shown(name), 1_700_000_000))
    assert (body["object"], body["id"], body["created_at"]) == ("event", "evt_1", 1_700_000_000)
    assert body["data"]["id"] == example(name).aggregate_id
    assert set(sample_event(name)["data"]) <= set(body["data"])


def endpoint(**given: Any) -> Endpoint:
    fields = {"id": "we_1", "tenant_id": "t", "created_at": 1, "updated_at": 1, "name": "n", "url": "https://x.example"}
    return Endpoint(**{**fields, "event_types": ["fine_tuning.job.succeeded"], "secret": "a", **given})


def test_a_name_of_openais_stands_for_ours() -> None:
    assert endpoint().types == ["finetune.succeeded.v1"]


def test_a_delivery_is_tried_again_and_then_parked() -> None:
    delivery = Delivery.of(endpoint(), shown("finetune.succeeded.v1"), 1, 1)
    delivery.ended(Outcome(500, "answered 500"), 2, 3)
    delivery.ended(Outcome(None, "nobody answered"), 3, 3)
    assert (delivery.state, delivery.attempts) == ("waiting", 2)
    with pytest.raises(Conflict):
        delivery.replay()
    delivery.ended(Outcome(500, "answered 500"), 4, 3)
    assert (delivery.state, delivery.problem) == ("parked", "answered 500")
    delivery.replay()
    assert (delivery.state, delivery.attempts, delivery.replays) == ("waiting", 0, 1)
    delivery.ended(Outcome(204), 5, 3)
    assert (delivery.state, delivery.problem, delivery.status) == ("delivered", "", 204)


def test_a_secret_that_was_replaced_signs_for_a_day_where_that_is_asked_for() -> None:
    one = endpoint()
    one.rotate("b", 1000, keep=True)
    assert one.signing(1001) == ("b", "a")
    assert one.signing(1000 + 86_401) == ("b",)
    one.rotate("c", 1000, keep=False)
    assert one.signing(1001) == ("c",)


INSIDE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "64:ff9b:1::808:808",
    "2002:0a00:0001::1",
    "2002:a83f:8110::1",
    "2001:0:a00:1::",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:0:808:808:8000:63bf:f7f7:f7f7",
    "::ffff:168.63.129.16",
    "::ffff:0:8.8.8.8",
    "::8.8.8.8",
    "fec0::1",
    "feff::1",
    "5f00::1",
    "3fff::1",
    "2001:db8::1",
    "168.63.129.16",
    "100.127.255.255",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.88.99.1",
    "198.18.0.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_passes_for_one_outside(address: str) -> None:
    assert not is_outside(ipaddress.ip_address(address))


def test_an_address_outside_does() -> None:
    outside = ("8.8.8.8", "100.63.255.255", "168.63.129.17", "192.0.1.1", "2606:4700::1111", "64:ff9b::808:808")
    assert [one for one in outside if not is_outside(ipaddress.ip_address(one))] == []


WRONG = [
    "http://8.8.8.8/",
    "https://127.0.0.1/",
    "https://localhost/",
    "https://[::1]/",
    "https://2130706433/",
    "https://0x7f.1/",
    "https://user:secret@8.8.8.8/",
    "https://8.8.8.8/#part",
    "https://8.8.8.8:99999/",
    "https://8.8.8.8:0/",
    "https://" + "x" * 70 + ".example/",
    "https://exam℀ple.example/",
    "ftp://8.8.8.8/",
    "https://",
    "nonsense",
    "https://" + "x" * 2000,
]


@pytest.mark.parametrize("url", WRONG)
async def test_no_webhook_goes_inside_or_in_the_clear(url: str) -> None:
    sender = WebhookSender(to_inside=False, seconds=5)
    with pytest.raises(Invalid):
        await sender.check("t", url)
    outcome = await sender.send(endpoint(url=url, secret=new_secret()), "whd_1", "{}")
    assert outcome.status is None
    assert outcome.problem.startswith("url: ")
    await sender.close()

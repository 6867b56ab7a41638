"""Everybody finds their own pages and nobody else's; the pages by which an organization and an installation are run."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from console_harness import (
    BASE,
    CARD,
    GUEST,
    INVITED,
    KEY,
    LETTER,
    LINE,
    MODEL,
    ORGANIZATION,
    PERSON,
    RUN,
    Harness,
    page,
    token_of,
)
from fastapi import Request

from chassis.errors import Conflict, Forbidden, Invalid, Transient, Unauthenticated
from chassis.roles import ROLES
from console.routes.operator import services_of
from console.sessions import COOKIE
from console.settings import Settings
from console.web import address_of
from schemas.services import SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOMES = {
    "owner": "/",
    "admin": "/",
    "engineer": "/",
    "approver": "/",
    "viewer": "/",
    "end_user": "/",
    "labeler": "/labeling",
    "auditor": "/audit",
}
PAGES = {
    "owner": {"/", "/labeling", "/models", "/chat", "/people", "/keys", "/policy", "/events", "/audit"},
    "admin": {"/", "/labeling", "/models", "/chat", "/people", "/keys", "/policy", "/events", "/audit"},
    "engineer": {"/", "/labeling", "/models", "/chat", "/events"},
    "approver": {"/", "/models", "/events"},
    "labeler": {"/labeling"},
    "viewer": {"/", "/models", "/events"},
    "auditor": {"/", "/models", "/people", "/keys", "/policy", "/events", "/audit"},
    "end_user": {"/", "/models", "/chat"},
}
USERS = "/v1/organization/users"


def links_in(html: str) -> set[str]:
    nav = re.search(r'<nav id="navigation".*?</nav>', html, re.DOTALL)
    assert nav
    return set(re.findall(r'href="([^"]*)"', nav[0]))


async def test_every_role_is_known_here() -> None:
    assert set(HOMES) == set(PAGES) == set(ROLES) - {"operator"}


@pytest.mark.parametrize("role", sorted(HOMES))
async def test_everybody_signs_in_to_a_home_with_their_pages(harness: Harness, role: str) -> None:
    browser = await harness.sign_in(role=role)
    shown = await browser.get("/", follow_redirects=True)
    assert (shown.status_code, shown.url.path) == (200, HOMES[role])
    assert links_in(shown.text) == PAGES[role] | {"/account"}
    for place in (*PAGES[role], "/account"):
        opened = await browser.get(place, follow_redirects=True)
        assert opened.status_code == 200, place
        assert f'<a href="{opened.url.path}" data-key' in opened.text
        assert 'aria-current="page"' in opened.text


@pytest.mark.parametrize("role", sorted(HOMES))
async def test_a_home_asks_only_for_what_its_role_may_see(harness: Harness, role: str) -> None:
    browser = await harness.sign_in(role=role)
    harness.services.asked.clear()
    await browser.get("/", follow_redirects=True)
    files = harness.services.of("GET", "/v1/files")
    assert bool(files) is (role in ("owner", "admin", "engineer", "viewer", "end_user"))
    assert {asked.caller.role for asked in harness.services.asked} == {role}


async def test_a_viewer_finds_no_upload_box_and_no_chat(harness: Harness) -> None:
    shown = (await (await harness.sign_in(role="viewer")).get("/")).text
    assert 'id="upload"' not in shown
    assert 'href="/chat' not in shown
    assert "rows.jsonl" in shown


async def test_an_approver_finds_what_waits_with_every_answer(harness: Harness) -> None:
    waits = {**CARD, "state": "awaiting_approval", "waiting_for": "approval"}
    harness.services.answers["GET", "/v1/registry/models"] = lambda query: page(
        *([waits] if query.get("state") == "awaiting_approval" else [])
    )
    harness.services.answers["GET", f"/v1/registry/models/{MODEL}"] = waits
    score = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    run = {**RUN, "status": "completed", "metric": "accuracy", "reason": "Close.", "evidence": {"key": "k"}}
    run["scores"] = {"base": score, "candidate": score}
    recall = {"base": {**score, "value": 0.125}, "candidate": {**score, "value": 0.625}}
    run["metrics"] = {"accuracy": run["scores"], "macro_recall": recall}
    harness.services.answers["GET", "/v1/evals/evaluations"] = page(run)
    rows = [row(number, base="refund" if number == 1 else "none", candidate="refund") for number in range(25)]
    harness.services.answers["GET", "/v1/evals/evaluations/eval-1/evidence"] = {"rows": rows, "classes": CLASSES}
    browser = await harness.sign_in(role="approver")
    home = (await browser.get("/")).text
    assert "Waiting for a decision" in home
    assert "See the evidence and decide" in home
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert shown.count('class="card answers"') == 20
    assert "question 1?" not in shown  # its answers agree, so it comes last
    assert shown.index("Does it go into use?") < shown.index("Answers, row by row")
    besides = shown[shown.index("Measured besides") : shown.index("The 20 weakest of 30 answers.")]
    assert "Recall, mean over answers" in besides
    assert "0.12 <small>0.10 – 0.90</small>" in besides
    assert "0.62 <small>0.10 – 0.90</small>" in besides
    assert "Accuracy" not in besides, "what decides stands in its own table alone"
    assert shown.index(">class 29<") < shown.index(">class 10<")
    assert ">class 9<" not in shown
    older = (await browser.get(f"/models/{MODEL}?row=20")).text
    assert "Rows 21 to 25 of 25" in older
    assert "question 1?" in older
    assert "Earlier answers" in older


CLASSES = {
    "candidate": [
        {"name": f"class {n}", "rows": 3, "answered": 2, "precision": 0.5, "recall": 0.4, "f1": 1 - n / 30}
        for n in range(30)
    ]
}


def row(number: int, **answers: str) -> dict[str, Any]:
    return {
        "row": number,
        "messages": [
            {"role": "system", "content": "Name the intent."},
            {"role": "user", "content": f"question {number}?"},
        ],
        "reference": "refund",
        "answers": {system: {"text": text} for system, text in answers.items()},
    }


async def test_a_page_of_another_role_says_who_can_give_the_right(harness: Harness) -> None:
    lacks = Forbidden("This key has role 'viewer'.", param="organization:read")
    harness.services.answers["GET", "/v1/organization/keys"] = lacks
    answer = await (await harness.sign_in(role="viewer")).get("/keys")
    assert answer.status_code == 403
    assert "You are signed in as <strong>viewer</strong>" in answer.text
    assert "These roles may do it: owner, admin, auditor." in answer.text
    harness.services.answers["GET", "/v1/organization/keys"] = Forbidden("Not now.")
    assert "These roles" not in (await (await harness.sign_in()).get("/keys")).text
    assert 'href="/"' in answer.text
    labeler = await harness.sign_in(role="labeler")
    assert '<a href="/labeling">Back home</a>' in (await labeler.get("/nothing")).text


async def test_owners_invite_and_change_people(harness: Harness) -> None:
    browser = await harness.sign_in()
    shown = (await browser.get("/people")).text
    assert PERSON["email"] in shown
    assert "invited, not come yet" in shown
    token = token_of(shown)
    harness.services.answers["POST", USERS] = INVITED
    invited = await browser.post("/people", data={"form_token": token, "email": GUEST["email"], "role": "viewer"})
    assert "http://127.0.0.1:8080/join#c0de" in invited.text
    assert harness.services.of("POST", USERS)[-1].json == {"email": GUEST["email"], "role": "viewer"}

    one = f"{USERS}/{PERSON['id']}"
    harness.services.answers["PATCH", one] = PERSON
    harness.services.answers["POST", f"{one}/reset_password"] = INVITED
    for fields, asked in (
        ({"role": "viewer"}, {"role": "viewer"}),
        ({"disabled": "true"}, {"disabled": True}),
        ({"disabled": "false"}, {"disabled": False}),
    ):
        answer = await browser.post(f"/people/{PERSON['id']}", data={"form_token": token, **fields})
        assert answer.headers["location"] == "/people"
        assert harness.services.of("PATCH", one)[-1].json == asked
    reset = await browser.post(f"/people/{PERSON['id']}", data={"form_token": token, "reset": "1"})
    assert "/join#c0de" in reset.text


@pytest.mark.parametrize(
    "error", [Conflict("This is the last owner."), Forbidden("You may not."), Invalid("No address.")]
)
async def test_what_may_not_be_done_to_people_is_said_on_their_page(harness: Harness, error: Exception) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/people")).text)
    harness.services.answers["POST", USERS] = error
    harness.services.answers["PATCH", f"{USERS}/user_1"] = error
    for place, fields in (("/people", {"email": "x", "role": "owner"}), ("/people/user_1", {"role": "viewer"})):
        answer = await browser.post(place, data={"form_token": token, **fields})
        assert answer.status_code == error.status  # type: ignore[attr-defined]
        assert str(error) in answer.text
        assert PERSON["email"] in answer.text


async def test_who_only_reads_people_gets_no_buttons(harness: Harness) -> None:
    browser = await harness.sign_in(role="auditor")
    for place in ("/people", "/keys", "/policy"):
        shown = (await browser.get(place)).text
        assert "<button>" not in shown, place
        assert [form for form in re.findall(r"<form[^>]*>", shown) if place in form and place != "/policy"] == []


async def test_pages_after_a_form_go_on_in_their_list(harness: Harness) -> None:
    """The address is that of the form then, where no list is."""
    browser = await harness.sign_in()
    token = token_of((await browser.get("/people")).text)
    harness.services.answers["GET", USERS] = page(PERSON, more=True)
    harness.services.answers["POST", f"{USERS}/user_1/reset_password"] = INVITED
    shown = (await browser.post("/people/user_1", data={"form_token": token, "reset": "1"})).text
    assert 'href="/people?after=user_1"' in shown
    harness.services.answers["DELETE", f"{USERS}/user_2"] = {"deleted": True}
    gone = await browser.post("/people/user_2", data={"form_token": token, "withdraw": "1"})
    assert gone.headers["location"] == "/people"


async def test_what_is_refused_is_said_where_it_was_asked(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/people")).text)
    harness.services.answers["POST", "/v1/organization/keys"] = Forbidden("Too many keys.", code="too_many_keys")
    harness.services.answers["PATCH", "/v1/organization"] = Invalid("No such base model.")
    for verb in ("approve", "pin"):
        harness.services.answers["POST", f"/v1/registry/models/{MODEL}/{verb}"] = Conflict("It was decided already.")
    for place, fields, heading in (
        ("/keys", {"name": "nightly"}, 'value="nightly"'),
        ("/policy", {"gate": "auto"}, "<h1>Policy</h1>"),
        ("/decide", {"model": MODEL, "approve": "1"}, f"<h1><code>{MODEL}"),
        ("/pin", {"model": MODEL, "pin": "1"}, f"<h1><code>{MODEL}"),
    ):
        answer = await browser.post(place, data={"form_token": token, **fields})
        assert answer.status_code >= 400
        assert 'role="alert"' in answer.text
        assert heading in answer.text


async def test_a_base_that_is_there_no_more_stays_the_policys_until_somebody_chooses(harness: Harness) -> None:
    kept = {**ORGANIZATION, "policy": {"tune_on_upload": True, "gate": "auto", "base_model": "gone-1b"}}
    harness.services.answers["GET", "/v1/organization"] = kept
    assert "<option selected>gone-1b</option>" in (await (await harness.sign_in()).get("/policy")).text


async def test_answers_that_cannot_be_read_are_said_to_be_so(harness: Harness) -> None:
    run = {**RUN, "status": "completed", "reason": "Close.", "scores": {}, "metric": None, "evidence": {"key": "k"}}
    harness.services.answers["GET", "/v1/evals/evaluations"] = page(run)
    harness.services.answers["GET", "/v1/evals/evaluations/eval-1/evidence"] = Transient("evaluator cannot be reached")
    shown = await (await harness.sign_in()).get(f"/models/{MODEL}")
    assert (shown.status_code, "The answers cannot be shown: evaluator" in shown.text) == (200, True)


async def test_an_admin_is_offered_no_owners(harness: Harness) -> None:
    shown = (await (await harness.sign_in(role="admin")).get("/people")).text
    assert 'value="owner"' not in shown
    assert {f'value="{role}"' in shown for role in ROLES if role not in ("owner", "operator")} == {True}


async def test_an_invitation_leads_into_a_session(harness: Harness) -> None:
    person = {
        "tenant_id": "tenant_a",
        "user_id": "user_2",
        "role": "viewer",
        "email": "gast@example.org",
        "organization": "kumo",
        "name": "Kumo Cycles",
        "password_changed_at": 5,
    }
    harness.services.answers["POST", "/internal/users/join"] = person
    joined = await harness.http.post("/join", data={"code": "c0de", "password": "correct horse battery"})
    assert (joined.status_code, joined.headers["location"]) == (303, "/")
    harness.services.answers["POST", "/internal/users/join"] = Unauthenticated("This code is not known.")
    refused = await harness.http.post("/join", data={"code": "c0de", "password": "correct horse battery"})
    assert refused.status_code == 401
    assert "This code is not known." in refused.text
    assert 'value="c0de"' in refused.text
    harness.services.answers["POST", "/internal/users/look"] = {
        "email": "g@b.example",
        "role": "viewer",
        "name": "Kumo",
    }
    assert (await harness.http.post("/join/look", data={"code": "c0de"})).json()["email"] == "g@b.example"


async def test_who_comes_in_again_leaves_no_session_behind(harness: Harness) -> None:
    browser = await harness.sign_in()
    before = browser.cookies[COOKIE]
    answer = await browser.post("/sign-in", data={"email": "rider@example.org", "password": "correct horse"})
    assert answer.status_code == 303
    async with httpx2.AsyncClient(base_url=harness.url, headers={"accept": "text/html"}) as other:
        assert (await other.get("/account", cookies={COOKIE: before})).headers["location"] == "/sign-in"


async def test_the_code_of_an_invitation_reaches_no_address(harness: Harness) -> None:
    """It stands behind the #, which browsers send to nobody; the script reads it."""
    assert "location.hash" in (await harness.http.get("/static/join.js")).text
    assert 'src="/static/join.js"' in (await harness.http.get("/join")).text


async def test_another_password_ends_the_other_sessions(harness: Harness) -> None:
    here, there = await harness.sign_in(), await harness.sign_in()
    token = token_of((await here.get("/account")).text)
    known = {"user_id": "user_of_tenant_a", "email": "rider@example.org", "role": "owner", "disabled": False}
    known |= {"tenant_id": "tenant_a", "organization": "kumo", "name": "Kumo Cycles", "password_changed_at": 9}
    harness.services.answers["POST", "/internal/users/user_of_tenant_a/password"] = known
    harness.services.answers["GET", "/internal/users/user_of_tenant_a"] = known
    changed = await here.post("/account", data={"form_token": token, "current": "a", "new": "b"})
    assert changed.headers["location"] == "/account?changed=true"
    [asked] = harness.services.of("POST", "/internal/users/user_of_tenant_a/password")
    assert asked.json == {"current": "a", "new": "b", "address": "127.0.0.1"}
    before = datetime.now(UTC) - timedelta(seconds=61)
    await harness.database["sessions"].update_many({}, {"$set": {"checked_at": before}})
    assert (await here.get("/account")).status_code == 200
    assert (await there.get("/account")).headers["location"] == "/sign-in"


async def test_a_rotated_key_is_shown_once_with_the_end_of_the_one_before(harness: Harness) -> None:
    rotate = ("POST", "/v1/organization/keys/key_1/rotate")
    harness.services.answers[rotate] = {**KEY, "api_key": "sk-sartor-rotated"}
    browser = await harness.sign_in()
    shown = (await browser.get("/keys")).text
    assert "sk-…wxyz</code> too, until 2023-11-14 22:13 UTC" in shown
    for grace, asked in (("3600", {"grace_seconds": 3600}), ("soon", {}), ("", {})):
        done = await browser.post("/keys/key_1/rotate", data={"form_token": token_of(shown), "grace": grace})
        assert "sk-sartor-rotated" in done.text
        assert harness.services.of(*rotate)[-1].json == asked
    assert "sk-sartor-rotated" not in (await browser.get("/keys")).text
    harness.services.answers[rotate] = Conflict("This key has ended.", code="key_ended")
    refused = await browser.post("/keys/key_1/rotate", data={"form_token": token_of(shown), "grace": "0"})
    assert (refused.status_code, "This key has ended." in refused.text) == (409, True)
    assert "Rotate" not in (await (await harness.sign_in(role="auditor")).get("/keys")).text


async def test_a_policy_is_shown_and_changed(harness: Harness) -> None:
    browser = await harness.sign_in()
    shown = (await browser.get("/policy")).text
    assert '<option value="approval" selected>' in shown
    assert f"<option>{BASE['id']}</option>" in shown
    harness.services.answers["PATCH", "/v1/organization"] = ORGANIZATION
    fields = {"form_token": token_of(shown), "tune_on_upload": "false", "gate": "auto", "base_model": BASE["id"]}
    assert (await browser.post("/policy", data=fields)).headers["location"] == "/policy?saved=true"
    asked = harness.services.of("PATCH", "/v1/organization")[-1].json
    assert asked == {"tune_on_upload": False, "gate": "auto", "base_model": BASE["id"]}


async def test_the_trail_names_people_and_says_whether_it_is_whole(harness: Harness) -> None:
    browser = await harness.sign_in(role="auditor")
    shown = (await browser.get("/audit")).text
    assert re.search(r"2023-11-14 22:13 UTC</time></td><td>mika@example.org</td><td[^>]*><code>user.invite", shown)
    assert "none is missing" in shown
    trail = ("GET", "/v1/organization/audit_logs")
    harness.services.answers[trail] = {**page(LINE), "intact": False}
    assert "A line was changed" in (await browser.get("/audit?verify=true")).text
    assert harness.services.of(*trail)[-1].query["verify"] == "true"


async def test_the_operator_comes_in_by_their_key(harness: Harness) -> None:
    browser = await harness.operate()
    assert harness.services.of("POST", "/internal/keys/operator")
    home = await browser.get("/", follow_redirects=True)
    assert (home.url.path, links_in(home.text)) == (
        "/operator",
        {"/operator", "/operator/tenants", "/operator/dead-letters"},
    )
    harness.services.answers["POST", "/internal/keys/operator"] = Unauthenticated("Not the operator's.")
    refused = await harness.http.post("/operator/sign-in", data={"key": "sk-sartor-owner"})
    assert (refused.status_code, "Not the operator&#39;s." in refused.text) == (401, True)


@pytest.mark.parametrize(
    "place", ["/people", "/keys", "/policy", "/audit", "/account", "/models", "/chat", "/labeling"]
)
async def test_the_operator_finds_no_page_of_an_organization(harness: Harness, place: str) -> None:
    browser = await harness.operate()
    harness.services.asked.clear()
    assert (await browser.get(place)).status_code == 403
    assert harness.services.asked == []


async def test_the_operators_session_ends_with_the_key(harness: Harness) -> None:
    browser = await harness.operate()
    assert (await browser.get("/operator")).status_code == 200
    before = datetime.now(UTC) - timedelta(seconds=61)
    await harness.database["sessions"].update_many({}, {"$set": {"checked_at": before}})
    harness.services.answers["POST", "/internal/keys/verify"] = Unauthenticated("revoked")
    assert (await browser.get("/operator")).headers["location"] == "/sign-in"


@pytest.mark.parametrize("place", ["/operator", "/operator/tenants", "/operator/dead-letters"])
async def test_the_operators_pages_are_for_the_operator(harness: Harness, place: str) -> None:
    assert (await harness.http.get(place)).headers["location"] == "/sign-in"
    for role in HOMES:
        assert (await (await harness.sign_in(role=role)).get(place)).status_code == 403
    shown = await (await harness.operate()).get(place)
    assert shown.status_code == 200
    operator = [asked.caller for asked in harness.services.asked if asked.path.startswith("/v1/organization")]
    assert all((it.role, it.tenant_id, it.key_id) == ("operator", "", "key_op") for it in operator)


async def test_the_operator_sees_which_service_needs_a_look(harness: Harness) -> None:
    browser = await harness.operate()
    shown = (await browser.get("/operator")).text
    assert "All are ready." in shown, shown
    harness.services.answers["GET", "/readyz"] = Transient("no database")
    shown = (await browser.get("/operator")).text
    assert "Needs a look: inference proxy, ingest" in shown


async def test_a_service_beside_an_engine_is_looked_at_where_there_is_that_engine() -> None:
    def looked_at(settings: Settings) -> set[str]:
        return set(services_of(lambda name: SimpleNamespace(url=getattr(settings, f"{name}_url"))))  # type: ignore[arg-type, return-value]

    assert looked_at(Settings()) == set(SERVICES) - {"console", "serving_agent"}
    assert looked_at(Settings(serving_agent_url="http://serving-agent:8000")) == set(SERVICES) - {"console"}


async def test_the_operator_makes_tenants_and_lets_owners_in(harness: Harness) -> None:
    browser = await harness.operate()
    token = token_of((await browser.get("/operator/tenants")).text)
    tenants = "/v1/organization/tenants"
    harness.services.answers["POST", tenants] = {**ORGANIZATION, "owner": INVITED}
    harness.services.answers["POST", f"{tenants}/tenant_a/owners"] = INVITED
    harness.services.answers["PATCH", f"{tenants}/tenant_a"] = ORGANIZATION
    made = await browser.post("/operator/tenants", data={"form_token": token, "name": "Kumo", "email": "a@b.example"})
    assert "/join#c0de" in made.text
    assert harness.services.of("POST", tenants)[-1].json == {"name": "Kumo", "owner": "a@b.example"}
    again = await browser.post("/operator/tenants/tenant_a/owners", data={"form_token": token, "email": "c@b.example"})
    assert "/join#c0de" in again.text
    asked = [one.json["email"] for one in harness.services.of("POST", f"{tenants}/tenant_a/owners")]
    assert asked == ["c@b.example"]
    limits = {"requests_per_minute": "5", "tokens_per_minute": "6", "keys": "7", "people": "8"}
    changed = await browser.post("/operator/tenants/tenant_a/limits", data={"form_token": token, **limits})
    assert changed.headers["location"] == "/operator/tenants"
    assert harness.services.of("PATCH", f"{tenants}/tenant_a")[-1].json == dict(zip(limits, (5, 6, 7, 8), strict=True))


async def test_the_operator_sends_a_dead_letter_back(harness: Harness) -> None:
    browser = await harness.operate()
    shown = (await browser.get("/operator/dead-letters")).text
    assert LETTER["reason"] in shown
    place = f"/v1/organization/dead_letters/{LETTER['id']}/replay"
    harness.services.answers["POST", place] = LETTER
    answer = await browser.post(f"/operator/dead-letters/{LETTER['id']}/replay", data={"form_token": token_of(shown)})
    assert answer.headers["location"] == "/operator/dead-letters"
    assert len(harness.services.of("POST", place)) == 1


@pytest.mark.parametrize(
    "place",
    [
        "/operator/tenants",
        "/operator/tenants/tenant_a/owners",
        "/operator/tenants/tenant_a/limits",
        "/operator/dead-letters/x/replay",
    ],
)
async def test_no_other_site_operates(harness: Harness, place: str) -> None:
    browser: httpx2.AsyncClient = await harness.operate()
    harness.services.asked.clear()
    answer = await browser.post(place, data={"name": "x", "email": "a@b.example", "keys": "5"})
    assert answer.status_code == 403
    assert harness.services.asked == []


@pytest.mark.parametrize(
    ("host", "counted"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("testclient", "testclient")],
)
async def test_one_line_is_one_address(host: str, counted: str) -> None:
    scope = {"type": "http", "client": (host, 1), "headers": [], "method": "GET", "path": "/"}
    assert address_of(Request(scope)) == counted

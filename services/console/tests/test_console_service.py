"""The console's pages: who sees them, what they show, and what they ask of the other services."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urljoin

import httpx2
import pytest
from console_harness import (
    BASE,
    CARD,
    FILE,
    JOB,
    KEY,
    MODEL,
    OWN,
    PERSON,
    PROJECT,
    REFUSED,
    RUN,
    WAITS,
    WEBHOOK,
    Harness,
    at,
    chunks,
    event,
    page,
    token_of,
)
from fastapi.responses import StreamingResponse

from chassis.errors import Conflict, Forbidden, Invalid, NotFound, RateLimited, SartorError, Transient
from chassis.limits import Allowance
from console.routes.play import LONGEST_TEXT
from console.sessions import COOKIE
from console.web import MOST_FIELDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = [
    *("/", "/files/file-1", "/models", f"/models/{MODEL}", "/chat", "/labeling", "/labeling/lp-1"),
    *("/people", "/keys", "/policy", "/events", "/audit", "/account"),
    *("/files/file-1/delete", f"/models/{MODEL}/delete", "/labeling/lp-1/delete"),
]
FORMS = [
    ("/sign-out", {}),
    ("/keys", {"name": "x"}),
    ("/keys/key_1/revoke", {}),
    ("/keys/key_1/rotate", {"grace": "0"}),
    ("/labeling/lp-1/labels", {"labels": "a"}),
    ("/labeling/lp-1/publish", {}),
    ("/labeling/lp-1/delete", {"name": "Intents"}),
    ("/labeling/feedback/fb_1/delete", {}),
    ("/files/file-1/delete", {"name": "rows.jsonl"}),
    (f"/models/{MODEL}/delete", {"name": MODEL}),
    ("/labeling/lp-1/lt-1", {"answer": "refund"}),
    ("/decide", {"model": MODEL, "approve": "1"}),
    ("/pin", {"model": MODEL, "pin": "1"}),
    ("/people", {"email": "a@b.example", "role": "viewer"}),
    ("/people/user_1", {"role": "viewer"}),
    ("/people/user_1", {"reset": "1"}),
    ("/policy", {"gate": "auto"}),
    ("/account", {"current": "x", "new": "y"}),
    ("/events/producers", {"name": "survey"}),
    ("/events/webhooks", {"name": "x", "url": "https://x.example", "types": "model.promoted.v1"}),
    ("/events/webhooks/we_1", {"delete": "true"}),
    ("/events/webhooks/we_1/deliveries/whd_1/replay", {}),
]
BODIES = {
    "/chat/say": {"model": MODEL, "message": "hi", "system": ""},
    "/chat/rate": {"completion_id": "c", "rating": "up"},
    "/chat/take-back": {"feedback_id": "fb_1"},
}
EVIL = '<script>alert("x")</script>'


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_for_people_who_are_signed_in(harness: Harness, path: str) -> None:
    assert (await harness.http.get(path)).headers["location"] == "/sign-in"
    assert harness.services.asked == []
    shown = await (await harness.sign_in()).get(path)
    assert shown.status_code == 200
    assert "Kumo Cycles" in shown.text
    asked = {(asked.caller.tenant_id, asked.caller.user_id) for asked in harness.services.asked[1:]}
    assert asked == (set() if path == "/account" else {("tenant_a", "user_of_tenant_a")})


@pytest.mark.parametrize("path", [*PAGES, "/sign-in", "/sign-up", "/join", "/operator/sign-in", "/nothing/here"])
async def test_every_page_has_the_security_headers(harness: Harness, path: str) -> None:
    browser = harness.http if path not in (*PAGES, "/nothing/here") else await harness.sign_in()
    headers = (await browser.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")
    assert headers["cache-control"] == "no-store"


async def test_nothing_is_loaded_from_elsewhere(harness: Harness) -> None:
    browser = await harness.sign_in()
    for path in PAGES:
        assert "//" not in (await browser.get(path)).text.replace("<!doctype html>", "")


@pytest.mark.parametrize(("secure", "mark"), [(False, False), (True, True)])
async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    harness: Harness, secure: bool, mark: bool
) -> None:
    await harness.sign_in()
    async with httpx2.AsyncClient(base_url=harness.secure_url if secure else harness.url) as http:
        answer = await http.post("/sign-in", data={"email": "rider@example.org", "password": "correct horse"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert ("secure" in cookie) is mark


async def test_only_the_hash_of_a_cookie_is_stored_and_signing_out_ends_it(harness: Harness) -> None:
    browser = await harness.sign_in()
    cookie = browser.cookies[COOKIE]
    stored = [str(session) async for session in harness.database["sessions"].find()]
    assert stored
    assert not any(cookie in session for session in stored)
    answer = await browser.post("/sign-out", data={"form_token": token_of((await browser.get("/")).text)})
    assert answer.headers["location"] == "/sign-in"
    html = {"accept": "text/html"}
    async with httpx2.AsyncClient(base_url=harness.url, cookies={COOKIE: cookie}, headers=html) as thief:
        assert (await thief.get("/")).headers["location"] == "/sign-in"


ACCOUNT = ("GET", "/internal/users/user_of_tenant_a")
CEILING = {"of": "tenant_a", "requests_per_minute": 60, "tokens_per_minute": 90}
KNOWN = {
    "user_id": "user_of_tenant_a",
    "email": "rider@example.org",
    "role": "owner",
    "disabled": False,
    "allowances": [CEILING],
}


async def a_minute_later(harness: Harness) -> None:
    """Every session was last checked some time ago."""
    before = datetime.now(UTC) - timedelta(seconds=61)
    await harness.database["sessions"].update_many({}, {"$set": {"checked_at": before}})


async def test_a_changed_role_holds_within_a_minute(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers[ACCOUNT] = {**KNOWN, "role": "viewer"}
    await browser.get("/keys")
    assert harness.services.of(*ACCOUNT) == []
    await a_minute_later(harness)
    for _ in range(2):
        await browser.get("/keys")
        assert harness.services.of("GET", "/v1/organization/keys")[-1].caller.role == "viewer"
    [asked] = harness.services.of(*ACCOUNT)
    assert asked.caller.tenant_id == "tenant_a"


async def test_a_person_counts_for_their_tenant_also_in_a_session_of_an_earlier_release(harness: Harness) -> None:
    browser = await harness.sign_in()
    await harness.database["sessions"].update_many({}, {"$unset": {"allowances": ""}})
    await browser.get("/keys")
    assert harness.services.of("GET", "/v1/organization/keys")[-1].caller.allowances == ()
    harness.services.answers[ACCOUNT] = KNOWN
    await a_minute_later(harness)
    for _ in range(2):
        await browser.get("/keys")
        assert harness.services.of("GET", "/v1/organization/keys")[-1].caller.allowances == (Allowance(**CEILING),)


@pytest.mark.parametrize("known", [{**KNOWN, "disabled": True}, NotFound("No such person.")])
async def test_the_session_of_somebody_shut_out_ends_within_a_minute(harness: Harness, known: Any) -> None:
    browser = await harness.sign_in()
    harness.services.answers[ACCOUNT] = known
    await a_minute_later(harness)
    assert (await browser.get("/keys")).headers["location"] == "/sign-in"
    harness.services.answers[ACCOUNT] = KNOWN
    assert (await browser.get("/keys")).headers["location"] == "/sign-in"


async def test_what_is_known_holds_while_accounts_is_away(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers[ACCOUNT] = Transient("accounts cannot be reached; try again shortly.")
    await a_minute_later(harness)
    for _ in range(2):
        assert (await browser.get("/keys")).status_code == 200
    assert len(harness.services.of(*ACCOUNT)) == 1


async def test_who_watches_is_looked_at_again(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers[ACCOUNT] = {**KNOWN, "disabled": True}
    async with asyncio.timeout(15), browser.stream("GET", "/files/file-1/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                await a_minute_later(harness)
    assert len(harness.services.of(*ACCOUNT)) == 1


@pytest.mark.parametrize("path", ["/sign-in", "/sign-up", "/join", "/operator/sign-in"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "same-site", "origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"origin": "{url}"}, 303),
        ({"origin": "https://sartor.example", "sec-fetch-site": "cross-site"}, 303),
        ({}, 303),
    ],
)
async def test_nobody_is_signed_in_by_another_site(
    harness: Harness, path: str, headers: dict[str, str], status: int
) -> None:
    await harness.sign_in()
    person = harness.services.answers["POST", "/internal/users/sign_in"]
    for place in ("/internal/users/sign_up", "/internal/users/join", "/internal/keys/operator"):
        harness.services.answers["POST", place] = {**person, "key_id": "key_op"}
    harness.services.asked.clear()
    own = {name: value.format(url=harness.secure_url) for name, value in headers.items()}
    async with httpx2.AsyncClient(base_url=harness.secure_url, headers={"accept": "text/html"}) as victim:
        answer = await victim.post(path, data={"email": "thief@example.org", "password": "x"}, headers=own)
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) is (status == 303)
    if status == 403:
        assert "a page of another site" in answer.text
        assert harness.services.asked == []


@pytest.mark.parametrize(
    "refusal", [Forbidden("Nobody can sign up here."), RateLimited("Too many people sign up. Try again in an hour.")]
)
async def test_a_sign_up_that_is_not_allowed_says_so_on_its_page(harness: Harness, refusal: SartorError) -> None:
    harness.services.answers["POST", "/internal/users/sign_up"] = refusal
    answer = await harness.http.post("/sign-up", data={"organization": "Kumo", "email": "rider@example.org"})
    assert answer.status_code == refusal.status
    assert refusal.message in answer.text
    assert 'value="Kumo"' in answer.text


async def test_a_form_has_few_fields_and_no_files(harness: Harness) -> None:
    harness.services.answers["POST", "/internal/users/sign_in"] = Invalid("That is not right.")
    many = {f"field{n}": (None, "x") for n in range(MOST_FIELDS + 1)}
    for body in ({"files": many}, {"files": {"email": ("a.txt", b"x")}}):
        answer = await harness.http.post("/sign-in", **body)
        assert (answer.status_code, "Too many" in answer.text) == (400, True)
    assert harness.services.asked == []


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/chat/say"), ("POST", "/chat/rate"), ("POST", "/upload"), ("GET", "/files/f/events")]
)
async def test_a_script_is_told_that_the_session_is_over(harness: Harness, method: str, path: str, accept: str) -> None:
    answer = await harness.http.request(method, path, json=BODIES.get(path), headers={"accept": accept})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "signed_out")


@pytest.mark.parametrize("where", ["sign_in", "sign_up"])
async def test_a_refused_person_keeps_what_they_typed_but_the_password(harness: Harness, where: str) -> None:
    harness.services.answers["POST", f"/internal/users/{where}"] = Invalid("That is not right.")
    fields = {"organization": EVIL, "email": "rider@example.org", "password": "hunter2hunter2"}
    answer = await harness.http.post(f"/{where.replace('_', '-')}", data=fields)
    assert answer.status_code == 400
    assert "That is not right." in answer.text
    assert "rider@example.org" in answer.text
    assert "hunter2" not in answer.text
    assert EVIL not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(("path", "fields"), FORMS)
async def test_a_form_of_another_site_does_nothing(harness: Harness, path: str, fields: dict[str, str]) -> None:
    browser, other = await harness.sign_in(), await harness.sign_in("tenant_b")
    theirs = token_of((await other.get("/keys")).text)
    harness.services.asked.clear()
    for token in ({}, {"form_token": ""}, {"form_token": theirs}, {"form_token": "é" * 64}):
        assert (await browser.post(path, data=fields | token)).status_code == 403
    assert harness.services.asked == []
    assert (await browser.get("/")).status_code == 200


@pytest.mark.parametrize("path", ["/chat/say", "/chat/rate", "/upload"])
async def test_a_request_of_another_site_does_nothing(harness: Harness, path: str) -> None:
    browser = await harness.sign_in()
    harness.services.asked.clear()
    for token in ({}, {"x-form-token": "0" * 64}):
        assert (await browser.post(path, json=BODIES.get(path), headers=token)).status_code == 403
    assert harness.services.asked == []


@pytest.mark.parametrize(
    ("path", "where", "answer"),
    [
        ("/", ("GET", "/v1/files"), page({**FILE, "filename": EVIL, "status": "error", "status_details": EVIL})),
        ("/", ("GET", "/v1/models"), page({"id": f"ft:{EVIL}", "owned_by": "kumo"})),
        ("/files/file-1", ("GET", "/v1/files/file-1"), {**FILE, "filename": EVIL}),
        ("/files/file-1", ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"), page(event(EVIL))),
        ("/chat", ("GET", "/v1/datasets/ds-1"), {"system": EVIL}),
        ("/labeling", ("GET", "/v1/labeling/projects"), page({**PROJECT, "name": EVIL})),
        ("/labeling/lp-1", ("POST", "/v1/labeling/projects/lp-1/next"), {"id": "lt-1", "text": EVIL}),
        ("/labeling/lp-1", ("GET", "/v1/labeling/projects/lp-1"), {**PROJECT, "labels": [EVIL], "instructions": EVIL}),
        ("/keys", ("GET", "/v1/organization/keys"), page({**KEY, "name": EVIL})),
        ("/events", ("GET", "/v1/events/refused"), page({**REFUSED, "event_id": EVIL, "type": EVIL})),
        ("/events/webhooks/we_1", ("GET", "/v1/webhook_endpoints/we_1"), {**WEBHOOK, "name": EVIL, "url": EVIL}),
        ("/files/file-1", ("GET", "/v1/files/file-1"), Invalid(EVIL)),
    ],
)  # fmt: skip
async def test_what_people_wrote_is_text_and_never_markup(harness: Harness, path: str, where: Any, answer: Any) -> None:
    browser = await harness.sign_in()
    harness.services.answers[where] = answer
    shown = (await browser.get(path)).text
    assert "alert(" in shown
    assert "<script>alert" not in shown


async def test_a_key_is_shown_once(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["POST", "/v1/organization/keys"] = {"api_key": "sk-sartor-shown-once"}
    token = token_of((await browser.get("/keys")).text)
    assert "sk-sartor-shown-once" in (await browser.post("/keys", data={"name": "laptop", "form_token": token})).text
    assert "sk-sartor-shown-once" not in (await browser.get("/keys")).text
    assert harness.services.of("POST", "/v1/organization/keys")[0].json["name"] == "laptop"


@pytest.mark.parametrize("path", ["/files/file-2", "/models/ft:gemma-3-270m:other::1", "/labeling/lp-2"])
async def test_what_is_not_theirs_is_not_there(harness: Harness, path: str) -> None:
    answer = await (await harness.sign_in()).get(path)
    assert answer.status_code == 404
    assert "That did not work" in answer.text


async def test_an_address_cannot_lead_to_another_route_of_a_service(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/internal/adapters"] = {**CARD, "id": "secret"}
    answer = await browser.get("/models/..%2F..%2F..%2Finternal%2Fadapters")
    assert answer.status_code == 404
    assert harness.services.of("GET", "/internal/adapters") == []


async def test_a_service_that_is_away_is_named(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/files"] = Transient("ingest cannot be reached; try again shortly.")
    answer = await browser.get("/")
    assert answer.status_code == 503
    assert "ingest cannot be reached" in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("states", "shown"),
    [
        (["succeeded", "failed"], "model in use"),
        (["failed", "succeeded"], "no model: see why"),
        (["running", "failed", "succeeded"], "model being made"),
        (["queued", "cancelled"], "waits for training"),
    ],
)
async def test_the_newest_job_of_a_file_says_how_it_stands(harness: Harness, states: list[str], shown: str) -> None:
    browser = await harness.sign_in()
    jobs = [{**JOB, "id": f"ftjob-{number}", "status": state} for number, state in enumerate(states)]
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(*jobs)
    assert f'<td class="state">{shown}</td>' in (await browser.get("/")).text


async def test_the_job_of_an_old_file_is_found_behind_newer_ones(harness: Harness) -> None:
    browser = await harness.sign_in()
    others = [{**JOB, "id": f"ftjob-{number}", "training_file": "file-2"} for number in range(100)]

    def jobs(query: dict[str, str]) -> Any:
        return (
            page({**JOB, "status": "succeeded"}) if query.get("training_file") == "file-1" else page(*others, more=True)
        )

    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = jobs
    harness.services.answers["GET", "/v1/files"] = page(FILE, {**FILE, "id": "file-3", "status": "error"})
    assert '<td class="state">model in use</td>' in (await browser.get("/")).text
    assert len(harness.services.of("GET", "/v1/fine_tuning/jobs")) == 2


LISTS = [
    ("/", "/v1/files", FILE, "uploads", "after"),
    ("/", "/v1/registry/models", {**CARD, "waiting_for": "approval"}, "decisions", "decisions_after"),
    ("/keys", "/v1/organization/keys", KEY, "keys", "after"),
    ("/labeling", "/v1/labeling/projects", PROJECT, "projects", "after"),
    ("/models", "/v1/registry/models", CARD, "models", "after"),
    ("/people", "/v1/organization/users", PERSON, "people", "after"),
]


@pytest.mark.parametrize(("place", "path", "row", "kind", "name"), LISTS)
async def test_every_list_can_be_read_to_its_end(
    harness: Harness, place: str, path: str, row: dict[str, Any], kind: str, name: str
) -> None:
    browser = await harness.sign_in()
    assert f"Pages of {kind}" not in (await browser.get(place)).text
    pages = [[{**row, "id": f"{row['id']}-{one}{two}"} for two in range(3)] for one in range(3)]
    harness.services.pages[path] = [page(*rows) for rows in pages]
    seen, address = "", place
    for number in range(3):
        shown = (await browser.get(address)).text
        seen += shown
        assert (f"Newest {kind}" in shown) is (number > 0)
        links = re.findall(rf'href="([^"]*\?{name}=[^"]+)" rel="next">Older {kind}<', shown)
        assert len(links) == (number < 2)
        address = urljoin(place, links[0]) if links else address
    assert f"These are the oldest {kind}." in seen
    assert all(quote(one["id"], safe="") in seen or one["id"] in seen for rows in pages for one in rows)


async def test_an_upload_goes_on_byte_for_byte(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["POST", "/v1/files"] = {"id": "file-1"}
    token = token_of((await browser.get("/")).text)
    body = {"files": {"file": ("größe.csv", b"\x00\xff" * 70_000)}, "data": {"purpose": "user_data"}}
    place = f"/upload?form_token={token}"
    assert (await browser.post(place, **body)).headers["location"] == "/files/file-1"
    as_json = await browser.post(place, **body, headers={"accept": "application/json"})
    assert as_json.json() == {"place": "/files/file-1"}
    [first, _] = harness.services.of("POST", "/v1/files")
    assert b"\x00\xff" * 70_000 in first.body
    assert "größe.csv".encode() in first.body
    assert first.headers["content-type"].startswith("multipart/form-data; boundary=")
    harness.services.answers["POST", "/v1/files"] = Invalid("line 3: not JSON")
    assert "line 3: not JSON" in (await browser.post(place, **body)).text
    refused = await browser.post(place, **body, headers={"accept": "application/json"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "line 3: not JSON")


async def test_the_evidence_is_shown(harness: Harness) -> None:
    browser = await harness.sign_in()
    assert "It has not been tested yet." in (await browser.get(f"/models/{MODEL}")).text
    score = {"value": 0.891, "low": 0.8, "high": 0.94, "n": 72}
    run = {
        "metric": "accuracy",
        "reason": "clearly better",
        "scores": {"base": {**score, "value": 0.0}, "candidate": score},
    }
    harness.services.answers["GET", "/v1/evals/evaluations"] = page(run)
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert all(text in shown for text in ("0.89", "0.80 – 0.94", "72", "clearly better"))
    assert harness.services.of("GET", "/v1/evals/evaluations")[-1].query == {"model": MODEL}


@pytest.mark.parametrize("priced", [False, True])
async def test_what_an_answer_takes_stands_beside_what_it_is_worth(harness: Harness, priced: bool) -> None:
    browser = await harness.sign_in()
    score = {"value": 0.891, "low": 0.8, "high": 0.94, "n": 72}
    took = {"answers": 72, "prompt_tokens": 72 * 31, "completion_tokens": 72 * 4, "seconds_p95": 2.0}
    usage = {
        "base": {**took, "seconds_median": 1.26, "cost": None},
        "candidate": {**took, "seconds_median": 0.0138, "cost": 0.0144 if priced else None},
    }
    systems = ("base", "few_shot", "candidate")
    run = {"metric": "accuracy", "reason": "better", "scores": dict.fromkeys(systems, score), "usage": usage}
    harness.services.answers["GET", "/v1/evals/evaluations"] = page(run)
    table = (await browser.get(f"/models/{MODEL}")).text.split("<table")[1].split("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in table.split("<tr")[1:]]
    assert {len(row) for row in rows} == {8 if priced else 7}
    cells = {row[0]: row[4:] for row in rows}
    assert cells["Base model"] == ["1.3 s", "31", "4", *(["no price"] if priced else [])]
    assert cells["Your model"] == ["14 ms", "31", "4", *(["0.2"] if priced else [])]
    assert cells["Base model with examples"] == ["", "", "", *([""] if priced else [])]


async def test_perplexities_are_shown_with_over_what_they_are_and_document_by_document(harness: Harness) -> None:
    browser = await harness.sign_in()
    base, ours = ({"value": value, "low": value - 1, "high": value + 2, "n": 31} for value in (18.2, 12.4))
    run = {
        "id": "ev-1",
        "metric": "heldout_perplexity",
        "reason": "The gain is clear.",
        "scores": {"base": base, "candidate": ours},
        "evidence": {"bucket": "b", "key": "k", "sha256": "s", "size": 1},
    }
    documents = [
        {"line": line, "tokens": 100 + line, "perplexity": {"base": 18.0 + line, "candidate": 12.0}}
        for line in range(1, 26)
    ]
    harness.services.answers["GET", "/v1/evals/evaluations"] = page(run)
    evidence = {"interval_over": {"unit": "documents", "n": 31}, "documents": documents}
    harness.services.answers["GET", "/v1/evals/evaluations/ev-1/evidence"] = evidence
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert "Perplexity of held-out text, lower is better on documents it never saw" in shown
    assert all(text in shown for text in ("18.20", "17.20 – 20.20", "12.40", "11.40 – 14.40", "31", ">Documents<"))
    assert "The 20 of 25 documents on which it gained least." in shown
    assert shown.index('"row">1<') < shown.index('"row">2<')
    assert '"row">20<' in shown
    assert '"row">21<' not in shown


async def test_a_model_that_waits_for_a_decision_gets_one(harness: Harness) -> None:
    browser = await harness.sign_in()
    undecided = {**CARD, "state": "awaiting_approval", "waiting_for": "approval"}
    place = f"/v1/registry/models/{MODEL}"
    harness.services.answers |= {
        ("GET", "/v1/registry/models"): page(undecided, {**undecided, "id": "ft:loading", "waiting_for": "replica"}),
        ("GET", place): undecided,
        ("POST", f"{place}/approve"): CARD,
        ("POST", f"{place}/reject"): CARD,
        ("GET", "/v1/fine_tuning/jobs"): page(at("awaiting_approval", waiting_for=WAITS)),
        ("GET", "/v1/evals/evaluations"): page({**RUN, "status": "completed"}),
    }
    assert (await browser.get("/")).text.count("See the evidence and decide") == 1
    shown = (await browser.get("/files/file-1")).text
    assert "A person decides" in shown
    assert f'href="/models/{quote(MODEL, safe="")}"' in shown
    harness.services.answers["GET", "/v1/evals/evaluations"] = page()
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert "Does it go into use?" in shown
    form = {"form_token": token_of(shown), "model": MODEL, "note": "good enough"}
    answer = await browser.post("/decide", data={**form, "approve": "1"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models/{quote(MODEL, safe='')}")
    assert harness.services.of("POST", f"{place}/approve")[0].json == {"note": "good enough"}
    assert harness.services.of("POST", f"{place}/reject") == []
    await browser.post("/decide", data={**form, "refuse": "1"})
    assert len(harness.services.of("POST", f"{place}/reject")) == 1


async def test_the_inbox_shows_ratings(harness: Harness) -> None:
    browser = await harness.sign_in()
    assert "None yet." in (await browser.get("/labeling")).text
    harness.services.answers["GET", "/v1/labeling/feedback"] = page(
        {"id": "fb_1", "rating": "down", "has_correction": True, "model": EVIL}
    )
    shown = (await browser.get("/labeling")).text
    assert "Bad answer" in shown
    assert EVIL not in shown
    harness.services.answers["DELETE", "/v1/feedback/fb_1"] = {"deleted": True}
    taken = await browser.post("/labeling/feedback/fb_1/delete", data={"form_token": token_of(shown)})
    assert (taken.status_code, taken.headers["location"]) == (303, "/labeling")
    assert len(harness.services.of("DELETE", "/v1/feedback/fb_1")) == 1
    assert "Delete rating" not in (await (await harness.sign_in(role="viewer")).get("/labeling")).text


async def test_the_chat_knows_what_the_model_learned(harness: Harness) -> None:
    browser = await harness.sign_in()
    assert 'value="Name the intent."' in (await browser.get(f"/chat?model={MODEL}")).text
    for missing in (("GET", "/v1/datasets/ds-1"), ("GET", f"/v1/registry/models/{MODEL}")):
        harness.services.answers[missing] = NotFound("gone")
        assert 'id="system" value=""' in (await browser.get("/chat")).text


async def test_base_models_are_shown_and_only_those_with_weights_can_be_tuned_on(harness: Harness) -> None:
    browser = await harness.sign_in()
    models = (await browser.get("/models")).text
    assert "<code>gemma-3-270m</code>" in models
    assert "<code>far-base</code>" in models
    assert "0.4 read, 1.6 written" in models
    policy = (await browser.get("/policy")).text
    assert "gemma-3-270m</option>" in policy
    assert "far-base" not in policy
    assert "nobody at the moment" not in models
    harness.services.answers["GET", "/v1/registry/base_models"] = page({**BASE, "replicas": 0})
    assert "nobody at the moment" in (await browser.get("/models")).text


async def test_who_has_no_model_yet_can_chat_with_the_base(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/models"] = page(BASE)
    assert 'href="/chat"' in (await browser.get("/")).text
    shown = (await browser.get("/chat")).text
    assert "<option selected>gemma-3-270m</option>" in shown
    assert 'id="base"' in shown
    assert 'id="own"' not in shown
    assert harness.services.of("GET", f"/v1/registry/models/{MODEL}") == []
    harness.services.answers["GET", "/v1/models"] = page()
    assert 'id="system"' not in (await browser.get("/chat")).text


@pytest.mark.parametrize("name", [MODEL, "gemma-3-270m", "support", "ft:not:theirs"])
async def test_the_base_an_alias_and_ones_own_models_can_be_chosen(harness: Harness, name: str) -> None:
    browser = await harness.sign_in()
    harness.services.answers |= {
        ("GET", "/v1/models"): page(BASE, {"id": "other-base", "owned_by": "base"}, OWN, {**OWN, "id": "support"}),
        ("GET", f"/v1/registry/models/{MODEL}"): {**CARD, "base_model": "other-base"},
    }
    shown = (await browser.get(f"/chat?model={name}")).text
    assert all(f">{one}</option>" in shown for one in (MODEL, "gemma-3-270m", "other-base", "support"))
    chosen = MODEL if name == "ft:not:theirs" else name
    assert f"<option selected>{chosen}</option>" in shown
    assert ('id="own"' in shown) is (chosen != "gemma-3-270m")
    assert f'data-base="{"other-base" if chosen == MODEL else "gemma-3-270m"}"' in shown


async def test_an_answer_is_relayed_as_it_comes(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/")).text)
    go_on = asyncio.Event()

    async def slowly() -> Any:
        yield b'data: {"first": 1}\n\n'
        await go_on.wait()
        yield b"data: [DONE]\n\n"

    harness.services.answers["POST", "/v1/chat/completions"] = StreamingResponse(
        slowly(), media_type="text/event-stream"
    )
    said = {"model": MODEL, "message": "hello", "system": "Be brief."}
    stream = browser.stream("POST", "/chat/say", json=said, headers={"x-form-token": token})
    async with asyncio.timeout(10), stream as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == 'data: {"first": 1}'  # and the rest is not there yet
        go_on.set()
        assert "data: [DONE]" in [line async for line in lines]
    [asked] = harness.services.of("POST", "/v1/chat/completions")
    assert asked.service == "inference_proxy"
    assert [message["role"] for message in asked.json["messages"]] == ["system", "user"]

    harness.services.answers["POST", "/v1/chat/completions"] = chunks(b"data: [DONE]\n\n")
    await browser.post("/chat/say", json={**said, "system": "  "}, headers={"x-form-token": token})
    assert [message["role"] for message in harness.services.asked[-1].json["messages"]] == ["user"]


async def test_a_model_that_cannot_answer_says_so_in_the_stream(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/")).text)
    harness.services.answers["POST", "/v1/chat/completions"] = NotFound("No such model.", code="model_not_found")
    said = {"model": "ft:none", "message": "hello"}
    answer = await browser.post("/chat/say", json=said, headers={"x-form-token": token})
    [line] = [line for line in answer.text.splitlines() if line]
    assert json.loads(line.removeprefix("data: "))["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("path", "change", "where"),
    [
        ("/chat/say", {"message": "x" * (LONGEST_TEXT + 1)}, "message"),
        ("/chat/say", {"system": "x" * (LONGEST_TEXT + 1)}, "system"),
        ("/chat/say", {"model": "x" * 257}, "model"),
        ("/chat/say", {"message": "\ud800"}, "message"),
        ("/chat/say", {"max_tokens": 9}, "max_tokens"),
        ("/chat/rate", {"rating": "maybe"}, "rating"),
        ("/chat/rate", {"completion_id": "x" * 257}, "completion_id"),
        ("/chat/rate", {"correction": "x" * (LONGEST_TEXT + 1)}, "correction"),
        ("/chat/rate", {"stars": 5}, "stars"),
    ],
)
async def test_what_a_script_sends_is_bounded_and_known(
    harness: Harness, path: str, change: dict[str, Any], where: str
) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/")).text)
    harness.services.asked.clear()
    body = json.dumps({**BODIES[path], **change})
    headers = {"x-form-token": token, "content-type": "application/json"}
    answer = await browser.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, where)
    assert harness.services.asked == []


async def test_a_rating_goes_to_the_proxy(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = token_of((await browser.get("/")).text)
    harness.services.answers["POST", "/v1/feedback"] = {"id": "fb-1"}
    rated = {"completion_id": "chatcmpl-1", "rating": "down", "correction": "lost_item"}
    assert (await browser.post("/chat/rate", json=rated, headers={"x-form-token": token})).json() == {"id": "fb-1"}
    assert harness.services.of("POST", "/v1/feedback")[0].json == rated
    harness.services.answers["DELETE", "/v1/feedback/fb-1"] = {"deleted": True}
    taken = await browser.post("/chat/take-back", json={"feedback_id": "fb-1"}, headers={"x-form-token": token})
    assert taken.json() == {"deleted": True}


async def test_labeling_forms_reach_their_task(harness: Harness) -> None:
    browser = await harness.sign_in()
    token = {"form_token": token_of((await browser.get("/labeling/lp-1")).text)}
    place = "/v1/labeling/projects/lp-1"
    harness.services.answers |= {
        ("POST", f"{place}/tasks/lt-1"): {},
        ("POST", f"{place}/tasks/lt-1/skip"): {},
        ("POST", f"{place}/publish"): {},
        ("PATCH", place): {},
    }
    assert (await browser.post("/labeling/lp-1/lt-1", data={"answer": "refund", **token})).status_code == 303
    assert (await browser.post("/labeling/lp-1/lt-1", data={"skip": "1", **token})).status_code == 303
    assert (await browser.post("/labeling/lp-1/labels", data={"labels": "a, b", **token})).status_code == 303
    assert (await browser.post("/labeling/lp-1/publish", data=token)).headers["location"] == "/labeling/lp-1"
    assert harness.services.of("POST", f"{place}/tasks/lt-1")[0].json == {"answer": "refund"}
    assert len(harness.services.of("POST", f"{place}/tasks/lt-1/skip")) == 1
    harness.services.answers["POST", f"{place}/tasks/lt-1"] = Conflict("Somebody else has this task.")
    refused = await browser.post("/labeling/lp-1/lt-1", data={"answer": "refund", **token})
    assert (refused.status_code, "Somebody else has this task." in refused.text) == (409, True)


async def test_a_project_without_open_tasks_says_so(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["POST", "/v1/labeling/projects/lp-1/next"] = None
    assert "Every task has an answer" in (await browser.get("/labeling/lp-1")).text

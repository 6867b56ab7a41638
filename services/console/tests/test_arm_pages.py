"""Pages of a model that answers by an arm before, or instead of, its fine-tune: one model, and what answers."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from console_harness import CARD, FILE, MODEL, OWN, STEP, WAITS, Harness, at, chunks, event, page, token_of

from chassis.errors import Forbidden, NotFound, RateLimited, SartorError, Transient
from chassis.ids import now

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPLOADED = 1_700_000_000
SCORE = {"value": 0.875, "low": 0.75, "high": 0.9375, "n": 72}
TESTED = {"metric": "accuracy", "scores": {"candidate": SCORE, "base": {**SCORE, "value": 0.25}}}
ADAPTER = {**CARD, "name": MODEL, "arm": None, "serves": False, "state": "candidate", "created_at": UPLOADED + 90}
ARM = {
    **CARD,
    "id": f"{MODEL}@nearest",
    "name": MODEL,
    "arm": "nearest",
    "serves": True,
    "evaluation": TESTED,
    "promoted_at": UPLOADED + 8,
}
UNDECIDED = {**ARM, "serves": False, "state": "awaiting_approval", "waiting_for": "approval", "promoted_at": None}
ANSWERS: dict[str, Any] = {"fine_tuned_model": MODEL, "answers_by": "nearest"}
VERSIONS = ("GET", "/v1/registry/models")


def text_of(html: str, place: str) -> str:
    """What stands in the element of an id, without its tags; empty where it is hidden."""
    found = re.search(rf'<(\w+) id="{place}"([^>]*)>(.*?)</\1>', html, re.DOTALL)
    assert found, place
    return "" if " hidden" in found[2] else " ".join(re.sub(r"<[^>]+>", "", found[3]).split())


async def progress_of(harness: Harness, **answers: Any) -> str:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/files/file-1"] = {**FILE, "created_at": UPLOADED}
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(at(**answers))
    return (await browser.get("/files/file-1")).text


@pytest.mark.parametrize(
    ("job", "better"),
    [
        ({"stage": "training"}, "A better one is on its way."),
        ({"stage": "training", "estimated_finish": 230}, "A better one in about 4 minutes."),
        ({"stage": "training", "estimated_finish": 30}, "A better one in about a minute."),
        ({"stage": "training", "estimated_finish": -30}, "A better one is on its way."),
        ({"stage": "awaiting_approval", "waiting_for": WAITS}, "A better one waits for a decision."),
    ],
)
async def test_a_model_that_answers_while_it_is_trained_can_be_asked(
    harness: Harness, job: dict[str, Any], better: str
) -> None:
    harness.services.answers[VERSIONS] = page(ARM)
    finish = {"estimated_finish": now() + job["estimated_finish"]} if "estimated_finish" in job else {}
    shown = await progress_of(harness, **{**ANSWERS, **job, **finish})
    assert text_of(shown, "first-answer") == "First answer after 8 s"
    assert text_of(shown, "answers") == "Your model answers now by its nearest rows."
    assert text_of(shown, "better") == better
    assert "Chat with your model" in text_of(shown, "ready")
    assert f'href="/chat?model={quote(MODEL, safe="")}"' in shown
    assert harness.services.of(*VERSIONS)[-1].query == {"name": MODEL}
    assert 'id="answers" role="status" aria-live="polite"' in shown


async def test_nothing_is_promised_before_a_version_answers(harness: Harness) -> None:
    shown = await progress_of(harness, stage="training", answers_by=None)
    assert [text_of(shown, place) for place in ("first-answer", "answers", "better", "ready")] == [""] * 4


@pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (119, "119 s"), (150, "2 minutes")])
async def test_the_first_answer_is_that_of_the_version_that_served_first(
    harness: Harness, seconds: int, said: str
) -> None:
    first, second = ({**ARM, "promoted_at": UPLOADED + after} for after in (seconds, seconds + 400))
    harness.services.answers[VERSIONS] = page(second, first, {**ARM, "job_id": "ftjob-2", "promoted_at": UPLOADED})
    shown = await progress_of(harness, **ANSWERS, stage="training")
    assert text_of(shown, "first-answer") == f"First answer after {said}"


async def test_an_arm_and_a_fine_tune_are_two_decisions_with_names(harness: Harness) -> None:
    waiting = [UNDECIDED, {**ADAPTER, "state": "awaiting_approval", "waiting_for": "approval"}]
    harness.services.answers[VERSIONS] = page(*waiting)
    shown = await progress_of(harness, stage="awaiting_approval", waiting_for=WAITS)
    home = (await (await harness.sign_in()).get("/")).text
    for html in (shown, home):
        assert html.count("See the evidence and decide") == 2
        assert f'href="/models/{quote(MODEL + "@nearest", safe="")}"' in html
        assert "about quick answers by its nearest rows" in html
        assert "about fine-tune" in html
    assert "hidden" in shown.split('<progress id="bar"')[1].split(">")[0]
    assert f"<strong>Quick answers by its nearest rows</strong> of <code>{MODEL}</code>" in home


async def test_an_arm_that_waits_for_a_decision_does_not_stop_the_bar(harness: Harness) -> None:
    harness.services.answers[VERSIONS] = page(UNDECIDED)
    harness.services.answers["GET", "/v1/fine_tuning/jobs/ftjob-1/events"] = page(STEP)
    shown = await progress_of(harness, stage="training", waiting_for=WAITS)
    assert "step 3 of 6" in shown
    assert text_of(shown, "undecided").startswith("Quick answers by its nearest rows: See the evidence and decide")
    assert "hidden" not in shown.split('<progress id="bar"')[1].split(">")[0]
    assert "an owner or approver" not in text_of(shown, "waiting")


async def test_the_stream_tells_when_the_first_answer_is_there_and_asks_for_versions_only_then(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.routes.home.POLL_SECONDS", 0.01)
    browser = await harness.sign_in()
    jobs, events = ("GET", "/v1/fine_tuning/jobs"), ("GET", "/v1/fine_tuning/jobs/ftjob-1/events")
    harness.services.answers |= {
        ("GET", "/v1/files/file-1"): {**FILE, "created_at": UPLOADED},
        jobs: page(at("training")),
        events: page(STEP),
        VERSIONS: page(),
    }
    states, asked = [], []
    async with asyncio.timeout(20), browser.stream("GET", "/files/file-1/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith(": nothing new"):
                asked.append(len(harness.services.of(*VERSIONS)))
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
            if len(asked) == 3 and len(states) == 1:
                harness.services.answers |= {VERSIONS: page(UNDECIDED), events: page(event("It waits."), STEP)}
            if len(states) == 2:
                harness.services.answers |= {VERSIONS: page(ARM), jobs: page(at("training", **ANSWERS))}
            if len(states) == 3:
                break
    assert asked[:3] == [1, 1, 1]
    assert [state["undecided"] for state in states] == [{}, {UNDECIDED["id"]: "Quick answers by its nearest rows"}, {}]
    assert [state["first_answer"] for state in states] == ["", "", "8 s"]
    assert [state["model"] for state in states] == ["", "", MODEL]
    assert not any(state["waits_for_people"] or state["over"] for state in states)


async def test_a_registry_that_is_away_keeps_nobody_from_the_progress(harness: Harness) -> None:
    harness.services.answers[VERSIONS] = Transient("away")
    shown = await progress_of(harness, **ANSWERS, stage="training")
    assert text_of(shown, "answers") == "Your model answers now by its nearest rows."
    assert text_of(shown, "first-answer") == ""


async def test_a_stream_asks_again_for_what_a_registry_that_was_away_did_not_tell(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.routes.home.POLL_SECONDS", 0.01)
    browser = await harness.sign_in()
    harness.services.answers |= {
        ("GET", "/v1/files/file-1"): {**FILE, "created_at": UPLOADED},
        ("GET", "/v1/fine_tuning/jobs"): page(at("queued", **ANSWERS)),
        VERSIONS: Transient("away"),
    }
    told = []
    async with asyncio.timeout(20), browser.stream("GET", "/files/file-1/events") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line[6:])["first_answer"])
                harness.services.answers[VERSIONS] = page(ARM)
            if len(told) == 2:
                break
    assert told == ["", "8 s"]


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("head", "It goes on answering by its head: no fine-tune came of it that does better."),
        ("adapter", ""),
        (None, ""),
    ],
)
async def test_a_job_at_its_end_says_what_goes_on_answering(harness: Harness, by: str | None, said: str) -> None:
    harness.services.answers[VERSIONS] = page(ARM)
    shown = await progress_of(harness, stage="ended", status="succeeded", **{**ANSWERS, "answers_by": by})
    assert "Your model answers." in shown
    assert text_of(shown, "answers") == said
    assert text_of(shown, "better") == ""
    assert text_of(shown, "first-answer") == "First answer after 8 s"


async def test_what_was_refused_leads_to_the_fine_tune_rather_than_the_arm(harness: Harness) -> None:
    refused = [{**card, "state": "rejected", "promoted_at": None} for card in (ARM, ADAPTER)]
    harness.services.answers[VERSIONS] = page(*refused)
    error = {"message": "Not better.", "code": "gate_rejected"}
    shown = await progress_of(harness, stage="ended", status="failed", error=error)
    assert f'id="refused-link" href="/models/{quote(MODEL, safe="")}"' in shown


@pytest.mark.parametrize(
    ("job", "said", "state"),
    [
        (
            {"stage": "training", "answers_by": "nearest"},
            "answers now by its nearest rows; a better one is on its way",
            "answers; model being made",
        ),
        ({"stage": "ended", "status": "succeeded", "answers_by": "head"}, "answers by its head", "model in use"),
        (
            {"stage": "ended", "status": "succeeded", "answers_by": "adapter"},
            "answers by its fine-tune",
            "model in use",
        ),
    ],
)
async def test_the_first_page_has_one_item_for_a_model_and_says_what_answers(
    harness: Harness, job: dict[str, Any], said: str, state: str
) -> None:
    browser = await harness.sign_in()
    older = at("ended", id="ftjob-0", fine_tuned_model=MODEL, answers_by="head", status="succeeded")
    harness.services.answers |= {
        ("GET", "/v1/models"): page(OWN, {**OWN, "id": "support"}),
        ("GET", "/v1/fine_tuning/jobs"): page({**at("training"), **ANSWERS, **job}, older),
        VERSIONS: page(),
    }
    shown = (await browser.get("/")).text
    assert shown.count(f"<code>{MODEL}</code>") == 1
    assert f'<p class="hint">{said}</p>' in shown
    assert f'<td class="state">{state}</td>' in shown


async def test_the_versions_of_a_model_are_a_table_and_a_picture(harness: Harness) -> None:
    browser = await harness.sign_in()
    worse = {**TESTED, "scores": {"candidate": {**SCORE, "value": 0.5, "low": 0.25, "high": 0.75}}}
    deleted = {**ARM, "id": f"{MODEL}@head", "arm": "head", "serves": False, "deleted_at": 1}
    harness.services.answers |= {
        VERSIONS: page({**ADAPTER, "state": "rejected", "evaluation": worse}, ARM, deleted),
        ("GET", f"/v1/registry/models/{MODEL}@nearest"): ARM,
    }
    shown = (await browser.get(f"/models/{MODEL}@nearest")).text
    assert f"<h1><code>{MODEL}</code></h1>" in shown
    assert harness.services.of(*VERSIONS)[-1].query == {"name": MODEL}
    assert harness.services.of("GET", "/v1/evals/evaluations")[-1].query == {"model": f"{MODEL}@nearest"}
    table = shown.split('id="versions-title"')[1].split("<table")[1].split("</table>")[0]
    rows = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in table.split("<tr")[2:]]
    assert [row.split("> ", 1)[-1] for row in rows] == [
        "Quick answers by its nearest rows this page in use yes Accuracy 0.88 0.75 – 0.94 72 "
        "Answer by this one : quick answers by its nearest rows",
        "Fine-tune refused no Accuracy 0.50 0.25 – 0.75 72",
    ]
    assert f'href="/models/{quote(MODEL, safe="")}">Fine-tune</a>' in table
    picture = shown.split('<svg class="versions"')[1].split("</svg>")[0]
    assert "Quick answers by its nearest rows 0.88, between 0.75 and 0.94; Fine-tune 0.50" in picture
    assert '<circle class="value ours" cx="271.0" cy="32" r="5">' in picture
    assert '<line class="range" x1="86.0" x2="234.0" y1="78" y2="78">' in picture
    assert "style=" not in shown
    assert f'href="/models/{quote(MODEL + "@nearest", safe="")}/delete">Delete this version alone' in shown
    assert f'href="/models/{quote(MODEL, safe="")}/delete">Delete this model' in shown


async def test_a_fine_tune_alone_has_no_table_of_versions(harness: Harness) -> None:
    harness.services.answers[VERSIONS] = page(CARD)
    assert "versions-title" not in (await (await harness.sign_in()).get(f"/models/{MODEL}")).text


async def test_measures_without_an_end_are_not_drawn(harness: Harness) -> None:
    endless = {"metric": "heldout_perplexity", "scores": {"candidate": {**SCORE, "high": 12.0}}}
    harness.services.answers[VERSIONS] = page({**ADAPTER, "evaluation": endless}, {**ARM, "evaluation": endless})
    shown = (await (await harness.sign_in()).get(f"/models/{MODEL}")).text
    assert "versions-title" in shown
    assert '<svg class="versions"' not in shown


async def test_a_decision_about_an_arm_lets_nothing_else_through(harness: Harness) -> None:
    browser = await harness.sign_in()
    place = f"/v1/registry/models/{UNDECIDED['id']}"
    harness.services.answers |= {
        ("GET", place): UNDECIDED,
        ("POST", f"{place}/approve"): ARM,
        VERSIONS: page(UNDECIDED, ADAPTER),
    }
    shown = (await browser.get(f"/models/{UNDECIDED['id']}")).text
    assert "This is about quick answers by its nearest rows alone" in shown
    form = {"form_token": token_of(shown), "model": UNDECIDED["id"], "approve": "1"}
    assert f'name="model" value="{UNDECIDED["id"]}"' in shown
    assert (await browser.post("/decide", data=form)).status_code == 303
    assert [one.path for one in harness.services.asked if one.method == "POST"][-1:] == [f"{place}/approve"]


TAKEN = [{"by": "user_1", "at": UPLOADED, "times": 2}, {"by": "user_2", "at": UPLOADED + 60, "times": 1}]
HELD = {**CARD, "downloadable": True}
COPY = f"/v1/registry/models/{MODEL}/adapter"


async def test_an_adapter_is_taken_from_its_page(harness: Harness) -> None:
    harness.services.answers |= {
        ("GET", f"/v1/registry/models/{MODEL}"): {**HELD, "downloads": TAKEN},
        ("GET", COPY): chunks(b"PK", b"rest"),
    }
    browser = await harness.sign_in(role="engineer")
    shown = (await browser.get(f"/models/{MODEL}")).text
    place = f"/models/{quote(MODEL, safe='')}/adapter"
    assert f'action="{place}"' in shown
    assert "Copies taken: 3." in shown
    assert "by <code>user_2</code>" in shown
    assert (await browser.post(place, data={"form_token": "0" * 64})).status_code == 403
    assert harness.services.of("GET", COPY) == []
    copy = await browser.post(place, data={"form_token": token_of(shown)})
    assert (copy.status_code, copy.content, copy.headers["content-type"]) == (200, b"PKrest", "application/zip")
    assert copy.headers["content-disposition"] == 'attachment; filename="ft-gemma-3-270m-kumo-1a2b.zip"'
    [asked] = harness.services.of("GET", COPY)
    assert (asked.caller.role, asked.caller.user_id) == ("engineer", "user_of_tenant_a")


async def test_a_copy_that_cannot_be_had_is_a_page_that_says_why(harness: Harness) -> None:
    harness.services.answers |= {
        ("GET", f"/v1/registry/models/{MODEL}"): HELD,
        ("GET", COPY): NotFound("The files of the adapter are gone.", code="adapter_gone"),
    }
    browser, place = await harness.sign_in(), f"/models/{quote(MODEL, safe='')}"
    form = {"form_token": token_of((await browser.get(place)).text)}
    answer = await browser.post(f"{place}/adapter", data=form)
    assert answer.status_code == 404
    assert "The files of the adapter are gone." in answer.text
    assert "content-disposition" not in answer.headers


@pytest.mark.parametrize(
    ("role", "card"),
    [
        ("viewer", HELD),
        ("approver", HELD),
        ("owner", {**CARD, "downloadable": False}),
        ("owner", CARD),
    ],
    ids=["viewer", "approver", "no files", "registry of a release before"],
)
async def test_nothing_is_offered_that_cannot_be_taken(harness: Harness, role: str, card: dict[str, Any]) -> None:
    harness.services.answers["GET", f"/v1/registry/models/{MODEL}"] = card
    shown = await (await harness.sign_in(role=role)).get(f"/models/{MODEL}")
    assert shown.status_code == 200
    assert "Take it with you" not in shown.text


REPORT = {
    "said": [
        "60 rows more of the same kind would probably bring about 4 points (1 to 6).",
        "2 rows may have a wrong answer: look before you change one.",
    ],
    "curve": {
        "points": [
            {"rows": 12, "accuracy": 0.5, "low": 0.25, "high": 0.75},
            {"rows": 24, "accuracy": 0.75, "low": 0.5, "high": 0.875},
            {"rows": 48, "accuracy": 0.875, "low": 0.75, "high": 1.0},
        ]
    },
    "reliability": {
        "bins": [
            {"rows": 24, "confidence": 0.5, "accuracy": 0.25, "low": 0.125, "high": 0.5},
            {"rows": 24, "confidence": 1.0, "accuracy": 1.0, "low": 0.875, "high": 1.0},
        ],
        "coverage": [
            {"rows": 24, "confidence": 0.7, "accuracy": 1.0, "low": 0.875, "high": 1.0, "others": 0.25},
            {"rows": 24, "confidence": 0.9, "accuracy": 1.0, "low": 0.875, "high": 1.0, "others": None},
        ],
    },
    "confusions": [{"wanted": "refund", "given": "<b>lost</b>", "times": 3}],
    "suspects": [{"question": "Where is it?" * 50, "answer": "refund", "likelier": "lost", "confidence": 0.934}],
    "suspects_found": 2,
}
OF_ROWS = ("GET", f"/v1/fine_tuning/jobs/{CARD['job_id']}/data_report")


async def test_what_the_rows_tell_stands_on_the_models_page(harness: Harness) -> None:
    harness.services.answers |= {
        ("GET", f"/v1/registry/models/{MODEL}"): ADAPTER,
        VERSIONS: page(ADAPTER, ARM),
        OF_ROWS: REPORT,
    }
    shown = (await (await harness.sign_in()).get(f"/models/{MODEL}")).text.split('<section id="rows"')[1]
    assert REPORT["said"][0] in shown
    assert 'aria-label="Accuracy by rows. 12 rows: 0.50; 24 rows: 0.75; 48 rows: 0.88"' in shown
    assert '<polyline class="curve" points="40.0,72.0 170.0,42.0 300.0,27.0">' in shown
    assert '<line class="range" x1="170.0" x2="170.0" y1="72.0" y2="27.0">' in shown
    assert ">24</text>" in shown
    assert 'aria-label="Accuracy by confidence. 0.500 sure: 0.250 right; 1.000 sure: 1.000 right"' in shown
    assert '<polyline class="ideal" points="40,72.0 300,12">' in shown
    assert '<polyline class="curve" points="40.0,102.0 300.0,12.0">' in shown
    assert 'text-anchor="middle">0.75</text>' in shown
    assert re.search(r'class="number">0.9</th>.*>1</td>.*>0.88 to 1.00</td>.*>too few rows</td>', shown)
    assert re.search(r'class="number">0.7</th>.*>0.25</td>', shown)
    assert "<td>refund</td><td>&lt;b&gt;lost&lt;/b&gt;</td>" in shown
    assert "The 1 clearest of 2." in shown
    assert "93 %" in shown
    assert "Where is it?" * 26 not in shown


@pytest.mark.parametrize(
    "problem", [NotFound("no report"), Forbidden("not yours"), RateLimited("later"), Transient("away"), None]
)
async def test_a_model_is_shown_also_where_nothing_tells_of_its_rows(
    harness: Harness, problem: SartorError | None
) -> None:
    versions = (ADAPTER, ARM) if problem else (CARD,)
    harness.services.answers |= {("GET", f"/v1/registry/models/{MODEL}"): versions[0], VERSIONS: page(*versions)}
    if problem is not None:
        harness.services.answers[OF_ROWS] = problem
    shown = await (await harness.sign_in()).get(f"/models/{MODEL}")
    assert shown.status_code == 200
    assert 'id="rows"' not in shown.text
    assert bool(harness.services.of(*OF_ROWS)) == bool(problem)


@pytest.mark.parametrize("reliability", [None, {"bins": [], "coverage": []}])
async def test_a_report_of_one_point_has_no_picture(harness: Harness, reliability: Any) -> None:
    alone = {
        **REPORT,
        "curve": {"points": REPORT["curve"]["points"][:1]},  # type: ignore[index]
        "reliability": reliability,
        "suspects": [],
        "confusions": [],
    }
    harness.services.answers |= {
        ("GET", f"/v1/registry/models/{MODEL}"): ADAPTER,
        VERSIONS: page(ADAPTER, ARM),
        OF_ROWS: alone,
    }
    shown = (await (await harness.sign_in()).get(f"/models/{MODEL}")).text.split('<section id="rows"')[1]
    assert "<figure>" not in shown
    assert "may be wrong" not in shown


PINNED = {**ARM, "pinned": True}
IN_USE = {**ADAPTER, "state": "production"}


async def test_who_decides_has_the_model_answer_by_one_version_until_tests_choose_again(harness: Harness) -> None:
    browser = await harness.sign_in()
    places = {one: f"/v1/registry/models/{one}" for one in (MODEL, PINNED["id"])}
    harness.services.answers |= {
        ("GET", places[MODEL]): IN_USE,
        ("GET", places[PINNED["id"]]): PINNED,
        VERSIONS: page(IN_USE, ARM),
        ("POST", f"{places[PINNED['id']]}/pin"): PINNED,
        ("POST", f"{places[PINNED['id']]}/unpin"): ARM,
    }
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert shown.count('<button name="pin"') == 3
    assert "pinned" not in shown
    form = {"form_token": token_of(shown), "model": PINNED["id"]}
    assert f'name="model" value="{PINNED["id"]}"' in shown
    moved = await browser.post("/pin", data={**form, "pin": "1"})
    assert (moved.status_code, moved.headers["location"]) == (303, f"/models/{quote(PINNED['id'], safe='')}")

    harness.services.answers[VERSIONS] = page(IN_USE, PINNED)
    shown = (await browser.get(f"/models/{PINNED['id']}")).text
    assert "A person pinned it: it answers whatever tests say." in shown
    assert "<td>yes, pinned</td>" in shown
    assert (shown.count("Choose by tests again"), shown.count('<button name="pin"')) == (1, 2)
    assert "answers now, pinned</span>" in (await browser.get("/models")).text
    await browser.post("/pin", data={**form, "unpin": "1"})
    posted = [one for one in harness.services.asked if one.method == "POST"][-2:]
    assert [one.path for one in posted] == [f"{places[PINNED['id']]}/{verb}" for verb in ("pin", "unpin")]
    assert [one.json for one in posted] == [{"note": ""}] * 2


async def test_an_arm_by_which_the_base_answers_is_called_so_and_cannot_be_unsure(harness: Harness) -> None:
    browser, written = await harness.sign_in(), {**ARM, "generates": True}
    harness.services.answers |= {VERSIONS: page(IN_USE, written), ("GET", f"/v1/registry/models/{MODEL}"): IN_USE}
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert "Quick answers, shown its nearest rows" in shown
    assert shown.count('<button name="pin"') == 2
    assert 'name="sure_from"' not in shown
    harness.services.answers[VERSIONS] = page(IN_USE, ARM)
    assert 'name="sure_from"' in (await browser.get(f"/models/{MODEL}")).text
    harness.services.answers["GET", f"/v1/registry/models/{ARM['id']}"] = written
    of_arm = (await browser.get(f"/models/{ARM['id']}")).text
    assert "the base model, shown those of your rows that are closest in meaning to the question" in of_arm


async def test_who_decides_says_how_sure_the_quick_answers_must_be_and_takes_it_back(harness: Harness) -> None:
    browser, place = await harness.sign_in(), f"/v1/registry/models/{PINNED['id']}"
    harness.services.answers |= {
        ("GET", f"/v1/registry/models/{MODEL}"): IN_USE,
        ("GET", place): PINNED,
        VERSIONS: page(IN_USE, PINNED),
        ("POST", f"{place}/pin"): PINNED,
    }
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert "They answer however unsure they are." in shown
    assert "Hand nothing over" not in shown
    form = {"form_token": token_of(shown), "model": PINNED["id"], "pin": "1"}
    assert (await browser.post("/pin", data={**form, "sure_from": "87.5"})).status_code == 303
    for wrong in ("0", "101", "nan", "much"):
        refused = await browser.post("/pin", data={**form, "sure_from": wrong})
        assert (refused.status_code, "a number of per cent" in refused.text) == (400, True), wrong

    harness.services.answers[VERSIONS] = page(IN_USE, {**PINNED, "hand_over_below": 0.875})
    harness.services.answers["GET", place] = {**PINNED, "hand_over_below": 0.875}
    shown = (await browser.get(f"/models/{PINNED['id']}")).text
    assert "it answers whatever tests say, where it is at least 87.5 % sure." in shown
    assert "They answer where they are at least 87.5 % sure. The rest is left" in shown
    assert 'required value="87.5"' in shown
    assert "Hand nothing over" in shown
    assert (await browser.post("/pin", data={**form, "sure_from": ""})).status_code == 303
    posted = [one.json for one in harness.services.asked if one.method == "POST" and one.path == f"{place}/pin"]
    assert posted == [{"note": "", "hand_over_below": 0.875}, {"note": "", "hand_over_below": None}]


@pytest.mark.parametrize("cost", [None, 0.012])
async def test_what_quick_answers_and_fine_tune_would_do_together_is_shown_and_chosen_with_one_click(
    harness: Harness, cost: float | None
) -> None:
    took = {"answers": 60, "prompt_tokens": 600, "completion_tokens": 60, "seconds_median": 0.02, "seconds_p95": 0.4}
    steps = [
        {
            "below": below,
            "handed_over": below / 2,
            "score": {**SCORE, "value": below},
            "over_adapter": SCORE,
            "took": {**took, "cost": cost},
        }
        for below in (0.7, 0.9)
    ]
    together = {"arm": "nearest", "steps": steps, "advised": 0.9}
    tested, place = {**IN_USE, "evaluation": {**TESTED, "cascade": together}}, f"/v1/registry/models/{ARM['id']}"
    harness.services.answers |= {("GET", f"/v1/registry/models/{MODEL}"): tested, ("POST", f"{place}/pin"): ARM}
    browser = await harness.sign_in()
    for versions, offered in ((page(tested, ARM), 2), (page(tested, {**PINNED, "hand_over_below": 0.9}), 1)):
        harness.services.answers[VERSIONS] = versions
        shown = (await browser.get(f"/models/{MODEL}")).text
        assert shown.count("Answer so<") == offered
    table = shown.split("Together with the fine-tuned model")[1].split("</table>")[0]
    rows = [" ".join(re.sub(r"<[^>]+>", " ", f"<tr{one}").split()) for one in table.split("<tr")[2:]]
    money = "" if cost is None else " 0.2"
    figures = f"0.75 – 0.94 20 ms 95 % in 400 ms{money}"
    assert rows[0] == f"70 % 35 % 0.70 {figures} Answer so : sure from 70 %"
    assert rows[1] == f"90 % advised chosen 45 % 0.90 {figures}"
    assert rows[2] == f"The fine-tuned model alone 100 % 0.88 0.75 – 0.94{' no price' if money else ''}"
    assert ("Cost of 1,000" in table) == (cost is not None)
    form = {"form_token": token_of(shown), "model": ARM["id"], "sure_from": "70", "pin": "1"}
    assert all(f'name="{name}" value="{value}"' in table for name, value in form.items() if name != "form_token")
    assert (await browser.post("/pin", data=form)).status_code == 303
    assert harness.services.of("POST", f"{place}/pin")[-1].json == {"note": "", "hand_over_below": 0.7}
    harness.services.answers[VERSIONS] = page({**tested, "state": "awaiting_approval"}, ARM)
    shown = (await browser.get(f"/models/{MODEL}")).text
    assert "Answer so<" not in shown, "the base model would answer what is left"
    assert "until then the base model answers what is left" in shown
    for over in ({"state": "rejected"}, {"evaluation": {**TESTED, "cascade": {"arm": "?"}}}):
        harness.services.answers[VERSIONS] = page({**tested, **over}, ARM)
        assert "Together with the fine-tuned model" not in (await browser.get(f"/models/{MODEL}")).text
    harness.services.answers[VERSIONS] = page({**tested, "evaluation": TESTED}, ARM)
    assert "Together with the fine-tuned model" not in (await browser.get(f"/models/{MODEL}")).text


async def test_a_version_that_is_pinned_alone_can_be_left_to_tests_again(harness: Harness) -> None:
    alone = {**IN_USE, "serves": True, "pinned": True}
    harness.services.answers |= {("GET", f"/v1/registry/models/{MODEL}"): alone, VERSIONS: page(alone)}
    assert "Choose by tests again" in (await (await harness.sign_in()).get(f"/models/{MODEL}")).text


async def test_who_does_not_decide_sees_that_a_version_is_pinned_and_no_button(harness: Harness) -> None:
    harness.services.answers |= {("GET", f"/v1/registry/models/{PINNED['id']}"): PINNED, VERSIONS: page(IN_USE, PINNED)}
    shown = (await (await harness.sign_in(role="viewer")).get(f"/models/{PINNED['id']}")).text
    assert "<td>yes, pinned</td>" in shown
    assert "/pin" not in shown


async def test_the_list_of_models_says_which_version_each_is(harness: Harness) -> None:
    harness.services.answers[VERSIONS] = page(ADAPTER, ARM)
    shown = (await (await harness.sign_in()).get("/models")).text
    assert shown.count(f"<code>{MODEL}</code>") == 2
    assert "<td>Fine-tune</td>" in shown
    assert '<td>Quick answers by its nearest rows <span class="hint">answers now</span></td>' in shown


@pytest.mark.parametrize(
    ("model_id", "says"),
    [
        (MODEL, "The model, with its fine-tune and its quick answers"),
        (f"{MODEL}@nearest", "Quick answers by its nearest rows of this model alone"),
    ],
)
async def test_what_goes_with_a_model_or_with_one_version_is_said(harness: Harness, model_id: str, says: str) -> None:
    harness.services.answers["GET", f"/v1/registry/models/{model_id}"] = ARM
    harness.services.answers["DELETE", f"/v1/models/{model_id}"] = {"deleted": True, "kept": []}
    browser = await harness.sign_in()
    asked = (await browser.get(f"/models/{model_id}/delete")).text
    assert says in asked
    await browser.post(f"/models/{model_id}/delete", data={"form_token": token_of(asked), "name": model_id})
    assert len(harness.services.of("DELETE", f"/v1/models/{model_id}")) == 1

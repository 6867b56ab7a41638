"""The progress page and its stream: what they show, when they end, and how little they ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from console_harness import FILE, JOB, MODEL, PROJECT, RUN, STEP, WAITS, Harness, at, event, page

from chassis.errors import Forbidden, NotFound, SartorError, Transient
from console.routes.home import MOST_STREAMS

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUNS = page({**RUN, "id": "eval-2", "job_id": "ftjob-other", "progress": {"done": 9, "total": 10}}, RUN)


@pytest.mark.parametrize(
    ("file", "jobs", "events", "stage", "note"),
    [
        ({"status": "uploaded"}, [], [], 0, "Reading the file"),
        ({}, [], [], 0, "Read and kept."),
        ({"status_details": "3 rows have no answer yet"}, [], [], 0, "3 rows have no answer yet"),
        ({"status": "uploaded"}, [at("waiting_for_file")], [], 0, "Waiting for the file to be read"),
        ({}, [at("queued", status="queued")], [], 0, "Waiting for a free worker"),
        ({}, [{**JOB, "status": "queued"}], [], 0, "Waiting for a free worker"),
        ({}, [at("training")], [], 1, "Loading the base model"),
        ({}, [JOB], [], 1, "Loading the base model"),
        ({}, [at("training")], [STEP], 1, "step 3 of 6, loss 0.500"),
        ({}, [at("paused", status="paused")], [STEP], 1, "Paused"),
        ({}, [at("testing")], [STEP], 2, "3 of 12 answers on held-out rows"),
        ({}, [at("awaiting_approval", waiting_for=WAITS)], [STEP], 3, "A person decides whether it goes into use"),
        ({}, [at("testing", waiting_for=WAITS)], [], 2, "A decision about the model · an owner or approver · since"),
        ({}, [at("awaiting_approval", waiting_for=WAITS)], [], 3, "about the model · since 2023-11-14 22:13 UTC"),
        ({}, [at("loading")], [STEP], 3, "It goes into use now"),
        ({}, [at("a stage of next year")], [], 1, "a stage of next year"),
        ({}, [at("ended", status="succeeded", fine_tuned_model=MODEL)], [], 4, "Your model answers."),
        ({}, [{**JOB, "status": "succeeded", "fine_tuned_model": MODEL}], [], 4, "Your model answers."),
    ],
)  # fmt: skip
async def test_progress_tells_the_stage(
    harness: Harness, file: dict[str, Any], jobs: list[Any], events: list[Any], stage: int, note: str
) -> None:
    browser = await harness.sign_in()
    harness.services.answers |= {
        ("GET", "/v1/files/file-1"): {**FILE, **file},
        ("GET", "/v1/fine_tuning/jobs"): page(*jobs),
        ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"): page(*events),
        ("GET", "/v1/evals/evaluations"): RUNS,
    }
    shown = (await browser.get("/files/file-1")).text
    assert note in shown
    assert shown.count('class="done"') == stage
    assert harness.services.of("GET", "/v1/fine_tuning/jobs")[0].query["training_file"] == "file-1"


@pytest.mark.parametrize("words", ["Training is over; testing the model.", "Tested", "promoted", "waits for a person"])
async def test_no_sentence_of_an_event_decides_the_stage(harness: Harness, words: str) -> None:
    browser = await harness.sign_in()
    harness.services.answers |= {
        ("GET", "/v1/fine_tuning/jobs"): page(at("training")),
        ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"): page(event(words), STEP),
        ("GET", "/v1/evals/evaluations"): RUNS,
    }
    assert "step 3 of 6" in (await browser.get("/files/file-1")).text


UNLABELLED = {**FILE, "kind": "unlabelled", "status_details": "20 rows have no answers"}


async def test_progress_leads_to_the_project_of_rows_without_answers(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page()
    harness.services.answers["GET", "/v1/files/file-1"] = UNLABELLED
    hidden = '<p id="unanswered" hidden>'
    assert hidden in (await browser.get("/files/file-1")).text
    newer = [{**PROJECT, "id": f"lp-new-{number}"} for number in range(100)]
    harness.services.pages["/v1/labeling/projects"] = [
        page(*newer),
        page(PROJECT, {**PROJECT, "id": "lp-2", "file_id": "file-1"}),
    ]
    shown = (await browser.get("/files/file-1")).text
    assert hidden not in shown
    assert 'href="/labeling/lp-2"' in shown
    assert "progress.js" not in shown


async def looked(browser: httpx2.AsyncClient, times: int) -> list[str]:
    """The lines of a stream of progress until the server has looked so often."""
    lines = []
    async with asyncio.timeout(30), browser.stream("GET", "/files/file-1/events") as answer:
        async for line in answer.aiter_lines():
            lines += [line] if line else []
            if len(lines) == times:
                break
    return lines


@pytest.mark.parametrize(
    ("job", "file", "each"),
    [
        (at("queued", status="queued"), FILE, {"/v1/fine_tuning/jobs"}),
        (at("awaiting_approval", waiting_for=WAITS), FILE, {"/v1/fine_tuning/jobs"}),
        (at("loading"), FILE, {"/v1/fine_tuning/jobs"}),
        (at("training"), FILE, {"/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/ftjob-1/events"}),
        (at("testing"), FILE, {"/v1/fine_tuning/jobs", "/v1/evals/evaluations/eval-1"}),
        (None, FILE, {"/v1/files/file-1", "/v1/fine_tuning/jobs"}),
        (None, UNLABELLED, {"/v1/files/file-1", "/v1/fine_tuning/jobs", "/v1/labeling/projects"}),
    ],
)  # fmt: skip
async def test_a_page_left_open_asks_little(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, job: Any, file: dict[str, Any], each: set[str]
) -> None:
    monkeypatch.setattr("console.routes.home.POLL_SECONDS", 0.01)
    browser = await harness.sign_in()
    harness.services.answers |= {
        ("GET", "/v1/fine_tuning/jobs"): page(*([job] if job else [])),
        ("GET", "/v1/files/file-1"): file,
        ("GET", "/v1/fine_tuning/jobs/ftjob-1/events"): page(STEP),
        ("GET", "/v1/evals/evaluations"): RUNS,
        ("GET", "/v1/evals/evaluations/eval-1"): RUN,
    }
    await looked(browser, 1)
    harness.services.asked.clear()
    lines = await looked(browser, 4)
    assert [line.split(":")[0] for line in lines] == ["data", "", "", ""]
    asked = [one.path for one in harness.services.asked]
    assert {path for path in asked if asked.count(path) > 1} == each
    assert max(asked.count(path) for path in each) <= 5


async def test_a_page_that_shows_nothing_new_looks_less_often(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def no_pause(_: asyncio.Event, seconds: float) -> bool:
        pauses.append(seconds)
        if len(pauses) == 20:
            harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(at("training"))
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr("console.routes.home._set_within", no_pause)
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(at("queued", status="queued"))
    lines = await looked(browser, 22)
    assert pauses[0] == 1.0
    assert pauses[:20] == sorted(pauses[:20])
    assert pauses[19] == 15.0
    assert lines[20].startswith("data: ")
    assert pauses[20] == 1.0


async def test_the_newest_pages_of_a_session_are_followed(harness: Harness) -> None:
    browser, other = await harness.sign_in(), await harness.sign_in("tenant_b")
    async with asyncio.timeout(30), AsyncExitStack() as open_pages:

        async def follow(somebody: httpx2.AsyncClient) -> AsyncIterator[str]:
            answer = await open_pages.enter_async_context(somebody.stream("GET", "/files/file-1/events"))
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            return lines

        theirs = await follow(other)
        mine = [await follow(browser) for _ in range(MOST_STREAMS + 1)]
        assert "event: displaced" in [line async for line in mine[0]]
        for lines in (theirs, *mine[1:]):
            async for line in lines:
                if line:
                    assert line.startswith(("data: ", ": nothing new")), line
                    break


async def test_the_loss_is_drawn_from_every_page_of_events_without_scripts(harness: Harness) -> None:
    browser = await harness.sign_in()
    steps = [event(f"Step {n}/3", "metrics", step=n, total_steps=3, train_loss=4 - n) for n in (3, 2, 1)]
    harness.services.pages["/v1/fine_tuning/jobs/ftjob-1/events"] = [page(*steps[:2]), page(*steps[2:])]
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(at("training"))
    shown = (await browser.get("/files/file-1")).text
    assert 'points="0.0,4.0 150.0,28.7 300.0,53.3"' in shown
    assert "3.000 at step 1, 1.000 at step 3" in shown


async def test_the_stream_of_progress_ends_with_the_work(harness: Harness) -> None:
    browser = await harness.sign_in()
    stream = browser.stream("GET", "/files/file-1/events")
    async with asyncio.timeout(15), stream as answer:
        states = []
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
                failed = {
                    **JOB,
                    "status": "failed",
                    "error": {"message": "The gate refused it.", "code": "gate_rejected"},
                }
                harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(failed)
    assert [(state["over"], state["failed"]) for state in states] == [(False, ""), (True, "The gate refused it.")]


@pytest.mark.parametrize(
    ("answer", "says"), [(NotFound("No file."), "This file was deleted."), (Forbidden("Not for you."), "Not for you.")]
)
async def test_the_stream_ends_when_there_is_nothing_to_see_any_more(
    harness: Harness, answer: SartorError, says: str
) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page()
    async with asyncio.timeout(15), browser.stream("GET", "/files/file-1/events") as events:
        states = []
        async for line in events.aiter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
                harness.services.answers["GET", "/v1/files/file-1"] = answer
    assert [(state["over"], state["failed"]) for state in states] == [(False, ""), (True, says)]


async def test_the_stream_outlives_a_service_that_is_away(harness: Harness) -> None:
    browser = await harness.sign_in()
    async with asyncio.timeout(15), browser.stream("GET", "/files/file-1/events") as events:
        lines = (line async for line in events.aiter_lines() if line)
        assert (await anext(lines)).startswith("data: ")
        harness.services.answers["GET", "/v1/fine_tuning/jobs"] = Transient("away")
        assert await anext(lines) == ": a service is away"
        harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(JOB)
        async for line in lines:
            if line.startswith("data: "):
                break
        else:
            pytest.fail("the stream ended")


async def test_a_document_is_at_its_end(harness: Harness) -> None:
    browser = await harness.sign_in()
    document = {**FILE, "filename": "help.md", "kind": "document"}
    harness.services.answers |= {
        ("GET", "/v1/files/file-1"): document,
        ("GET", "/v1/files"): page(document),
        ("GET", "/v1/fine_tuning/jobs"): page(),
    }
    shown = (await browser.get("/files/file-1")).text
    assert "Kept as knowledge" in shown
    assert "Ask with retrieval" in shown
    assert "progress.js" not in shown
    assert 'data-file="file-1" hidden' in shown
    assert "kept as knowledge" in (await browser.get("/")).text
    async with asyncio.timeout(15), browser.stream("GET", "/files/file-1/events") as events:
        [state] = [json.loads(line[6:]) async for line in events.aiter_lines() if line.startswith("data: ")]
    assert (state["over"], state["document"]) == (True, True)


async def test_a_document_that_is_learned_shows_its_job_and_how_it_trains(harness: Harness) -> None:
    browser = await harness.sign_in()
    document = {**FILE, "filename": "help.md", "kind": "document"}
    job = {**JOB, "stage": "queued", "status": "queued", "method": {"type": "pretrain"}}
    harness.services.answers |= {("GET", "/v1/files/file-1"): document, ("GET", "/v1/fine_tuning/jobs"): page(job)}
    shown = (await browser.get("/files/file-1")).text
    assert "Waiting for a free worker" in shown
    assert '<code id="method-name">pretrain</code>' in shown
    assert "Kept as knowledge" not in shown
    supervised = {**job, "status": "failed", "stage": "ended", "method": {"type": "supervised"}}
    harness.services.answers["GET", "/v1/fine_tuning/jobs"] = page(supervised)
    assert "Kept as knowledge" in (await browser.get("/files/file-1")).text


async def test_a_page_of_a_refused_file_says_why_once(harness: Harness) -> None:
    browser = await harness.sign_in()
    harness.services.answers["GET", "/v1/files/file-1"] = {
        **FILE,
        "status": "error",
        "status_details": "line 2: not JSON",
    }
    shown = (await browser.get("/files/file-1")).text
    assert shown.count("line 2: not JSON") == 1
    assert "progress.js" not in shown

"""A new person's whole way through the console, in a real browser: each test is the next page they come to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import httpx2
import openai
import pytest
from playwright.sync_api import Locator, expect, sync_playwright

from localstack import LocalStack
from schemas.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST
from schemas.http.registry import folder_of
from tests.conftest import ROOT
from tests.e2e.browser import PROGRAMS, Visitor, chromium, find_chromium, shown
from tests.e2e.test_main_way import rows

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason=f"needs Chromium: none of {', '.join(PROGRAMS)} is installed"),
    pytest.mark.timeout(600),
]

TRAINING = 240_000
"""Milliseconds that a fine-tune of the tiny model may take on a busy machine."""

PASSWORD = "correct horse battery"
EMAIL = "mika@example.org"


@pytest.fixture(scope="module")
def pictures() -> Path | None:
    """Where pictures of each page go, if they are wanted; see `make screenshots`."""
    if not (wanted := os.environ.get("SARTOR_SCREENSHOTS")):
        return None
    folder = Path(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def newcomer(stack: LocalStack, pictures: Path | None) -> Iterator[Visitor]:
    """Somebody who has opened the console's address for the first time."""
    with sync_playwright() as playwright, chromium(playwright) as browser:
        page = browser.new_page(base_url=stack.console_url)
        yield Visitor(page, stack.console_url.rstrip("/"), pictures)


@pytest.fixture(scope="module")
def person(newcomer: Visitor) -> Visitor:
    """They have signed up, with the keyboard alone."""
    newcomer.open("/")
    newcomer.page.get_by_role("link", name="Sign up").focus()
    newcomer.press("Enter")
    expect(newcomer.page.get_by_role("heading", name="A model made to measure")).to_be_visible()
    newcomer.look("sign-up")
    newcomer.page.get_by_label("Name of your team or firm").focus()
    newcomer.type("くもサイクル Kumo", EMAIL, PASSWORD)
    newcomer.press("Enter")
    expect(newcomer.page.get_by_role("heading", name="Your models")).to_be_visible()
    return newcomer


def upload(visitor: Visitor, name: str, body: bytes) -> None:
    """Choose a file on the first page and send it."""
    visitor.open("/")
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": body}
    visitor.page.locator("#file").set_input_files(files=[file])  # type: ignore[list-item]
    visitor.page.get_by_role("button", name="Upload").focus()
    visitor.press("Enter")
    expect(visitor.page.get_by_role("heading", name=name)).to_be_visible()


def stage(visitor: Visitor) -> Locator:
    """The stage that is under way."""
    return visitor.page.locator("[aria-current=step]")


@pytest.fixture(scope="module")
def tested(person: Visitor) -> Visitor:
    """They have uploaded rows too few to decide anything, and watched until the model waits for their word."""
    person.look("home-empty")
    upload(person, "messages.jsonl", rows(60))
    person.record("note", "bar", "stages")
    expect(stage(person)).to_have_text("Training", timeout=TRAINING)
    person.look("progress-training")
    shown(person, "A person decides whether it goes into use", timeout=TRAINING)
    return person


@pytest.fixture(scope="module")
def model(tested: Visitor) -> str:
    """The model they let into use; its id."""
    tested.page.get_by_role("link", name="See the evidence and decide about fine-tune").click()
    tested.page.get_by_label("Why").fill("Good enough to try.")
    tested.look("model-undecided")
    tested.page.get_by_label("Why").press("Enter")
    expect(tested.page.get_by_text("State: in use")).to_be_visible()
    return tested.page.locator("h1").inner_text()


@pytest.fixture(scope="module")
def chatted(person: Visitor, model: str) -> Visitor:
    """They have asked both models the same."""
    person.page.get_by_role("link", name="Chat").last.click()
    person.look("chat-empty")
    person.record("base", "own")
    person.traffic.clear()
    person.page.get_by_label("Message", exact=True).focus()
    person.type("bike 3 will not open 鍵が開かない")
    person.press("Control+Enter")
    expect(person.page.get_by_role("button", name="Good answer")).to_be_visible(timeout=60_000)
    return person


@pytest.fixture(autouse=True)
def quiet(newcomer: Visitor) -> Iterator[None]:
    """Nothing in the browser's console, nothing asked of anybody else."""
    newcomer.complaints.clear()
    yield
    assert newcomer.complaints == []


def test_a_stranger_is_led_to_sign_in(newcomer: Visitor) -> None:
    newcomer.open("/keys")
    expect(newcomer.page.get_by_role("heading", name="Sign in")).to_be_visible()
    newcomer.look("sign-in")


def test_the_refusal_of_an_unknown_address_leads_to_the_reference(newcomer: Visitor, stack: LocalStack) -> None:
    refused = httpx2.get(f"{stack.base_url}/nothing", timeout=30).json()["error"]
    place = re.search(r"(/\S+) lists the routes", refused["message"])
    assert place, refused
    newcomer.open(place[1])
    expect(newcomer.page.get_by_role("heading", name="API reference")).to_be_visible()
    expect(newcomer.page.get_by_role("alert")).to_have_count(0)
    newcomer.look("reference")
    newcomer.page.get_by_role("link", name="POST /v1/fine_tuning/jobs", exact=True).focus()
    newcomer.press("Enter")
    expect(newcomer.page.get_by_role("heading", name="fine_tuning", exact=True)).to_be_visible()
    expect(newcomer.page.locator("#post-fine_tuning-jobs")).to_be_in_viewport()
    newcomer.look("reference-part")
    document = httpx2.get(newcomer.home + place[1] + "/openapi.json", timeout=30).json()
    assert {"/v1/files", "/v1/chat/completions", "/v1/organization/keys"} <= set(document["paths"])
    assert not [path for path in document["paths"] if not path.startswith("/v1/")]


def test_signing_up_leads_to_an_empty_home(person: Visitor) -> None:
    person.open("/")
    shown(person, "くもサイクル Kumo")
    expect(person.page.get_by_label("Drop a file here, or choose one")).to_be_visible()


def test_who_has_no_model_yet_talks_to_the_base(person: Visitor) -> None:
    person.open("/")
    person.page.get_by_role("link", name="chat with the base model").focus()
    person.press("Enter")
    expect(person.page.get_by_role("heading", name="Chat")).to_be_visible()
    person.page.get_by_label("Message", exact=True).focus()
    person.type("bike 3 will not open 鍵が開かない")
    person.press("Control+Enter")
    expect(person.page.locator("#base")).to_have_text(re.compile(r"[^\s…]"), timeout=60_000)
    expect(person.page.get_by_role("button", name="Send")).to_be_enabled(timeout=60_000)
    expect(person.page.locator("#own")).to_have_count(0)
    expect(person.page.get_by_label("Model").locator("option")).to_have_count(1)
    person.look("chat-base")
    person.open("/")


def test_the_progress_of_an_upload_moves_by_itself(tested: Visitor) -> None:
    notes, bar, stages = tested.seen("note"), tested.seen("bar"), tested.seen("stages")
    assert any(note.startswith("step ") for note in notes), notes
    assert len(notes) >= 4, notes
    assert len(set(bar)) >= 4, bar
    assert stages == sorted(stages, key=["Checking", "Training", "Testing", "Serving"].index)
    assert {"Training", "Serving"} <= set(stages)
    expect(stage(tested)).to_have_text("Serving")
    expect(tested.page.locator("#loss-text")).to_contain_text(re.compile(r"at step \d, .* at step 300:"))
    shown(tested, "What happened")
    expect(tested.page.locator("#waiting")).to_contain_text("A person must decide about the model.")
    expect(tested.page.locator("#waiting")).to_contain_text("since 20")
    tested.look("progress-undecided")


def test_the_home_page_asks_for_the_decision(tested: Visitor) -> None:
    place = tested.page.url
    tested.open("/")
    expect(tested.page.get_by_role("heading", name="Waiting for a decision")).to_be_visible()
    tested.look("home-undecided")
    tested.page.goto(place)


def test_the_evidence_shows_both_sides(person: Visitor, model: str) -> None:
    for system in ("Base model", "Base model with examples", "Your model"):
        expect(person.page.get_by_role("rowheader", name=system, exact=True)).to_be_visible()
    shown(person, "too few to decide")
    person.look("model")


def test_a_copy_of_the_fine_tune_is_taken_home(person: Visitor, model: str) -> None:
    person.page.get_by_role("button", name="Download the adapter").focus()
    with person.page.expect_download() as begun:
        person.press("Enter")
    download = begun.value
    assert download.suggested_filename == f"{folder_of(model)}.zip"
    with ZipFile(download.path()) as copy:
        assert copy.testzip() is None
        names = {name.partition("/")[2] for name in copy.namelist()}
    assert {"README.md", ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST} <= names
    person.open("/models/" + model)
    shown(person, "Copies taken: 1.")
    person.look("model-copied")


def test_a_finished_upload_leads_to_its_model(person: Visitor, model: str) -> None:
    person.open("/")
    item = person.page.get_by_role("listitem").filter(has_text=model).filter(has_text="Evidence")
    expect(item).to_contain_text("answers by its fine-tune")
    person.look("home")
    person.page.get_by_role("link", name="messages.jsonl").click()
    shown(person, "Your model answers.")
    expect(person.page.get_by_role("link", name="Chat with your model")).to_be_visible()
    expect(person.page.locator("#losses polyline")).to_have_attribute("points", re.compile(r"^0\.0,\d+\.\d .* 300\.0,"))
    person.look("progress-done")
    person.open("/models/" + model)


def test_both_models_answer_side_by_side_as_they_think(chatted: Visitor) -> None:
    asked = [happened for happened, path in chatted.traffic if path == "/chat/say"]
    assert asked[:2] == ["began", "began"], asked
    growing = [chatted.seen("base"), chatted.seen("own")]
    assert any(len(states) >= 5 for states in growing), growing
    left, right = (chatted.page.locator(f"#{pane}").bounding_box() for pane in ("base", "own"))
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] < right["x"]
    assert abs(left["y"] - right["y"]) < 2
    chatted.look("chat")


def test_a_rating_is_kept_and_can_be_taken_back(chatted: Visitor) -> None:
    chatted.page.get_by_role("button", name="Good answer").focus()
    chatted.press("Enter")
    expect(chatted.page.get_by_role("status")).to_contain_text("Thank you.")
    chatted.page.get_by_role("button", name="Take it back").focus()
    chatted.press("Enter")
    expect(chatted.page.get_by_role("status")).to_have_text("It is taken back.")
    expect(chatted.page.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "false")
    chatted.page.get_by_label("A better answer").fill("unlock_failed")
    chatted.page.get_by_role("button", name="Bad answer").focus()
    chatted.press("Enter")
    expect(chatted.page.get_by_role("status")).to_contain_text("Thank you.")
    expect(chatted.page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")
    chatted.look("chat-rated")
    chatted.open("/labeling")
    rating = chatted.page.get_by_role("row").filter(has_text="Bad answer")
    _until_shown(chatted, rating)
    expect(rating).to_contain_text("given")
    chatted.look("labeling-rated")
    rating.get_by_role("button", name=re.compile("Delete rating")).focus()
    chatted.press("Enter")
    _until_shown(chatted, chatted.page.get_by_text("None yet. Rate an answer"))


def test_a_key_is_shown_once_works_and_can_be_revoked(person: Visitor, stack: LocalStack, model: str) -> None:
    person.page.get_by_role("link", name="API keys").click()
    person.look("keys-empty")
    person.page.get_by_label("What is it for?").focus()
    person.type("Nightly job")
    person.press("Enter")
    secret = person.page.locator(".made code").inner_text()
    person.look("keys-made")
    sdk = openai.OpenAI(base_url=stack.base_url, api_key=secret)
    assert model in [found.id for found in sdk.models.list()]
    person.open("/keys")
    expect(person.page.get_by_text(secret)).to_have_count(0)
    person.page.get_by_role("button", name="Rotate Nightly job").focus()
    person.press("Enter")
    rotated = person.page.locator(".made code").inner_text()
    person.look("keys-rotated")
    for both in (secret, rotated):
        assert model in [found.id for found in openai.OpenAI(base_url=stack.base_url, api_key=both).models.list()]
    expect(person.page.get_by_role("row").filter(has_text="Nightly job")).to_contain_text("too, until")
    person.open("/keys")
    revoke = person.page.locator("form[action$=revoke]").first
    key_id = str(revoke.get_attribute("action")).split("/")[2]
    person.page.get_by_role("button", name="Revoke Nightly job").focus()
    person.press("Enter")
    expect(person.page.get_by_role("row").filter(has_text="Nightly job")).to_contain_text("revoked")
    person.look("keys")
    person.open(f"/keys?after={key_id}")
    shown(person, "These are the oldest keys.")
    person.look("keys-older")
    person.page.get_by_role("link", name="Newest keys").click()
    shown(person, "Nightly job")


def test_services_of_ones_own_publish_and_are_told_by_webhooks(person: Visitor, stack: LocalStack, model: str) -> None:
    person.page.get_by_role("link", name="Events and webhooks").click()
    expect(person.page.get_by_role("row").filter(has_text="model.promoted.v1").first).to_be_visible()
    person.look("events-empty")
    person.page.get_by_label("Which service is it?").focus()
    person.type("Survey")
    person.press("Enter")
    key = person.page.locator(".made code").inner_text()
    rating = {"feedback_id": "r", "chat_id": "c", "model": model, "rating": "sideways"}
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "feedback.recorded.v1", "data": rating}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/cloudevents+json"}
    assert httpx2.post(f"{stack.base_url}/events", json=event, headers=headers, timeout=30).status_code == 400
    person.open("/events")
    shown(person, "invalid_event_data")
    person.page.get_by_label("Name", exact=True).focus()
    person.type("Chat room", "https://8.8.8.8/hook")
    person.press("Enter")
    shown(person, "whsec_")
    person.look("events")
    person.page.get_by_role("link", name="Chat room").click()
    shown(person, "Nothing was sent yet.")
    person.look("webhook")
    person.page.get_by_role("button", name="Delete with its deliveries").focus()
    person.press("Enter")
    shown(person, "A webhook tells a service of yours")


def test_rows_without_answers_are_answered_and_published(person: Visitor) -> None:
    upload(person, "unlabelled.jsonl", (ROOT / "infra/samples/support/unlabelled.jsonl").read_bytes())
    expect(person.page.get_by_role("link", name="Answer them")).to_be_visible(timeout=60_000)
    person.look("progress-unlabelled")
    person.open("/labeling")
    person.look("labeling")
    person.page.get_by_role("link", name="Label Rows of unlabelled.jsonl").click()
    shown(person, "0 of 20 answered")
    person.look("task-free")
    person.page.get_by_text("Labels and instructions").click()
    person.page.get_by_label("Labels, separated by commas").fill("question, 意見")
    person.page.get_by_label("Instructions").fill("Question or opinion?")
    person.page.get_by_label("Instructions").press("Enter")
    expect(person.page.get_by_role("radio", name="question")).to_be_focused()
    person.look("task-choice")
    person.page.reload()
    for number in range(1, 4):
        expect(person.page.get_by_role("radio", name="question")).to_be_focused()
        person.press("Space", "ArrowDown", "Enter")
        shown(person, f"{number} of 20 answered")
    person.page.get_by_role("button", name="Skip").click()
    person.page.get_by_role("button", name="Publish").click()
    shown(person, "Published once")
    person.look("task-published")
    person.open("/")
    _until_shown(person, person.page.get_by_role("link", name="unlabelled-answered-1.jsonl"))


@pytest.mark.slow
def test_a_refused_model_stops_where_it_was_refused(person: Visitor) -> None:
    upload(person, "second.jsonl", rows(45))
    person.page.get_by_role("link", name="See the evidence and decide about fine-tune").click(timeout=TRAINING)
    person.page.get_by_label("Why").fill("Not this one.")
    person.page.get_by_role("button", name="Refuse it").focus()
    person.press("Enter")
    expect(person.page.get_by_text("State: refused")).to_be_visible()
    expect(person.page.get_by_role("link", name="Chat", exact=True)).to_have_count(1)
    person.look("model-refused")
    person.open("/")
    person.page.get_by_role("link", name="second.jsonl").click()
    expect(person.page.locator("#failed")).to_contain_text("Not this one.")
    expect(stage(person)).to_have_text("Testing")
    expect(person.page.get_by_role("link", name="See the evidence", exact=True)).to_be_visible()
    person.look("progress-refused")


def test_a_model_answers_while_it_is_trained_and_its_versions_are_shown(person: Visitor) -> None:
    upload(person, "many.jsonl", rows(150))
    expect(person.page.locator("#first-answer")).to_have_text(
        re.compile(r"First answer after \d+ (s|minutes)"), timeout=TRAINING
    )
    expect(person.page.locator("#answers")).to_have_text(re.compile(r"answers now by its (head|nearest rows)\."))
    expect(person.page.locator("#better")).to_have_text(re.compile("A better one "))
    person.look("progress-answers")
    person.open("/")
    answers = person.page.get_by_role("listitem").filter(has_text="answers now by its ")
    expect(answers).to_have_count(1)
    person.look("home-answers")
    answers.get_by_role("link", name="Evidence").focus()
    person.press("Enter")
    expect(person.page.get_by_role("heading", name="Versions of this model")).to_be_visible()
    expect(person.page.get_by_role("row").filter(has_text="Quick answers by its ").first).to_contain_text("in use")
    person.look("model-versions")
    expect(person.page.get_by_role("heading", name="What your rows tell")).to_be_visible()
    expect(person.page.get_by_role("img", name="Accuracy by rows.")).to_be_visible()
    for button, then in (("Answer by this one", "yes, pinned"), ("Choose by tests again", "yes")):
        person.page.get_by_role("button", name=button).focus()
        person.press("Enter")
        shown = person.page.get_by_role("row").filter(has_text="Quick answers by its ").first.get_by_role("cell").nth(1)
        expect(shown).to_have_text(then)
        person.look(f"model-{button.split()[0].lower()}")
    person.page.get_by_label("Answer by them where they are this sure").fill("95")
    person.page.get_by_role("button", name="Pin them, and hand over the rest").focus()
    person.press("Enter")
    expect(person.page.get_by_text("They answer where they are at least 95 % sure.")).to_be_visible()
    person.look("model-hands-over")
    name = person.page.locator("h1").inner_text()
    person.page.get_by_role("link", name="Delete this model").focus()
    person.press("Enter")
    person.page.get_by_label("Its name, to be sure").focus()
    person.type(name)
    person.press("Enter")
    expect(person.page.get_by_role("heading", name="The model is deleted")).to_be_visible()
    person.open("/")
    expect(person.page.get_by_role("listitem").filter(has_text=name)).to_have_count(0)


def test_a_file_that_cannot_be_read_names_its_line(person: Visitor) -> None:
    bad = rows(20).split(b"\n")
    bad[2] = bad[2][:-5]
    upload(person, "größe.jsonl", b"\n".join(bad))
    expect(person.page.locator("#failed")).to_contain_text("line 3", timeout=60_000)
    person.look("progress-bad-file")


def test_a_document_is_kept_for_search_and_deleted_by_its_name(person: Visitor) -> None:
    upload(person, "help.md", "# 返金\n\n五日以内".encode())
    shown(person, "Kept as knowledge", timeout=60_000)
    expect(stage(person)).to_be_hidden()
    person.look("progress-document")
    person.page.get_by_role("link", name="Delete this file").focus()
    person.press("Enter")
    expect(person.page.get_by_role("heading", name="Delete this file?")).to_be_visible()
    person.look("delete-file")
    person.page.get_by_label("Its name, to be sure").focus()
    person.type("help")
    person.press("Enter")
    expect(person.page.get_by_role("alert")).to_contain_text("nothing was deleted")
    person.page.get_by_label("Its name, to be sure").focus()
    person.type("help.md")
    person.press("Enter")
    expect(person.page.get_by_role("heading", name="The file is deleted")).to_be_visible()
    person.complaints[:] = [line for line in person.complaints if "status of 400" not in line]
    person.look("deleted-file")
    person.open("/")
    expect(person.page.get_by_role("link", name="help.md")).to_have_count(0)


def test_scripts_lead_to_sign_in_when_the_session_is_over(person: Visitor, model: str) -> None:
    person.open("/chat")
    person.page.context.clear_cookies()
    person.page.get_by_label("Message", exact=True).fill("still there?")
    person.press("Control+Enter")
    _sign_in(person)
    person.page.context.clear_cookies()
    person.page.locator("#file").set_input_files(files=[{"name": "x.md", "mimeType": "text/plain", "buffer": b"# x"}])
    person.page.get_by_role("button", name="Upload").click()
    _sign_in(person)
    person.complaints[:] = [line for line in person.complaints if "status of 401" not in line]


def test_a_page_that_is_not_there_leads_back(person: Visitor) -> None:
    person.refused("/models/ft:none", 404)
    expect(person.page.get_by_role("heading", name="That did not work")).to_be_visible()
    person.look("problem")
    person.page.get_by_role("link", name="Back home").click()
    expect(person.page.get_by_role("heading", name="Your models")).to_be_visible()


def test_signing_out_and_in_again(person: Visitor) -> None:
    person.page.get_by_role("button", name="Sign out").click()
    _sign_in(person)
    person.look("home-full")


def _sign_in(visitor: Visitor) -> None:
    expect(visitor.page.get_by_role("heading", name="Sign in")).to_be_visible()
    visitor.page.get_by_label("E-mail address").focus()
    visitor.type(EMAIL, PASSWORD)
    visitor.press("Enter")
    shown(visitor, "messages.jsonl")


def _until_shown(visitor: Visitor, wanted: Locator) -> None:
    """Reload until something that comes by an event is there."""
    for _ in range(20):
        try:
            return expect(wanted).to_be_visible(timeout=1000)
        except AssertionError:
            visitor.page.reload()
    return expect(wanted).to_be_visible()

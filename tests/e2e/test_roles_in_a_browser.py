"""The first sign-in and first real task of a person of each role, and the operator, by keyboard in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from chassis.roles import ROLES
from localstack import LocalStack
from tests.e2e.browser import PROGRAMS, Visitor, chromium, find_chromium, shown
from tests.e2e.test_console_in_a_browser import PASSWORD, TRAINING, pictures, upload
from tests.e2e.test_main_way import rows

__all__ = ["pictures"]

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason=f"needs Chromium: none of {', '.join(PROGRAMS)} is installed"),
    pytest.mark.timeout(600),
]

OWNER = "olga@example.org"


class Town:
    """One browser for everybody, each with a window and cookies of their own.

    Attributes:
        links: by role, the link that the owner gave somebody of that role.
    """

    def __init__(self, browser: Browser, stack: LocalStack, pictures: object) -> None:
        self.browser = browser
        self.stack = stack
        self.pictures = pictures
        self.home = stack.console_url.rstrip("/")
        self.links: dict[str, str] = {}

    @contextmanager
    def somebody(self) -> Iterator[Visitor]:
        """A person who has not been here before."""
        context = self.browser.new_context()
        visitor = Visitor(context.new_page(), self.home, self.pictures)  # type: ignore[arg-type]
        yield visitor
        assert visitor.complaints == []
        context.close()

    @contextmanager
    def person(self, role: str) -> Iterator[Visitor]:
        """A person who was invited, and has come in by their link and a password."""
        with self.somebody() as visitor:
            visitor.page.goto(self.links[role])
            expect(visitor.page.get_by_label("Code")).to_have_value(re.compile(r".{20,}"))
            shown(visitor, f"{role}@example.org, {role.replace('_', ' ')} of Kumo roles")
            expect(visitor.page.get_by_label("Password")).to_be_focused()
            assert "#" not in visitor.page.url
            visitor.type(PASSWORD)
            visitor.press("Enter")
            expect(visitor.page.get_by_role("button", name="Sign out")).to_be_visible()
            visitor.look(f"home-{role}")
            yield visitor


@pytest.fixture(scope="module")
def town(stack: LocalStack, pictures: object) -> Iterator[Town]:
    with sync_playwright() as playwright, chromium(playwright) as browser:
        yield Town(browser, stack, pictures)


@pytest.fixture(scope="module")
def owner(town: Town) -> Iterator[Visitor]:
    """The owner signed up, lets a person decide about every model, and invites somebody of every role."""
    with town.somebody() as visitor:
        visitor.open("/sign-up")
        visitor.page.get_by_label("Name of your team or firm").focus()
        visitor.type("Kumo roles", OWNER, PASSWORD)
        visitor.press("Enter")
        expect(visitor.page.get_by_role("heading", name="Your models")).to_be_visible()
        visitor.press("g", "p")
        expect(visitor.page.get_by_role("heading", name="People")).to_be_visible()
        visitor.look("people-first")
        for role in sorted(set(ROLES) - {"operator", "owner"}):
            visitor.page.get_by_label("E-mail address").focus()
            visitor.type(f"{role}@example.org")
            visitor.page.get_by_label("Role", exact=True).select_option(role)
            visitor.page.get_by_role("button", name="Invite").focus()
            visitor.press("Enter")
            link = visitor.page.locator(".made code")
            shown(visitor, f"Give this link to {role}@example.org")
            town.links[role] = town.home + "/" + link.inner_text().split("/", 3)[3]
        visitor.look("people-invited")
        yield visitor


@pytest.fixture(scope="module")
def undecided(owner: Visitor) -> str:
    """A model that waits for somebody to decide; uploaded by the owner, whose policy asks for it."""
    owner.press("g", "o")
    expect(owner.page.get_by_role("heading", name="Policy")).to_be_visible()
    owner.page.get_by_label("A tested model goes into use").select_option("approval")
    owner.page.get_by_role("button", name="Save").focus()
    owner.press("Enter")
    shown(owner, "Saved.")
    owner.look("policy")
    upload(owner, "messages.jsonl", rows(60))
    link = owner.page.get_by_role("link", name="See the evidence and decide about fine-tune")
    expect(link).to_be_visible(timeout=TRAINING)
    link.focus()
    owner.press("Enter")
    expect(owner.page.get_by_text("State: waits for a decision")).to_be_visible()
    return owner.page.locator("h1").inner_text()


def test_every_role_has_a_test_here() -> None:
    assert {role for role in ROLES if not any(name.startswith(f"test_the_{role}_") for name in globals())} == set()


def test_the_owner_cannot_shut_out_the_last_owner(owner: Visitor) -> None:
    owner.open("/people")
    owner.page.get_by_role("button", name=f"Shut {OWNER} out").focus()
    owner.press("Enter")
    expect(owner.page.get_by_role("alert")).to_contain_text("last owner")
    owner.complaints[:] = [line for line in owner.complaints if "status of 409" not in line]


def test_the_labeler_answers_a_task(owner: Visitor, town: Town) -> None:
    upload(owner, "questions.jsonl", b"".join(b'{"text": "question %d"}\n' % n for n in range(20)))
    expect(owner.page.get_by_role("link", name="Answer them")).to_be_visible(timeout=60_000)
    with town.person("labeler") as labeler:
        expect(labeler.page.get_by_role("heading", name="Labeling")).to_be_visible()
        assert labeler.page.locator("#navigation a").all_inner_texts() == ["Labeling", "Account"]
        labeler.page.get_by_role("link", name="Label Rows of questions.jsonl").focus()
        labeler.press("Enter")
        expect(labeler.page.get_by_label("Answer")).to_be_focused()
        labeler.type("billing")
        labeler.page.get_by_role("button", name="Save and next").focus()
        labeler.press("Enter")
        shown(labeler, "1 of 20 answered")
        labeler.refused("/keys", 403)
        expect(labeler.page.get_by_text("These roles may do it: owner, admin, auditor.")).to_be_visible()
        labeler.look("problem-forbidden")
        labeler.page.get_by_role("link", name="Back home").focus()
        labeler.press("Enter")
        expect(labeler.page.get_by_role("heading", name="Labeling")).to_be_visible()


def test_the_approver_finds_what_waits_sees_the_answers_and_decides(undecided: str, owner: Visitor, town: Town) -> None:
    with town.person("approver") as approver:
        expect(approver.page.get_by_role("heading", name="Waiting for a decision")).to_be_visible()
        approver.page.get_by_role("link", name="See the evidence and decide about fine-tune").focus()
        approver.press("Enter")
        expect(approver.page.locator("h1")).to_have_text(undecided)
        answers = approver.page.locator(".answers")
        expect(answers.first).to_contain_text("Wanted")
        for system in ("Your model", "Base model", "Base model with examples"):
            expect(answers.first.get_by_text(system, exact=True)).to_be_visible()
        approver.look("model-answers")
        approver.page.get_by_label("Why").focus()
        approver.type("Better than the base.")
        approver.press("Enter")
        shown(approver, "State: in use")
    owner.open("/")
    owner.page.get_by_role("link", name="messages.jsonl").click()
    shown(owner, "Your model answers.", timeout=60_000)


def test_the_viewer_looks_at_a_model(undecided: str, town: Town) -> None:
    with town.person("viewer") as viewer:
        expect(viewer.page.get_by_role("button", name="Upload")).to_have_count(0)
        viewer.press("g", "m")
        expect(viewer.page.get_by_role("heading", name="Models", exact=True)).to_be_visible()
        viewer.look("models")
        viewer.page.get_by_role("link", name=f"{undecided} fine-tune").focus()
        viewer.press("Enter")
        expect(viewer.page.get_by_text("Answers, row by row")).to_be_visible()
        expect(viewer.page.get_by_role("button", name="Use it")).to_have_count(0)


def test_the_auditor_checks_the_trail(owner: Visitor, town: Town) -> None:
    with town.person("auditor") as auditor:
        expect(auditor.page.get_by_role("heading", name="Audit trail")).to_be_visible()
        expect(auditor.page.get_by_role("row").filter(has_text="user.invite").first).to_contain_text("example.org")
        auditor.page.get_by_role("link", name="Check the whole trail").focus()
        auditor.press("Enter")
        shown(auditor, "The whole trail was read")
        auditor.look("audit")
        auditor.press("g", "p")
        expect(auditor.page.get_by_role("heading", name="People")).to_be_visible()
        expect(auditor.page.get_by_role("button", name="Invite")).to_have_count(0)
        auditor.press("?")
        expect(auditor.page.get_by_role("dialog")).to_contain_text("Audit")
        auditor.picture("keys-dialog")
        auditor.press("Escape")


def test_the_admin_lets_somebody_in_again(owner: Visitor, town: Town) -> None:
    with town.person("admin") as admin:
        admin.press("g", "p")
        admin.page.get_by_role("button", name="Shut labeler@example.org out").focus()
        admin.press("Enter")
        admin.page.get_by_role("button", name="Let labeler@example.org in again").focus()
        admin.press("Enter")
        expect(admin.page.get_by_role("button", name="Shut labeler@example.org out")).to_be_visible()
        expect(admin.page.get_by_role("button", name=f"Shut {OWNER} out")).to_have_count(0)
        admin.look("people-admin")
        admin.page.get_by_role("link", name="Account").focus()
        admin.press("Enter")
        admin.page.get_by_label("Current password").focus()
        admin.type(PASSWORD, "another good password")
        admin.press("Enter")
        shown(admin, "Your password was changed.")
        admin.look("account")


def test_the_engineer_uploads_and_asks(owner: Visitor, town: Town) -> None:
    with town.person("engineer") as engineer:
        upload(engineer, "help.md", b"# Refunds\n\nFive working days.\n")
        shown(engineer, "Kept as knowledge", timeout=60_000)
        engineer.press("g", "c")
        expect(engineer.page.get_by_role("heading", name="Chat")).to_be_visible()
        engineer.page.get_by_label("Message", exact=True).focus()
        engineer.type("bike 3 will not open")
        engineer.press("Control+Enter")
        expect(engineer.page.locator("#base")).to_have_text(re.compile(r"[^\s…]"), timeout=60_000)


def test_the_end_user_uploads_a_file_of_their_own(owner: Visitor, town: Town) -> None:
    with town.person("end_user") as user:
        expect(user.page.get_by_role("link", name="messages.jsonl")).to_have_count(0)
        upload(user, "mine.md", b"# Mine\n\nOnly mine.\n")
        shown(user, "Kept as knowledge", timeout=60_000)
    owner.open("/")
    expect(owner.page.get_by_role("link", name="mine.md")).to_be_visible()


def test_the_operator_looks_at_services_and_makes_a_tenant(stack: LocalStack, town: Town) -> None:
    with town.somebody() as operator:
        operator.open("/sign-in")
        operator.page.get_by_role("link", name="Operator").focus()
        operator.press("Enter")
        operator.page.get_by_label("Operator key").focus()
        operator.look("operator-sign-in")
        operator.page.get_by_label("Operator key").focus()
        operator.type(stack.home.secret("operator_key"))
        operator.press("Enter")
        expect(operator.page.get_by_role("heading", name="Services")).to_be_visible()
        shown(operator, "All are ready.")
        operator.look("operator-services")
        operator.press("g", "t")
        expect(operator.page.get_by_role("heading", name="Tenants")).to_be_visible()
        operator.page.get_by_label("Name", exact=True).focus()
        operator.type("雲自転車", "ren@example.org")
        operator.press("Enter")
        link = operator.page.locator(".made code").inner_text()
        operator.look("operator-tenants")
        operator.press("g", "d")
        expect(operator.page.get_by_role("heading", name="Dead letters")).to_be_visible(timeout=60_000)
        operator.look("operator-dead-letters")
        with town.somebody() as ren:
            ren.open("/" + link.split("/", 3)[3])
            shown(ren, "ren@example.org, owner of 雲自転車")
            ren.page.get_by_label("Password").focus()
            ren.type(PASSWORD)
            ren.press("Enter")
            shown(ren, "雲自転車")
            expect(ren.page.get_by_role("heading", name="Your models")).to_be_visible()

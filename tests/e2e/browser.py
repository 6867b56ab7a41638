"""A person at the console in a real browser, and what every page must keep to while they look at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Playwright, expect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}

NAMELESS = """() => [...document.querySelectorAll("input:not([type=hidden]), textarea, select, progress")]
  .filter((field) => !field.labels.length && !field.ariaLabel && !field.getAttribute("aria-labelledby"))
  .map((field) => field.outerHTML)"""

TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, .hidden"))
  .map((one) => one.outerHTML.slice(0, 120))"""

CONTROLS = """() => {
  const shown = (one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0;
  const all = [...document.querySelectorAll("a[href], button, input, textarea, select, summary")].filter(shown);
  const groups = new Set();
  window.controls = all.filter((one) => one.type !== "radio" || (!groups.has(one.name) && groups.add(one.name)));
  return window.controls.length;
}"""
"""Everything one can reach with Tab; of a group of radio buttons Tab reaches one."""

FOCUSED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const { outlineStyle, outlineWidth } = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  return {
    place: window.controls.findIndex((each) => each === one || (each.type === "radio" && each.name === one.name)),
    html: one.outerHTML.slice(0, 120),
    ring: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
    shown: box.width > 1 && box.height > 1 && box.left >= 0 && box.top >= 0 && box.top < innerHeight,
  };
}"""

RECORD = """([ids]) => {
  window.seen = {};
  window.began = performance.now();
  for (const id of ids) {
    const one = document.getElementById(id);
    const keep = () => {
      const value = one.value ?? (one.querySelector("[aria-current]") ?? one).textContent;
      if (value !== window.seen[id].at(-1)) window.seen[id].push(value);
    };
    window.seen[id] = [];
    keep();
    new MutationObserver(keep).observe(one, { childList: true, characterData: true, subtree: true, attributes: true });
  }
}"""


def find_chromium() -> str | None:
    """The system's Chromium."""
    return next((found for program in PROGRAMS if (found := shutil.which(program))), None)


@contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """A headless browser."""
    browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Visitor:
    """One person's browser window.

    Attributes:
        home: the console's address.
        pictures: folder for screenshots; None takes none.
        complaints: what a page must never do: errors in the browser's console, requests to elsewhere.
        traffic: every request as it began and as it ended, in order.
    """

    page: Page
    home: str
    pictures: Path | None = None
    complaints: list[str] = field(default_factory=list)
    traffic: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda line: self._complain(line.type in ("error", "warning"), line.text))
        self.page.on("pageerror", lambda error: self._complain(True, str(error)))
        self.page.on("request", lambda request: self._sent(request.url))
        self.page.on("requestfinished", lambda request: self.traffic.append(("ended", urlsplit(request.url).path)))
        self.page.on("requestfailed", lambda request: self.traffic.append(("ended", urlsplit(request.url).path)))

    def _complain(self, wrong: bool, text: str) -> None:
        if wrong:
            self.complaints.append(f"{self.page.url}: {text}")

    def _sent(self, url: str) -> None:
        parts = urlsplit(url)
        self.traffic.append(("began", parts.path))
        self._complain(parts.scheme != "data" and parts.hostname != "127.0.0.1", f"asked {url}")

    def open(self, path: str) -> None:
        """Go to one of the console's pages."""
        self.page.goto(self.home + path)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, *texts: str) -> None:
        """Type into fields that follow each other, going on with Tab."""
        for number, text in enumerate(texts):
            if number:
                self.press("Tab")
            self.page.keyboard.type(text)

    def record(self, *ids: str) -> None:
        """Keep every state that these elements go through, for `seen`."""
        self.page.evaluate(RECORD, [list(ids)])

    def seen(self, element: str) -> list[Any]:
        """The states an element went through since `record`, on this same page."""
        states: list[Any] = self.page.evaluate("(id) => window.seen[id]", element)
        return states

    def refused(self, path: str, status: int) -> None:
        """Open an address that must not be there; the browser's own complaint about the status is expected."""
        before = len(self.complaints)
        answer = self.page.goto(self.home + path)
        assert answer is not None
        assert answer.status == status
        mine = [line for line in self.complaints[before:] if f"status of {status}" not in line]
        self.complaints[before:] = mine

    def look(self, name: str) -> None:
        """Check what holds for every page, wide and narrow, and take its pictures."""
        assert self.page.evaluate(NAMELESS) == [], f"{name}: fields without a label"
        assert self.page.locator("h1").count() == 1, f"{name}: one main heading"
        self.page.evaluate("() => document.activeElement.blur()")
        for kind, size in (("narrow", NARROW), ("wide", WIDE)):
            self.page.set_viewport_size(size)  # type: ignore[arg-type]
            assert self.page.evaluate(TOO_WIDE) == [], f"{name}, {kind}: wider than the window"
            widths = self.page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], f"{name}, {kind}: scrolls sideways"
            self.picture(f"{name}-{kind}")
        self.page.emulate_media(color_scheme="dark")
        self.picture(f"{name}-dark")
        self.page.emulate_media(color_scheme="light")
        self._walk(name)

    def picture(self, name: str) -> None:
        """Take a picture of the whole page, where pictures are wanted."""
        if self.pictures:
            self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def _walk(self, name: str) -> None:
        """Tab reaches every control, in the page's order, and one sees where one is."""
        count = self.page.evaluate(CONTROLS)
        order: list[int] = []
        for _ in range(2 * count + 4):
            self.press("Tab")
            focused = self.page.evaluate(FOCUSED)
            if focused is None:
                continue
            assert focused["ring"], f"{name}: no ring around {focused['html']}"
            assert focused["shown"], f"{name}: focused but out of sight: {focused['html']}"
            if focused["place"] in order:
                break
            if focused["place"] >= 0:
                order.append(focused["place"])
        start = order.index(0) if 0 in order else 0
        assert order[start:] + order[:start] == list(range(count)), f"{name}: Tab reaches {order} of {count} controls"


def shown(visitor: Visitor, text: str, **how: Any) -> None:
    """Wait until a text is there to be read."""
    expect(visitor.page.get_by_text(text).first).to_be_visible(**how)

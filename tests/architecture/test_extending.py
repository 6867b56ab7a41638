"""The page that says how things are added lists files that are there, and that hold the thing whose list it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.conftest import ROOT

PAGE = ROOT / "docs/extending.md"
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"The list is that of ((?:[^`.]*`[^`]+`)+)")
ROW = re.compile(r"^\| (`.+?) \| (.+) \|$", re.MULTILINE)
PLACE = re.compile(r"`([^`<{*]*[/.][^`<{*]*)`")

SECTIONS = dict(SECTION.findall(PAGE.read_text()))


def rows(section: str) -> Iterator[tuple[str, bool]]:
    """The files and folders that a section lists, and whether all things of its kind need them."""
    for files, what in ROW.findall(SECTIONS[section]):
        for place in PLACE.findall(files):
            yield place, not what.startswith("only")


def spelled(names: list[str]) -> re.Pattern[str]:
    """Any of the names, whatever stands between their words."""
    words = (r"[-_. ]?".join(map(re.escape, re.split(r"[-_. ]", name))) for name in names)
    return re.compile("|".join(words), re.IGNORECASE)


@cache
def text(path: Path) -> str:
    """A file with its path, or all files of a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return "\n".join(f"{file.relative_to(ROOT)}\n{file.read_text()}" for file in files)


def test_the_page_has_a_list_for_each_kind() -> None:
    kinds = {"An engine", "A format", "A metric", "An event", "A service", "A training method"}
    assert kinds <= set(SECTIONS)
    assert [section for section in SECTIONS if len(list(rows(section))) < 5] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_file_that_is_named_is_there(section: str) -> None:
    named = [place for place in PLACE.findall(SECTIONS[section]) if place.split("/")[0] in set(map(str, tops()))]
    assert [place for place in named if not (ROOT / place).exists()] == []
    assert [place for place, _ in rows(section) if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_file_of_a_list_holds_the_thing_that_it_is_the_list_of(section: str) -> None:
    named = NAMED.search(SECTIONS[section])
    assert named, "say `The list is that of ...`"
    thing = spelled(re.findall(r"`([^`]+)`", named[1]))
    needed = [place for place, is_needed in rows(section) if is_needed]
    assert [place for place in needed if not thing.search(text(ROOT / place))] == []


def test_every_service_is_in_the_files_that_are_listed_for_one() -> None:
    """So the list of a service is that of all of them: what would be forgotten for the next is missed for one here."""
    from schemas.services import SERVICES

    needed = [place for place, is_needed in rows("A service") if is_needed and "serving_agent" not in place]
    missing = [(place, name) for place in needed for name in SERVICES if not spelled([name]).search(text(ROOT / place))]
    assert missing == []


def tops() -> Iterator[str]:
    """What lies at the root."""
    return (path.name for path in ROOT.iterdir())

"""The tree says what it is: each service has its page, every link leads somewhere, every target does something."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from schemas.services import SERVICES

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for path in ROOT.rglob("*.md") if not {".venv", ".sartor", "node_modules"} & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_page_its_package_and_its_entry(service: str) -> None:
    folder = ROOT / "services" / service
    assert (folder / "README.md").read_text().startswith(f"# {service}\n")
    assert f'name = "sartor-{service.replace("_", "-")}"' in (folder / "pyproject.toml").read_text()
    entry = (folder / "src" / service / "__main__.py").read_text()
    assert len(entry.splitlines()) <= 15
    assert f"services/{service}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("service", SERVICES)
def test_every_entry_is_the_same(service: str) -> None:
    def neutral(name: str) -> str:
        entry = (ROOT / "services" / name / "src" / name / "__main__.py").read_text()
        return "\n".join(sorted(entry.split('"""', 2)[2].replace(name, "service").splitlines()))

    assert neutral(service) == neutral("trainer")


@pytest.mark.parametrize("project", sorted(path.parent for path in ROOT.glob("*/*/pyproject.toml")), ids=str)
def test_a_package_ships_what_it_reads(project: Path) -> None:
    """An image holds what the wheel does: a page's template that no pattern names would be missing there only."""
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    patterns = settings.get("tool", {}).get("setuptools", {}).get("package-data", {})
    shipped = {
        path for package, globs in patterns.items() for one in globs for path in (project / "src" / package).glob(one)
    }
    read = {
        path
        for path in (project / "src").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and "egg-info" not in str(path)
    }
    assert read - shipped == set()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_tests(service: str) -> None:
    assert any((ROOT / "services" / service / "tests").glob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_pages_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`make ([a-z0-9 -]+)`", page.read_text()))
    missing = {target for names in named for target in names.split() if not re.search(rf"(?m)^{target}:", makefile)}
    assert missing == set()


def test_make_help_lists_every_target() -> None:
    phony = re.search(r"(?m)^\.PHONY: (.+)$", (ROOT / "Makefile").read_text())
    assert phony
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(phony[1].split())

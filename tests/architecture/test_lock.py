"""Every package is pinned, fits every other, has a reason, and is needed."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

MISFITS = {("text-generation", "huggingface-hub")}
"""Requirements that a package declares and does not hold to; docs/dependencies.md says more."""

CUDA = re.compile(r"nvidia-|cuda-|triton")
"""What torch brings along where the index offers only its CUDA builds: installed with it, not pinned."""

PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
}


def declared() -> dict[str, list[Requirement]]:
    """What each of our packages says it needs from others, by its path."""
    found = {}
    for path in sorted(ROOT.glob("*/pyproject.toml")) + sorted(ROOT.glob("*/*/pyproject.toml")):
        needs = [Requirement(text) for text in tomllib.loads(path.read_text())["project"]["dependencies"]]
        found[str(path.relative_to(ROOT))] = [need for need in needs if not need.name.startswith("sartor-")]
    return found


def documented() -> set[str]:
    """The packages of the first column of docs/dependencies.md."""
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)[1:]
    return {canonicalize_name(name.strip()) for row in rows for name in row.split(",")}


def needs(name: str, extras: set[str]) -> list[Requirement]:
    """What an installed package needs here, with some of its extras."""
    wanted = [Requirement(text) for text in metadata.requires(name) or []]
    return [
        need
        for need in wanted
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    ]


def closure() -> set[str]:
    """All that the documented packages need, and they themselves."""
    roots = {name: Requirement(name) for name in documented()}
    roots |= {canonicalize_name(need.name): need for found in declared().values() for need in found}
    seen: set[tuple[str, str]] = set()
    left = list(roots.values())
    while left:
        need = left.pop()
        name = canonicalize_name(need.name)
        key = (name, ",".join(sorted(need.extras)))
        if key not in seen:
            seen.add(key)
            left.extend(needs(name, need.extras) if name in PINS else [])
    return {name for name, _ in seen}


def test_every_line_of_the_lock_is_an_exact_pin() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.+]*", line)] == []
    assert len(lines) == len(PINS)


@pytest.mark.parametrize("package", declared())
def test_the_lock_holds_what_a_package_asks_for(package: str) -> None:
    unmet = [
        str(need)
        for need in declared()[package]
        if PINS.get(canonicalize_name(need.name)) is None
        or not need.specifier.contains(PINS[canonicalize_name(need.name)], prereleases=True)
    ]
    assert unmet == []


def test_every_dependency_states_a_floor() -> None:
    bare = [f"{path}: {need}" for path, found in declared().items() for need in found if not need.specifier]
    assert bare == []


def test_the_pins_fit_each_other() -> None:
    unmet = [
        f"{name} needs {need}, the lock has {PINS.get(canonicalize_name(need.name))}"
        for name in PINS
        for need in needs(name, set())
        if (name, canonicalize_name(need.name)) not in MISFITS
        and not CUDA.match(need.name)
        and not need.specifier.contains(PINS.get(canonicalize_name(need.name), "0"), prereleases=True)
    ]
    assert unmet == []


def test_what_is_installed_is_what_is_pinned() -> None:
    installed = {name: metadata.version(name) for name in PINS}
    assert {name: version.partition("+")[0] for name, version in installed.items()} == PINS


def test_make_venv_takes_files_whose_digest_is_known_but_for_torch_and_looks_for_what_runs_at_every_start() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("$(STAMP): ")[2].partition("\n\n")[0]
    installs = [re.split(r"&&|\n", part)[0].strip(" )") for part in recipe.split("$(PIP)")[1:]]
    assert installs == [
        "--no-deps $(HASHED) -r $(VENV)/without-torch.txt",
        "-c requirements.lock $(TORCH",  # which build of it, an index or a folder decides
    ]
    looks = "-I infra/local/src/localstack/startup_files.py $(VENV)"
    told = [line for line in recipe.splitlines() if "$(PIP)" in line or looks in line]
    assert [looks in line for line in told] == [False, True, False, True]  # before what came runs for the first time


def test_nothing_is_pinned_that_nobody_needs() -> None:
    assert set(PINS) - closure() == set()


def test_every_direct_dependency_has_its_reason() -> None:
    direct = {canonicalize_name(need.name) for found in declared().values() for need in found}
    assert direct - documented() == set()
    assert documented() - set(PINS) == set()

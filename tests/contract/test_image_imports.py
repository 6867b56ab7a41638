"""What a service imports is in its image, also what others' packages import without saying that they need it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from localstack.home import SERVICE_PORTS
from localstack.lock_hashes import pins_of
from tests.contract.compose import ROOT

IMPORTS = """
import importlib, json, os, pkgutil, re, sys, traceback
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

owners = {
    top: {re.sub(r"[-_.]+", "-", name).lower() for name in names} for top, names in packages_distributions().items()
}


class Held:
    find_distributions = PathFinder.find_distributions

    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        there = top in held if top in ours else top not in owners or owners[top] & held
        return PathFinder.find_spec(name, path, target) if there else None


def import_all(service):
    package = importlib.import_module(service)
    for module in pkgutil.walk_packages(package.__path__, f"{service}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
sys.meta_path[:] = [Held if finder is PathFinder else finder for finder in sys.meta_path]
held, ours, shared = set(json.loads(sys.argv[1])), set(json.loads(sys.argv[2])), sys.argv[3:]
for module in shared:
    importlib.import_module(module)
for line in sys.stdin:
    service, *others = json.loads(line)
    held = set(others)
    heard, told = os.pipe()
    if os.fork() == 0:
        said = "imported"
        try:
            import_all(service)
        except BaseException:
            said = traceback.format_exc()
        os.write(told, said[-2000:].encode())
        os._exit(0)
    os.close(told)
    with os.fdopen(heard) as pipe:
        said = pipe.read()
    os.wait()
    print(json.dumps(said), file=answers, flush=True)
"""
LOCKS = ROOT / "infra/docker/locks"

Importer = Callable[[str, AbstractSet[str]], str]


OURS = {path.parent.name for path in ROOT.glob("*/*/pyproject.toml")} | {"schemas"}


def of_ours(service: str) -> set[str]:
    """The packages of ours that its image is made of."""
    project = "infra/provision" if service == "provision" else f"services/{service}"
    asked = [sys.executable, "infra/docker/sbom.py", "--folders", project]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {Path(folder).name for folder in said.split()}


@cache
def held_by(service: str) -> frozenset[str]:
    """The packages that are installed in a service's image, by their distributions' names, and ours by their own."""
    torch = {"torch"} if service in ("trainer", "model_server") else set()
    return frozenset(pins_of((LOCKS / f"{service}.txt").read_text())) | of_ours(service) | torch


@contextmanager
def importer(held: AbstractSet[str], *modules: str) -> Iterator[Importer]:
    """Imports all modules of a service where only what is given is installed; says "imported", or the error.

    Args:
        held: what is installed where `modules` are imported.
        modules: what is there already: each service is imported in a fork of the process that imported them.
    """
    command = [sys.executable, "-c", IMPORTS, json.dumps(sorted(held)), json.dumps(sorted(OURS)), *modules]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def imported(service: str, held: AbstractSet[str]) -> str:
            print(json.dumps([service, *held]), file=ask, flush=True)
            return str(json.loads(answers.readline()))

        yield imported


@pytest.fixture(scope="module")
def beside_others() -> Iterator[Importer]:
    """Goes on from what every service imports, which is in every image."""
    held_by_all = frozenset.intersection(*map(held_by, SERVICE_PORTS))
    with importer(held_by_all, "runtime.service") as imported:
        yield imported


@pytest.fixture(scope="module")
def alone() -> Iterator[Importer]:
    """Begins with nothing."""
    with importer(set()) as imported:
        yield imported


@pytest.mark.parametrize("service", SERVICE_PORTS)
def test_what_a_service_imports_is_in_its_image(beside_others: Importer, service: str) -> None:
    assert beside_others(service, held_by(service)) == "imported"


def test_what_the_provisioning_imports_is_in_its_image(alone: Importer) -> None:
    assert alone("provision", held_by("provision")) == "imported"


def test_what_is_not_held_is_missed(alone: Importer, beside_others: Importer) -> None:
    assert "No module named 'argon2'" in alone("accounts", held_by("accounts") - {"argon2-cffi"})
    assert "No module named 'pymilvus'" in beside_others("rag_indexer", held_by("rag_indexer") - {"pymilvus"})
    assert "No module named 'serving'" in beside_others("serving_agent", held_by("serving_agent") - {"serving"})

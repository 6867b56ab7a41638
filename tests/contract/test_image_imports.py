"""What a service imports is in its image, also what others' packages import without saying that they need it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from localstack.home import SERVICE_PORTS
from localstack.lock_hashes import pins_of
from tests.contract.compose import ROOT

IMPORTS = """
import importlib, pkgutil, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

service, *held = sys.argv[1:]
owners = {
    top: {re.sub(r"[-_.]+", "-", name).lower() for name in names} for top, names in packages_distributions().items()
}


class Held:
    find_distributions = PathFinder.find_distributions

    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        return PathFinder.find_spec(name, path, target) if top not in owners or owners[top] & set(held) else None


sys.meta_path[:] = [Held if finder is PathFinder else finder for finder in sys.meta_path]
package = importlib.import_module(service)
for module in pkgutil.walk_packages(package.__path__, f"{service}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
LOCKS = ROOT / "infra/docker/locks"


def imported(service: str, held: set[str]) -> subprocess.CompletedProcess[str]:
    """Every module of a service imported where nothing else is installed."""
    return subprocess.run(
        [sys.executable, "-c", IMPORTS, service, *held], capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.parametrize("service", [*SERVICE_PORTS, "provision"])
def test_what_a_service_imports_is_in_its_image(service: str) -> None:
    held = set(pins_of((LOCKS / f"{service}.txt").read_text()))
    if service in ("trainer", "model_server"):
        held |= {"torch"}
    done = imported(service, held)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_not_held_is_missed() -> None:
    held = set(pins_of((LOCKS / "accounts.txt").read_text()))
    done = imported("accounts", held - {"argon2-cffi"})
    assert "No module named 'argon2'" in done.stderr

"""What a service imports is in its image, also what others' packages import without saying that they need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from localstack.home import SERVICE_PORTS
from localstack.lock_hashes import pins_of
from tests.contract.compose import ROOT

IMPORTS = """
import importlib, pkgutil, re, sys
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions

service, left_out, *held = sys.argv[1:]
owners = {
    top: {re.sub(r"[-_.]+", "-", name).lower() for name in names} for top, names in packages_distributions().items()
}


class Held:
    find_distributions = PathFinder.find_distributions

    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in left_out.split():
            return None
        return PathFinder.find_spec(name, path, target) if top not in owners or owners[top] & set(held) else None


sys.meta_path[:] = [Held if finder is PathFinder else finder for finder in sys.meta_path]
package = importlib.import_module(service)
for module in pkgutil.walk_packages(package.__path__, f"{service}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
LOCKS = ROOT / "infra/docker/locks"


OURS = {path.parent.name for path in ROOT.glob("*/*/pyproject.toml")} | {"schemas"}


def of_ours(service: str) -> set[str]:
    """The packages of ours that its image is made of."""
    project = "infra/provision" if service == "provision" else f"services/{service}"
    asked = [sys.executable, "infra/docker/sbom.py", "--folders", project]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return {Path(folder).name for folder in said.split()}


def imported(service: str, ours: set[str], held: set[str]) -> subprocess.CompletedProcess[str]:
    """Every module of a service imported where nothing is installed but these packages of ours and of others."""
    command = [sys.executable, "-c", IMPORTS, service, " ".join(OURS - ours), *held]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("service", [*SERVICE_PORTS, "provision"])
def test_what_a_service_imports_is_in_its_image(service: str) -> None:
    held = set(pins_of((LOCKS / f"{service}.txt").read_text()))
    if service in ("trainer", "model_server"):
        held |= {"torch"}
    done = imported(service, of_ours(service), held)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_not_held_is_missed() -> None:
    held = set(pins_of((LOCKS / "accounts.txt").read_text()))
    done = imported("accounts", of_ours("accounts"), held - {"argon2-cffi"})
    assert "No module named 'argon2'" in done.stderr


def test_what_of_ours_is_not_named_is_missed() -> None:
    held = set(pins_of((LOCKS / "serving_agent.txt").read_text()))
    done = imported("serving_agent", of_ours("serving_agent") - {"serving"}, held)
    assert "No module named 'serving'" in done.stderr

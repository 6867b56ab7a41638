"""Makes `fake_api` importable and its fixture known to the tests of this folder."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_api import Api, api_running
from typer.main import get_command

from sartor_cli.main import app

COMMAND = get_command(app)
"""Made once: `app` makes all commands anew at each call."""


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    """An API that the command line talks to."""
    monkeypatch.setenv("SARTOR_HOME", str(tmp_path))
    monkeypatch.setenv("SARTOR_API_KEY", "sk-x")
    monkeypatch.setenv("SARTOR_OPERATOR_KEY", "sk-operator")
    with api_running() as running:
        monkeypatch.setenv("SARTOR_BASE_URL", running.url)
        yield running


@pytest.fixture
def sartor(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs one command in this process; returns what it printed, and what it said beside."""

    def run(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        COMMAND(list(arguments), standalone_mode=False)
        return capsys.readouterr()

    return run

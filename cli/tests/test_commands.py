"""The command line without a stack: errors a person can read, output a program can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sartor_cli.client import show
from testkit.running import free_port


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"SARTOR_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **environment}
    command = [sys.executable, "-m", "sartor_cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [("files", "list"), ("models", "list"), ("chat", "hello", "--model", "m"), ("chat", "hello", "-m", "m", "--json")],
)
def test_a_stack_that_is_down_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    done = run(tmp_path, *arguments, SARTOR_API_KEY="sk-x", SARTOR_BASE_URL=nowhere)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_of_another_provider_is_not_used(tmp_path: Path) -> None:
    done = run(tmp_path, "models", "list", OPENAI_API_KEY="sk-theirs")
    assert done.returncode == 1
    assert "no API key" in done.stderr


def test_texts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"object": "list", "data": [{"id": "[/x]", "reason": "[red]labels: [a]"}], "has_more": True}
    show(rows, as_json=False, columns=("id", "reason"))
    out, err = capsys.readouterr()
    assert "[/x]" in out
    assert "[red]labels: [a]" in out
    assert "more than is shown" in err


@pytest.mark.parametrize("arguments", [("status", "--json"), ("down", "--json"), ("doctor", "--json")])
def test_every_answer_can_be_read_by_a_program(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert isinstance(json.loads(run(tmp_path, *arguments).stdout), dict)


def test_secrets_are_made_once_for_containers(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = json.loads(run(tmp_path, "secrets", str(folder), "--json").stdout)
    assert {"operator_key", "mongo_url", "services_jwks"} <= set(first["secrets"])
    assert json.loads(run(tmp_path, "secrets", str(folder), "--json").stdout) == first

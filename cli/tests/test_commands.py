"""The command line without a stack: errors a person can read, output a program can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from fake_api import api_running

from sartor_cli import stack_commands
from sartor_cli.client import CommandFailed
from sartor_cli.main import main
from sartor_cli.tables import show
from testkit.running import free_port

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def given(home: Path, environment: dict[str, str]) -> dict[str, str]:
    """All that the command finds in its environment."""
    return {"SARTOR_HOME": str(home), "PATH": "/usr/bin:/bin", **environment}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command as `sartor` does, in this process; an error that it does not expect is the test's."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with (
            patch.dict(os.environ, given(tmp_path, environment), clear=True),
            patch.object(sys, "argv", ["sartor", *arguments]),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), *capsys.readouterr())

    return run


def process(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "sartor_cli.main", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=given(home, environment), check=False, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [("files", "list"), ("models", "list"), ("chat", "hello", "--model", "m"), ("chat", "hello", "-m", "m", "--json")],
)
def test_a_stack_that_is_down_is_one_clear_line(run: Run, arguments: tuple[str, ...]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/v1"
    done = run(*arguments, SARTOR_API_KEY="sk-x", SARTOR_BASE_URL=nowhere)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("up",), ("demo", "--json")])
def test_a_scale_that_cannot_be_is_one_clear_line_and_starts_nothing(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    done = run(*command, "--scale", "ingest=2,foo=2")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: --scale 'foo=2': no service is called 'foo'; there are: inference-proxy, ingest,"
    )
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("trainer", ["trainer", "trainer-2"]),
        ("trainer-2", ["trainer-2"]),
        ("rag-indexer", ["rag_indexer", "rag_indexer-2"]),
        ("rag_indexer-2", ["rag_indexer-2"]),
        ("rag-indexer-2", ["rag_indexer-2"]),
    ],
)
def test_logs_of_a_service_are_those_of_its_replicas(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    asked: str,
    shown: list[str],
) -> None:
    monkeypatch.setenv("SARTOR_HOME", str(tmp_path))
    (tmp_path / "logs").mkdir()
    for name in ("trainer", "trainer-2", "rag_indexer", "rag_indexer-2", "ingest"):
        (tmp_path / "logs" / f"{name}.log").write_text(f"line of {name}\n")
    stack_commands.logs(asked, lines=5, follow=False, as_json=True)
    assert capfd.readouterr().out.splitlines() == [f"line of {name}" for name in shown]
    with pytest.raises(CommandFailed, match="no log of 'trainer-3'"):
        stack_commands.logs("trainer-3", lines=5, follow=False, as_json=True)


def test_a_key_of_another_provider_is_not_used(run: Run) -> None:
    done = run("models", "list", OPENAI_API_KEY="sk-theirs")
    assert done.returncode == 1
    assert "no API key" in done.stderr


def test_texts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"object": "list", "data": [{"id": "[/x]", "reason": "[red]labels: [a]"}], "has_more": True}
    show(rows, as_json=False, columns=("id", "reason"))
    out, err = capsys.readouterr()
    assert "[/x]" in out
    assert "[red]labels: [a]" in out
    assert "--after [/x]" in err


def test_an_error_is_one_line_however_long(tmp_path: Path) -> None:
    with api_running() as api:
        message = "line 3: " + "not\n JSON " * 40
        api.answers["GET", "/files"] = (400, {"error": {"message": message}})
        done = process(tmp_path, "files", "list", SARTOR_API_KEY="sk-x", SARTOR_BASE_URL=api.url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: line 3: not JSON not JSON")
    assert done.stderr.endswith("(HTTP 400, request req_1)\n")


@pytest.mark.parametrize(
    ("url", "key", "says"),
    [
        ("http://[::1", "sk-x", "cannot be reached"),
        ("nowhere", "sk-x", "cannot be reached"),
        ("http://127.0.0.1:1/v1", "sk-é", "copy it again"),
        ("http://127.0.0.1:1/v1", "sk-a\nb", "copy it again"),
    ],
)
def test_what_is_set_wrong_is_one_line(run: Run, url: str, key: str, says: str) -> None:
    done = run("files", "list", SARTOR_API_KEY=key, SARTOR_BASE_URL=url)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert says in done.stderr


def test_a_broken_state_of_the_local_stack_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    done = run("models", "list", SARTOR_API_KEY="sk-x")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "sartor up" in done.stderr


@pytest.mark.parametrize("arguments", [("status", "--json"), ("down", "--json"), ("doctor", "--json")])
def test_every_answer_can_be_read_by_a_program(run: Run, arguments: tuple[str, ...]) -> None:
    assert isinstance(json.loads(run(*arguments).stdout), dict)


def test_secrets_are_made_once_for_containers(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = json.loads(run("secrets", str(folder), "--json").stdout)
    assert {"operator_key", "ingest_mongo_url", "services_jwks"} <= set(first["secrets"])
    assert json.loads(run("secrets", str(folder), "--json").stdout) == first


def signers(folder: Path) -> list[str]:
    """The services named by the public keys of a folder of secrets."""
    return [key["kid"] for key in json.loads((folder / "services_jwks").read_text())["keys"]]


def test_services_get_other_keys_to_sign_with_in_three_steps(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    run("secrets", str(folder))
    first = (folder / "ingest_key").read_text()

    def step(name: str) -> tuple[int, int]:
        """How it ended, and how many keys of a service are accepted from then on."""
        done = run("secrets", str(folder), "--rotate", name)
        return done.returncode, signers(folder).count("ingest")

    assert step("use") == (1, 1)
    assert step("announce") == (0, 2)
    announced = (folder / "ingest_key_next").read_text()
    assert (folder / "ingest_key").read_text() == first
    assert step("announce") == (0, 2)
    assert step("end") == (1, 2)
    assert step("use") == (0, 2)
    assert (folder / "ingest_key").read_text() == announced
    assert step("use") == (0, 2)
    assert step("announce") == (1, 2)
    assert (folder / "ingest_key").read_text() == announced
    assert step("end") == (0, 1)
    assert {path.name for path in folder.iterdir()} == set(
        json.loads(run("secrets", str(folder), "--json").stdout)["secrets"]
    )
    assert not list(folder.glob("*_before"))
    assert set(signers(folder)) >= {"ingest", "console"}

"""What an image build is given: the source of the services, and no secret, environment, data or history beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.compose import OURS, ROOT

RULES = [
    line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.strip() and not line.startswith("#")
]


def pattern(rule: str) -> re.Pattern[str]:
    """A rule of .dockerignore as an expression: `*` ends at a slash, `**` does not, what lies below a match matches."""
    parts = [r"(?:.*/)?" if part == "**" else re.escape(part).replace(r"\*", "[^/]*") + "/" for part in rule.split("/")]
    return re.compile("".join(parts).rstrip("/") + r"(?:/.*)?\Z")


def sent(path: str) -> bool:
    """Whether `path` is part of the build context: the last rule that matches decides."""
    decided = True
    for rule in RULES:
        if pattern(rule.removeprefix("!")).match(path):
            decided = rule.startswith("!")
    return decided


@pytest.mark.parametrize(
    "path",
    [
        "infra/docker/secrets/operator_key",
        ".env",
        ".venv/lib/python3.11/site-packages/torch/__init__.py",
        ".sartor/secrets/mongo_password",
        ".sartor/models/gemma-3-270m/base.json",
        ".git/config",
        "tests/conftest.py",
        "services/ingest/tests/test_worker.py",
        "shared/notes.md",
        "bench/conftest.py",
        "infra/local/src/localstack/home.py",
        "libs/stores/src/stores/__pycache__/mongo.cpython-311.pyc",
        "something/that/nobody/foresaw",
    ],
)
def test_what_no_image_needs_is_not_sent(path: str) -> None:
    assert not sent(path)


@pytest.mark.parametrize("dockerfile", sorted({one["build"]["dockerfile"] for one in OURS.values()}))
def test_what_an_image_copies_is_sent(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    sources = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    assert sources
    for source in sources:
        for name in ("ingest", "model_server"):
            path = ROOT / source.replace("${SERVICE}", name)
            files = [path] if path.is_file() else sorted({*path.glob("*.txt"), *path.glob("**/src/**/*.py")})
            assert files, source
            assert all(sent(str(file.relative_to(ROOT))) for file in files), source
    assert sent("infra/docker/wheels/torch.whl"), "it is mounted from there"


def test_a_build_is_given_the_root_of_the_tree() -> None:
    assert {Path(one["build"]["context"]) for one in OURS.values()} == {Path()}

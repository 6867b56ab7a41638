"""What Python runs at its start is known, and a wheel that brings more of it is noticed before Python has run it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from localstack import startup_files

CHECK = Path(startup_files.__file__)


def check(environment: Path) -> subprocess.CompletedProcess[str]:
    """The command as `make venv` gives it."""
    command = [sys.executable, "-I", str(CHECK), str(environment)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wheel(folder: Path, files: dict[str, str]) -> Path:
    """A wheel with these files at the root of its environment."""
    info = "planted-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text.encode())}\n"
    path = folder / "planted-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A new environment with nothing in it."""
    venv.create(tmp_path / "env", with_pip=False)
    return tmp_path / "env"


def install(environment: Path, planted: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(environment / "bin/python"), "install", "--no-index"]
    subprocess.run([*command, "--no-deps", str(planted)], check=True, capture_output=True)


def test_this_environment_has_nothing_strange() -> None:
    done = check(Path(sys.prefix))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("planted.pth", "import os; open('{mark}', 'w')\n"),
        ("distutils-precedence.pth", "import os; open('{mark}', 'w')\n"),
        ("sartor.pth", "/tmp\nimport os; open('{mark}', 'w')\n"),
        ("sitecustomize.py", "open('{mark}', 'w')\n"),
    ],
)
def test_a_wheel_that_brings_code_for_every_start_is_noticed_before_it_runs(
    environment: Path, tmp_path: Path, name: str, text: str
) -> None:
    assert check(environment).returncode == 0
    mark = tmp_path / "ran"
    install(environment, wheel(tmp_path, {name: text.replace("{mark}", str(mark)), "planted.py": ""}))
    mark.unlink(missing_ok=True)  # pip itself starts the environment's Python
    done = check(environment)
    assert done.returncode == 1
    assert name in done.stderr
    assert not mark.exists()
    subprocess.run([str(environment / "bin/python"), "-c", ""], check=True)
    assert mark.exists(), "the plant does what it is for"


def test_a_wheel_without_such_files_is_fine(environment: Path, tmp_path: Path) -> None:
    install(environment, wheel(tmp_path, {"planted.py": "import os\n"}))
    assert check(environment).returncode == 0


def test_an_environment_that_is_not_there_is_no_clean_one(tmp_path: Path) -> None:
    assert check(tmp_path / "none").returncode == 2

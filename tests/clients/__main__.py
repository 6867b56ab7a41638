"""Starts a stack on the tiny base model and runs others' clients against it; what they need is installed first."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from localstack import LocalStack
from localstack.base_models import build_tiny

HERE = Path(__file__).parent
KEPT = HERE.parents[1] / ".sartor" / "clients"


def langchain() -> list[str]:
    """The command that runs LangChain's standard tests, in an environment of their own."""
    folder = KEPT / "langchain"
    python = folder / "bin" / "python"
    lock = HERE / "langchain" / "requirements.lock"
    stamp = folder / "installed.lock"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-r", lock], check=True)
        stamp.write_text(lock.read_text())
    options = [
        "-p",
        "no:cacheprovider",
        "--noconftest",
        "-o",
        "asyncio_mode=auto",
        "-o",
        "asyncio_default_test_loop_scope=session",  # LangChain keeps one connection pool for all clients
        "-c",
        os.devnull,
        "--rootdir",
        str(HERE / "langchain"),
        "--tb=short",
        "-q",
        "-rs",
    ]
    return [str(python), "-m", "pytest", *options, str(HERE / "langchain" / "standard.py")]


def node() -> list[str]:
    """The command that drives the Node SDK."""
    folder = KEPT / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "drive.mjs"):
        (folder / name).write_bytes((HERE / "node" / name).read_bytes())
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return ["node", str(folder / "drive.mjs")]


def main() -> int:
    """Run all clients; 0 if each was content."""
    commands = {"langchain": langchain(), "node": node()}
    wanted = sys.argv[1:] or list(commands)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        build_tiny(models)
        stack = LocalStack(
            Path(folder) / "stack", base_model="tiny-test", models_dir=models, usual_ports=False, say=print
        )
        with stack:
            made = httpx2.post(
                f"{stack.base_url}/organization/tenants",
                headers={"authorization": f"Bearer {stack.home.secret('operator_key')}"},
                json={"name": "Clients", "policy": {"gate": "advisory"}},
                timeout=30,
            ).json()
            given = {"OPENAI_BASE_URL": stack.base_url, "OPENAI_API_KEY": made["api_key"]}
            codes = {
                name: subprocess.run(commands[name], env={**os.environ, **given}, check=False).returncode
                for name in wanted
            }
    print(", ".join(f"{name}: {'passed' if code == 0 else f'FAILED ({code})'}" for name, code in codes.items()))
    return 0 if not any(codes.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())

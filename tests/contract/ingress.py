"""The production ingress run by the local Caddy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.running import free_port

CADDY = Path(sys.executable).with_name("caddy")


@contextmanager
def running(caddyfile: str, folder: Path) -> Iterator[str]:
    """The address at which a production Caddyfile is served, for as long as the block lasts."""
    port = free_port()
    text = caddyfile.replace("{$SARTOR_DOMAIN::80} {", f"http://127.0.0.1:{port} {{\n\tbind 127.0.0.1")
    (folder / "Caddyfile").write_text(text)
    command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)

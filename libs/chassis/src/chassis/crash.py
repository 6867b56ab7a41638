"""Named places where a test may end the process, to prove that what was begun there ends, and ends once.

Nothing happens unless `CRASH_AT` is in the environment, which no installation sets. It is either

- `<point>:<n>`: the n-th pass of the point in this process is its end; several are parted by commas; or
- `@<folder>`: a file there named as a point holds its n, and is renamed to `<point>.fired` as the process ends. A
  process that is started again so does not end again, passes are counted across restarts, and a point can be armed
  while the process runs. Each pass is noted in the file `passes` as `<unix time> <process id> <point>`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

KILLED = 137
"""What a shell reports of a process that SIGKILL ended."""

_ORDER = os.environ.get("CRASH_AT", "")
_left = {} if _ORDER.startswith("@") else {one.partition(":")[0]: one for one in filter(None, _ORDER.split(","))}
_passed: dict[str, int] = {}


def crash_point(name: str) -> None:
    """End the process here, as SIGKILL would, if a test asked for that.

    Args:
        name: `<what>.<what was done last>`, for example `relay.acked`.
    """
    if _ORDER.startswith("@"):
        _pass_armed(Path(_ORDER[1:]), name)
    elif name in _left:
        _passed[name] = _passed.get(name, 0) + 1
        if _passed[name] == int(_left[name].partition(":")[2] or 1):
            os._exit(KILLED)


def _pass_armed(folder: Path, name: str) -> None:
    with (folder / "passes").open("a") as passes:
        passes.write(f"{time.time():.3f} {os.getpid()} {name}\n")
    armed = folder / name
    try:
        left = int(armed.read_text())
        if left > 1:
            armed.write_text(str(left - 1))
            return
        armed.rename(folder / f"{name}.fired")
    except FileNotFoundError:
        return
    os._exit(KILLED)

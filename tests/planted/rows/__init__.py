"""All planted bugs, a file for each area."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tests.planted.bug import Planted

BUGS: tuple[Planted, ...] = tuple(
    bug for area in iter_modules(__path__, f"{__name__}.") for bug in import_module(area.name).BUGS
)

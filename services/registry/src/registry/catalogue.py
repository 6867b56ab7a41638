"""The base-model catalogue: one folder for each base model, with a `base.json` that is written last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from chassis.errors import NotFound
from schemas.artifacts import BASE_FILE, BaseModelSpec

log = structlog.get_logger()

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Base:
    """One base model.

    Attributes:
        id: its name, equal to its folder's.
        created: when its `base.json` was written (Unix seconds).
        spec: the contents of its `base.json`.
    """

    id: str
    created: int
    spec: BaseModelSpec


class Catalogue:
    """The base models in `models_dir`, looked at anew on every call; a file is parsed again only when it changed.

    Args:
        models_dir: the folder of folders; it may be missing, the catalogue is then empty.
        default: id of the default base model; the first by name if empty.
    """

    def __init__(self, models_dir: Path, default: str = "") -> None:
        self._models_dir = models_dir
        self._default = default
        self._known: dict[Path, tuple[Stamp, Base | None]] = {}

    def all(self) -> list[Base]:
        """Every base model, by id."""
        found = {path: self._read(path) for path in sorted(self._models_dir.glob(f"*/{BASE_FILE}"))}
        self._known = {path: self._known[path] for path in found if path in self._known}
        return [base for base in found.values() if base is not None]

    def get(self, base_id: str) -> Base:
        """The base model of that id.

        Raises:
            NotFound: the catalogue has no such base model.
        """
        base = self.find(base_id)
        if base is None:
            known = ", ".join(one.id for one in self.all()) or "none"
            raise NotFound(f"There is no base model '{base_id}'. Base models: {known}.", code="model_not_found")
        return base

    def find(self, base_id: str) -> Base | None:
        """The base model of that id, if there is one."""
        return next((base for base in self.all() if base.id == base_id), None)

    def default_id(self) -> str:
        """Id of the default base model; empty when there is none."""
        bases = self.all()
        return self._default or (bases[0].id if bases else "")

    def _read(self, path: Path) -> Base | None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if path in self._known and self._known[path][0] == stamp:
                return self._known[path][1]
            base = _parse(path, int(status.st_mtime))
        except OSError as error:  # removed between listing and reading
            log.warning("base_model_unreadable", path=str(path), error=error.strerror)
            return None
        self._known[path] = (stamp, base)
        return base


def _parse(path: Path, created: int) -> Base | None:
    """The base model described at `path`; None, with a log line, if the file is wrong."""
    folder = path.parent.name
    try:
        spec = BaseModelSpec.model_validate_json(path.read_bytes())
        if spec.id != folder:
            raise ValueError(f"'id' must be the folder's name '{folder}'")
    except ValueError as error:
        log.error("base_model_refused", path=str(path), error=str(error))
        return None
    return Base(folder, created, spec)

"""The base-model catalogue: a folder for each, with `base.json` beside its weights or `provider.json` alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import JsonValue

from chassis.errors import NotFound
from schemas.artifacts import BASE_FILE, PROVIDER_FILE, BaseModelSpec, ProviderModelSpec
from schemas.http.registry import PROVIDER_MODEL

log = structlog.get_logger()

Stamp = tuple[int, int]


@dataclass(frozen=True)
class Base:
    """One base model.

    Attributes:
        id: its name, equal to its folder's.
        created: when its description was written (Unix seconds).
        spec: the contents of its `base.json` or `provider.json`.
    """

    id: str
    created: int
    spec: BaseModelSpec | ProviderModelSpec


class Catalogue:
    """The base models in `models_dir`, looked at anew on every call; a file is parsed again only when it changed.

    Args:
        models_dir: the folder of folders; it may be missing, the catalogue is then empty.
        default: id of the default base model; the first by name, of those with weights, if empty.
    """

    def __init__(self, models_dir: Path, default: str = "") -> None:
        self._models_dir = models_dir
        self._default = default
        self._known: dict[Path, tuple[Stamp, Base | None]] = {}
        self._beside: set[Path] = set()

    def all(self) -> list[Base]:
        """Every base model: those with weights first, then the providers', each by id."""
        with_weights, of_providers = (sorted(self._models_dir.glob(f"*/{name}")) for name in (BASE_FILE, PROVIDER_FILE))
        alone = self._alone(of_providers, {path.parent for path in with_weights})
        found = {path: self._read(path) for path in (*with_weights, *alone)}
        self._known = {path: self._known[path] for path in found if path in self._known}
        return [base for base in found.values() if base is not None]

    def with_weights(self) -> list[BaseModelSpec]:
        """Those that our engines serve and that can be fine-tuned."""
        return [base.spec for base in self.all() if isinstance(base.spec, BaseModelSpec)]

    def weights(self, base_id: str) -> BaseModelSpec:
        """The base model of that id, which has weights here.

        Raises:
            NotFound: there is none, or it is a provider's.
        """
        spec = self.get(base_id).spec
        if isinstance(spec, BaseModelSpec):
            return spec
        raise NotFound(
            f"'{base_id}' is another provider's model: it answers, but there are no weights here to fine-tune.",
            code=PROVIDER_MODEL,
        )

    def provider_model(self, base_id: str) -> ProviderModelSpec:
        """The base model of that id, which a provider serves.

        Raises:
            NotFound: there is none.
        """
        spec = self.get(base_id).spec
        if isinstance(spec, ProviderModelSpec):
            return spec
        raise NotFound(f"'{base_id}' is no provider's model: its weights are here.", code="model_not_found")

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
        bases = self.with_weights()
        return self._default or (bases[0].id if bases else "")

    def _alone(self, of_providers: list[Path], with_weights: set[Path]) -> list[Path]:
        """Those without weights beside them, which is looked at anew: no stamp of their own tells of a neighbour."""
        beside = {path for path in of_providers if path.parent in with_weights}
        for path in sorted(beside - self._beside):
            why = f"there is a {BASE_FILE} beside it; a provider's model has no weights here"
            log.error("base_model_refused", path=str(path), error=why)
        self._beside = beside
        return [path for path in of_providers if path not in beside]

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
    folder, shape = path.parent, BaseModelSpec if path.name == BASE_FILE else ProviderModelSpec
    try:
        given = path.read_bytes()
        spec = shape.model_validate_json(given)
        if spec.id != folder.name:
            raise ValueError(f"'id' must be the folder's name '{folder.name}'")
        unknown = list(_left_out(json.loads(given), spec.model_dump(exclude_unset=True)))
        if unknown:
            raise ValueError(f"nobody reads {', '.join(unknown)}")
    except ValueError as error:
        log.error("base_model_refused", path=str(path), error=str(error))
        return None
    return Base(spec.id, created, spec)


def _left_out(given: JsonValue, taken: JsonValue, place: str = "") -> Iterator[str]:
    """Where `given` says more than was taken."""
    if not isinstance(given, dict) or not isinstance(taken, dict):
        return
    for name, value in given.items():
        if name in taken:
            yield from _left_out(value, taken[name], f"{place}{name}.")
        else:
            yield place + name

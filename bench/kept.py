"""What a measurement has finished, in a file that it adds to, so that another run goes on where one was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

EVERY_KIND = "head,nearest"
"""Where the product chooses."""


class Unfit(Exception):
    """A file cannot be gone on with; the message says why."""


class Key(BaseModel):
    """Which upload.

    Attributes:
        data_set: its name.
        rows: uploaded.
        seed: of the cut and of the job.
        kinds: arms that its stack tries.
        base: the base model.
        adapter: whether the job was waited for to its end.
    """

    model_config = ConfigDict(frozen=True)

    data_set: str
    rows: int
    seed: int
    kinds: str = EVERY_KIND
    base: str
    adapter: bool = False


class Finished(BaseModel):
    """What is kept."""

    model_config = ConfigDict(frozen=True)

    key: Key


T = TypeVar("T", bound=Finished)


class Kept(Generic[T]):
    """A file with what is finished, one a line.

    Args:
        path: of the file.
        kind: of what is kept.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind = kind
        self.finished: list[T] = []

    def begin(self) -> None:
        """Begin a new file.

        Raises:
            Unfit: there is one.
        """
        if self._path.exists() and self._path.stat().st_size:
            raise Unfit(f"{self._path} holds what is finished: add --resume to keep it, or name another file by --out.")
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def resume(self) -> None:
        """Read what is finished; a last line that was not written to its end is dropped.

        Raises:
            Unfit: another line holds something else.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text("utf-8").splitlines(keepends=True) if self._path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        for number, line in enumerate(whole, start=1):
            try:
                self.finished.append(self._kind.model_validate_json(line))
            except ValidationError as error:
                raise Unfit(f"{self._path}, line {number}: not of this table; name another file by --out.") from error
        if whole != lines:
            self._path.write_text("".join(whole), "utf-8")

    def add(self, one: T) -> None:
        """Keep what is finished."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{one.model_dump_json()}\n")
        self.finished.append(one)

    def has(self, key: Key) -> bool:
        """Whether it is finished."""
        return any(one.key == key for one in self.finished)

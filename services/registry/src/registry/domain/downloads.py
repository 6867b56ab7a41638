"""A download: somebody takes a copy of an adapter's files, which nothing here can take back."""

from __future__ import annotations

from chassis.errors import NotFound
from registry.domain.model import Model
from registry.domain.parts import LOADED, Download
from schemas import ModelDownloaded

REMEMBERED = 100
"""People and keys that a version remembers, those who took a copy last; each copy is said as it is taken."""

ENDED = {"rejected": "refused", "retired": "retired"}


def has_files(model: Model) -> bool:
    """Whether there is an adapter whose files can be taken: an arm has none, and they go with what is at its end."""
    return model.arm is None and model.state in LOADED


def expect_files(model: Model) -> None:
    """Let the files of an adapter be asked for.

    Raises:
        NotFound: it is an arm, or was refused, retired or deleted, and its files with it.
    """
    if has_files(model):
        return
    if model.arm is not None:
        raise NotFound(
            f"'{model.id}' is an arm and has no adapter: it answers by {model.arm.answers_by}. The adapter of its "
            f"name, once there is one, is at GET /v1/registry/models/{model.name}/adapter.",
            code="no_adapter",
        )
    how = "deleted" if model.deleted_at is not None else ENDED[model.state]
    raise NotFound(f"'{model.id}' was {how}, and the files of its adapter went with that.", code="adapter_gone")


def note_download(model: Model, by: str, at: int) -> None:
    """Somebody takes the files.

    Raises:
        NotFound: as `expect_files`.
    """
    expect_files(model)
    before = sum(one.times for one in model.downloads if one.by == by)
    others = [one for one in model.downloads if one.by != by]
    model.downloads = [*others, Download(by=by, at=at, times=before + 1)][-REMEMBERED:]
    model.record(
        ModelDownloaded(
            tenant_id=model.tenant_id,
            model_id=model.id,
            job_id=model.job_id,
            adapter_id=model.adapter_id,
            downloaded_by=by,
        )
    )

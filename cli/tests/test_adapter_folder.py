"""A copy of an adapter on one's own machine: what is kept of it, and when nothing is."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from fake_api import Api

from sartor_cli.client import CommandFailed
from schemas.artifacts import MANIFEST
from testkit.adapters import adapter_folder, id_of, seal
from testkit.base_models import base_spec

Sartor = Callable[..., tuple[str, str]]

MODEL = "ft:tiny-base:kumo:support:0123"
CARD = ("GET", f"/registry/models/{MODEL}")
PLACE = ("GET", f"/registry/models/{MODEL}/adapter")


@pytest.fixture
def adapter(api: Api, tmp_path: Path) -> Path:
    """An adapter as the trainer leaves it, whose card the registry has."""
    folder = adapter_folder(tmp_path / "stored", base_spec("tiny-base"))
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    card = {"id": MODEL, "adapter_id": id_of(folder), "base_model": "tiny-base", "adapter_manifest": {"sha256": digest}}
    api.answers |= {CARD: card, PLACE: packed(folder)}
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one is in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def packed(adapter: Path, **changed: bytes) -> bytes:
    """The files as the API sends them; `changed` ones hold something else."""
    sent = io.BytesIO()
    with ZipFile(sent, "w") as archive:
        archive.writestr("ft-tiny/README.md", "# A model")
        for path in adapter.iterdir():
            archive.writestr(f"ft-tiny/{path.name}", changed.get(path.stem, path.read_bytes()))
    return sent.getvalue()


def test_a_copy_lies_in_a_folder_of_its_models_name(api: Api, sartor: Sartor, adapter: Path, here: Path) -> None:
    out, _ = sartor("models", "download", MODEL)
    assert [path.name for path in here.iterdir()] == ["ft-tiny"]
    for path in adapter.iterdir():
        assert (here / "ft-tiny" / path.name).read_bytes() == path.read_bytes()
    assert (here / "ft-tiny/README.md").read_text() == "# A model"
    for said in ("ft-tiny", id_of(adapter), "tiny-base"):
        assert said in out


def test_a_copy_lies_where_one_wants_it(api: Api, sartor: Sartor, adapter: Path, here: Path) -> None:
    told = json.loads(sartor("models", "download", MODEL, "--to", "deep/er", "--json")[0])
    assert told["folder"] == "deep/er"
    assert told["adapter_id"] == id_of(adapter)
    assert told["bytes"] == sum(path.stat().st_size for path in (here / "deep/er").iterdir())
    assert [path.name for path in here.iterdir()] == ["deep"]


@pytest.mark.parametrize("to", [None, "mine"])
def test_a_folder_that_is_there_is_not_written_over(
    api: Api, sartor: Sartor, adapter: Path, here: Path, to: str | None
) -> None:
    (here / (to or "ft-tiny")).mkdir()
    with pytest.raises(CommandFailed, match="is there already"):
        sartor("models", "download", MODEL, *(["--to", to] if to else []))
    assert [path.name for path in here.iterdir()] == [to or "ft-tiny"]
    assert list((here / (to or "ft-tiny")).iterdir()) == []
    assert bool(api.asked) is (to is None), "what is known not to be kept is not fetched"


@pytest.mark.parametrize("what", ["changed", "incomplete", "more", "another", "half a zip", "no zip", "broken off"])
def test_of_what_is_not_the_stored_adapter_nothing_is_kept(
    api: Api, sartor: Sartor, adapter: Path, here: Path, what: str
) -> None:
    if what == "incomplete":
        (adapter / "adapter_model.safetensors").unlink()
    elif what == "more":
        (adapter / "adapter_model.bin").write_bytes(b"code")
    elif what == "another":
        seal(adapter, base_spec("other-base"))
    elif what == "broken off":
        api.cut = 30
    whole = packed(adapter, **({"adapter_model": b"weightz"} if what == "changed" else {}))
    api.answers[PLACE] = {"half a zip": whole[: len(whole) // 2], "no zip": b"<!doctype html>"}.get(what, whole)
    with pytest.raises(CommandFailed, match="nothing was kept") as failed:
        sartor("models", "download", MODEL, "--to", "deep/er")
    assert ("broke off" in str(failed.value)) is (what == "broken off")
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(sartor: Sartor, adapter: Path, here: Path) -> None:
    (here / "file").write_text("in the way")
    with pytest.raises(CommandFailed, match=r"cannot be written \(.*/file"):
        sartor("models", "download", MODEL, "--to", "file/x")


def test_a_refusal_is_told_as_the_api_says_it(api: Api, sartor: Sartor, adapter: Path, here: Path) -> None:
    error = {"message": "It is an arm.", "type": "x", "param": None, "code": "no_adapter"}
    api.answers[PLACE] = (404, {"error": error})
    with pytest.raises(CommandFailed, match="It is an arm"):
        sartor("models", "download", MODEL, "--to", "deep/er")
    assert list(here.iterdir()) == []

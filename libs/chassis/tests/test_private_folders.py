"""Private folders go with their process, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chassis.private_folders import HELD, PrivateFolders

KILLED = """
import os, signal, sys
from pathlib import Path
from chassis.private_folders import PrivateFolders

with PrivateFolders(Path(sys.argv[1]), "ingest").folder("file-2") as folder:
    (folder / "upload").write_text("private")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(root: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in root.iterdir())


def test_what_a_killed_process_left_is_swept_and_what_is_held_stays(tmp_path: Path) -> None:
    folders = PrivateFolders(tmp_path, "ingest")
    with folders.folder("held") as held:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
        assert names(tmp_path) == ["file", "held"]
        PrivateFolders(tmp_path, "ingest").sweep()
        assert names(tmp_path) == ["held"]
        assert held.exists()
    assert names(tmp_path) == []


def test_a_folder_that_is_not_held_yet_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / ".new").mkdir()
    (tmp_path / ".new" / HELD).touch()
    PrivateFolders(tmp_path, "ingest").sweep()
    assert (tmp_path / ".new").exists()


def test_other_users_see_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with PrivateFolders(None, "ingest").folder("file-1") as folder:
        assert folder.parent.parent == tmp_path
        assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}


@pytest.mark.parametrize("how", ["another user's", "a link to another"])
def test_a_folder_that_somebody_else_prepared_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    if how == "another user's":
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    folders = PrivateFolders(None, "ingest")
    if how == "another user's":
        folders.root.mkdir()
    else:
        folders.root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="somebody else"):
        folders.sweep()
    with pytest.raises(PermissionError, match="somebody else"), folders.folder("file-1"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []

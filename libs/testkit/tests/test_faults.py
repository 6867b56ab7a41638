"""Crash points fire once, paused processes stand still, histories tell unknown from refused, messages come again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from schemas import FileDeleted
from testkit import Space
from testkit.history import History, read_history
from testkit.injector import Message, duplicated, inject, recorded, reordered
from testkit.pausing import paused
from testkit.small_disk import small_disk

LOOP = (
    "from chassis.crash import crash_point\nfor at in range(4):\n    crash_point('a.done')\n    print(at, flush=True)"
)


def run(crash_at: str | None) -> tuple[int, list[str]]:
    """Exit status of a process that passes a point four times, and the passes it survived."""
    environment = {"PYTHONPATH": ":".join(sys.path)} | ({"CRASH_AT": crash_at} if crash_at else {})
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout.split()


@pytest.mark.parametrize(
    ("crash_at", "ends"),
    [
        (None, (0, ["0", "1", "2", "3"])),
        ("a.done:1", (137, [])),
        ("b.done:1,a.done:3", (137, ["0", "1"])),
        ("a.done:5", (0, ["0", "1", "2", "3"])),
        ("b.done:1", (0, ["0", "1", "2", "3"])),
    ],
)
def test_the_named_pass_is_the_processs_end(crash_at: str | None, ends: tuple[int, list[str]]) -> None:
    assert run(crash_at) == ends


def test_an_armed_point_fires_once_across_restarts(tmp_path: Path) -> None:
    (tmp_path / "a.done").write_text("6")
    assert run(f"@{tmp_path}") == (0, ["0", "1", "2", "3"])
    assert run(f"@{tmp_path}") == (137, ["0"])
    assert run(f"@{tmp_path}") == (0, ["0", "1", "2", "3"])
    assert (tmp_path / "a.done.fired").exists()
    assert [line.split()[2] for line in (tmp_path / "passes").read_text().splitlines()] == ["a.done"] * 10


def test_a_paused_process_stands_still_and_goes_on(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            with paused(process.pid):
                deadline = time.monotonic() + 5
                while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                    assert time.monotonic() < deadline
            assert psutil.Process(process.pid).status() != psutil.STATUS_STOPPED
        finally:
            process.kill()


def test_a_history_tells_refused_from_unknown(tmp_path: Path) -> None:
    history = History(tmp_path / "history", refusals=(ValueError,))
    with history.operation("upload", tenant="a") as operation:
        operation.ids["file"] = "file-1"
    with pytest.raises(ValueError, match="no"), history.operation("upload", tenant="a"):
        raise ValueError("no")
    with pytest.raises(TimeoutError), history.operation("upload", tenant="a"):
        raise TimeoutError
    with (tmp_path / "history").open("a") as file:
        file.write('{"op": "broken')
    lines = read_history(tmp_path / "history")
    assert [(line["number"], line["outcome"], line.get("file")) for line in lines] == [
        (1, "invoke", None),
        (1, "ok", "file-1"),
        (2, "invoke", None),
        (2, "fail", None),
        (3, "invoke", None),
        (3, "unknown", None),
    ]


def messages(*places: str) -> list[Message]:
    return [Message("t", place[0].encode(), place.encode(), ()) for place in places]


def test_another_order_keeps_that_of_keys_unless_told_otherwise() -> None:
    given = messages("a1", "a2", "a3", "b1", "b2", "c1")
    orders = {tuple(one.value for one in reordered(given, seed)) for seed in range(20)}
    assert len(orders) > 5
    for order in orders:
        for key in (b"a", b"b", b"c"):
            mine = [value for value in order if value[:1] == key]
            assert mine == sorted(mine)
    loose = [[one.value for one in reordered(given, seed, within_keys=True)] for seed in range(20)]
    assert any(order.index(b"a2") < order.index(b"a1") for order in loose)
    assert reordered(given, 3) == reordered(given, 3)


async def test_recorded_messages_can_be_sent_again(space: Space) -> None:
    async with space.publisher("ingest") as publish:
        for number in range(3):
            await publish(FileDeleted(tenant_id="tenant_a", file_id=f"file-{number}"))
    topic, kafka = f"{space.prefix}-files", space.addresses.kafka_bootstrap
    first = await recorded(kafka, topic, f"{space.prefix}-none")
    assert {one.header("ce_subject") for one in first} == {"file-0", "file-1", "file-2"}
    await inject(kafka, duplicated(first, 2))
    again = await recorded(kafka, topic)
    assert sorted(one.value for one in again) == sorted(one.value for one in first * 3)


def test_a_small_disk_is_as_full_as_a_test_says(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**16) as disk:
        disk.fill(leave=4096)
        (disk.folder / "first").write_bytes(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "second").write_bytes(b"x")
        disk.free()
        (disk.folder / "second").write_bytes(b"x")
    assert list((tmp_path / "disk").iterdir()) == [], "nothing of it stays"

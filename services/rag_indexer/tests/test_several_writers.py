"""Several indexers write to one collection of the local Milvus at once: its server takes their calls one by one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient
from vector_writer import IN_A_BATCH, kept

from localstack.home import Home
from localstack.programs import Program, infrastructure
from localstack.readiness import is_ready
from rag_indexer.milvus import IDENTITY, OWN_CONNECTION
from testkit import eventually

BATCHES = 80
WRITERS = ("a", "b", "c")


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[bytes], Program]]]:
    """Starts the local stack's Milvus on a folder of its own, as often as it is asked."""
    home = Home(tmp_path)
    home.prepare()
    ports = home.choose_ports(usual=False)
    program = next(one for one in infrastructure(home, ports) if one.name == "milvus")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> tuple[subprocess.Popen[bytes], Program]:
        with (tmp_path / "milvus.log").open("ab") as log:
            started.append(subprocess.Popen(program.command, stdout=log, stderr=log))
        return started[-1], program

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_what_several_processes_write_at_once_is_all_there_also_after_a_kill(
    milvus: Callable[[], tuple[subprocess.Popen[bytes], Program]],
) -> None:
    server, program = milvus()
    url, collection = f"http://127.0.0.1:{program.port}", "chunks"
    await eventually(lambda: is_ready(program), within=60)
    assert _write(url, collection, BATCHES) == [""] * len(WRITERS)
    expected = set().union(*(kept(who, BATCHES) for who in WRITERS), {IDENTITY})
    assert len(expected) == len(WRITERS) * BATCHES * IN_A_BATCH * 4 // 5 + 1
    assert _there(url, collection) == expected
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    milvus()
    await eventually(lambda: is_ready(program), within=60)
    assert _there(url, collection) == expected


def _write(url: str, collection: str, batches: int) -> list[str]:
    """Let all writers write at once; the ends of what those said that failed."""
    script = Path(__file__).with_name("vector_writer.py")
    writing = [
        subprocess.Popen([sys.executable, str(script), url, collection, who, str(batches)], stderr=subprocess.PIPE)
        for who in WRITERS
    ]
    said = [process.communicate(timeout=120)[1].decode()[-2000:] for process in writing]
    return [text if process.returncode else "" for process, text in zip(writing, said, strict=True)]


def _there(url: str, collection: str) -> set[str]:
    client = MilvusClient(url, timeout=20, **OWN_CONNECTION)
    client.load_collection(collection, timeout=20)
    found = client.query(collection, filter='chunk_id != ""', output_fields=["chunk_id"], limit=16_000, timeout=20)
    client.close()
    return {str(row["chunk_id"]) for row in found}

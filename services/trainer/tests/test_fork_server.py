"""Forked training processes: how they are stopped, what they die of, what they share, what they are not told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from testkit import eventually
from trainer.run import checkpoints, fork_server
from trainer.run.checkpoints import CheckpointManifest
from trainer.run.config import EXIT_FAILED_FOR_GOOD, EXIT_STOPPED, RunConfig
from trainer.run.fork_server import ForkServer, Run


@pytest_asyncio.fixture
async def kept() -> AsyncIterator[ForkServer]:
    made = ForkServer()
    yield made
    await made.close()


QUICK = """
import json, signal, sys, types
from trainer.run import fork_server
from trainer.run.config import RunConfig

sys.modules["trainer.run.recipe"] = types.ModuleType("trainer.run.recipe")
fork_server._load_architecture = lambda _: None
fork_server.IDLE_SECONDS = {idle}

def train(folder):
    print(json.dumps({{"type": "started"}}), flush=True)
    while RunConfig.read(folder / "run.json").epochs >= 1000:
        signal.pause()
    print(json.dumps({{"type": "finished"}}), flush=True)
    return 0

fork_server.train = train
fork_server.main()
"""


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes every fork server one without torch, whose runs learn nothing; one of many epochs lasts until killed."""

    def use(idle: float = fork_server.IDLE_SECONDS) -> None:
        (tmp_path / "quick.py").write_text(QUICK.format(idle=idle))
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path / "quick.py"} "$3" "$4"\n')
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return use


async def started(kept: ForkServer, folder: Path, config: RunConfig) -> Run:
    config.write(folder / "run.json")
    return await kept.start(folder)


async def said(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in run.stdout]


async def is_gone(pid: int) -> None:
    async def gone() -> bool:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        return True

    await eventually(gone, within=10)


async def test_runs_give_way_as_they_were_told(quick: Callable[..., None], configure: Any) -> None:
    quick()
    own = os.nice(0)
    server = ForkServer(niceness=3)
    try:
        run = await started(server, *configure("run", epochs=1000))
        assert psutil.Process(run.pid).nice() == own + 3
        assert os.nice(0) == own
        if (group := Path(f"/proc/{run.pid}/autogroup")).exists():  # or niceness would count among runs alone
            assert group.read_text().split()[-2:] == ["nice", "3"]
    finally:
        await server.close()


async def test_sigterm_saves_a_checkpoint_and_a_refusal_has_its_own_exit_code(kept: ForkServer, configure: Any) -> None:
    folder, config = configure("run", epochs=500, save_every_steps=10_000)
    run = await started(kept, folder, config)
    events = []
    async for line in run.stdout:
        events.append(json.loads(line))
        if events[-1]["type"] == "step" and events[-1]["step"] == 2:
            run.terminate()
    assert await run.wait() == EXIT_STOPPED
    assert events[-1]["type"] == "checkpoint"
    checkpoint = Path(events[-1]["path"])
    checkpoints.verify(checkpoint)
    manifest = CheckpointManifest.model_validate_json((checkpoint / "manifest.json").read_bytes())
    assert manifest.run.seed == config.seed

    folder, config = configure("refused", base_id="another")
    run = await started(kept, folder, config)
    failed = (await said(run))[-1]
    assert await run.wait() == run.returncode == EXIT_FAILED_FOR_GOOD
    assert (failed["type"], failed["code"], failed["permanent"]) == ("failed", "base_model_differs", True)


async def test_runs_side_by_side_learn_what_each_learns_alone(kept: ForkServer, configure: Any) -> None:
    folders = [configure(name, epochs=3) for name in ("alone", "left", "right")]
    await said(await started(kept, *folders[0]))
    both = [await started(kept, *folder) for folder in folders[1:]]
    await asyncio.gather(*(said(run) for run in both))
    assert [await run.wait() for run in both] == [0, 0]
    digests = {checkpoints.sha256(folder / "adapter/adapter_model.safetensors") for folder, _ in folders}
    assert len(digests) == 1


async def test_a_run_knows_no_secret_and_belongs_to_a_group_of_its_own(
    kept: ForkServer, configure: Any, quick: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick()
    monkeypatch.setenv("SARTOR_MONGO_URL", "mongodb://user:secret@host")
    run = await started(kept, *configure("run", epochs=5000))
    assert await run.stdout.readline()
    for process in (psutil.Process(run.pid), *psutil.Process(run.pid).parents()[:1]):
        assert not any(name.startswith("SARTOR_") for name in process.environ())
    assert os.getpgid(run.pid) == run.pid
    open_files = {str(path.readlink()) for path in Path(f"/proc/{run.pid}/fd").iterdir()}
    assert not any(name.startswith("socket:") for name in open_files), "it cannot give orders"
    run.kill()
    assert await run.wait() == -signal.SIGKILL
    await is_gone(run.pid)


async def test_runs_end_with_their_fork_server_and_the_next_gets_a_new_one(
    kept: ForkServer, configure: Any, quick: Callable[..., None]
) -> None:
    quick()
    folder, config = configure("run", epochs=5000)
    run = await started(kept, folder, config)
    assert await run.stdout.readline()
    parent = psutil.Process(run.pid).parent()
    assert parent is not None
    parent.kill()
    assert await asyncio.wait_for(run.wait(), 10) == -signal.SIGKILL
    await is_gone(run.pid)

    again = await started(kept, *configure("again", epochs=3))
    assert (await said(again))[-1]["type"] == "finished"
    assert await again.wait() == 0


async def test_one_that_nobody_needs_goes_to_rest_and_comes_back(
    kept: ForkServer, configure: Any, quick: Callable[..., None]
) -> None:
    quick(idle=0.2)
    first = await started(kept, *configure("first", epochs=5000))
    parent = psutil.Process(first.pid).ppid()
    first.kill()
    await first.wait()
    await is_gone(parent)
    second = await started(kept, *configure("second", epochs=3))
    assert (await said(second))[-1]["type"] == "finished"
    assert psutil.Process().children(), "another one"


async def test_runs_die_with_the_worker(configure: Any) -> None:
    folder, config = configure("run", epochs=5000)
    config.write(folder / "run.json")
    worker = (
        "import asyncio\nfrom pathlib import Path\nfrom trainer.run.fork_server import ForkServer\n"
        "async def main():\n"
        f"    run = await ForkServer().start(Path({str(folder)!r}))\n"
        "    await run.stdout.readline(); print(run.pid, flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", worker, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    os.kill(pid, 0)
    process.kill()
    await process.wait()
    await is_gone(pid)


def test_one_whose_worker_died_before_it_could_be_tied_to_it_does_nothing() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    command = [sys.executable, "-m", "trainer.run.fork_server", str(dead.pid), "0"]
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        assert subprocess.run(command, stdin=its, timeout=30, check=False).returncode == 1


async def test_a_start_that_is_cancelled_leaves_no_run_for_the_next(kept: ForkServer, configure: Any) -> None:
    first, config = configure("first", epochs=5000)
    config.write(first / "run.json")
    starting = asyncio.create_task(kept.start(first))
    await eventually(lambda: _there(psutil.Process().children()), within=10)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    second = await started(kept, *configure("second", epochs=3))
    assert Path((await said(second))[-1]["path"]).parent == first.parent / "second"
    await second.wait()
    [server] = psutil.Process().children()
    assert not server.children(), "the first never ran, or is over"


async def _there(found: list[psutil.Process]) -> bool:
    return bool(found)


async def test_a_fork_server_that_does_not_wake_is_given_up_and_the_next_is_a_new_one(
    kept: ForkServer,
    configure: Any,
    quick: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick()
    asleep = tmp_path / "asleep"
    asleep.write_text("#!/bin/sh\nexec sleep 600\n")
    asleep.chmod(0o755)
    with monkeypatch.context() as dull:
        dull.setattr(sys, "executable", str(asleep))
        dull.setattr(fork_server, "START_SECONDS", 0.3)
        with pytest.raises(TimeoutError):
            await started(kept, *configure("run"))
    assert not psutil.Process().children()
    assert (await said(await started(kept, *configure("again", epochs=3))))[-1]["type"] == "finished"


async def test_a_fork_server_that_cannot_live_is_an_error_of_the_attempt(
    kept: ForkServer, configure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended at once"):
        await started(kept, *configure("run"))

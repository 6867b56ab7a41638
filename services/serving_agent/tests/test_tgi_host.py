"""TGI as a host of adapters, against a launcher that starts and answers as TGI does; the real one needs a GPU."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tgi_harness import restart_lease, tgi

from chassis.errors import Transient
from serving import AdapterRefused, BaseRefused
from serving_agent.hosts.tgi import TGIHost
from testkit import Space, eventually
from testkit.adapters import adapter_folder, id_of


async def take(host: TGIHost, *folders: Path) -> list[str]:
    """Prepare all adapters and load those that are ready, as residency does in one look, and return the refused."""
    ids = {id_of(one): one for one in folders}
    refused = []
    for adapter_id in await host.prepare(ids):
        try:
            await host.load(ids[adapter_id])
        except AdapterRefused:
            refused.append(ids[adapter_id].name)
            await host.unload(adapter_id)
    return refused


def starts(folder: Path) -> list[int]:
    """How many adapters each start of TGI had."""
    return [len(line.split()) for line in (folder / "starts").read_text().split("\n")[:-1]]


def proven(host: TGIHost, *folders: Path) -> bool:
    ids = {id_of(one) for one in folders}
    return set(host.proofs) == ids == host.held


async def test_an_adapter_is_proven_by_tgi_itself(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        one, two = adapter_folder(tmp_path / "one", host.base), adapter_folder(tmp_path / "two", host.base, other=True)
        assert await take(host, one) == []
        (proof,) = host.proofs.values()
        assert (proof.fingerprint_delta, proof.base_delta) == (0.0, 8.75)
        assert await take(host, one, two) == []
        assert proven(host, one, two)
        await host.unload(proof.adapter_id)
        assert proven(host, two)


@pytest.mark.parametrize("asked", [{"top_n_tokens": 20}, {"stop": ["a", "b", "c", "d", "<end_of_turn>", "<eos>"]}])
async def test_tgi_takes_all_that_people_may_ask_for(
    space: Space, tiny_models: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    """By itself it takes five likeliest tokens, and four stop texts, among which are the base model's."""
    async with tgi(space, tiny_models, tmp_path) as host, httpx2.AsyncClient() as http:
        parameters = {"adapter_id": None, **asked}
        answer = await http.post(f"{host._launcher.url}/generate", json={"inputs": "x", "parameters": parameters})
        assert answer.status_code == 200, answer.text


async def test_adapters_that_wait_share_one_start(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        folders = [adapter_folder(tmp_path / str(number), host.base, number=number) for number in range(3)]
        await take(host, *folders)
        await take(host, *folders)
        assert proven(host, *folders)
        assert starts(tmp_path) == [0, 3]


async def test_starts_for_new_adapters_keep_their_distance(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path, restart_seconds=3600) as host:
        one, two = adapter_folder(tmp_path / "one", host.base), adapter_folder(tmp_path / "two", host.base, other=True)
        await take(host, one)
        await take(host, one, two)
        assert starts(tmp_path) == [0, 1]
        with pytest.raises(Transient, match="waits"):
            await host.load(two)
        host._started_at = float("-inf")
        await take(host, one, two)
        assert proven(host, one, two)


async def test_an_adapter_that_tgi_ignores_is_refused(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        ignored = adapter_folder(tmp_path / "one", host.base, ignored=True)
        await host.prepare({id_of(ignored): ignored})
        with pytest.raises(AdapterRefused, match="off its fingerprint"):
            await host.load(ignored)
        assert host.proofs == {}
        assert host._proven() == set()


async def test_an_adapter_that_stops_tgi_takes_nobody_along(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        good = adapter_folder(tmp_path / "good", host.base)
        await take(host, good)
        fatal, other = (
            adapter_folder(tmp_path / "fatal", host.base, fatal=True),
            adapter_folder(tmp_path / "other", host.base, other=True),
        )
        refused = []
        for _ in range(3):
            refused += await take(host, *([good, other] if refused else [good, fatal, other]))
            assert await host._launcher.healthy()
        assert refused == ["fatal"]
        assert proven(host, good, other)


async def test_an_adapter_that_ends_tgi_when_asked_is_refused_in_the_end(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        crashing = adapter_folder(tmp_path / "crashing", host.base, crashing=True)
        for _ in range(3):
            with pytest.raises(Transient):
                await take(host, crashing)
            await host._launcher._process.wait()
            await host.start()
        assert await take(host, crashing) == ["crashing"]
        assert await host._launcher.healthy()


async def test_a_probe_that_was_not_answered_refuses_nothing(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        one = adapter_folder(tmp_path / "one", host.base)
        (tmp_path / "busy").touch()
        with pytest.raises(Transient, match="429"):
            await take(host, one)
        (tmp_path / "busy").unlink()
        assert await take(host, one) == []
        assert proven(host, one)
        assert starts(tmp_path) == [0, 1]


async def test_a_tgi_that_starts_no_more_refuses_nothing(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        one = adapter_folder(tmp_path / "one", host.base)
        (tmp_path / "broken").touch()
        for _ in range(4):
            with pytest.raises(Transient):
                await take(host, one)
        (tmp_path / "broken").unlink()
        assert await take(host, one) == []
        assert proven(host, one)


async def test_what_a_kill_left_unproven_is_not_given_to_tgi_again(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        good = adapter_folder(tmp_path / "good", host.base)
        await take(host, good)
        shutil.copytree(adapter_folder(tmp_path / "fatal", host.base, fatal=True), tmp_path / "adapters/ad-tried")
        (tmp_path / "adapters/.ad-half").mkdir()
    async with tgi(space, tiny_models, tmp_path) as host:
        assert [path.name for path in (tmp_path / "adapters").iterdir()] == list(host.held)
        assert starts(tmp_path)[-1] == 1
        await take(host, good)
        assert proven(host, good)
        assert starts(tmp_path) == [0, 1, 1]


async def test_a_tgi_that_does_not_start_with_its_adapters_starts_without(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        shutil.copytree(adapter_folder(tmp_path / "fatal", host.base, fatal=True), tmp_path / "adapters/ad-proven-once")
        (tmp_path / "adapters/ad-proven-once/proven").touch()
    async with tgi(space, tiny_models, tmp_path) as host:
        assert await host._launcher.healthy()
        assert host.held == set()


async def test_replicas_start_again_one_at_a_time(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path / "tgi-2", name="tgi-2") as host:
        one = adapter_folder(tmp_path / "one", host.base)
        async with restart_lease(space, "tgi-1").held() as ours:
            assert ours
            await take(host, one)
            assert starts(tmp_path / "tgi-2") == [0]
            assert await host._launcher.healthy()
        await take(host, one)
        assert proven(host, one)


async def test_a_tgi_that_ended_is_started_again(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        keeper = asyncio.create_task(host.keep_running())
        assert host._launcher._process is not None
        host._launcher._process.kill()
        await host._launcher._process.wait()
        assert not await host._launcher.healthy()
        assert await eventually(host._launcher.healthy)
        keeper.cancel()


async def test_an_adapter_that_tgi_forgot_is_found_and_let_go_of(
    space: Space, tiny_models: Path, tmp_path: Path
) -> None:
    async with tgi(space, tiny_models, tmp_path, tgi_prove_again_seconds=0) as host:
        one = adapter_folder(tmp_path / "one", host.base)
        await take(host, one)
        await host.attest()
        assert proven(host, one)
        (tmp_path / "forgets").touch()
        await host.attest()
        assert proven(host)
        (tmp_path / "forgets").unlink()
        await take(host, one)
        assert proven(host, one)


async def test_a_tgi_that_serves_another_base_is_found(space: Space, tiny_models: Path, tmp_path: Path) -> None:
    async with tgi(space, tiny_models, tmp_path) as host:
        await host.attest()
        (tmp_path / "other_base").touch()
        with pytest.raises(BaseRefused, match="/models/other"):
            await host.attest()
        await host.stop()
        with pytest.raises(Transient, match="does not say"):
            await host.attest()

"""The object store: what is written is what is read, or an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chassis.errors import NotFound, Transient
from chassis.settings import ServiceSettings
from stores import objects as stores_objects
from stores.objects import CHUNK, DigestMismatch, Objects
from testkit import Space
from testkit.tcp_proxy import BLACK_HOLE, Fault, tcp_proxy


async def test_bytes_and_files_round_trip(space: Space, tmp_path: Path) -> None:
    objects = space.objects()
    await objects.prepare()
    await objects.prepare()
    ref = await objects.put_bytes("a/b", "日本語".encode())
    assert await objects.get_bytes(ref) == "日本語".encode()
    source = tmp_path / "big"
    source.write_bytes(b"0123456789" * 700_000)
    stored = await objects.put_file("a/big", source)
    assert stored.size == 7_000_000
    await objects.download(stored, tmp_path / "copy" / "big")
    assert (tmp_path / "copy" / "big").read_bytes() == source.read_bytes()
    assert b"".join([chunk async for chunk in objects.stream(stored)]) == source.read_bytes()
    assert await objects.keys("a/") == ["a/b", "a/big"]
    assert await objects.delete_prefix("a/") == 2
    assert await objects.keys("a/") == []


async def test_changed_bytes_are_refused(space: Space, tmp_path: Path) -> None:
    objects = space.objects()
    await objects.prepare()
    ref = await objects.put_bytes("x", b"good")
    await objects.put_bytes("x", b"evil")
    with pytest.raises(DigestMismatch):
        await objects.get_bytes(ref)
    with pytest.raises(DigestMismatch):
        await objects.download(ref, tmp_path / "x")
    assert list(tmp_path.glob("x*")) == []


@pytest.mark.parametrize("size", [4, 2 * CHUNK, 2 * CHUNK + 1])
async def test_a_stream_of_changed_bytes_never_comes_to_its_end(space: Space, size: int) -> None:
    objects = space.objects()
    await objects.prepare()
    ref = await objects.put_bytes("x", b"g" * size)
    assert b"".join([chunk async for chunk in objects.stream(ref)]) == b"g" * size
    await objects.put_bytes("x", b"e" + b"g" * (size - 1))
    seen = b""
    with pytest.raises(DigestMismatch):
        async for chunk in objects.stream(ref):
            seen += chunk
    assert len(seen) < size


async def test_an_absent_object_is_not_found(space: Space) -> None:
    objects = space.objects()
    await objects.prepare()
    ref = await objects.put_bytes("x", b"1")
    await objects.delete("x")
    with pytest.raises(NotFound):
        await objects.get_bytes(ref)
    with pytest.raises(NotFound):
        _ = [chunk async for chunk in objects.stream(ref)]


async def test_wrong_credentials_and_no_server_are_transient(space: Space) -> None:
    wrong = Objects(space.settings(ServiceSettings, "console", objects_secret_key="wrong"))
    with pytest.raises(Transient):
        await wrong.put_bytes("x", b"1")
    nowhere = Objects(space.settings(ServiceSettings, "console", objects_endpoint="127.0.0.1:1"))
    with pytest.raises(Transient, match="cannot be reached"):
        await nowhere.put_bytes("x", b"1")


@pytest.mark.parametrize("fault", [BLACK_HOLE, Fault(bytes_per_second=2000)], ids=["silent", "trickling"])
async def test_a_call_ends_at_its_deadline(space: Space, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """A trickle meets the deadline of every read, so the whole call has one."""
    monkeypatch.setattr(stores_objects, "CALL_SECONDS", 1.0)
    async with tcp_proxy(space.addresses.objects_endpoint) as proxy:
        store = Objects(space.settings(ServiceSettings, "console", objects_endpoint=proxy.address))
        await store.prepare()
        ref = await store.put_bytes("x", b"x" * 100_000)
        proxy.set(fault)
        with pytest.raises(Transient, match=r"within|TimeoutError"):
            await asyncio.wait_for(store.get_bytes(ref), 5)
        proxy.heal()
        store.close()

"""A zip that is written while its files are read."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from zipfile import BadZipFile, ZipFile

import pytest

from registry.archive import Member, length_of, zipped

AT = int(datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC).timestamp())


async def of(*pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


async def test_what_is_packed_is_what_comes_out_in_pieces_and_in_its_order() -> None:
    asked: list[str] = []

    async def weights() -> AsyncGenerator[bytes, None]:
        for number in range(3):
            asked.append(f"piece {number}")
            yield bytes([number]) * 100_000

    members = [Member("README.md", 5, of(b"hello")), Member("weights", 300_000, weights())]
    stream = zipped("model", members, AT)
    came = await anext(stream)
    assert b"hello" in came
    assert asked == [], "nothing is read before it can be sent"
    came += await anext(stream)
    assert asked == ["piece 0"]
    async for piece in stream:
        assert len(piece) < 101_000
        came += piece
    assert len(came) == length_of("model", members)
    with ZipFile(io.BytesIO(came)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["model/README.md", "model/weights"]
        assert archive.read("model/weights") == b"".join(bytes([number]) * 100_000 for number in range(3))
        [info] = [one for one in archive.infolist() if one.filename.endswith("weights")]
    assert (info.date_time, info.external_attr >> 16) == ((2026, 2, 3, 4, 5, 6), 0o644)


async def test_a_file_of_more_than_the_format_has_room_for_is_announced() -> None:
    members = [Member("weights", 3 << 30, of(b"x"))]
    assert length_of("model", members) is None
    came = b"".join([piece async for piece in zipped("model", members, AT)])
    with ZipFile(io.BytesIO(came)) as archive:
        assert archive.read("model/weights") == b"x"
    assert (b"\x01\x00\x10\x00") in came[:100], "sizes of eight bytes"


async def test_what_breaks_off_is_no_zip() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"some"
        raise OSError("gone")

    came = b""
    with pytest.raises(OSError, match="gone"):
        async for piece in zipped("model", [Member("a", 5, of(b"whole")), Member("b", 9, broken())], AT):
            came += piece
    with pytest.raises(BadZipFile):
        ZipFile(io.BytesIO(came))

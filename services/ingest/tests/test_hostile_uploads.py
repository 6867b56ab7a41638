"""Many files made to stop the reader or the relay delay nobody else, and what is said of them stays small."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from itertools import cycle, islice

import openai
import pytest

from ingest.app import build
from ingest.settings import Settings
from schemas import DatasetPrepared, DatasetRejected, FileUploaded
from testkit import Space, eventually, running

GOOD = "\n".join(json.dumps({"prompt": f"row {n}", "completion": f"label_{n % 3}"}) for n in range(60)).encode()
LONG = "x" * 300_000
NAME = "\U0001f6b2" * 250
SMALL_EVENT_BYTES = 8 * 1024


def many_parts() -> bytes:
    """A workbook of more parts than any has."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.xml", b"<workbook/>")
        for number in range(10_000):
            archive.writestr(f"xl/media/{number}", b"")
    return packed.getvalue()


def hostile() -> Iterator[tuple[str, bytes]]:
    """Files by name, each refused, each by another limit."""
    yield "headers.csv", ",".join(f"column {number}" for number in range(20_000)).encode()
    yield "header.csv", f"{LONG},{LONG}\n1,2".encode()
    yield "role.jsonl", json.dumps({"messages": [{"role": LONG, "content": "x"}]}).encode()
    yield "fields.jsonl", json.dumps({LONG: 1} | {str(number): 1 for number in range(20_000)}).encode()
    yield "twice.jsonl", f'{{"{LONG}": 1, "{LONG}": 2}}'.encode()
    yield "deep.jsonl", b'{"text":' + b"[" * 100_000
    yield "lines.jsonl", b"{\n" * 20_000
    yield "open.csv", b'text,label\n"' + b"a,b\n" * 50_000
    yield "line.jsonl", b'{"text":"' + b"x" * 1_200_000
    yield f"{NAME}.jsonl", b"{"
    yield "packed.jsonl", gzip.compress(b"0" * 10_000_000)
    yield "parts.xlsx", many_parts()
    yield "noise.jsonl", os.urandom(10_000)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("files", [40, pytest.param(300, marks=pytest.mark.slow)])
async def test_another_tenants_upload_waits_for_none_of_them(space: Space, files: int) -> None:
    app = build(space.settings(Settings, "ingest"))
    async with running(app) as url, space.probe("datasets", "files") as seen:

        async def sent(tenant: str, name: str, body: bytes) -> str:
            credential = space.bearer("ingest", tenant)  # good for a minute
            async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=credential, timeout=60) as client:
                return (await client.files.create(file=(name, body), purpose="fine-tune")).id

        made = {await sent("tenant_bad", name, body) for name, body in islice(cycle(hostile()), files)}

        def refused() -> list[DatasetRejected]:
            return [event for event in seen.of(DatasetRejected) if event.tenant_id == "tenant_bad"]

        mine = await sent("tenant_good", "rows.jsonl", GOOD)
        before, began = len(refused()), time.monotonic()
        await eventually(lambda: seen.of(DatasetPrepared), within=60)
        print(f"\n{files} hostile files: another tenant's dataset after {time.monotonic() - began:.1f} s")
        assert len(refused()) <= before + 3, "it waited for more than the file that was being read"
        assert seen.of(DatasetPrepared)[0].file_id == mine
        told = await eventually(lambda: len(refused()) >= before + 15 and refused(), within=300)
        assert {event.file_id for event in told} <= made
        for event in [*told, *seen.of(FileUploaded)]:
            assert len(event.model_dump_json().encode()) < SMALL_EVENT_BYTES
        assert all(len(event.message) <= 2000 for event in told)

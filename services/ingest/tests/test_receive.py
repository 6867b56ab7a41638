"""The form of an upload: each field is honoured, or refused by its name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers

from chassis.errors import Invalid, TooLarge
from ingest.receive import Form, Limits, TooSlow, form_schema, receive
from ingest.use_cases import Upload

NULL = {"type": "null"}


async def received(
    fields: dict[str, Any],
    *,
    body: bytes = b"x",
    name: str = "a.jsonl",
    most: int = 10**6,
    clock: Callable[[], Awaitable[None]] | None = None,
    **pace: Any,
) -> Upload:
    request = httpx2.Request("POST", "http://x/v1/files", data=fields, files={"file": (name, body)})
    content = request.read()

    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(content), 1000):
            if clock:
                await clock()
            yield content[at : at + 1000]

    async with receive(Headers(request.headers), chunks(), Limits(most, **pace)) as upload:
        assert upload.source.read() == body
        return upload


async def test_every_field_is_taken() -> None:
    upload = await received(
        {
            "purpose": "user_data",
            "columns": '{"prompt": "a", "completion": "b", "input": "c", "system": "d"}',
            "on_bad_rows": "skip",
            "expires_after[anchor]": "created_at",
            "expires_after[seconds]": "3600",
        },
        name="folder\\ab.csv",
    )
    assert (upload.filename, upload.purpose, upload.on_bad_rows) == ("ab.csv", "user_data", "skip")
    assert upload.columns == {"text": "a", "label": "b", "input": "c", "system": "d"}
    assert upload.expires_at is not None
    plain = await received({"purpose": "evals", "on_bad_rows": "refuse", "columns": ""})
    assert (plain.columns, plain.on_bad_rows, plain.expires_at) == ({}, "refuse", None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "tuning"}, "purpose"),
        ({"purpose": "p" * 5000}, "purpose"),
        ({"purpose": ["user_data", "evals"]}, "purpose"),
        ({"purpose": "user_data", "columns": "x"}, "columns"),
        ({"purpose": "user_data", "columns": "[1]"}, "columns"),
        ({"purpose": "user_data", "columns": "[" * 9000}, "columns"),
        ({"purpose": "user_data", "columns": '{"txt": "a"}'}, "columns.txt"),
        ({"purpose": "user_data", "columns": '{"text": ""}'}, "columns.text"),
        ({"purpose": "user_data", "columns": '{"text": 3}'}, "columns.text"),
        ({"purpose": "user_data", "columns": f'{{"text": "{"a" * 300}"}}'}, "columns.text"),
        ({"purpose": "user_data", "columns": '{"text": "\\ud800"}'}, "columns.text"),
        ({"purpose": "user_data", "columns": '{"text": "a", "prompt": "b"}'}, "columns.prompt"),
        ({"purpose": "user_data", "columns": '{"text": "a", "label": "a"}'}, "columns"),
        ({"purpose": "assistants", "columns": '{"text": "a"}'}, "columns"),
        ({"purpose": "evals", "on_bad_rows": "skip"}, "on_bad_rows"),
        ({"purpose": "user_data", "on_bad_rows": "mend"}, "on_bad_rows"),
        ({"purpose": "user_data", "on_bad_rows": ["skip", "skip"]}, "on_bad_rows"),
        ({"purpose": "user_data", "delimiter": ";"}, "delimiter"),
        ({"purpose": "user_data", "Purpose": "user_data"}, "Purpose"),
        ({"purpose": "user_data", "purpose[a]": "b"}, "purpose[a]"),
        ({"purpose": "user_data", "expires_in": "3600"}, "expires_in"),
        ({"purpose": "user_data", "expires_after": "3600"}, "expires_after"),
        ({"purpose": "user_data", "expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"purpose": "user_data", "expires_after[seconds]": "3599"}, "expires_after.seconds"),
        ({"purpose": "user_data", "expires_after[seconds]": "2592001"}, "expires_after.seconds"),
        ({"purpose": "user_data", "expires_after[seconds]": "²"}, "expires_after.seconds"),
        (
            {"purpose": "user_data", "expires_after[seconds]": "3600", "expires_after[anchor]": "last_used_at"},
            "expires_after.anchor",
        ),
        ({"purpose": "user_data", "expires_after[seconds]": "3600", "expires_after[days]": "3"}, "expires_after.days"),
    ],
)
async def test_a_field_that_cannot_be_honoured_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises((Invalid, RequestValidationError)) as caught:
        await received(fields)
    if isinstance(caught.value, Invalid):
        named = caught.value.param
        assert len(caught.value.message) < 500
    else:
        first = caught.value.errors()[0]
        named = ".".join(map(str, (*first["loc"], *first.get("ctx", {}).get("param", "").split())))
    assert named == param


def test_the_reference_shows_the_form_that_is_read() -> None:
    shown = form_schema()
    assert set(shown["properties"]) == {*Form.model_fields, "file"}
    assert shown["required"] == ["file", "purpose"]
    assert "$ref" not in str(shown)
    assert "description" not in shown
    [seconds] = [one["properties"]["seconds"] for one in shown["properties"]["expires_after"]["anyOf"] if one != NULL]
    assert (seconds["minimum"], seconds["maximum"]) == (3600, 30 * 24 * 3600)


async def test_a_field_as_long_as_a_file_is_refused() -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        await received({"purpose": "user_data", "columns": "x" * 20_000})


async def test_the_size_is_judged_while_the_bytes_come() -> None:
    assert (await received({"purpose": "user_data"}, body=b"x" * 5000, most=5000)).purpose == "user_data"
    with pytest.raises(TooLarge):
        await received({"purpose": "user_data"}, body=b"x" * 200_000, most=5000)


async def test_an_upload_of_which_nothing_comes_any_more_is_ended() -> None:
    with pytest.raises(TooSlow, match=r"Nothing came of the upload for 0\.05 s"):
        await received({"purpose": "user_data"}, clock=asyncio.Event().wait, silence_seconds=0.05)


@pytest.mark.parametrize(("seconds", "ends"), [(0.9, False), (1.1, True)])
async def test_an_upload_slower_than_the_least_rate_is_ended(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ends: bool
) -> None:
    """A thousand bytes at a time, every so many seconds."""
    now = 0.0

    async def later() -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = {"silence_seconds": 10, "bytes_per_second": 1000}
    assert await received({"purpose": "user_data"}, body=b"x" * 5_000, clock=later, **pace)
    if not ends:
        assert await received({"purpose": "user_data"}, body=b"x" * 50_000, clock=later, **pace)
        return
    with pytest.raises(TooSlow, match="less than 1000 bytes a second"):
        await received({"purpose": "user_data"}, body=b"x" * 50_000, clock=later, **pace)

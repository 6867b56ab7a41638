"""The idempotency key of an upload holds for its credential and 24 hours, and lists honour their parameters."""

from __future__ import annotations

import json

import openai
import pytest
from ingest_harness import Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = "\n".join(json.dumps({"prompt": f"row {n}", "completion": f"label_{n % 3}"}) for n in range(12)).encode()
KEY = {"Idempotency-Key": "upload-1"}


def sdk(url: str, api_key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=api_key, max_retries=0)


async def test_two_credentials_of_a_tenant_may_use_the_same_key(harness: Harness) -> None:
    engineer = harness.space.bearer("ingest", harness.tenant, role="engineer")
    mine, theirs = harness.sdk, sdk(harness.url, engineer)
    first = await mine.files.create(file=("a.jsonl", BODY), purpose="fine-tune", extra_headers=KEY)
    other = await theirs.files.create(file=("b.jsonl", BODY + b"\n"), purpose="user_data", extra_headers=KEY)
    assert (other.id != first.id, other.purpose) == (True, "user_data")
    again = await mine.files.create(file=("a.jsonl", BODY), purpose="fine-tune", extra_headers=KEY)
    assert again.id == first.id


async def test_a_key_may_be_used_for_another_file_once_its_time_is_over(harness: Harness) -> None:
    client, records = harness.sdk, harness.database["idempotency"]
    known = [record["_id"] for record in await records.find().to_list(None)]
    first = await client.files.create(file=("a.jsonl", BODY), purpose="fine-tune", extra_headers=KEY)
    with pytest.raises(openai.UnprocessableEntityError):
        await client.files.create(file=("b.jsonl", BODY + b"\n"), purpose="fine-tune", extra_headers=KEY)
    assert (await records.delete_many({"_id": {"$nin": known}})).deleted_count == 1
    second = await client.files.create(file=("b.jsonl", BODY + b"\n"), purpose="fine-tune", extra_headers=KEY)
    assert second.id != first.id
    assert len([file async for file in client.files.list()]) == 2


async def test_files_are_listed_as_they_are_asked_for(harness: Harness) -> None:
    client, files = harness.sdk, harness.database["files"]
    made = [
        await client.files.create(file=(f"{number}.md", b"# Page"), purpose="assistants" if number % 2 else "user_data")
        for number in range(6)
    ]
    for at, file in enumerate(made):
        await files.update_one({"_id": file.id}, {"$set": {"created_at": at}, "$inc": {"version": 1}})
    ids = [file.id for file in made]

    async def listed(**asked: object) -> list[str]:
        return [file.id for file in (await client.files.list(**asked)).data]  # type: ignore[arg-type]

    assert await listed() == ids[::-1]
    assert await listed(order="asc") == ids
    assert await listed(order="asc", limit=2) == ids[:2]
    assert await listed(order="asc", after=ids[2]) == ids[3:]
    assert await listed(after=ids[2]) == [ids[1], ids[0]]
    assert await listed(purpose="assistants") == ids[::-2]
    assert await listed(purpose="assistants", order="asc", after=ids[1], limit=1) == [ids[3]]
    assert await listed(purpose="vision") == []
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"order": "up"}):
        with pytest.raises(openai.BadRequestError):
            await listed(**wrong)
    with pytest.raises(openai.BadRequestError, match="status"):
        await client.files.list(extra_query={"status": "error"})
    with pytest.raises(openai.NotFoundError):
        await listed(after="file-none")

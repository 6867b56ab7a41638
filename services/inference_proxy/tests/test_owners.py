"""What a caller may see and use of its tenant's, on the local stack."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from proxy_harness import BASE, QUESTION, Harness

pytestmark = pytest.mark.asyncio(loop_scope="module")


def owner_of(key: str) -> str:
    """Whose things are that a key of nobody makes."""
    return f"key_{key[-6:]}"


async def test_a_key_reads_no_store_through_a_chat_that_it_may_not_read(harness: Harness) -> None:
    content = [{"type": "text", "text": "The shed is behind the house."}]
    row = {"file_id": "file-1", "filename": "garden.md", "score": 0.9, "attributes": {}, "content": content}
    harness.stubs.found[harness.a, "vs_1"] = [row]
    asked: dict[str, Any] = {"model": BASE, "messages": QUESTION, "extra_body": {"vector_store_ids": ["vs_1"]}}
    with pytest.raises(openai.PermissionDeniedError):
        await harness.sdk(key=harness.key(scopes=("chat:write",))).chat.completions.create(**asked)
    assert (harness.stubs.searches, harness.stubs.prompts) == ([], [])
    reader = harness.key(scopes=("chat:write", "retrieval:read"))
    assert (await harness.sdk(key=reader).chat.completions.create(**asked)).choices


async def test_an_end_user_chats_with_their_own_models_and_those_with_an_alias(harness: Harness) -> None:
    anna, bela, boss = harness.key(role="end_user"), harness.key(role="end_user"), harness.key()
    model = harness.model()
    harness.stubs.routes[model]["owner"] = owner_of(anna)
    harness.stubs.routes["intents"] = {**harness.stubs.routes[model]}
    for key in (anna, boss):
        assert (await harness.sdk(key=key).chat.completions.create(model=model, messages=QUESTION)).choices
    with pytest.raises(openai.NotFoundError) as caught:
        await harness.sdk(key=bela).chat.completions.create(model=model, messages=QUESTION)
    assert caught.value.code == "model_not_found"
    for name in ("intents", BASE):
        assert (await harness.sdk(key=bela).chat.completions.create(model=name, messages=QUESTION)).choices


async def test_an_end_user_sees_their_own_stored_chats_and_rates_their_own_answers(harness: Harness) -> None:
    anna, bela, boss = (harness.sdk(key=harness.key(role=role)) for role in ("end_user", "end_user", "owner"))
    mine = await anna.chat.completions.create(model=BASE, messages=QUESTION, store=True)
    theirs = await bela.chat.completions.create(model=BASE, messages=QUESTION, store=True)
    assert [one.id for one in (await anna.chat.completions.list()).data] == [mine.id]
    assert {one.id for one in (await boss.chat.completions.list()).data} == {mine.id, theirs.id}
    for ask in (anna.chat.completions.retrieve, anna.chat.completions.messages.list, anna.chat.completions.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(theirs.id)
    rating = {"completion_id": theirs.id, "rating": "up"}
    with pytest.raises(openai.NotFoundError):
        await anna.post("/feedback", body=rating, cast_to=object)
    assert await bela.post("/feedback", body=rating, cast_to=object)
    assert (await boss.chat.completions.retrieve(theirs.id)).id == theirs.id

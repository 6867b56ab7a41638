"""A model that its base answers for, shown the training rows that an arm finds: never without them, or by another."""

from __future__ import annotations

from typing import Any

import pytest
from arm_requests import CLOSEST, WAYS, ask, code, on_shown, row
from proxy_harness import DIGEST, PROMPT_TOKENS, QUESTION, Harness

from inference_proxy.engines.arms import MOST_ROWS
from inference_proxy.showing import MOST_SHOWN, Closest, shown_before
from schemas.artifacts import ChatRow
from schemas.http.inference_proxy import UNSUPPORTED
from schemas.http.model_server import identity
from schemas.http.rag_indexer import STALE_ARM

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHATS = [way for way in WAYS if way != "completion"]


@pytest.mark.parametrize("way", CHATS)
async def test_the_base_is_shown_the_closest_row_last_and_answers_under_the_models_name(
    harness: Harness, way: str
) -> None:
    model = on_shown(harness)
    conversation = [{"role": "system", "content": "Be brief."}, *QUESTION]
    answer = await ask(harness, model, way, messages=conversation)
    assert answer.status_code == 200, answer.text
    assert "shed" in answer.text
    [prompt] = harness.stubs.prompts
    shown = "<user>Is it red?<assistant>Yes.<user>My bag?<assistant>On the shelf."
    shown += "<user>Where is my car?<assistant>In the garage."
    assert prompt["inputs"] == f"<system>Be brief.{shown}<user>{QUESTION[0]['content']}<assistant>"
    assert prompt["parameters"]["adapter_id"] is None
    assert harness.stubs.identities[-1] == identity(DIGEST, None)
    [(caller, asked)] = harness.stubs.arms.asked
    assert (asked.questions, asked.top) == ([QUESTION[0]["content"]], MOST_ROWS)
    assert (caller.tenant_id, asked.arm_id, asked.testing) == (harness.a, harness.adapter(model), way == "test")


async def test_who_answered_and_what_was_read_is_told(harness: Harness) -> None:
    model = on_shown(harness)
    answer = await ask(harness, model)
    told, arm_id = answer.json(), harness.adapter(model)
    assert (told["model"], told["system_fingerprint"], told["usage"]["prompt_tokens"]) == (model, arm_id, PROMPT_TOKENS)
    assert (answer.headers["x-sartor-arm"], answer.headers["x-sartor-adapter"]) == ("nearest", arm_id)
    completed = await harness.completed()
    assert (completed.adapter_id, completed.prompt_tokens, completed.handed_over) == (arm_id, PROMPT_TOKENS, None)
    tested = (await ask(harness, model, "test")).json()
    assert (tested["adapter_id"], tested["prompt_tokens"]) == (arm_id, PROMPT_TOKENS)


async def test_what_is_read_and_said_has_the_price_of_the_base(harness: Harness) -> None:
    model = on_shown(harness)
    priced = f"priced-{model[-8:]}"
    harness.stubs.prices[priced] = {"input": 3.0, "output": 15.0}
    harness.stubs.versions[model]["base_model"] = priced
    tested = (await ask(harness, model, "test")).json()
    assert tested["cost"] == pytest.approx((PROMPT_TOKENS * 3 + tested["completion_tokens"] * 15) / 1e6)


async def test_documents_and_rows_are_shown_together(harness: Harness) -> None:
    model = on_shown(harness)
    chunk = {"file_id": "file-1", "filename": "keys.md", "score": 0.9, "content": [{"type": "text", "text": "Key: 7."}]}
    harness.stubs.found[harness.a, "vs_1"] = [chunk]
    answer = await ask(harness, model, vector_store_ids=["vs_1"])
    assert answer.status_code == 200, answer.text
    [prompt] = harness.stubs.prompts
    assert prompt["inputs"].index("Key: 7.") < prompt["inputs"].index("In the garage.")
    assert answer.json()["sartor"]["retrieved"] == [{"file_id": "file-1", "filename": "keys.md", "score": 0.9}]


async def test_a_text_that_is_no_chat_is_refused(harness: Harness) -> None:
    answer = await ask(harness, on_shown(harness), "completion")
    assert code(answer) == (400, UNSUPPORTED)
    assert answer.json()["error"]["param"] == "prompt"
    assert harness.stubs.prompts == []


async def test_what_the_adapter_would_take_is_not_refused_for_good_while_the_arm_stands_in_for_it(
    harness: Harness,
) -> None:
    model = on_shown(harness)
    harness.stubs.routes[model]["stands_in"] = True
    assert code(await ask(harness, model, "completion")) == (503, "model_loading")
    long = [{"role": "user", "content": "y" * 2000}]
    assert code(await ask(harness, model, messages=long)) == (503, "model_loading")
    chats_only = harness.key(scopes=("chat:write",))
    async with harness.http(key=chats_only) as http:
        answer = await http.post("/v1/chat/completions", json={"model": model, "messages": QUESTION})
    assert code(answer) == (503, "model_loading")
    harness.stubs.beyond_tgi = ()
    assert code(await ask(harness, model, presence_penalty=1)) == (400, UNSUPPORTED), "nor would the adapter take it"
    assert harness.stubs.prompts == []


async def test_what_the_engine_of_the_base_has_is_honoured_and_what_it_lacks_is_refused(harness: Harness) -> None:
    model = on_shown(harness)
    assert (await ask(harness, model, frequency_penalty=0.5, temperature=0.5, n=2)).is_success
    assert [one["parameters"]["frequency_penalty"] for one in harness.stubs.prompts] == [0.5, 0.5]
    assert len(harness.stubs.arms.asked) == 1
    harness.stubs.beyond_tgi = ()
    refused = await ask(harness, model, presence_penalty=1)
    assert code(refused) == (400, UNSUPPORTED)
    assert "the engine of this model does not have it" in refused.json()["error"]["message"]


async def test_who_may_not_read_rows_is_shown_none_and_is_not_answered_by_who_was(harness: Harness) -> None:
    model, asked = on_shown(harness), {"messages": QUESTION}
    for scopes, means in ((("chat:write",), 403), (("chat:write", "files:read"), 200)):
        async with harness.http(key=harness.key(scopes=scopes)) as http:
            answer = await http.post("/v1/chat/completions", json={"model": model, **asked})
        assert answer.status_code == means, answer.text
        assert ("files:read" in answer.text) == (means == 403)
    assert len(harness.stubs.arms.asked) == len(harness.stubs.prompts) == 1


@pytest.mark.parametrize("way", CHATS)
@pytest.mark.parametrize(
    ("instead", "refusal", "means"),
    [
        ({"kind": "nearest", "arm_id": "arm-of-somebody-else"}, None, (503, "wrong_model")),
        ({"kind": "head"}, None, (503, "wrong_model")),
        ({"kind": "nearest"}, (409, STALE_ARM), (503, "wrong_model")),
        ({"kind": "nearest"}, (404, "arm_not_found"), (503, "arm_gone")),
        ({"kind": "nearest"}, (503, "service_unavailable"), (503, "service_unavailable")),
    ],
)
async def test_the_base_never_answers_without_the_arm(
    harness: Harness, way: str, instead: dict[str, Any], refusal: tuple[int, str] | None, means: tuple[int, str]
) -> None:
    model = on_shown(harness)
    harness.stubs.arms.instead, harness.stubs.arms.refusal = instead, refusal
    assert code(await ask(harness, model, way)) == means
    assert harness.stubs.prompts == []


async def test_the_base_never_answers_where_the_arm_finds_no_row(harness: Harness) -> None:
    model, none = on_shown(harness), {"answer": "", "confidence": 0.5, "tokens": 1}
    harness.stubs.arms.instead = {"kind": "nearest", "answers": [none]}
    assert code(await ask(harness, model)) == (503, "generation_failed")
    assert harness.stubs.prompts == []


async def test_what_is_no_row_is_not_shown(harness: Harness) -> None:
    assert code(await ask(harness, on_shown(harness, "refund"))) == (503, "wrong_model")
    assert harness.stubs.prompts == []


async def test_no_other_base_and_nobody_answers_in_its_place(harness: Harness) -> None:
    harness.stubs.base_digest = "e" * 64
    assert code(await ask(harness, on_shown(harness))) == (503, "wrong_model")
    model = on_shown(harness)
    harness.stubs.routes[model]["replicas"] = []
    assert code(await ask(harness, model)) == (503, "model_loading")


async def test_an_arm_is_asked_by_its_tenant_only(harness: Harness) -> None:
    model = on_shown(harness)
    assert code(await ask(harness, model, tenant=harness.b)) == (404, "model_not_found")
    assert harness.stubs.arms.asked == []


async def test_rows_that_have_no_room_are_left_out_and_where_none_has_the_question_is_refused(
    harness: Harness,
) -> None:
    model = on_shown(harness, row("long?", "x" * 3000), *CLOSEST)
    assert (await ask(harness, model)).is_success
    [prompt] = harness.stubs.prompts
    assert "long?" not in prompt["inputs"]
    assert "In the garage." in prompt["inputs"]
    refused = await ask(harness, model, messages=[{"role": "user", "content": "y" * 2000}])
    assert code(refused) == (400, "context_length_exceeded")
    assert refused.json()["error"]["param"] == "messages"
    assert len(harness.stubs.prompts) == 1


def placed(rows: int, room: int, max_tokens: int | None = 1, budget: int = 10_000) -> list[dict[str, str]]:
    """A question of one byte behind rows of two, in a context that has room for so many bytes beside it."""
    closest: list[ChatRow] = [
        {"messages": [{"role": "user", "content": str(place)}, {"role": "assistant", "content": "!"}]}
        for place in range(rows)
    ]
    asked = [{"role": "system", "content": ""}, {"role": "user", "content": "?"}, {"role": "system", "content": ""}]
    length = room + 49 + (256 if max_tokens is None else max_tokens)
    shown = Closest(closest, 0.0, budget, stands_in=False)
    return shown_before(asked, shown, context_length=length, max_tokens=max_tokens)


@pytest.mark.parametrize("max_tokens", [None, 1, 500])
@pytest.mark.parametrize(("rows", "room", "shown"), [(3, 34, "0"), (3, 67, "0"), (3, 68, "10"), (9, 500, "76543210")])
async def test_as_many_rows_as_have_room_for_sure_stand_behind_what_the_system_says_first(
    rows: int, room: int, shown: str, max_tokens: int | None
) -> None:
    said = placed(rows, room, max_tokens)
    assert "".join(one["content"] for one in said) == "".join(f"{one}!" for one in shown) + "?"
    assert [one["role"] for one in said] == ["system", *["user", "assistant"] * len(shown), "user", "system"]
    assert len(shown) <= MOST_SHOWN


@pytest.mark.parametrize(("budget", "shown"), [(1, "0"), (34, "0"), (68, "10"), (101, "10")])
async def test_a_budget_bounds_all_rows_but_the_closest(budget: int, shown: str) -> None:
    said = placed(3, 500, budget=budget)
    assert "".join(one["content"] for one in said) == "".join(f"{one}!" for one in shown) + "?"

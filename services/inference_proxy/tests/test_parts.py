"""The proxy's parts without I/O: stop texts, limits, requests, prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from chassis.auth import Principal
from chassis.errors import Invalid, RateLimited
from chassis.in_flight import InFlight
from chassis.limits import Allowance, Limiter
from inference_proxy.admission import TenantAdmission
from inference_proxy.answers import StopFilter
from inference_proxy.bases import Base
from inference_proxy.limits import Spending
from inference_proxy.requests import ChatAsked, CompletionAsked
from schemas.artifacts import BASE_FILE, BaseModelSpec

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("pieces", "stops", "shown"),
    [
        (["a", "b", "c"], [], "abc"),
        (["label", "\n", "\n", "### User"], ["\n\n### User"], "label"),
        (["one\n", "\ntwo"], ["\n\n### User"], "one\n\ntwo"),
        (["xST", "OPy"], ["STOP", "y"], "x"),
        (["日本", "語。", "次"], ["。"], "日本語"),
    ],
)
def test_stop_texts_never_show(pieces: list[str], stops: list[str], shown: str) -> None:
    texts = StopFilter(stops)
    seen = "".join(texts.feed(piece) for piece in pieces) + texts.flush()
    assert seen == shown


BY_KEY = Principal(tenant_id="t", key_id="k", allowances=(Allowance("k", 4, 50), Allowance("t", 8, 80)))
BY_CONSOLE = Principal(tenant_id="t", user_id="user_1", caller="console")


def spending(requests: Limiter | None = None) -> Spending:
    return Spending(requests or Limiter("requests"), Limiter("tokens"), Allowance("", 4, 50))


@pytest.mark.parametrize("who", [BY_KEY, BY_CONSOLE])
def test_tokens_spent_are_owed(who: Principal) -> None:
    spent = spending()
    spent.admit(who)
    spent.charge(who, 500)
    with pytest.raises(RateLimited, match="tokens"):
        spent.admit(who)


def test_the_tokens_of_a_tenants_keys_are_counted_together() -> None:
    spent = spending()
    other = replace(BY_KEY, key_id="l", allowances=(Allowance("l", 4, 50), BY_KEY.allowances[1]))
    for who in (BY_KEY, other):
        spent.admit(who)
        spent.charge(who, 40)
    with pytest.raises(RateLimited, match="80 tokens"):
        spent.admit(BY_KEY)


def test_people_without_a_key_are_counted_here_each_for_themselves() -> None:
    spent = spending()
    for _ in range(4):
        spent.admit(BY_CONSOLE)
    with pytest.raises(RateLimited, match="requests"):
        spent.admit(BY_CONSOLE)
    spent.admit(replace(BY_CONSOLE, user_id="user_2"))


def test_what_people_use_counts_with_what_the_keys_of_their_tenant_use() -> None:
    spent, requests = spending(), Limiter("requests")
    person = replace(BY_CONSOLE, allowances=BY_KEY.allowances[1:])
    for who in (BY_KEY, person):
        spent.admit(who)
        spent.charge(who, 40)
    for who in (BY_KEY, person):
        with pytest.raises(RateLimited, match="80 tokens"):
            spent.admit(who)
    for number in range(8):
        spending(requests).admit(replace(person, user_id=f"user_{number}"))
    with pytest.raises(RateLimited, match="8 requests"):
        requests.admit(BY_KEY.allowances)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ],
)
def test_what_is_not_there_is_refused_by_name(body: dict, param: str) -> None:
    with pytest.raises(Invalid) as caught:
        asked = ChatAsked.model_validate({"model": "m", "messages": HELLO, **body}).checked()
        asked.plain_messages()
    assert caught.value.param == param


def test_stores_are_named_in_either_way() -> None:
    tools = [{"type": "file_search", "vector_store_ids": ["vs_2", "vs_1"]}]
    asked = ChatAsked.model_validate({"model": "m", "messages": HELLO, "tools": tools, "vector_store_ids": ["vs_1"]})
    assert asked.checked().stores == ["vs_1", "vs_2"]


def test_a_request_owes_for_each_of_its_prompts() -> None:
    requests = Limiter("requests")
    requests.admit(BY_KEY.allowances)  # as the key is read
    spending(requests).admit(BY_KEY, 5)
    with pytest.raises(RateLimited, match="requests"):
        requests.admit(BY_KEY.allowances)


@pytest.mark.parametrize(("prompts", "n", "fits"), [(16, None, True), (17, None, False), (4, 4, True), (5, 4, False)])
def test_prompts_and_choices_together_are_limited(prompts: int, n: int | None, fits: bool) -> None:
    asked = CompletionAsked.model_validate({"model": "m", "prompt": ["x"] * prompts, "n": n})
    if fits:
        assert len(asked.checked().prompts) == prompts
        return
    with pytest.raises(Invalid) as caught:
        asked.checked()
    assert caught.value.param == "prompt"


def test_more_answers_than_there_are_places_are_refused_by_name() -> None:
    unused: Any = None
    places = InFlight("answers", most=9, most_each=3, retry_after=1)
    admission = TenantAdmission(unused, unused, places, unused)
    with pytest.raises(Invalid, match="at most 3 answers") as caught:
        admission.entered(BY_KEY, 4)
    assert caught.value.param == "n"
    with admission.entered(BY_KEY, 3), pytest.raises(RateLimited):
        admission.entered(BY_KEY, 1).__enter__()


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(Invalid):
        CompletionAsked.model_validate({"model": "m", "prompt": ""}).checked()


@pytest.mark.parametrize(
    "messages",
    [
        HELLO,
        [{"role": "system", "content": "Be brief."}, *HELLO],
        [*HELLO, {"role": "assistant", "content": "こんにちは"}, {"role": "user", "content": "### Assistant\nyes"}],
    ],
)
def test_the_sandboxed_template_says_what_the_tokenizers_does(tiny_models: Path, messages: list[dict]) -> None:
    folder = tiny_models / "tiny-test"
    base = Base(BaseModelSpec.model_validate_json((folder / BASE_FILE).read_bytes()))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.bos_token + base.render(messages) == whole

"""Seconds from an upload to the first own answer, and how many rows that were never uploaded it gets right."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import product
from pathlib import Path

import openai
import pytest
from tests.conftest import LEAN, Tenant, make_tenant, until_bases_answer
from tests.tiny_stack import tiny_stack

Row = tuple[str, str]
ASKED = 60
"""Questions that no upload holds."""

LONGEST = 300.0

ENGLISH = {
    "late_parcel": ("my parcel of {} has not come", "the {} I ordered is late again", "where is the {} from {day}?"),
    "broken": ("the {} arrived in pieces", "a corner of the {} is cracked", "the {} stopped working on {day}"),
    "refund": ("I want my money back for the {}", "please pay back what the {} cost", "refund the {} from {day}"),
    "wrong_item": ("I got another {} than I chose", "this is not the {} I ordered", "wrong colour of {} on {day}"),
    "cancel": ("do not send the {} any more", "please cancel the {} of {day}", "I no longer need the {}"),
    "invoice": ("send me the invoice of the {}", "the bill for the {} lacks my name", "I need a receipt of {day}: {}"),
}
JAPANESE = {
    "late_parcel": ("{}がまだ届きません", "注文した{}の配達が遅れています", "{day}の{}はどこですか"),
    "broken": ("届いた{}が壊れていました", "{}の角が割れています", "{}が{day}に動かなくなりました"),
    "refund": ("{}の返金をお願いします", "{}の代金を返してください", "{day}の{}を払い戻してください"),
    "wrong_item": ("選んだものと違う{}が来ました", "これは注文した{}ではありません", "{day}の{}の色が違います"),
    "cancel": ("{}の発送を止めてください", "{day}の{}をキャンセルします", "{}はもう要りません"),
    "invoice": ("{}の請求書を送ってください", "{}の請求書に名前がありません", "{day}の{}の領収書が必要です"),
}
THINGS = {
    "English": ["lamp", "chair", "kettle", "bicycle", "mirror", "radio", "carpet", "clock", "shelf", "tent", "scarf"],
    "Japanese": ["ランプ", "椅子", "やかん", "自転車", "鏡", "ラジオ", "絨毯", "時計", "棚", "テント", "襟巻き"],
}


def rows(language: str, count: int) -> list[Row]:
    """So many different questions with their classes."""
    intents = ENGLISH if language == "English" else JAPANESE
    found: list[Row] = []
    for number, thing in product(range(2 + count // 60), THINGS[language]):
        for intent, asked in intents.items():
            text = asked[number % len(asked)].format(f"{thing} {number}" if number > 2 else thing, day=f"5/{number}")
            found.append((text, intent))
    return list(dict.fromkeys(found))[:count]


def jsonl(taught: Sequence[Row]) -> bytes:
    """Chat rows."""
    lines = [
        json.dumps({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
        for asked, answer in taught
    ]
    return "\n".join(lines).encode()


def seconds_to_first_answer(tenant: Tenant, taught: Sequence[Row], asked: Sequence[Row]) -> tuple[float, str, int]:
    """From the upload to the first answer, by what it was given, and how many of the questions are answered rightly."""
    sdk = tenant.sdk
    began = time.monotonic()
    file = sdk.files.create(file=("rows.jsonl", jsonl(taught)), purpose="user_data")
    name = None
    while name is None:
        assert time.monotonic() - began < LONGEST, "nothing answers"
        time.sleep(0.1)
        job = next((job for job in sdk.fine_tuning.jobs.list() if job.training_file == file.id), None)
        assert job is None or job.status not in ("failed", "cancelled"), job
        name = job.fine_tuned_model if job else None
    by, _ = answer(sdk, name, asked[0][0])
    seconds = time.monotonic() - began
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda one: answer(sdk, name, one[0])[1], asked))
    assert job is not None
    with suppress(openai.ConflictError):  # it is over
        sdk.fine_tuning.jobs.cancel(job.id)
    return seconds, by, sum(said == right for said, (_, right) in zip(given, asked, strict=True))


def answer(sdk: openai.OpenAI, name: str, question: str) -> tuple[str, str]:
    """By what a model answers, and what."""
    raw = sdk.chat.completions.with_raw_response.create(
        model=name, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=16
    )
    return raw.headers.get("x-sartor-arm") or "", raw.parse().choices[0].message.content or ""


@pytest.mark.timeout(1800)
def test_seconds_from_an_upload_to_the_first_own_answer(tmp_path: Path) -> None:
    with tiny_stack(tmp_path, LEAN, durable_log=False) as stack:
        until_bases_answer(make_tenant(stack, "First of all"))
        print(f"\n{'upload -> first own answer':28}{'rows':>6}{'seconds':>9}{'by':>9}{'right of ' + str(ASKED):>13}")
        for language, count in product(("English", "Japanese"), (60, 500, 5000)):
            known = rows(language, count + ASKED)
            taught, asked = known[:count], known[count:]
            tenant = make_tenant(stack, f"{language} {count}", gate="auto")
            seconds, by, right = seconds_to_first_answer(tenant, taught, asked)
            print(f"  {language:26}{count:6}{seconds:9.1f}{by:>9}{right:13}", flush=True)
            assert by in ("head", "nearest", "adapter")

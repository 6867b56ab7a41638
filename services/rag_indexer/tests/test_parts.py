"""Filters, identifiers, vectors of long texts, token ids."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import numpy as np
import pytest

from chassis.errors import Invalid
from rag_indexer.cl100k import texts_of, tokens
from rag_indexer.embedding import BUILT_IN, Embedding
from rag_indexer.fair_executor import FairExecutor
from rag_indexer.filters import passes, read
from rag_indexer.milvus import checked


def comparison(kind: str, value: Any, key: str = "v") -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (comparison("eq", "ja", "lang"), True),
        (comparison("ne", "ja", "lang"), False),
        (comparison("gt", 2024, "year"), True),
        (comparison("gt", 2024.5, "year"), True),
        (comparison("lte", 2025.0, "year"), True),
        (comparison("gt", "en", "lang"), True),
        (comparison("in", ["en", "ja"], "lang"), True),
        (comparison("in", [], "lang"), False),
        (comparison("nin", [], "lang"), True),
        (comparison("eq", 1, "absent"), False),
        (comparison("lt", 1, "absent"), False),
        (comparison("ne", 1, "absent"), True),
        (comparison("nin", [1], "absent"), True),
        (comparison("lt", 3, "lang"), False),
        ({"type": "and", "filters": [comparison("eq", "ja", "lang"), comparison("lt", 2025, "year")]}, False),
        ({"type": "or", "filters": [comparison("eq", "x", "lang"), comparison("gte", 2025, "year")]}, True),
        ({"type": "and", "filters": [{"type": "or", "filters": [comparison("eq", 2025, "year")]}]}, True),
    ],
)
def test_filters(filter_: dict[str, Any], expected: bool) -> None:
    assert passes(read(filter_), {"lang": "ja", "year": 2025}) is expected


@pytest.mark.parametrize("have", [True, False, 1, 0, 1.0, "1", "true", "True", ""])
@pytest.mark.parametrize("asked", [True, False, 1, 0, 1.0, "1", "true", "True", ""])
def test_a_filter_finds_values_of_its_own_type_only(have: Any, asked: Any) -> None:
    number = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in (have, asked))
    same = (number or type(have) is type(asked)) and have == asked
    attributes = {"v": have}
    assert passes(read(comparison("eq", asked)), attributes) is same
    assert passes(read(comparison("ne", asked)), attributes) is not same
    assert passes(read(comparison("in", [asked])), attributes) is same
    assert passes(read(comparison("nin", [asked])), attributes) is not same
    if not isinstance(asked, bool) and type(have) is not type(asked) and not number:
        assert not any(passes(read(comparison(kind, asked)), attributes) for kind in ("gt", "gte", "lt", "lte"))


deep: dict[str, Any] = comparison("eq", 1)
for _ in range(9):
    deep = {"type": "and", "filters": [deep]}


@pytest.mark.parametrize(
    ("filter_", "param"),
    [
        ({}, "filters.type"),
        (comparison("like", 1), "filters.type"),
        (comparison("gt", True), "filters.value"),
        (comparison("eq", None), "filters.value"),
        (comparison("eq", {"a": 1}), "filters.value"),
        (comparison("eq", [1]), "filters.value"),
        (comparison("eq", float("nan")), "filters.value"),
        (comparison("eq", "x" * 513), "filters.value"),
        (comparison("eq", 1, ""), "filters.key"),
        (comparison("eq", 1, "x" * 65), "filters.key"),
        ({"type": "eq", "key": "v"}, "filters.value"),
        ({**comparison("eq", 1), "more": 1}, "filters"),
        ({"type": "and", "filters": "x"}, "filters.filters"),
        ({"type": "and", "filters": []}, "filters.filters"),
        ({"type": "and"}, "filters.filters"),
        ({"type": "or", "filters": [[]]}, "filters.filters[0]"),
        ({"type": "or", "filters": [comparison("eq", 1), comparison("in", 5)]}, "filters.filters[1].value"),
        ({"type": [], "key": "a", "value": 1}, "filters.type"),
        ({"type": {}, "key": "a", "value": 1}, "filters.type"),
        ({"type": None, "key": "a", "value": 1}, "filters.type"),
        ({"type": "eq", "key": [], "value": 1}, "filters.key"),
        (comparison("in", "abc"), "filters.value"),
        (comparison("nin", None), "filters.value"),
        (comparison("in", ["a", None]), "filters.value[1]"),
        ({"type": "or", "filters": [comparison("in", list(range(600)))] * 2}, "filters"),
        (deep, "filters" + ".filters[0]" * 9),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_with_its_place(filter_: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(filter_)
    assert caught.value.param == param
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("text", ['a" or tenant_id != "', "", "a b", "x" * 65, 'vs_1"]'])
def test_only_identifiers_enter_an_expression(text: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        checked(text)


def test_the_vocabulary_is_the_one_that_openai_publishes() -> None:
    """The hash that tiktoken expects of its file, https://github.com/openai/tiktoken (openai_public.py)."""
    lines = (base64.b64encode(token) + f" {number}\n".encode() for number, token in enumerate(tokens()))
    published = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
    assert hashlib.sha256(b"".join(lines)).hexdigest() == published


async def test_token_ids_are_read_as_the_text_they_stand_for() -> None:
    assert await texts_of([[15339, 1917], [2028, 374]]) == ["hello world", "This is"]
    assert await texts_of(["a text", "stays"]) == ["a text", "stays"]
    for wrong in (-1, 100_256, 10**30):
        with pytest.raises(Invalid, match=r"input\[1\].*check_embedding_ctx_length=False") as caught:
            await texts_of([[1], [2, wrong]])
        assert caught.value.param == "input"


class Letters:
    """An embedder that reads four letters at a time; a vector counts which ones it was shown."""

    dimensions = 26
    longest = 200

    def __init__(self) -> None:
        self.seen: list[str] = []

    def passages(self, texts: list[str]) -> Any:
        self.seen += texts
        counts = np.asarray([[text.count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def tokens(self, text: str) -> int:
        return len(text)

    count = tokens


async def test_a_passage_longer_than_the_model_reads_is_embedded_whole_and_in_turns() -> None:
    letters = Letters()
    embedding = Embedding("letters", 1, 10, FairExecutor())
    embedding._embedder = letters  # type: ignore[assignment]
    long = " ".join(["a" * 9] * 30 + ["b" * 9] * 60)
    vectors = await embedding.passages(["c", long, "d"], "me")
    assert vectors.shape == (3, 26)
    assert [int(vectors[n].argmax()) for n in range(3)] == [2, 1, 3]
    assert vectors[1][1] == pytest.approx(2 * vectors[1][0], rel=0.1)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert max(map(len, letters.seen)) <= letters.longest
    assert "".join("".join(letters.seen).split()) == "c" + "".join(long.split()) + "d"


async def test_of_a_long_question_to_an_arm_the_end_is_read_and_of_a_search_the_beginning() -> None:
    letters = Letters()
    embedding = Embedding("letters", 1, 10, FairExecutor())
    letters.queries = letters.passages  # type: ignore[attr-defined]
    embedding._embedder = letters  # type: ignore[assignment]
    long = "a" * 100_000 + "b" * 150 + "c" * 50
    [(read, took)] = await embedding.questions([long], "me", lambda vectors: [letters.seen[-1] for _ in vectors])
    assert (read, took.tokens) == ("b" * 150 + "c" * 50, letters.longest)
    [vector] = await embedding.queries([long], "me")
    assert int(vector.argmax()) == 1
    assert int((await embedding.query("a" * 300 + "b" * 900, "me")).argmax()) == 0


class Busy(Letters):
    """Takes its time: 20 ms of the processor for any texts together."""

    def queries(self, texts: list[str]) -> Any:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass
        return self.passages(texts)


@pytest.mark.parametrize("model", [BUILT_IN, "another"])
async def test_a_turns_processor_time_is_shared_by_what_was_read(model: str) -> None:
    embedding = Embedding(model, 1, 10, FairExecutor())
    embedding._embedder = Busy()  # type: ignore[assignment]
    [(_, short), (_, long)] = await embedding.questions(["a", "b" * 90], "me", list)
    assert long.tokens > 10 * short.tokens
    assert long.cpu_seconds / short.cpu_seconds == pytest.approx(long.tokens / short.tokens)
    assert 0.02 <= short.cpu_seconds + long.cpu_seconds < 0.2

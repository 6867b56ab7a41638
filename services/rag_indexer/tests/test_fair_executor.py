"""The embedder's thread is shared: nobody waits for all of another's work, and nobody's work goes on for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from chassis.errors import Invalid
from rag_indexer.embedding import Embedding
from rag_indexer.fair_executor import FairExecutor
from schemas.artifacts import EmbedderFacts
from testkit import eventually


class Words:
    """An embedder whose tokens are words; it notes what it embeds and is asked together, and waits to be let go."""

    dimensions = 2
    longest = 4

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.asked: list[list[str]] = []
        self.go = threading.Event()

    def passages(self, texts: list[str]) -> Any:
        self.seen += texts
        self.go.wait(20)
        return np.zeros((len(texts), 2), dtype=np.float32)

    def queries(self, texts: list[str]) -> Any:
        self.seen += texts
        self.asked.append(texts)
        self.go.wait(20)
        return np.zeros((len(texts), 2), dtype=np.float32)

    def facts(self) -> EmbedderFacts:
        return EmbedderFacts(id="words", digest="0", dimensions=2)

    def tokens(self, text: str) -> int:
        return len(text.split())

    count = tokens


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def embedding(words: Words) -> Embedding:
    made = Embedding("words", 1, 10, FairExecutor())
    made._embedder = words
    return made


async def test_a_search_gets_between_the_texts_of_a_long_request(words: Words, embedding: Embedding) -> None:
    texts = [f"{number} {'x' * 1_500}" for number in range(9)]
    long = asyncio.create_task(embedding.passages(texts, "a"))
    await eventually(lambda: words.seen)
    search = asyncio.create_task(embedding.query("question", "b"))
    await asyncio.sleep(0)
    words.go.set()
    await search
    assert words.seen.index("question") <= 2
    assert (await long).shape == (9, 2)
    assert [text for text in words.seen if text != "question"] == texts


async def test_many_short_texts_are_embedded_in_many_turns(words: Words, embedding: Embedding) -> None:
    many = asyncio.create_task(embedding.passages(["x"] * 2_048, "a"))
    await eventually(lambda: words.seen)
    search = asyncio.create_task(embedding.query("question", "b"))
    await asyncio.sleep(0)
    words.go.set()
    await search
    assert words.seen.index("question") < 200
    assert (await many).shape == (2_048, 2)


async def test_a_tenant_with_many_requests_does_not_keep_the_others_waiting(words: Words, embedding: Embedding) -> None:
    many = [asyncio.create_task(embedding.passages([f"a{number}"], "a")) for number in range(8)]
    await eventually(lambda: words.seen)
    one = asyncio.create_task(embedding.passages(["b"], "b"))
    await asyncio.sleep(0)
    words.go.set()
    await asyncio.gather(*many, one)
    assert words.seen == ["a0", "a1", "b", *(f"a{number}" for number in range(2, 8))]


async def test_a_persons_question_waits_for_one_portion_of_all_tests_and_fits_whoever_else_waits(
    words: Words, embedding: Embedding
) -> None:
    texts = [f"{number} {'x' * 1_500}" for number in range(4)]
    tests = [
        asyncio.create_task(embedding.queries(texts, f"{tenant} {what}", "background"))
        for tenant in "abc"
        for what in ("tests", "tests", "fits", "indexing")
    ]
    await eventually(lambda: words.seen)
    people = []
    for number in range(6):
        gone = asyncio.create_task(embedding.query("nobody waits for it", f"gone {number}"))
        people.append(asyncio.create_task(embedding.query(f"question {number}", f"person {number}")))
        await asyncio.sleep(0)
        gone.cancel()
    words.go.set()
    await asyncio.gather(*people)
    asked = [number for number, text in enumerate(words.seen) if text.startswith("question")]
    assert asked == [1, 3, 5, 7, 9, 11]
    assert len(await asyncio.gather(*tests)) == 12


async def test_tests_get_between_the_questions_of_people(words: Words, embedding: Embedding) -> None:
    people = [asyncio.create_task(embedding.query(f"question {number}", f"p{number}")) for number in range(9)]
    await eventually(lambda: words.seen)
    test = asyncio.create_task(embedding.queries(["test"], "a tests", "background"))
    await asyncio.sleep(0)
    words.go.set()
    await asyncio.gather(*people, test)
    assert words.seen.index("test") == 1


def all_at_once(embedding: Embedding, who: str, texts: list[str]) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(embedding.queries([text], who)) for text in texts]


async def test_questions_that_came_while_one_was_embedded_are_embedded_together_and_at_once(
    words: Words, embedding: Embedding
) -> None:
    first = all_at_once(embedding, "a", ["first"])
    await eventually(lambda: words.seen)
    others = [one for who in "abc" for one in all_at_once(embedding, who, [f"{who}0", f"{who}1"])]
    await asyncio.sleep(0)
    words.go.set()
    await asyncio.gather(*first, *others)
    assert words.asked == [["first"], ["a0", "b0", "c0", "a1", "b1", "c1"]]


async def test_a_turn_has_room_for_so_much_and_of_each_who_waits_the_next_goes_first(
    words: Words, embedding: Embedding
) -> None:
    first = all_at_once(embedding, "a", ["first"])
    await eventually(lambda: words.seen)
    long = "x" * 300  # three of them are a turn
    many = all_at_once(embedding, "a", [f"{long} a{number}" for number in range(7)])
    one = all_at_once(embedding, "b", [f"{long} b"])
    await asyncio.sleep(0)
    words.go.set()
    await asyncio.gather(*first, *many, *one)
    assert [[text.split()[-1] for text in texts] for texts in words.asked] == [
        ["first"],
        ["a0", "b", "a1"],
        ["a2", "a3", "a4"],
        ["a5", "a6"],
    ]


async def test_only_who_waits_for_the_same_work_is_company() -> None:
    executor, go = FairExecutor(), threading.Event()
    asked: dict[str, list[list[int]]] = {"one": [], "other": []}

    def work_of(name: str) -> Callable[[list[int]], list[str]]:
        def work(given: list[int]) -> list[str]:
            asked[name].append(given)
            return [f"{name} {one}" for one in given]

        return work

    works = {name: work_of(name) for name in asked}
    held = asyncio.create_task(executor.run("first", lambda: go.wait(20)))
    await asyncio.sleep(0)
    waiting = [
        asyncio.create_task(executor.run_together(f"who-{number}", works[name], number, 0.1))
        for number, name in enumerate(("one", "other", "one", "other"))
    ]
    await asyncio.sleep(0)
    go.set()
    await held
    assert await asyncio.gather(*waiting) == ["one 0", "other 1", "one 2", "other 3"]
    assert asked == {"one": [[0, 2]], "other": [[1, 3]]}


@pytest.mark.parametrize("wrong", [lambda given: given[1:], lambda given: [next(iter([])) for _ in given]])
async def test_work_that_answers_wrong_leaves_nobody_waiting(wrong: Callable[[list[int]], list[int]]) -> None:
    executor = FairExecutor()
    outcomes = await asyncio.gather(
        *(executor.run_together(who, wrong, number, 0.1) for number, who in enumerate("abc")), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [RuntimeError] * 3
    assert await executor.run("d", lambda: "done") == "done"


async def test_who_waits_for_something_else_is_not_passed_over_twice(words: Words, embedding: Embedding) -> None:
    first = all_at_once(embedding, "a", ["first"])
    await eventually(lambda: words.seen)
    long = "x" * 900  # each is a turn
    many = [one for who in "ac" for one in all_at_once(embedding, who, [f"{long} {who}{n}" for n in range(3)])]
    other = asyncio.create_task(embedding.passages(["passage"], "b"))
    await asyncio.sleep(0)
    words.go.set()
    await asyncio.gather(*first, *many, other)
    assert [text.split()[-1] for text in words.seen] == ["first", "a0", "c0", "passage", "a1", "c1", "a2", "c2"]


async def test_a_question_that_cannot_be_embedded_takes_none_of_its_company_with_it(
    words: Words, embedding: Embedding, monkeypatch: pytest.MonkeyPatch
) -> None:
    words.go.set()

    def tokens(text: str) -> int:
        if text == "bad":
            raise ArithmeticError
        return len(text.split())

    monkeypatch.setattr(words, "tokens", tokens)
    tasks = [one for who, text in (("a", "x"), ("b", "bad"), ("c", "y")) for one in all_at_once(embedding, who, [text])]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, ArithmeticError) for one in outcomes] == [False, True, False]


async def test_what_is_made_of_a_question_is_made_of_its_own_vector(words: Words, embedding: Embedding) -> None:
    words.go.set()

    def queries(texts: list[str]) -> Any:
        return np.array([[float(text), 0.0] for text in texts], dtype=np.float32)

    words.queries = queries  # type: ignore[method-assign]
    found = await asyncio.gather(
        *(
            embedding.questions([str(one), str(one + 1)], "a", lambda vectors, by=by: [*vectors[:, 0] * by])  # type: ignore[misc]
            for one, by in ((1, 10), (3, 100), (5, 1000))
        )
    )
    assert [[value for value, _ in own] for own in found] == [[10, 20], [300, 400], [5000, 6000]]


async def test_work_that_nobody_waits_for_is_not_done(words: Words, embedding: Embedding) -> None:
    gone = asyncio.create_task(embedding.passages([f"{n} {'x' * 1_500}" for n in range(9)], "a"))
    await eventually(lambda: words.seen)
    gone.cancel()
    waiting = asyncio.create_task(embedding.query("never", "a"))
    await asyncio.sleep(0)
    waiting.cancel()
    words.go.set()
    await embedding.query("next", "b")
    assert len(words.seen) == 2
    assert words.seen[-1] == "next"


async def test_a_failure_is_told_to_who_asked_and_the_next_one_is_served(embedding: Embedding, words: Words) -> None:
    executor = FairExecutor()
    with pytest.raises(ZeroDivisionError):
        await executor.run("a", lambda: 1 // 0)
    assert await executor.run("a", lambda: 7) == 7


async def test_texts_and_requests_longer_than_the_model_reads_are_refused_and_questions_cut(
    words: Words, embedding: Embedding
) -> None:
    assert await embedding.tokens(["a b c d", "e"], "a") == 5
    with pytest.raises(Invalid, match=r"input\[1\]: has 5 tokens"):
        await embedding.tokens(["a", "a b c d e"], "a")
    with pytest.raises(Invalid, match="may have 10 tokens"):
        await embedding.tokens(["a b c"] * 4, "a")
    words.go.set()
    await embedding.query("one two three four five six " * 9_000, "a")
    assert 1 <= len(words.seen[-1].split()) <= 4

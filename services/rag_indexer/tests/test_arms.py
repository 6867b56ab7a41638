"""Arms are fitted on vectors from here and asked here, on the real stack with the real embedder and object store."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from arms import Facts, Shown, fit, pack
from chassis.errors import RateLimited
from chassis.ids import new_id
from chassis.in_flight import InFlight
from rag_indexer.app import build
from rag_indexer.arms import held
from rag_indexer.arms.answering import AskArm
from rag_indexer.arms.held import HeldArms
from rag_indexer.arms.reading import ArmFiles
from rag_indexer.embedding import Embedding
from rag_indexer.fair_executor import FairExecutor
from rag_indexer.settings import Settings
from schemas import ObjectRef
from schemas.artifacts import (
    ARM_ANSWERS,
    ARM_FINGERPRINT,
    ARM_NUMBERS,
    MANIFEST,
    ArmFingerprint,
    ArmKind,
    ArmManifest,
    EmbedderFacts,
    arm_id_of,
)
from schemas.artifacts.adapter import FileFacts
from schemas.http.rag_indexer import ArmAnswers, ArmAsked, QuestionVectors
from stores.objects import Objects
from testkit import Addresses, Space, eventually, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = {
    "Where is my card?": "card_arrival",
    "My new card has not come yet.": "card_arrival",
    "How long does a card take by post?": "card_arrival",
    "The card is still not here.": "card_arrival",
    "Which rate do you use for euros?": "exchange_rate",
    "What is the exchange rate for dollars?": "exchange_rate",
    "How is the rate for foreign money made?": "exchange_rate",
    "Is your exchange rate good today?": "exchange_rate",
    "I forgot my PIN.": "pin_forgotten",
    "How do I get a new PIN?": "pin_forgotten",
    "The PIN does not come back to me.": "pin_forgotten",
    "Can I see my PIN again?": "pin_forgotten",
}
ANSWERS = sorted(set(ROWS.values()))
PLACES = np.asarray([ANSWERS.index(answer) for answer in ROWS.values()], dtype=np.int32)

FACTS = Facts(rows=len(ROWS), seed=7)

Files = dict[str, bytes]

ROOM = 50_000
"""Bytes of two arms of the kind `nearest`, and not of three."""


@dataclass
class Harness:
    """A running indexer whose clock a test moves, and one test's two tenants."""

    space: Space
    url: str
    objects: Objects
    clock: list[float]
    rows: list[tuple[Any, EmbedderFacts]]
    a: str = field(default_factory=lambda: new_id("tenant_a"))
    b: str = field(default_factory=lambda: new_id("tenant_b"))

    async def post(self, path: str, body: dict[str, Any], tenant: str) -> httpx2.Response:
        bearer = self.space.bearer("rag_indexer", tenant, as_service="inference_proxy")
        async with httpx2.AsyncClient(base_url=self.url, timeout=60) as client:
            return await client.post(path, json=body, headers={"authorization": f"Bearer {bearer}"})

    async def vectors(self, texts: list[str]) -> tuple[Any, EmbedderFacts]:
        answer = await self.post("/internal/embeddings", {"texts": texts}, self.a)
        assert answer.status_code == 200, answer.text
        told = QuestionVectors.model_validate(answer.json())
        numbers = np.frombuffer(base64.b64decode(told.vectors), dtype="<f4")
        return numbers.reshape(len(texts), told.embedder.dimensions), told.embedder

    async def fitted(self, kind: ArmKind = "head", seed: int = 7) -> Files:
        """The files of an arm."""
        if not self.rows:
            self.rows.append(await self.vectors(list(ROWS)))
        [(vectors, embedder)] = self.rows
        arm = fit(kind, vectors, PLACES, seed).arm
        return pack(arm, ANSWERS, list(ROWS), vectors, embedder, Facts(rows=len(ROWS), seed=seed))

    async def stored(self, files: Files, tenant: str = "") -> ObjectRef:
        """Where the manifest of an arm lies among those of a tenant."""
        folder = f"tenants/{tenant or self.a}/arms/{new_id('ftjob-')}/1"
        refs = {name: await self.objects.put_bytes(f"{folder}/{name}", content) for name, content in files.items()}
        return refs[MANIFEST]

    async def ask(self, manifest: ObjectRef, *questions: str, tenant: str = "", **more: Any) -> httpx2.Response:
        asked = {
            "arm_id": f"arm-{manifest.sha256[:24]}",
            "manifest": manifest.model_dump(),
            "questions": questions or ("Where is my card?",),
            **more,
        }
        return await self.post("/internal/arms/answers", asked, tenant or self.a)

    async def answers(self, manifest: ObjectRef, *questions: str, **more: Any) -> ArmAnswers:
        answer = await self.ask(manifest, *questions, **more)
        assert answer.status_code == 200, answer.text
        return ArmAnswers.model_validate(answer.json())

    async def refused(self, manifest: ObjectRef, **more: Any) -> tuple[int, str]:
        answer = await self.ask(manifest, **more)
        return answer.status_code, answer.json()["error"]["code"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Any]]:
    """One indexer for the tests of this module; each brings its own tenants."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    clock = [time.time()]
    settings = space.settings(Settings, "rag_indexer", arms_bytes=ROOM)
    async with running(build(settings, clock=lambda: clock[0])) as url, httpx2.AsyncClient(base_url=url) as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready, within=60)
        objects = space.objects()
        yield {"space": space, "url": url, "objects": objects, "clock": clock, "rows": []}
        objects.close()
    space.remove_topics()


@pytest.fixture
def harness(shared: dict[str, Any]) -> Harness:
    return Harness(**shared)


def loads(outcome: str) -> float:
    return REGISTRY.get_sample_value("arm_loads_total", {"outcome": outcome}) or 0.0


def packed_anew(files: Files, change: Callable[[ArmManifest], ArmManifest] = lambda it: it) -> Files:
    """Files whose manifest names them as they are, and says something else besides."""
    manifest = ArmManifest.model_validate_json(files[MANIFEST])
    named = {
        name: FileFacts(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        for name, content in files.items()
        if name != MANIFEST
    }
    manifest = change(manifest.model_copy(update={"files": named}))
    return {**files, MANIFEST: manifest.model_dump_json().encode()}


@pytest.mark.parametrize("kind", ["head", "nearest"])
async def test_an_arm_fitted_on_vectors_from_here_answers_each_question_in_its_order(
    harness: Harness, kind: ArmKind
) -> None:
    files = await harness.fitted(kind)
    manifest = await harness.stored(files)
    questions = ["my card did not arrive", "what is the rate for euros", "my pin is forgotten"] * 21
    said = await harness.answers(manifest, *questions, top=2)
    assert (said.arm_id, said.kind) == (arm_id_of(files[MANIFEST]), kind)
    assert said.embedder == (await harness.vectors(["x"]))[1]
    assert [one.answer for one in said.answers] == ["card_arrival", "exchange_rate", "pin_forgotten"] * 21
    for one in said.answers:
        first, second = one.top
        assert (first.answer, first.confidence) == (one.answer, one.confidence)
        assert first.confidence > second.confidence > 0
    assert said.answers[0].tokens < said.answers[1].tokens
    [alone] = (await harness.answers(manifest, questions[1])).answers
    assert (alone.answer, alone.top) == ("exchange_rate", [])
    assert alone.confidence == pytest.approx(said.answers[1].confidence, abs=1e-3)


@pytest.mark.parametrize("name", [ARM_NUMBERS, ARM_ANSWERS, ARM_FINGERPRINT, MANIFEST])
async def test_an_arm_with_a_wrong_byte_does_not_answer(harness: Harness, name: str) -> None:
    files = await harness.fitted()
    manifest = await harness.stored(files)
    folder = manifest.key.removesuffix(MANIFEST)
    wrong = bytearray(files[name])
    wrong[len(wrong) // 2] ^= 1
    await harness.objects.put_bytes(f"{folder}{name}", bytes(wrong))
    assert await harness.refused(manifest) == (409, "wrong_arm")
    await harness.objects.put_bytes(f"{folder}{name}", files[name] + b" ")
    assert await harness.refused(manifest) == (409, "wrong_arm")
    await harness.objects.put_bytes(f"{folder}{name}", files[name])
    await harness.answers(manifest)


async def test_an_arm_says_the_same_alone_and_in_company(harness: Harness) -> None:
    manifest = await harness.stored(await harness.fitted())
    questions = [*ROWS, "What is a PIN?", "Has my card been sent by post, or is it still with you? " * 9, "euros"]
    alone = [(await harness.answers(manifest, one)).answers[0] for one in questions]
    company = await asyncio.gather(*(harness.answers(manifest, one) for one in questions))
    for one, said in zip(alone, company, strict=True):
        [other] = said.answers
        assert (other.answer, other.tokens) == (one.answer, one.tokens)
        assert other.confidence == pytest.approx(one.confidence, abs=1e-5)


async def test_an_arm_that_says_something_else_to_the_questions_of_its_fingerprint_does_not_answer(
    harness: Harness,
) -> None:
    files = await harness.fitted()
    said = ArmFingerprint.model_validate_json(files[ARM_FINGERPRINT])
    other = [
        probe.model_copy(update={"confidence": probe.confidence - 0.05}) if at == 0 else probe
        for at, probe in enumerate(said.probes)
    ]
    files[ARM_FINGERPRINT] = said.model_copy(update={"probes": other}).model_dump_json().encode()
    assert await harness.refused(await harness.stored(packed_anew(files))) == (409, "wrong_arm")


async def test_an_arm_of_another_tenant_does_not_answer_whether_it_is_held_or_not(harness: Harness) -> None:
    manifest = await harness.stored(await harness.fitted())
    assert await harness.refused(manifest, tenant=harness.b) == (409, "wrong_arm")
    await harness.answers(manifest)
    assert await harness.refused(manifest, tenant=harness.b) == (409, "wrong_arm")
    named_alike = manifest.model_copy(update={"key": manifest.key.replace(harness.a, harness.b)})
    assert await harness.refused(named_alike, tenant=harness.b) == (404, "arm_not_found")
    around = manifest.model_copy(update={"key": f"tenants/{harness.b}/arms/../../{harness.a}/arms/x/1/{MANIFEST}"})
    assert await harness.refused(around, tenant=harness.b) == (409, "wrong_arm")
    elsewhere = manifest.model_copy(update={"key": manifest.key.replace("/arms/", "/files/")})
    assert await harness.refused(elsewhere) == (409, "wrong_arm")


async def test_rows_are_given_to_who_knows_that_they_are_no_answers_and_to_nobody_else(harness: Harness) -> None:
    head = await harness.stored(await harness.fitted())
    [(vectors, embedder)] = harness.rows
    files = pack(Shown(vectors), [f"row {at}" for at in range(len(ROWS))], list(ROWS), vectors, embedder, FACTS)
    manifest = await harness.stored(files)
    assert await harness.refused(manifest) == (409, "wrong_arm")
    assert await harness.refused(head, generates=True) == (409, "wrong_arm")
    told = await harness.answers(manifest, list(ROWS)[3], generates=True, top=4)
    [found] = told.answers
    assert (told.kind, found.answer, len(found.top)) == ("nearest", "row 3", 4)
    assert found.top[0].confidence == pytest.approx(1, abs=0.01)
    assert [one.confidence for one in found.top] == sorted((one.confidence for one in found.top), reverse=True)


async def test_an_arm_answers_under_its_own_id_only(harness: Harness) -> None:
    one, other = [await harness.stored(await harness.fitted(seed=seed)) for seed in (1, 2)]
    await harness.answers(one)
    assert await harness.refused(one, arm_id=f"arm-{other.sha256[:24]}") == (409, "wrong_arm")


@pytest.mark.parametrize("of", [{"digest": "ab" * 32}, {"id": "another"}])
async def test_an_arm_fitted_on_the_vectors_of_another_embedder_is_stale(harness: Harness, of: dict[str, str]) -> None:
    def elsewhere(manifest: ArmManifest) -> ArmManifest:
        return manifest.model_copy(update={"embedder": manifest.embedder.model_copy(update=of)})

    manifest = await harness.stored(packed_anew(await harness.fitted(), elsewhere))
    assert await harness.refused(manifest) == (409, "stale_arm")


async def test_an_arm_whose_files_would_be_too_long_is_not_read(harness: Harness) -> None:
    def large(manifest: ArmManifest) -> ArmManifest:
        numbers = manifest.files[ARM_NUMBERS].model_copy(update={"size": 65 * 1024 * 1024})
        return manifest.model_copy(update={"files": {**manifest.files, ARM_NUMBERS: numbers}})

    manifest = await harness.stored(packed_anew(await harness.fitted(), large))
    await harness.objects.delete(manifest.key.removesuffix(MANIFEST) + ARM_NUMBERS)  # reading it would be a 404
    assert await harness.refused(manifest) == (409, "wrong_arm")


async def test_an_arm_whose_files_are_gone_answers_for_a_minute_at_most_and_again_when_they_are_back(
    harness: Harness,
) -> None:
    files = await harness.fitted()
    manifest = await harness.stored(files)
    await harness.answers(manifest)
    await harness.objects.delete(manifest.key)
    await harness.answers(manifest)
    harness.clock[0] += held.LOOK_SECONDS + 1
    assert await harness.refused(manifest) == (404, "arm_not_found")
    assert await harness.refused(manifest) == (404, "arm_not_found")
    await harness.objects.put_bytes(manifest.key, files[MANIFEST])
    await harness.answers(manifest)


async def test_an_arm_is_loaded_once_for_all_who_wait_and_proved_again_after_an_hour(harness: Harness) -> None:
    manifest = await harness.stored(await harness.fitted())
    before = loads("loaded")
    await asyncio.gather(*(harness.answers(manifest) for _ in range(8)))
    assert loads("loaded") == before + 1
    harness.clock[0] += held.LOOK_SECONDS + 1
    await harness.answers(manifest)
    assert loads("loaded") == before + 1
    harness.clock[0] += held.PROVED_SECONDS
    await harness.answers(manifest)
    assert loads("loaded") == before + 2


async def test_the_arms_asked_longest_ago_leave_where_memory_ends(harness: Harness) -> None:
    fitted = [await harness.fitted("nearest", seed) for seed in range(3)]
    sizes = [sum(map(len, files.values())) - len(files[MANIFEST]) for files in fitted]
    assert 2 * max(sizes) <= ROOM < 3 * min(sizes)
    first, second, third = [await harness.stored(files) for files in fitted]
    before = loads("loaded")
    for manifest in (first, second, first, third):  # the second is the one asked longest ago
        await harness.answers(manifest)
        assert 0 < (REGISTRY.get_sample_value("arms_held_bytes") or 0) <= ROOM
    await harness.answers(first)
    await harness.answers(third)
    assert loads("loaded") == before + 3
    await harness.answers(second)
    assert loads("loaded") == before + 4


async def test_only_services_ask_and_each_field_is_honoured_or_refused_by_its_name(harness: Harness) -> None:
    manifest = await harness.stored(await harness.fitted())
    for path in ("/internal/embeddings", "/internal/arms/answers"):
        async with httpx2.AsyncClient(base_url=harness.url) as client:
            assert (await client.post(path, json={})).status_code == 401
    for field_, more in {"questions": {"questions": ["x"] * 65}, "top": {"top": 21}, "more": {"more": 1}}.items():
        answer = await harness.ask(manifest, **more)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field_)
    too_many = await harness.post("/internal/embeddings", {"texts": ["x"] * 65}, harness.a)
    assert (too_many.status_code, too_many.json()["error"]["param"]) == (400, "texts")


class Letters:
    """An embedder that counts letters; it notes what it reads, and waits to be let go."""

    dimensions = 26
    longest = 200

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.go = threading.Event()

    def queries(self, texts: list[str]) -> Any:
        self.seen += texts
        self.go.wait(20)
        counts = np.asarray([[text.count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    passages = queries

    def facts(self) -> EmbedderFacts:
        return EmbedderFacts(id="letters", digest="0", dimensions=26)

    def tokens(self, text: str) -> int:
        return len(text)

    count = tokens


async def test_a_test_takes_no_place_of_people_and_waits_behind_them(harness: Harness) -> None:
    letters, executor = Letters(), FairExecutor()
    embedding = Embedding("letters", 1, 10, executor)
    embedding._embedder = letters
    people, tests = (InFlight(what, most=3, most_each=2, retry_after=1) for what in ("people", "tests"))
    ask_arm = AskArm(HeldArms(ArmFiles(harness.objects), embedding, executor, ROOM), embedding, people, tests)
    letters.go.set()
    vectors, places = letters.queries(["a", "b"]), np.asarray([0, 1], dtype=np.int32)
    files = pack(
        fit("nearest", vectors, places, 1).arm, ["A", "B"], ["a", "b"], vectors, letters.facts(), Facts(rows=2)
    )
    manifest = await harness.stored(files)
    letters.seen.clear()

    def asked(question: str, **more: Any) -> asyncio.Task[ArmAnswers]:
        questions = [f"{'-' * 1_500}{question}"] * 3
        body = ArmAsked(arm_id=arm_id_of(files[MANIFEST]), manifest=manifest, questions=questions, **more)
        return asyncio.create_task(ask_arm.ask(harness.a, body))

    await asked("a")
    letters.seen.clear()
    letters.go.clear()
    tested = [asked("a", testing=True) for _ in range(2)]
    await eventually(lambda: letters.seen)
    of_people = [asked("b") for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited, match="of your tests are under way"):
        await asked("a", testing=True)
    with pytest.raises(RateLimited, match="of your people are under way"):
        await asked("b")
    letters.go.set()
    said = [one for answers in await asyncio.gather(*of_people) for one in answers.answers]
    assert [(one.answer, one.tokens) for one in said] == [("B", letters.longest)] * 6  # of as much as is read
    assert [text[-1] for text in letters.seen[:12]] == ["a", "b"] * 6
    assert len(await asyncio.gather(*tested)) == 2


class FirstWaits(ArmFiles):
    """Files of arms of which the first read waits to be let go."""

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self.asked = 0
        self.go = asyncio.Event()

    async def manifest(self, ref: ObjectRef) -> bytes:
        self.asked += 1
        if self.asked == 1:
            await self.go.wait()
        return await super().manifest(ref)


async def test_people_do_not_wait_for_an_arm_that_a_test_began_to_load(harness: Harness) -> None:
    letters, executor = Letters(), FairExecutor()
    embedding = Embedding("letters", 1, 10, executor)
    embedding._embedder = letters
    letters.go.set()
    places = InFlight("people", most=3, most_each=2, retry_after=1)
    files_of_arms = FirstWaits(harness.objects)
    ask_arm = AskArm(HeldArms(files_of_arms, embedding, executor, ROOM), embedding, places, places)
    vectors, right = letters.queries(["a", "b"]), np.asarray([0, 1], dtype=np.int32)
    files = pack(fit("nearest", vectors, right, 1).arm, ["A", "B"], ["a", "b"], vectors, letters.facts(), Facts(rows=2))
    manifest = await harness.stored(files)
    asked = ArmAsked(arm_id=arm_id_of(files[MANIFEST]), manifest=manifest, questions=["b"])
    tested = asyncio.create_task(ask_arm.ask(harness.a, asked.model_copy(update={"testing": True})))
    await eventually(lambda: files_of_arms.asked)
    async with asyncio.timeout(20):
        said = await ask_arm.ask(harness.a, asked)
    assert [one.answer for one in said.answers] == ["B"]
    assert not tested.done()
    files_of_arms.go.set()
    assert [one.answer for one in (await tested).answers] == ["B"]

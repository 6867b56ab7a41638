"""Every field of the SDK's requests, one at a time: honoured, kept and given back, advice, or refused by its name.

The fields are read from the installed `openai` package, so a new release of it that has a new one fails here until the
new field has an outcome. `make honoured` prints the table.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
import pytest
from openai.types import (
    completion_create_params,
    embedding_create_params,
    file_create_params,
    file_list_params,
    vector_store_create_params,
    vector_store_list_params,
    vector_store_search_params,
    vector_store_update_params,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.chat import completion_list_params as chat_list_params
from openai.types.chat import completion_update_params as chat_update_params
from openai.types.chat.completions import message_list_params
from openai.types.fine_tuning import job_create_params, job_list_events_params, job_list_params
from openai.types.fine_tuning.jobs import checkpoint_list_params
from openai.types.vector_stores import file_create_params as store_file_create_params
from openai.types.vector_stores import file_list_params as store_file_list_params
from openai.types.vector_stores import file_update_params as store_file_update_params

from localstack import LocalStack
from tests.conftest import ROOT, Tenant, make_tenant
from tests.e2e.test_main_way import rows, wait_for

# The services' own suites try each field in `make test`; this is the whole way, in `make honoured`.
pytestmark = pytest.mark.slow

BASE = "tiny-test"
EMBEDDING = "multilingual-e5-small"

Answer = Any
Seen = Callable[[Answer, Answer], bool]


@dataclass(frozen=True)
class Field:
    """What becomes of one field.

    Attributes:
        outcome: in a word.
        value: one that asks for something.
        unasked: values that ask for nothing: always taken, and change nothing.
        beside: fields that are sent with it, and in the answer it is compared with.
        seen: tells from the answer without and the answer with the field whether it was honoured.
        again: where the answer is asked for again, if it does not show the field itself.
        shown_by: the test that shows it, where it takes more than an answer.
    """

    outcome: Literal["honoured", "kept", "advice", "refused"]
    value: Any = None
    unasked: tuple[Any, ...] = (None,)
    beside: typing.Mapping[str, Any] = typing.cast("typing.Mapping[str, Any]", None)
    seen: Seen | None = None
    again: str = ""
    shown_by: str = ""


def honoured(value: Any, seen: Seen, unasked: tuple[Any, ...] = (None,), **beside: Any) -> Field:
    """The answer shows it."""
    return Field("honoured", value, unasked, beside, seen)


def kept(value: Any, again: str = "", **beside: Any) -> Field:
    """The answer gives it back, or what is found under the answer's id."""
    return Field("kept", value, (None,), beside, again=again)


def shown_by(test: str, value: Any) -> Field:
    """Another test shows what follows from it."""
    return Field("honoured", value, (None,), {}, lambda plain, answer: not answer["error"], shown_by=test)


def advice(value: Any) -> Field:
    """Taken; by the API's own definition nothing need follow."""
    return Field("advice", value, (None,), {})


def refused(value: Any, *unasked: Any, **beside: Any) -> Field:
    """A 400 that names it."""
    return Field("refused", value, (None, *unasked), beside)


@dataclass(frozen=True)
class Route:
    """One route of the SDK's, with what it is asked at the least.

    Attributes:
        sdk: the SDK's type of its request.
        method: of HTTP.
        path: may hold `{names}` of what `Things` has made.
        least: the fields of a plain request.
        fields: an outcome for each of the SDK's.
        elsewhere: fields that stand in the path.
    """

    sdk: Any
    method: str
    path: str
    least: dict[str, Any]
    fields: dict[str, Field]
    elsewhere: frozenset[str] = frozenset()


def text(answer: Answer) -> str:
    """The first choice's text."""
    choice = answer["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


def other_text(plain: Answer, answer: Answer) -> bool:
    """The answer reads differently."""
    return text(plain) != text(answer)


def same_text(plain: Answer, answer: Answer) -> bool:
    """The answer reads alike."""
    return text(plain) == text(answer)


def tokens(count: int) -> Seen:
    """The answer has that many tokens, and the plain one more."""

    def seen(plain: Answer, answer: Answer) -> bool:
        return bool(
            answer["usage"]["completion_tokens"] == count < plain["usage"]["completion_tokens"]
            and answer["choices"][0]["finish_reason"] == "length"
        )

    return seen


def ids(answer: Answer) -> list[str]:
    """Of a list."""
    return [item["id"] for item in answer["data"]]


def fewer(plain: Answer, answer: Answer) -> bool:
    """Some of the plain list, in its order."""
    return 0 < len(ids(answer)) < len(ids(plain)) and [one for one in ids(plain) if one in ids(answer)] == ids(answer)


def backwards(plain: Answer, answer: Answer) -> bool:
    """The plain list from its other end."""
    return len(ids(plain)) > 1 and ids(answer) == ids(plain)[::-1]


LIST = {
    "after": honoured("{second}", lambda plain, answer: ids(answer)[0] == ids(plain)[2]),
    "limit": honoured(1, lambda plain, answer: ids(answer) == ids(plain)[:1]),
    "order": honoured("asc", backwards, (None, "desc")),
}

SAMPLED: dict[str, Any] = {"temperature": 2, "seed": 7, "max_tokens": 48}

GENERATION = {
    "model": honoured("{tuned}", lambda plain, answer: answer["model"] != plain["model"]),
    "frequency_penalty": honoured(2, other_text, (None, 0)),
    "presence_penalty": honoured(2, other_text, (None, 0), **SAMPLED),
    "logit_bias": honoured({"100": 100}, other_text, (None, {})),
    "n": honoured(2, lambda plain, answer: len(answer["choices"]) == 2, (None, 1)),
    "seed": honoured(8, other_text, **SAMPLED),
    "stop": honoured(
        "{stop}", lambda plain, answer: text(plain).startswith(text(answer)) and other_text(plain, answer)
    ),
    "temperature": honoured(1.5, other_text, seed=3),
    "top_p": honoured(1e-6, other_text, **SAMPLED),
    "max_tokens": honoured(3, tokens(3)),
    "stream_options": honoured(
        {"include_usage": True}, lambda plain, answer: "usage" in answer and "usage" not in plain, stream=True
    ),
    "user": advice("somebody"),
}

CHATS = "/chat/completions/"

CHAT = Route(
    chat_create_params.CompletionCreateParamsBase,
    "POST",
    "/chat/completions",
    {"model": BASE, "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 16, "temperature": 0},
    {
        **GENERATION,
        "messages": honoured(
            [{"role": "user", "content": "what else is there to be said?"}],
            lambda plain, answer: answer["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"],
        ),
        "max_completion_tokens": honoured(3, tokens(3), max_tokens=None, max_completion_tokens=16),
        "logprobs": honoured(
            True, lambda plain, answer: bool(answer["choices"][0]["logprobs"]["content"]), (None, False)
        ),
        "top_logprobs": honoured(
            2,
            lambda plain, answer: len(answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2,
            logprobs=True,
        ),
        "store": Field("honoured", True, (None, False), {}, lambda plain, answer: "choices" in answer, again=CHATS),
        "metadata": kept({"desk": "north"}, again=CHATS, store=True),
        "safety_identifier": advice("somebody"),
        "service_tier": advice("flex"),
        "prompt_cache_key": advice("a"),
        "prompt_cache_retention": advice("24h"),
        "prompt_cache_options": advice({"mode": "implicit"}),
        "response_format": refused({"type": "json_object"}, {"type": "text"}),
        "tools": refused([{"type": "function", "function": {"name": "f", "parameters": {}}}], []),
        "tool_choice": refused("required", "auto", "none"),
        "parallel_tool_calls": refused(False, True),
        "functions": refused([{"name": "f", "parameters": {}}], []),
        "function_call": refused({"name": "f"}, "auto", "none"),
        "modalities": refused(["text", "audio"], ["text"]),
        "audio": refused({"format": "wav", "voice": "alloy"}),
        "prediction": refused({"type": "content", "content": "x"}),
        "reasoning_effort": refused("high"),
        "verbosity": refused("low", "medium"),
        "web_search_options": refused({}),
        "moderation": refused({"model": "omni-moderation-latest"}),
    },
)

COMPLETIONS = Route(
    completion_create_params.CompletionCreateParamsBase,
    "POST",
    "/completions",
    {"model": BASE, "prompt": "once upon", "max_tokens": 16, "temperature": 0},
    {
        **GENERATION,
        "prompt": honoured("twice below", other_text),
        "logprobs": honoured(2, lambda plain, answer: len(answer["choices"][0]["logprobs"]["top_logprobs"][0]) >= 2),
        "best_of": refused(3, 1),
        "echo": honoured(
            True, lambda plain, answer: answer["choices"][0]["text"] == "once upon" + plain["choices"][0]["text"]
        ),
        "suffix": refused("the end"),
    },
)

EMBEDDINGS = Route(
    embedding_create_params.EmbeddingCreateParams,
    "POST",
    "/embeddings",
    {"model": EMBEDDING, "input": "a bicycle"},
    {
        "input": honoured(["a", "b"], lambda plain, answer: len(answer["data"]) == 2),
        "model": honoured("no-such-model", lambda plain, answer: answer["error"]["param"] == "model"),
        "encoding_format": honoured(
            "base64", lambda plain, answer: isinstance(answer["data"][0]["embedding"], str), ("float",)
        ),
        "dimensions": refused(8, 384),
        "user": advice("somebody"),
    },
)

JOBS = Route(
    job_create_params.JobCreateParams,
    "POST",
    "/fine_tuning/jobs",
    {"model": BASE, "training_file": "{training}", "seed": 1},
    {
        "model": honoured("no-such-model", lambda plain, answer: answer["error"]["param"] == "model"),
        "training_file": kept("{validation}"),
        "validation_file": kept("{validation}"),
        "suffix": shown_by("tests/e2e/test_openai_sdk.py::test_fine_tuning_jobs", "short"),
        "seed": kept(3),
        "metadata": kept({"team": "desk"}),
        "hyperparameters": kept({"n_epochs": 2, "batch_size": 3, "learning_rate_multiplier": 0.5}),
        "method": honoured(
            {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            lambda plain, answer: answer["method"]["supervised"]["hyperparameters"]["n_epochs"] == 2,
            (None, {"type": "supervised"}),
        ),
        "integrations": refused([{"type": "wandb", "wandb": {"project": "p"}}], []),
    },
)

STORES = Route(
    vector_store_create_params.VectorStoreCreateParams,
    "POST",
    "/vector_stores",
    {"name": "plain"},
    {
        "name": kept("Help"),
        "description": kept("What people ask."),
        "metadata": kept({"team": "desk"}),
        "expires_after": kept({"anchor": "last_active_at", "days": 3}),
        "file_ids": honoured(
            ["{document}"], lambda plain, answer: answer["file_counts"]["total"] == 1 > plain["file_counts"]["total"]
        ),
        "chunking_strategy": honoured(
            {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}},
            lambda plain, answer: answer["file_counts"]["total"] == 1,
            (None, {"type": "auto"}),
            file_ids=["{document}"],
        ),
    },
)

STORE = Route(
    vector_store_update_params.VectorStoreUpdateParams,
    "POST",
    "/vector_stores/{store}",
    {},
    {
        "name": kept("Helpful"),
        "metadata": kept({"team": "front"}),
        "expires_after": kept({"anchor": "last_active_at", "days": 9}),
    },
)

SEARCH = Route(
    vector_store_search_params.VectorStoreSearchParams,
    "POST",
    "/vector_stores/{store}/search",
    {"query": "How long does a refund take?"},
    {
        "query": honoured("When is the desk open?", lambda plain, answer: plain["data"][0] != answer["data"][0]),
        "max_num_results": honoured(1, lambda plain, answer: len(answer["data"]) == 1 < len(plain["data"]), (10,)),
        "filters": honoured(
            {"type": "eq", "key": "page", "value": 2},
            lambda plain, answer: 0 < len(answer["data"]) < len(plain["data"]),
        ),
        "ranking_options": honoured(
            {"score_threshold": 1.0}, lambda plain, answer: answer["data"] == [], (None, {"ranker": "auto"}, {})
        ),
        "rewrite_query": refused(True, False),
    },
)

STORE_FILES = Route(
    store_file_create_params.FileCreateParams,
    "POST",
    "/vector_stores/{other_store}/files",
    {"file_id": "{document}"},
    {
        "file_id": honoured("{note}", lambda plain, answer: answer["id"] != plain["id"]),
        "attributes": kept({"page": 1, "draft": True, "weight": 0.5, "kind": "help"}),
        "chunking_strategy": kept(
            {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}}
        ),
    },
)

STORE_FILE = Route(
    store_file_update_params.FileUpdateParams,
    "POST",
    "/vector_stores/{store}/files/{document}",
    {"attributes": {"page": 1}},
    {"attributes": kept({"page": 1, "draft": True})},
    frozenset({"vector_store_id"}),
)

STORED_CHAT = Route(
    chat_update_params.CompletionUpdateParams,
    "POST",
    "/chat/completions/{chat}",
    {"metadata": {"desk": "north"}},
    {"metadata": kept({"desk": "south"})},
)

LISTS = [
    Route(
        file_list_params.FileListParams,
        "GET",
        "/files",
        {},
        {
            **LIST,
            "purpose": honoured("assistants", fewer),
        },
    ),
    Route(
        job_list_params.JobListParams,
        "GET",
        "/fine_tuning/jobs",
        {},
        {
            "after": LIST["after"],
            "limit": LIST["limit"],
            "metadata": honoured({"number": "1"}, fewer),
        },
    ),
    Route(
        job_list_events_params.JobListEventsParams,
        "GET",
        "/fine_tuning/jobs/{job}/events",
        {},
        {
            "after": LIST["after"],
            "limit": LIST["limit"],
        },
    ),
    Route(
        checkpoint_list_params.CheckpointListParams,
        "GET",
        "/fine_tuning/jobs/{job}/checkpoints",
        {},
        {
            "after": LIST["after"],
            "limit": LIST["limit"],
        },
    ),
    Route(
        chat_list_params.CompletionListParams,
        "GET",
        "/chat/completions",
        {},
        {
            "after": LIST["after"],
            "limit": LIST["limit"],
            "order": honoured("desc", backwards, (None, "asc")),
            "model": honoured("{tuned}", fewer),
            "metadata": honoured({"number": "1"}, fewer),
        },
    ),
    Route(
        message_list_params.MessageListParams,
        "GET",
        "/chat/completions/{chat}/messages",
        {},
        {
            "after": LIST["after"],
            "limit": LIST["limit"],
            "order": honoured("desc", backwards, (None, "asc")),
        },
    ),
    Route(
        vector_store_list_params.VectorStoreListParams,
        "GET",
        "/vector_stores",
        {},
        {
            **LIST,
            "before": honoured("{second}", fewer),
        },
    ),
    Route(
        store_file_list_params.FileListParams,
        "GET",
        "/vector_stores/{store}/files",
        {},
        {
            **LIST,
            "before": honoured("{second}", fewer),
            "filter": honoured("failed", lambda plain, answer: answer["data"] == [] != plain["data"]),
        },
    ),
]

ROUTES = [CHAT, COMPLETIONS, EMBEDDINGS, JOBS, STORES, STORE, SEARCH, STORE_FILES, STORE_FILE, STORED_CHAT, *LISTS]
UPLOAD = {
    "file": "honoured",
    "purpose": "kept",
    "expires_after": "kept",
}
CASES = [
    pytest.param(route, name, id=f"{route.method}-{route.path}-{name}") for route in ROUTES for name in route.fields
]


@dataclass(frozen=True)
class Things:
    """What a tenant has made, by the names that paths and values use."""

    tenant: Tenant
    http: httpx2.Client
    made: dict[str, str]

    def ask(self, route: Route, more: dict[str, Any], plain: Answer = None) -> httpx2.Response:
        """The route, with the least and these fields."""
        asked = self._filled({**route.least, **more}, plain)
        path = self._filled(route.path, plain)
        if route.method == "GET":
            return self.http.get(path, params=_flat(asked))
        answer = self.http.request(route.method, path, json=asked)
        if path == JOBS.path and answer.is_success:  # a tenant has so many at a time
            self.http.post(f"{path}/{answer.json()['id']}/cancel")
        return answer

    def found_again(self, field: Field, answer: Answer) -> Answer:
        """What is found under the answer's id, where the field names a place."""
        if not field.again:
            return answer
        return wait_for(lambda: (found := self.http.get(field.again + answer["id"])).is_success and found.json())

    def _filled(self, value: Any, plain: Answer) -> Any:
        """A value with names replaced by what they stand for."""
        filled = json.dumps(value)
        for name, one in {**self.made, **_from(plain)}.items():
            filled = filled.replace("{" + name + "}", json.dumps(one)[1:-1])
        return json.loads(filled)


def _from(plain: Answer) -> dict[str, str]:
    """What is named after the plain answer."""
    found = {}
    if isinstance(plain, dict) and len(plain.get("data") or []) > 1 and "id" in plain["data"][1]:
        found["second"] = plain["data"][1]["id"]
    if isinstance(plain, dict) and plain.get("choices") and "delta" not in plain["choices"][0]:
        whole = text(plain)
        found["stop"] = whole[len(whole) // 2 : len(whole) // 2 + 3]
    return found


def _flat(asked: dict[str, Any]) -> dict[str, Any]:
    """Query parameters as the SDK writes them."""
    flat = {}
    for name, value in asked.items():
        if isinstance(value, dict):
            flat |= {f"{name}[{key}]": one for key, one in value.items()}
        elif value is not None:
            flat[name] = value
    return flat


@pytest.fixture(scope="module")
def things(stack: LocalStack) -> Iterator[Things]:
    """Three of everything that can be listed."""
    tenant = make_tenant(stack, "Honoured")
    sdk = tenant.sdk
    training, validation = (
        sdk.files.create(file=(f"{name}.jsonl", rows(count)), purpose="fine-tune").id
        for name, count in (("training", 40), ("validation", 24))
    )
    pages = [
        "# Refunds\n\nRefunds take five working days.\n",
        "# Hours\n\nThe desk is open from 7 to 22.\n",
        "# Bicycles\n\nThere are red and green bicycles.\n",
    ]
    documents = [
        sdk.files.create(file=(f"{number}.md", page.encode()), purpose="assistants").id
        for number, page in enumerate(pages)
    ]
    for file in (training, validation):
        wait_for(lambda file=file: sdk.files.retrieve(file).status == "processed", seconds=60)
    jobs = [
        sdk.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            metadata={"number": str(number)},
            hyperparameters={"n_epochs": 12, "batch_size": 4},
        ).id
        for number in range(2)
    ]
    store = sdk.vector_stores.create(name="Help")
    for number, document in enumerate(documents):
        sdk.vector_stores.files.create(store.id, file_id=document, attributes={"page": number})
    others = [sdk.vector_stores.create(name=f"Store {number}").id for number in range(2)]
    wait_for(lambda: sdk.vector_stores.retrieve(store.id).file_counts.completed == len(documents), seconds=60)
    done = wait_for(lambda: (job := sdk.fine_tuning.jobs.retrieve(jobs[0])).status in ("succeeded", "failed") and job)
    assert done.status == "succeeded", done.error
    tuned = str(done.fine_tuned_model)
    chats = [
        sdk.chat.completions.create(
            model=model,
            messages=[{"role": "system", "content": "Be short."}, *({"role": "user", "content": "hello"},) * 3],
            max_tokens=3,
            store=True,
            metadata={"number": str(number)},
        ).id
        for number, model in enumerate((BASE, BASE, tuned))
    ]
    made = {
        "training": training,
        "validation": validation,
        "document": documents[0],
        "note": documents[1],
        "job": jobs[0],
        "store": store.id,
        "other_store": others[0],
        "tuned": tuned,
        "chat": chats[0],
    }
    with tenant.http as http:
        wait_for(lambda: len(http.get("/chat/completions").json()["data"]) == len(chats))
        yield Things(tenant, http, made)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method}-{route.path}")
def test_every_field_of_the_sdk_has_an_outcome(route: Route) -> None:
    assert set(route.fields) == set(typing.get_type_hints(route.sdk)) - route.elsewhere


def test_every_field_of_an_upload_has_an_outcome() -> None:
    assert set(UPLOAD) == set(typing.get_type_hints(file_create_params.FileCreateParams))


@pytest.mark.parametrize(("route", "name"), CASES)
def test_a_field_does_what_its_outcome_says(things: Things, route: Route, name: str) -> None:
    field = route.fields[name]
    asked = things.ask(route, dict(field.beside))
    assert asked.status_code == 200, asked.text
    plain = _decoded(asked)
    answered = things.ask(route, {**field.beside, name: field.value}, plain)
    print(f"{route.method:5}{route.path:40}{name:24}{field.outcome}")
    if field.outcome == "refused":
        error = answered.json()["error"]
        assert answered.status_code == 400, answered.text
        assert str(error["param"]).split(".")[0].split("[")[0] == name
        assert name in error["message"]
        return
    answer = things.found_again(field, _decoded(answered)) if answered.is_success else _decoded(answered)
    if field.outcome == "honoured":
        assert field.seen is not None
        assert field.seen(plain, answer), (plain, answer)
        return
    assert answered.status_code == 200, answered.text
    if field.outcome == "kept":
        value = things._filled(field.value, plain)
        given = answer[name]
        assert (given | value == given) if isinstance(value, dict) else given == value, answer


@pytest.mark.parametrize(("route", "name"), CASES)
def test_a_value_that_asks_for_nothing_is_taken(things: Things, route: Route, name: str) -> None:
    field = route.fields[name]
    for value in field.unasked:
        if value is None and name in route.least:
            continue
        answer = things.ask(route, {name: value})
        assert answer.status_code == 200, (value, answer.text)


def test_what_another_test_shows_is_shown_by_one_that_is_there() -> None:
    for field in (field for route in ROUTES for field in route.fields.values() if field.shown_by):
        file, name = field.shown_by.split("::")
        assert f"def {name}(" in (ROOT / file).read_text()


def test_a_field_that_nobody_knows_is_refused_by_its_name(things: Things) -> None:
    for route in ROUTES:
        answer = things.ask(route, {"surprise": "x"})
        assert answer.status_code == 400, (route.path, answer.text)
        assert answer.json()["error"]["param"] == "surprise"


def test_an_upload_keeps_what_it_is_told(things: Things) -> None:
    expires: Any = {"anchor": "created_at", "seconds": 7200}
    file = things.tenant.sdk.files.create(file=("a.md", b"# A"), purpose="assistants", expires_after=expires)
    assert (file.purpose, file.expires_at) == ("assistants", file.created_at + 7200)
    surprised = things.http.post(
        "/files", files={"file": ("a.md", b"# A")}, data={"purpose": "assistants", "surprise": "x"}
    )
    assert (surprised.status_code, surprised.json()["error"]["param"]) == (400, "surprise")


def _decoded(answer: httpx2.Response) -> Answer:
    """The answer's JSON; of a stream its last chunk."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        chunks = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ") and line[6:] != "[DONE]"]
        return json.loads(chunks[-1])
    return answer.json()

"""A second tenant gets 404 for everything of the first, and a made-up model is an error, never the base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.conftest import Tenant
from tests.e2e.test_main_way import rows, trained, wait_for  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def owned(tenant: Tenant, trained: Any) -> dict[str, str]:  # noqa: F811
    """Ids of the first tenant."""
    store = tenant.sdk.vector_stores.create(name="Private")
    return {
        "file": trained.training_file,
        "job": trained.id,
        "model": trained.fine_tuned_model,
        "store": store.id,
    }


PROBES: dict[str, Callable[[openai.OpenAI, dict[str, str]], Any]] = {
    "file": lambda sdk, ids: sdk.files.retrieve(ids["file"]),
    "file content": lambda sdk, ids: sdk.files.content(ids["file"]),
    "file delete": lambda sdk, ids: sdk.files.delete(ids["file"]),
    "job": lambda sdk, ids: sdk.fine_tuning.jobs.retrieve(ids["job"]),
    "job events": lambda sdk, ids: sdk.fine_tuning.jobs.list_events(ids["job"]),
    "job checkpoints": lambda sdk, ids: sdk.fine_tuning.jobs.checkpoints.list(ids["job"]),
    "job cancel": lambda sdk, ids: sdk.fine_tuning.jobs.cancel(ids["job"]),
    "job on a file": lambda sdk, ids: sdk.fine_tuning.jobs.create(model="tiny-test", training_file=ids["file"]),
    "model": lambda sdk, ids: sdk.models.retrieve(ids["model"]),
    "model delete": lambda sdk, ids: sdk.models.delete(ids["model"]),
    "chat": lambda sdk, ids: sdk.chat.completions.create(
        model=ids["model"], messages=[{"role": "user", "content": "hi"}]
    ),
    "completion": lambda sdk, ids: sdk.completions.create(model=ids["model"], prompt="hi"),
    "store": lambda sdk, ids: sdk.vector_stores.retrieve(ids["store"]),
    "store search": lambda sdk, ids: sdk.vector_stores.search(ids["store"], query="hi"),
    "store delete": lambda sdk, ids: sdk.vector_stores.delete(ids["store"]),
    "store file": lambda sdk, ids: sdk.vector_stores.files.create(vector_store_id=ids["store"], file_id=ids["file"]),
}


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_a_stranger_finds_nothing(stranger: Tenant, owned: dict[str, str], probe: str) -> None:
    with pytest.raises(openai.NotFoundError):
        PROBES[probe](stranger.sdk, owned)


@pytest.mark.parametrize("path", ["/registry/models/{model}", "/evals/evaluations?model={model}"])
def test_evidence_and_cards_are_private(stranger: Tenant, owned: dict[str, str], path: str) -> None:
    with stranger.http as http:
        answer = http.get(path.format(**owned))
        assert answer.status_code == 404 or answer.json()["data"] == []


def test_lists_show_only_ones_own(stranger: Tenant, owned: dict[str, str]) -> None:
    assert owned["file"] not in [file.id for file in stranger.sdk.files.list()]
    assert owned["job"] not in [job.id for job in stranger.sdk.fine_tuning.jobs.list()]
    assert owned["model"] not in [model.id for model in stranger.sdk.models.list()]
    assert owned["store"] not in [store.id for store in stranger.sdk.vector_stores.list()]


@pytest.mark.parametrize(
    "model", ["ft:tiny-test:first::00000000", "ft:tiny-test:second:made-up:12345678", "no-such-base", "ad-0000"]
)
def test_a_made_up_model_is_never_answered_by_the_base(tenant: Tenant, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        tenant.sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "model_not_found"

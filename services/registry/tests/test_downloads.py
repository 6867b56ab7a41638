"""Copies of adapters: what somebody takes, who may, and what is remembered of it. On the local stack."""

from __future__ import annotations

import io
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from zipfile import BadZipFile, ZipFile

import httpx2
import pytest
import yaml
from registry_harness import BASE, Harness

from registry.settings import Settings
from schemas import FinetuneCancelled, ModelDownloaded, ModelRejected, ModelRetired, ObjectRef
from schemas.artifacts import ADAPTER_WEIGHTS, MANIFEST
from stores.objects import CHUNK, Objects
from testkit import eventually
from testkit.adapters import adapter_folder, id_of, seal
from testkit.base_models import base_spec

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Stored:
    """An adapter in the object store, and the version made of it."""

    model: str
    files: dict[str, bytes]
    refs: dict[str, ObjectRef]
    objects: Objects

    @property
    def place(self) -> str:
        return f"/v1/registry/models/{self.model}/adapter"


async def stored(harness: Harness, folder: Path, *, weights: bytes = b"weights", **trained: str) -> Stored:
    """An adapter as the trainer leaves it."""
    made = adapter_folder(folder / "adapter", base_spec(BASE), marker=harness.a)
    (made / ADAPTER_WEIGHTS).write_bytes(weights)
    (made / MANIFEST).unlink()
    seal(made, base_spec(BASE))
    files = {path.name: path.read_bytes() for path in made.iterdir()}
    adapter_id, objects = id_of(made), harness.space.objects()
    at = f"tenants/{harness.a}/adapters/{adapter_id}"
    refs = {name: await objects.put_bytes(f"{at}/{name}", content) for name, content in files.items()}
    model = await harness.trained(1, adapter_id=adapter_id, adapter_manifest=refs[MANIFEST], **trained)
    return Stored(model, files, refs, objects)


async def refused(harness: Harness, place: str, role: str = "engineer") -> tuple[int, str]:
    """Status and code of a refusal."""
    async with harness.http(role=role) as http:
        answer = await http.get(place)
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_copy_is_a_folder_with_the_stored_files_and_a_card(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path)
    async with harness.http(role="engineer") as http:
        answer = await http.get(one.place)
    folder = one.model.replace(":", "-")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == f'attachment; filename="{folder}.zip"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    with ZipFile(io.BytesIO(answer.content)) as copy:
        assert copy.testzip() is None
        found = {name: copy.read(name) for name in copy.namelist()}
    card = found.pop(f"{folder}/README.md").decode()
    assert found == {f"{folder}/{name}": content for name, content in one.files.items()}

    _, head, text = card.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert (metadata["library_name"], metadata["base_model"]) == ("peft", BASE)
    assert f"# {one.model}" in text
    for said in ("d" * 64, one.refs[MANIFEST].sha256, "| Licence of the base model | gemma |"):
        assert said in text
    for internal in ("user_test", "file-1", harness.job(1), "Decisions", "Where it is held"):
        assert internal not in text


async def test_who_takes_a_copy_is_said_and_remembered(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path)
    async with harness.http(role="engineer") as http:
        for _ in range(2):
            assert (await http.get(one.place)).status_code == 200
        written = (await http.get(f"/v1/registry/models/{one.model}/card")).text
    first, second = await eventually(lambda: found if len(found := harness.of(ModelDownloaded)) == 2 else None)
    for event in (first, second):
        assert (event.model_id, event.job_id, event.downloaded_by) == (one.model, harness.job(1), "user_test")
        assert one.refs[MANIFEST].key.split("/")[3] == event.adapter_id
    [download] = (await harness.card(one.model))["downloads"]
    assert (download["by"], download["times"]) == ("user_test", 2)
    assert "## Copies taken" in written
    assert "| `user_test` | 2 |" in written


async def test_a_copy_is_for_those_who_may_take_one(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path, owner="user_test")
    for role in ("viewer", "approver", "auditor", "labeler"):
        assert await refused(harness, one.place, role) == (403, "insufficient_permissions")
    async with harness.http(harness.b, role="owner") as stranger:
        assert (await stranger.get(one.place)).status_code == 404
    assert harness.of(ModelDownloaded) == []
    for role in ("owner", "admin", "engineer", "end_user"):
        async with harness.http(role=role) as http:
            assert (await http.get(one.place)).status_code == 200


async def test_an_end_user_takes_no_copy_of_what_is_somebody_elses(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path, owner="user_other")
    assert await refused(harness, one.place, "end_user") == (404, "model_not_found")
    assert harness.of(ModelDownloaded) == []


async def test_an_arm_has_no_adapter_and_says_where_one_would_be(harness: Harness, tmp_path: Path) -> None:
    version = await harness.fitted(1)
    name = version.rpartition("@")[0]
    place = f"/v1/registry/models/{name}/adapter"
    async with harness.http(role="engineer") as http:
        for asked in (version, name):
            answer = await http.get(f"/v1/registry/models/{asked}/adapter")
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (404, "no_adapter")
            assert f"GET {place}" in error["message"]
        assert (await harness.card(version))["downloadable"] is False
        one = await stored(harness, tmp_path)
        assert (one.model, one.place) == (name, place)
        assert (await harness.card(name))["downloadable"] is True
        assert (await http.get(place)).status_code == 200


async def test_what_was_refused_deleted_or_lost_cannot_be_taken(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path)
    await one.objects.put_bytes(one.refs[MANIFEST].key, b"{}")
    assert await refused(harness, one.place) == (404, "adapter_gone")
    await one.objects.delete(one.refs[MANIFEST].key)
    assert await refused(harness, one.place) == (404, "adapter_gone")
    await harness.digest(harness.evaluated(one.model, "fail"))
    await eventually(lambda: harness.of(ModelRejected))
    assert await refused(harness, one.place) == (404, "adapter_gone")
    assert (await harness.card(one.model))["downloadable"] is False
    async with harness.http(role="owner") as http:
        assert (await http.delete(f"/v1/models/{one.model}")).status_code == 200
        answer = await http.get(one.place)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_gone")
    assert "deleted" in answer.json()["error"]["message"]
    assert harness.of(ModelDownloaded) == []


async def test_an_adapter_whose_job_was_cancelled_cannot_be_taken(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path)
    await harness.publish(FinetuneCancelled(tenant_id=harness.a, job_id=harness.job(1)))
    await eventually(lambda: harness.of(ModelRetired))
    assert await refused(harness, one.place) == (404, "adapter_gone")
    assert (await harness.card(one.model))["downloadable"] is False


@pytest.mark.parametrize("method", ["GET adapter", "GET card", "POST approve", "POST reject", "POST pin"])
async def test_no_id_leads_to_another_address(harness: Harness, tmp_path: Path, method: str) -> None:
    """Who passes an id on, as pages do, asks about a model and nothing else."""
    one = await stored(harness, tmp_path)
    verb, word = method.split()
    name = quote(f"{one.model}/{word}", safe="")
    async with harness.http(role="owner") as http:
        answer = await http.request(verb, f"/v1/registry/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        if verb == "GET":
            assert (await http.get(f"/v1/registry/models/{quote(one.model, safe='')}/{word}")).status_code == 200
    assert (await harness.card(one.model))["state"] == "candidate"


async def test_no_file_of_another_tenant_is_handed_out(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path)
    theirs = await harness.trained(2, harness.b, adapter_manifest=one.refs[MANIFEST])
    async with harness.http(harness.b, role="owner") as http:
        answer = await http.get(f"/v1/registry/models/{theirs}/adapter")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_gone")


LARGE = b"weight" * CHUNK
"""Of several pieces, so that some are on their way before the last is looked at."""


@pytest.mark.parametrize("lost", [False, True], ids=["changed", "lost"])
async def test_a_copy_breaks_off_where_a_file_is_not_the_stored_one(
    harness: Harness, tmp_path: Path, lost: bool
) -> None:
    one = await stored(harness, tmp_path, weights=LARGE)
    key = one.refs[ADAPTER_WEIGHTS].key
    await (one.objects.delete(key) if lost else one.objects.put_bytes(key, LARGE[:-1] + b"z"))
    came = b""
    async with harness.http(role="engineer") as http:
        with pytest.raises(httpx2.RemoteProtocolError):
            async with http.stream("GET", one.place) as answer:
                async for piece in answer.aiter_bytes():
                    came += piece
    assert (LARGE[:1000] in came) is not lost
    assert LARGE[-CHUNK:-1] + b"z" not in came
    with pytest.raises(BadZipFile):
        ZipFile(io.BytesIO(came))


async def test_a_tenant_has_so_many_copies_under_way_and_no_more(harness: Harness, tmp_path: Path) -> None:
    one = await stored(harness, tmp_path, weights=4 * LARGE)  # more than sockets hold by themselves
    async with AsyncExitStack() as begun:
        http = await begun.enter_async_context(harness.http(role="engineer"))
        for _ in range(Settings.model_fields["registry_downloads_of_a_tenant"].default):
            answer = await begun.enter_async_context(http.stream("GET", one.place))
            assert answer.status_code == 200
        refused = await http.get(one.place)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert "downloads" in refused.json()["error"]["message"]

    async def again() -> bool:
        async with harness.http(role="engineer") as http:
            return bool((await http.get(one.place)).status_code == 200)

    await eventually(again)

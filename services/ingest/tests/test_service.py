"""Uploads through the API to dataset versions, documents and rejections, on the real stack."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import openai
import pytest
import pytest_asyncio
from ingest_harness import Harness, sdk, settled

from chassis.ids import new_id
from ingest.app import build
from ingest.settings import Settings
from schemas import DatasetPrepared, DatasetRejected, DocumentParsed, FileDeleted, LabelingRequested, LabelsPublished
from schemas.http.ingest import FileText
from testkit import Addresses, Space, eventually, running
from testkit.small_disk import small_disk

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = [
    {"messages": [{"role": "user", "content": f"row {n}"}, {"role": "assistant", "content": f"label_{n % 3}"}]}
    for n in range(60)
]
BODY = "\n".join(json.dumps(row) for row in ROWS).encode()
TENANT, STRANGER = "tenant_a", "tenant_b"


@asynccontextmanager
async def ingest(space: Space, **overrides: object) -> AsyncIterator[tuple[str, openai.AsyncOpenAI]]:
    app = build(space.settings(Settings, "ingest", ingest_lease_seconds=3, **overrides))
    async with running(app) as url, sdk(space, url, TENANT) as client:
        yield url, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(addresses: Addresses, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Space, str]]:
    """An ingest that takes small files only and few of a tenant, and its place."""
    space = Space(addresses, tmp_path_factory.mktemp("keys"))
    async with ingest(space, ingest_max_file_bytes=100_000, ingest_tenant_bytes=100) as (url, _):
        yield space, url
    space.remove_topics()


async def test_rows_become_a_dataset_version(harness: Harness) -> None:
    file = await harness.sdk.files.create(file=("rows.jsonl", BODY), purpose="user_data")
    assert (await harness.settled(file.id)).status == "processed"
    prepared = (await eventually(lambda: harness.of(DatasetPrepared)))[0]
    assert (prepared.dataset.task, prepared.labels) == ("classification", 3)
    assert prepared.rows.train + prepared.rows.validation + prepared.rows.heldout == 60
    manifest = json.loads(await harness.objects.get_bytes(prepared.dataset.manifest))
    assert manifest["source"]["sha256"] == (await harness.objects.put_bytes("x", BODY)).sha256
    heldout = (await harness.objects.get_bytes(prepared.dataset.heldout)).decode().splitlines()
    assert len(heldout) == prepared.rows.heldout
    listed = (await harness.http.get("/v1/datasets")).json()["data"]
    assert [dataset["id"] for dataset in listed] == [prepared.dataset.dataset_id]
    assert "# Dataset" in listed[0]["card"]
    others = harness.space.headers("ingest", harness.stranger)
    assert (await harness.http.get(f"/v1/datasets/{prepared.dataset.dataset_id}", headers=others)).status_code == 404


async def test_a_bad_file_is_rejected_with_its_line(harness: Harness) -> None:
    file = await harness.sdk.files.create(file=("bad.jsonl", BODY + b"\n{"), purpose="fine-tune")
    refused = await harness.settled(file.id)
    assert refused.status == "error"
    assert "bad.jsonl, line 61" in (refused.status_details or "")
    assert (await eventually(lambda: harness.of(DatasetRejected)))[0].line == 61


async def test_a_zip_bomb_is_refused_unopened(harness: Harness) -> None:
    import io
    import zipfile

    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", b"0" * 200_000_000)
    file = await harness.sdk.files.create(file=("rows.jsonl", bomb.getvalue()), purpose="user_data")
    refused = await harness.settled(file.id)
    assert "zip archive" in (refused.status_details or "")


async def test_a_file_that_takes_too_much_ends_its_parser_only(space: Space) -> None:
    async with ingest(space, ingest_parse_memory_bytes=150 * 1024**2) as (_, client):
        hungry = await client.files.create(file=("big.jsonl", (BODY + b"\n") * 4_000), purpose="user_data")
        refused = await settled(client, hungry.id)
        assert refused.status == "error"
        small = await client.files.create(file=("rows.jsonl", BODY), purpose="user_data")
        assert (await settled(client, small.id)).status == "processed"


async def test_documents_and_unlabelled_rows(harness: Harness) -> None:
    page = await harness.sdk.files.create(file=("help.md", "# 返金\n\n五日以内".encode()), purpose="assistants")
    bare = await harness.sdk.files.create(file=("texts.jsonl", b'{"text":"one"}\n{"text":"two"}'), purpose="user_data")
    parsed = (await eventually(lambda: harness.of(DocumentParsed)))[0]
    assert (parsed.file_id, parsed.title) == (page.id, "返金")
    wanted = (await eventually(lambda: harness.of(LabelingRequested)))[0]
    assert (wanted.file_id, wanted.rows) == (bare.id, 2)
    kinds = {file.id: file.model_extra["kind"] async for file in harness.sdk.files.list() if file.model_extra}
    assert kinds == {page.id: "document", bare.id: "unlabelled"}
    rows = await harness.sdk.files.create(file=("rows.jsonl", BODY), purpose="user_data")
    await harness.settled(rows.id)
    told = [(await harness.http.get(f"/internal/files/{file.id}/text")).json() for file in (page, bare)]
    assert [FileText.model_validate(one) for one in told] == [
        FileText(kind="document", text=parsed.text),
        FileText(kind="rows", text=wanted.records, rows=wanted.rows),
    ], "what the events said, also long after they are gone"
    refused = await harness.http.get(f"/internal/files/{rows.id}/text")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_text")
    others = {"headers": harness.space.headers("ingest", harness.stranger)}
    assert (await harness.http.get(f"/internal/files/{page.id}/text", **others)).status_code == 404


async def test_rows_without_answers_for_fine_tuning_are_refused_and_nothing_else_comes_of_them(
    harness: Harness,
) -> None:
    bare = b'{"text":"one"}\n{"text":"two"}'
    file = await harness.sdk.files.create(file=("texts.jsonl", bare), purpose="fine-tune")
    assert (await harness.settled(file.id)).status == "error"
    assert (await eventually(lambda: harness.of(DatasetRejected)))[0].code == "no_answers"
    later = await harness.sdk.files.create(file=("texts.jsonl", bare), purpose="user_data")
    requested = await eventually(lambda: harness.of(LabelingRequested))
    assert [one.file_id for one in requested] == [later.id]


async def test_published_labels_become_a_dataset_once(harness: Harness) -> None:
    records = await harness.objects.put_bytes("labels.jsonl", BODY)
    project = new_id("proj_")
    event = LabelsPublished(tenant_id=harness.tenant, project_id=project, publication=1, rows=60, records=records)
    for _ in range(3):
        await harness.publish(event)
    prepared = (await eventually(lambda: harness.of(DatasetPrepared)))[0]
    assert prepared.project_id == project
    assert len((await harness.sdk.files.list()).data) == 1


@pytest.mark.parametrize(
    ("name", "has_file", "filename"),
    [
        ("Rows of 問い合わせ.csv", True, "問い合わせ-answered-2.jsonl"),
        ("Tone / style", False, "Tone - style-answered-2.jsonl"),
        ("", False, "labels-answered-2.jsonl"),
    ],
)
async def test_published_labels_carry_the_name_that_people_gave(
    harness: Harness, name: str, has_file: bool, filename: str
) -> None:
    file = await harness.sdk.files.create(file=("問い合わせ.csv", b"text\none\ntwo\n"), purpose="user_data")
    records = await harness.objects.put_bytes("labels.jsonl", BODY)
    event = LabelsPublished(
        tenant_id=harness.tenant,
        project_id=new_id("proj_"),
        publication=2,
        file_id=file.id if has_file else None,
        name=name,
        rows=60,
        records=records,
    )
    await harness.publish(event)

    async def published():
        return [one for one in (await harness.sdk.files.list()).data if one.id != file.id]

    [made] = await eventually(published)
    assert made.filename == filename
    assert ((await harness.settled(made.id)).model_extra or {})["kind"] == "rows"


async def test_the_files_api(harness: Harness) -> None:
    made = [await harness.sdk.files.create(file=(f"{n}.jsonl", BODY), purpose="fine-tune") for n in range(3)]
    assert await (await harness.sdk.files.content(made[0].id)).aread() == BODY
    created = harness.database["files"]
    for at, file in enumerate((made[1], made[2], made[0])):
        await created.update_one({"_id": file.id}, {"$set": {"created_at": at}, "$inc": {"version": 1}})
    oldest_first = [made[1].id, made[2].id, made[0].id]
    assert [file.id async for file in harness.sdk.files.list(limit=2)] == oldest_first[::-1]
    assert [file.id async for file in harness.sdk.files.list(limit=2, order="asc")] == oldest_first
    assert (await harness.sdk.files.delete(made[0].id)).deleted
    await eventually(lambda: harness.of(FileDeleted))
    async with sdk(harness.space, harness.url, harness.stranger) as stranger:
        for call in (stranger.files.retrieve, stranger.files.content, stranger.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(made[1].id)
        assert (await stranger.files.list()).data == []
    with pytest.raises(openai.NotFoundError):
        await harness.sdk.files.retrieve(made[0].id)


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ({"data": {"purpose": "wrong"}, "files": {"file": ("a", b"x")}}, 400, "fine-tune, user_data"),
        ({"data": {}, "files": {"file": ("a", b"x")}}, 400, "purpose"),
        ({"data": {"purpose": "user_data"}, "files": {"other": ("a", b"x")}}, 400, "file"),
        ({"content": b"not a form"}, 400, "multipart"),
        ({"data": {"purpose": "user_data", "delimiter": ";"}, "files": {"file": ("a", b"x")}}, 400, "delimiter: "),
        ({"data": {"purpose": "user_data"}, "files": {"file": ("a", b"x" * 200_000)}}, 413, "MiB"),
    ],
)
async def test_bad_uploads_are_refused_at_the_door(
    strict: tuple[Space, str], request_: dict, status: int, says: str
) -> None:
    space, url = strict
    async with httpx2.AsyncClient(base_url=url, headers=space.headers("ingest", TENANT)) as http:
        answer = await http.post("/v1/files", **request_)
        assert answer.status_code == status, answer.text
        assert says in answer.json()["error"]["message"]


async def test_an_expiry_is_kept_as_the_sdk_sends_it(harness: Harness) -> None:
    after = {"anchor": "created_at", "seconds": 7200}
    file = await harness.sdk.files.create(file=("a.jsonl", BODY), purpose="user_data", expires_after=after)
    assert file.expires_at is not None
    assert 7199 <= file.expires_at - file.created_at <= 7201
    plain = await harness.sdk.files.create(file=("a.jsonl", BODY), purpose="user_data", expires_after=openai.omit)
    assert plain.expires_at is None


async def test_bad_rows_are_left_out_and_named_where_the_sender_says_so(harness: Harness) -> None:
    body = BODY + b'\n{\n{"messages": []}'
    skip = {"on_bad_rows": "skip"}
    refused = await harness.sdk.files.create(file=("a.jsonl", body), purpose="fine-tune")
    taken = await harness.sdk.files.create(file=("b.jsonl", body), purpose="fine-tune", extra_body=skip)
    assert (await harness.settled(refused.id)).status == "error"
    file = await harness.settled(taken.id)
    assert (file.status, (file.status_details or "").split(": ")[0]) == ("processed", "2 bad rows were left out")
    assert "line 61: not valid JSON" in (file.status_details or "")
    rows = (await eventually(lambda: harness.of(DatasetPrepared)))[0].rows
    assert rows.train + rows.validation + rows.heldout == 60


async def test_what_is_not_read_is_named_and_rows_that_teach_nothing_are_counted(harness: Harness) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": "Renew it."}, {"role": "assistant", "content": "Done."}],
            "tools": [{"type": "function", "function": {"name": f"renew_{number % 12}"}}],
        }
        for number in range(24)
    ]
    silent = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]}
    bare = b'{"text": "one", "id": 1}\n{"text": "two", "id": 2}'
    body = "\n".join(map(json.dumps, [*rows, silent])).encode()
    made = await harness.sdk.files.create(file=("a.jsonl", body), purpose="fine-tune")
    file = await harness.settled(made.id)
    assert file.status_details == (
        "Not read, in so many rows: 'tools' (24). 12 exact duplicates were removed. "
        "1 row was removed because every answer has the weight 0 and nothing is learned."
    )
    rows_ = (await eventually(lambda: harness.of(DatasetPrepared)))[0].rows
    assert rows_.train + rows_.validation + rows_.heldout == 12
    unlabelled = await harness.sdk.files.create(file=("b.jsonl", bare), purpose="user_data")
    assert "'id' (2)" in ((await harness.settled(unlabelled.id)).status_details or "")


async def test_a_file_to_validate_with_may_have_one_row(harness: Harness) -> None:
    one = b'{"prompt": "q", "completion": "a"}'
    made = await harness.sdk.files.create(file=("one.jsonl", one), purpose="fine-tune")
    file = await harness.settled(made.id)
    assert (file.status, file.status_details) == (
        "processed",
        "1 row can validate a model; 10 are needed to train one.",
    )
    rows = (await eventually(lambda: harness.of(DatasetPrepared)))[0].rows
    assert (rows.train, rows.validation, rows.heldout) == (1, 0, 0)
    made = await harness.sdk.files.create(file=("one.jsonl", one), purpose="user_data")
    assert "1 different row is too few" in ((await harness.settled(made.id)).status_details or "")


async def test_a_3_gigabyte_upload_is_refused_before_it_is_sent(harness: Harness) -> None:
    port = int(harness.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    authorization = harness.space.headers("ingest", harness.tenant)["authorization"]
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {3 * 1024**3}\r\n\r\n".encode()
    )
    await writer.drain()
    assert b" 413 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_slow_uploads_of_one_tenant_leave_room_for_the_others(space: Space) -> None:
    async with ingest(space, ingest_uploads_at_a_time=3, ingest_uploads_of_a_tenant=2) as (url, client):

        async def answer() -> str:
            try:
                await client.files.create(file=("a.jsonl", BODY), purpose="user_data")
            except openai.RateLimitError as error:
                return error.message
            return "accepted"

        async def refused() -> bool:
            return "2 of your uploads" in await answer()

        async def accepted() -> bool:
            return await answer() == "accepted"

        slow = [await slow_upload(space, url) for _ in range(2)]
        try:
            await eventually(refused)
            async with sdk(space, url, STRANGER) as other:
                await other.files.create(file=("b.jsonl", BODY), purpose="user_data")
        finally:
            for writer in slow:
                writer.close()
        await eventually(accepted)


async def test_half_of_the_slots_are_for_tenants_that_have_none(space: Space) -> None:
    async with ingest(space, ingest_uploads_at_a_time=4, ingest_uploads_of_a_tenant=4) as (url, client):

        async def refused() -> bool:
            try:
                await client.files.create(file=("a.jsonl", BODY), purpose="user_data")
            except openai.RateLimitError as error:
                return "Many uploads are under way" in error.message
            return False

        slow = [await slow_upload(space, url) for _ in range(2)]
        try:
            await eventually(refused)
            async with sdk(space, url, STRANGER) as other:
                await other.files.create(file=("b.jsonl", BODY), purpose="user_data")
        finally:
            for writer in slow:
                writer.close()


async def slow_upload(space: Space, url: str) -> asyncio.StreamWriter:
    """An upload that has begun and does not go on."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    authorization = space.headers("ingest", TENANT)["authorization"]
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b\r\n".encode()
    )
    await writer.drain()
    return writer


async def test_a_repeated_upload_under_one_key_is_one_file(harness: Harness) -> None:
    key = {"Idempotency-Key": "once"}
    first = await harness.sdk.files.create(file=("a.jsonl", BODY), purpose="user_data", extra_headers=key)
    second = await harness.sdk.files.create(file=("a.jsonl", BODY), purpose="user_data", extra_headers=key)
    assert first.id == second.id
    with pytest.raises(openai.UnprocessableEntityError):
        await harness.sdk.files.create(file=("a.jsonl", BODY + b"\n"), purpose="user_data", extra_headers=key)


async def test_a_repeated_upload_has_the_answer_of_the_first_after_a_restart_too(space: Space) -> None:
    """Byte for byte, whatever became of the file since and whatever boundary the client chose this time."""
    headers = {**space.headers("ingest", TENANT), "idempotency-key": "once"}

    async def post(url: str, content: bytes, purpose: str = "user_data", **more: str) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=url, timeout=30) as http:
            files = {"file": ("a.jsonl", content)}
            return await http.post("/v1/files", headers=headers | more, files=files, data={"purpose": purpose})

    large = BODY * (1 + 4 * 1024**2 // len(BODY))
    async with ingest(space) as (url, client):
        first = await post(url, large)
        await settled(client, first.json()["id"])
        second = await post(url, large)
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert second.headers["idempotent-replayed"] == "true"
    async with ingest(space) as (url, client):
        third = await post(url, large)
        assert third.content == first.content
        for content, purpose in ((large + b"\n", "user_data"), (large[:-1], "user_data"), (large, "fine-tune")):
            other = await post(url, content, purpose)
            assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert len([file async for file in client.files.list()]) == 1
        stranger = await post(url, large, authorization=space.headers("ingest", STRANGER)["authorization"])
        assert stranger.json()["id"] != first.json()["id"]


async def test_an_upload_that_was_refused_unread_may_be_tried_again_under_its_key(space: Space) -> None:
    key = {"Idempotency-Key": "once"}
    async with ingest(space, ingest_uploads_at_a_time=0) as (_, client):
        with pytest.raises(openai.RateLimitError):
            await client.files.create(file=("a.jsonl", BODY), purpose="user_data", extra_headers=key)
    async with ingest(space) as (_, client):
        assert (await client.files.create(file=("a.jsonl", BODY), purpose="user_data", extra_headers=key)).id


async def test_an_upload_that_the_disk_cannot_hold_may_be_sent_again(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = BODY + b"\n" * 2**21
    key = {"Idempotency-Key": "once"}
    with small_disk(tmp_path / "tmp", 2**23) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
        async with ingest(space, ingest_work_dir=tmp_path) as (_, client):
            disk.fill(leave=2**20)
            for _ in range(2):
                with pytest.raises(openai.InternalServerError, match="No space left") as refused:
                    await client.files.create(file=("a.jsonl", large), purpose="user_data", extra_headers=key)
                assert refused.value.status_code == 503
            small = await client.files.create(file=("b.jsonl", BODY), purpose="user_data")
            assert [file.id async for file in client.files.list()] == [small.id], "what was refused takes no room"
            disk.free()
            file = await client.files.create(file=("a.jsonl", large), purpose="user_data", extra_headers=key)
            assert (await settled(client, file.id)).status == "processed"


async def test_a_full_tenant_is_told(strict: tuple[Space, str]) -> None:
    space, url = strict
    async with sdk(space, url, new_id("tenant_")) as client:
        await client.files.create(file=("a.jsonl", BODY), purpose="user_data")
        with pytest.raises(openai.APIStatusError, match="storage is full"):
            await client.files.create(file=("b.jsonl", BODY), purpose="user_data")

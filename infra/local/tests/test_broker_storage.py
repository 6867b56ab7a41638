"""What the broker reads through its storage is what the store holds, and asking again costs the store nothing."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree as ET

import httpx2
import pytest
from minio import Minio
from minio.credentials import Credentials
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.signer import sign_v4_s3

from localstack import LocalStack

BUCKET = "kafka"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack"), services=(), usual_ports=False) as running:
        yield running


@pytest.fixture
def clients(stack: LocalStack) -> tuple[Minio, Minio]:
    """The same bucket as the broker sees it, and as the store has it."""
    ports, key = stack.home.state["ports"], stack.home.secret("objects_secret_key")
    through, store = (
        Minio(
            endpoint=f"127.0.0.1:{ports[name]}",
            access_key="sartor",
            secret_key=key,
            secure=False,
            region="us-east-1",
        )
        for name in ("broker_storage", "objects")
    )
    return through, store


def put(client: Minio, key: str, content: bytes) -> None:
    client.put_object(bucket_name=BUCKET, object_name=key, data=io.BytesIO(content), length=len(content))


def listed(client: Minio, prefix: str) -> dict[str, tuple[int, str]]:
    """The objects below a prefix as the store lists them: size and entity tag by name."""
    found = client.list_objects(bucket_name=BUCKET, prefix=prefix, recursive=True)
    return {str(one.object_name): (one.size or 0, str(one.etag).strip('"')) for one in found}


def asked(stack: LocalStack, prefix: str) -> ET.Element:
    """The listing that the broker gets for its question."""
    url = f"http://127.0.0.1:{stack.home.state['ports']['broker_storage']}/{BUCKET}"
    query = {"list-type": "2", "prefix": prefix}
    address = urlsplit(f"{url}?{urlencode(query)}")
    nothing = hashlib.sha256().hexdigest()
    now = datetime.now(UTC)
    headers = {"host": address.netloc, "x-amz-content-sha256": nothing, "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}"}
    credentials = Credentials("sartor", stack.home.secret("objects_secret_key"))
    signed = sign_v4_s3(
        method="GET",
        url=address,
        region="us-east-1",
        headers=headers,
        credentials=credentials,
        content_sha256=nothing,
        date=now,
    )
    answer = httpx2.get(url, params=query, headers=signed, trust_env=False)
    answer.raise_for_status()
    return ET.fromstring(answer.content)


def seen(stack: LocalStack, prefix: str) -> dict[str, tuple[int, str]]:
    """The same as `listed`, as the broker reads it."""
    return {
        one.findtext("{*}Key", ""): (int(one.findtext("{*}Size", "")), one.findtext("{*}ETag", "").strip('"'))
        for one in asked(stack, prefix).iterfind("{*}Contents")
    }


def got(client: Minio, key: str) -> bytes | None:
    try:
        with client.get_object(bucket_name=BUCKET, object_name=key) as answer:
            return bytes(answer.read())
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
        return None


def stopped(stack: LocalStack, name: str, block: Callable[[], None]) -> None:
    """Do it while a program stands still."""
    [process] = [one for one in stack.status(sample_seconds=0) if one.name == name]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        block()
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", range(2))
def test_what_is_read_is_what_the_store_holds(stack: LocalStack, clients: tuple[Minio, Minio], seed: int) -> None:
    through, store = clients
    chance = random.Random(seed)
    keys = [f"{seed}/topics/{topic}/records/{number:020}.batch" for topic in "ab" for number in range(4)]
    for step in range(30):
        key = chance.choice(keys)
        if chance.random() < 0.6:
            put(through, key, f"{step}".encode() * chance.randrange(1, 50))
        elif chance.random() < 0.5:
            through.remove_object(bucket_name=BUCKET, object_name=key)
        for prefix in (f"{seed}/", f"{seed}/topics/a/records/", f"{seed}/topics/b/records/"):
            assert seen(stack, prefix) == listed(store, prefix), step
        assert got(through, key) == got(store, key), step


def test_what_many_write_and_read_at_once_is_what_the_store_holds(
    stack: LocalStack, clients: tuple[Minio, Minio]
) -> None:
    through, store = clients
    keys = [f"many/{number}" for number in range(5)]

    def work(name: int) -> None:
        chance = random.Random(name)
        for step in range(25):
            key = chance.choice(keys)
            if chance.random() < 0.5:
                put(through, key, f"{name}-{step}".encode())
            elif chance.random() < 0.3:
                through.remove_object(bucket_name=BUCKET, object_name=key)
            got(through, chance.choice(keys))
            seen(stack, "many/")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert seen(stack, "many/") == listed(store, "many/")
    assert [got(through, key) for key in keys] == [got(store, key) for key in keys]


def test_what_is_deleted_together_is_gone(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, _ = clients
    for number in range(3):
        put(through, f"together/{number}", b"x")
    assert len(seen(stack, "together/")) == 3
    assert got(through, "together/1") == b"x"
    gone = through.remove_objects(
        bucket_name=BUCKET, delete_object_list=[DeleteObject(f"together/{n}") for n in (0, 1)]
    )
    assert list(gone) == []
    assert set(seen(stack, "together/")) == {"together/2"}
    assert got(through, "together/1") is None


def test_of_other_buckets_the_store_is_asked_who_may(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    _, store = clients
    store.make_bucket(bucket_name="private")
    store.put_object(bucket_name="private", object_name="one", data=io.BytesIO(b"x"), length=1)
    port = stack.home.state["ports"]["broker_storage"]
    assert httpx2.get(f"http://127.0.0.1:{port}/private/one", trust_env=False).status_code == 403


def test_what_was_there_before_is_listed(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, store = clients
    for number in range(30):
        put(store, f"before/{number:05}", b"x")
    assert seen(stack, "before/") == listed(store, "before/")
    put(through, "before/99999", b"new")
    assert seen(stack, "before/") == listed(store, "before/")
    assert len(seen(stack, "before/")) == 31


def test_listings_give_times_that_rise_with_the_names(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, _ = clients
    for number in (3, 1, 2):
        put(through, f"times/{number}", b"x")
    times = [one.text for one in asked(stack, "times/").iterfind("{*}Contents/{*}LastModified")]
    assert times == sorted(set(map(str, times)))
    assert len(times) == 3


def test_asking_again_does_not_ask_the_store(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, _ = clients
    for number in range(3):
        put(through, f"again/{number}", b"content")
    before = seen(stack, "again/")

    def again() -> None:
        assert seen(stack, "again/") == before
        assert got(through, "again/1") == b"content"
        assert through.stat_object(bucket_name=BUCKET, object_name="again/2").size == 7

    stopped(stack, "objects", again)


def test_who_has_the_object_is_told_so(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, _ = clients
    put(through, "have", b"one")
    url = through.presigned_get_object(bucket_name=BUCKET, object_name="have")
    etag = httpx2.get(url, trust_env=False).headers["etag"]
    answer = httpx2.get(url, headers={"if-none-match": etag}, trust_env=False)
    assert (answer.status_code, answer.content) == (304, b"")
    put(through, "have", b"two")
    answer = httpx2.get(url, headers={"if-none-match": etag}, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"two")


def test_an_upload_of_which_nobody_knows_is_asked_for_again(stack: LocalStack, clients: tuple[Minio, Minio]) -> None:
    through, store = clients
    [program] = [one for one in stack._programs(stack.home.state["ports"]) if one.name == "objects"]
    put(through, "unknown/1", b"one")
    assert set(seen(stack, "unknown/")) == {"unknown/1"}
    [process] = [one for one in stack.status(sample_seconds=0) if one.name == "objects"]
    os.kill(process.pid, signal.SIGKILL)
    url = through.presigned_put_object(bucket_name=BUCKET, object_name="unknown/2")
    assert httpx2.put(url, content=b"two", trust_env=False).status_code == 503
    stack._until_ready(program)
    assert set(seen(stack, "unknown/")) == {"unknown/1"}
    put(store, "unknown/2", b"as if the upload had ended only now")
    assert seen(stack, "unknown/") == listed(store, "unknown/")
    assert got(through, "unknown/2") == got(store, "unknown/2")

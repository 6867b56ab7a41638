"""Users and keys on servers that check them: the local object store, and the local MongoDB with its checks on."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from localstack.home import PORTS, SERVICE_PORTS, Home
from localstack.programs import Program, infrastructure
from provision.__main__ import main
from provision.rights import FOLDERS, RIGHTS
from testkit.running import free_port

ROOT = Path(__file__).parents[3]
BUCKET = "sartor"
READY_SECONDS = 30
UNAUTHORIZED = 13


@contextmanager
def served(program: Program, *more: str) -> Iterator[None]:
    """A program of the local stack, as long as the block lasts."""
    process = subprocess.Popen(
        [*program.command, *more],
        env={**os.environ, **program.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", program.port), 1).close()
                break
            except OSError:
                assert time.monotonic() < until, f"{program.name} does not listen"
                assert process.poll() is None, f"{program.name} ended"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def provided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[str, int]]]:
    """Both servers as production has them at its first start, with their root users only, then provided for."""
    home, ports = Home(tmp_path_factory.mktemp("provision")), {name: free_port() for name in PORTS}
    home.prepare()
    programs = {program.name: program for program in infrastructure(home, ports)}
    objects, mongodb = programs["objects"], programs["mongodb"]
    store = ["--bucket", f"{home.path('objects')}/", f"sqlite3://{home.path('objects.db')}", "sartor"]
    subprocess.run([objects.command[0], "format", "--storage", "file", *store], check=True, capture_output=True)
    address = f"mongodb://127.0.0.1:{mongodb.port}/?retryWrites=false"
    with served(mongodb), MongoClient[dict[str, Any]](address) as client:
        client.admin.command("createUser", "sartor", pwd=home.secret("mongo_password"), roles=["root"])
    with served(objects), served(mongodb, "--auth"), pytest.MonkeyPatch.context() as environment:
        environment.setenv("SARTOR_SECRETS_DIR", str(home.secrets))
        environment.setenv("SARTOR_MONGO_URL", address)
        environment.setenv("SARTOR_OBJECTS_ENDPOINT", f"127.0.0.1:{ports['objects']}")
        main()
        yield home, ports


def database_client(provided: tuple[Home, dict[str, int]], service: str) -> MongoClient[dict[str, Any]]:
    home, ports = provided
    url = home.secret(f"{service}_mongo_url").replace("@mongodb:27017", f"@127.0.0.1:{ports['mongodb']}")
    return MongoClient(f"{url}&retryWrites=false".replace("replicaSet=rs0&", ""), serverSelectionTimeoutMS=5000)


def object_client(provided: tuple[Home, dict[str, int]], service: str) -> Minio:
    home, ports = provided
    return Minio(
        endpoint=f"127.0.0.1:{ports['objects']}",
        access_key=service,
        secret_key=home.secret(f"{service}_objects_key"),
        secure=False,
        region="us-east-1",
    )


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    """Whether the server says no, and for want of rights."""
    try:
        call(*args, **kwargs)
    except (OperationFailure, S3Error) as error:
        if error.code not in (UNAUTHORIZED, "AccessDenied"):
            raise
        return True
    return False


def put(client: Minio, key: str) -> None:
    client.put_object(bucket_name=BUCKET, object_name=key, data=io.BytesIO(b"1"), length=1)


def test_every_service_has_its_rights() -> None:
    assert set(RIGHTS) == set(SERVICE_PORTS)
    assert {name for one in RIGHTS.values() for name in (*one.writes, *one.reads)} == set(FOLDERS)


def test_every_folder_that_is_written_is_known() -> None:
    code = "".join(path.read_text() for path in (ROOT / "services").glob("*/src/**/*.py"))
    assert set(re.findall(r'f"tenants/\{[^}]+\}/(\w+)/', code)) == set(FOLDERS)


def test_a_service_does_what_it_likes_in_its_own_database_and_nothing_elsewhere(provided: Any) -> None:
    names = [name for name, rights in RIGHTS.items() if rights.documents]
    for service, other in zip(names, names[1:] + names[:1], strict=True):
        with database_client(provided, service) as client:
            own = client[f"sartor_{service}"]["things"]
            own.create_index("a", name="by_a")
            own.update_one({"_id": "x"}, {"$set": {"a": 1}}, upsert=True)
            own.drop_index("by_a")
            assert own.find_one({"_id": "x"}) == {"_id": "x", "a": 1}
            others = client[f"sartor_{other}"]["things"]
            assert refused(others.find_one, {}), (service, other)
            assert refused(others.insert_one, {}), (service, other)
            for role in ("root", {"role": "readWrite", "db": f"sartor_{other}"}):
                assert refused(client.admin.command, "grantRolesToUser", service, roles=[role]), service


def test_a_service_that_has_no_database_any_more_has_no_user_either(provided: Any) -> None:
    """Users that somebody else made stay, also those with the rights of a service."""
    home, ports = provided
    root = f"mongodb://sartor:{home.secret('mongo_password')}@127.0.0.1:{ports['mongodb']}/?retryWrites=false"
    with MongoClient[dict[str, Any]](root) as client:
        admin = client.admin

        def make(name: str, *databases: str) -> None:
            roles = [{"role": "readWrite", "db": f"sartor_{database}"} for database in databases]
            admin.command("createUser", name, pwd="p", roles=roles)

        make("model_server", "model_server")
        make("a_former_service", "a_former_service")
        make("somebody", "ingest")
        make("someone", "someone", "ingest")
        main()
        left = {user["user"] for user in admin.command("usersInfo", 1)["users"]}
        assert left == {"sartor", "somebody", "someone", *(name for name, one in RIGHTS.items() if one.documents)}
        for name in ("somebody", "someone"):
            admin.command("dropUser", name)


def test_a_service_reads_and_writes_the_objects_it_is_for(provided: Any) -> None:
    home, ports = provided
    secret = home.secret("objects_secret_key")
    root = Minio(endpoint=f"127.0.0.1:{ports['objects']}", access_key="sartor", secret_key=secret, secure=False)
    for folder in FOLDERS:
        put(root, f"tenants/t/{folder}/1/there")
    for service, rights in RIGHTS.items():
        client = object_client(provided, service)
        assert client.bucket_exists(bucket_name=BUCKET), service
        for folder in FOLDERS:
            there, own = (f"tenants/t/{folder}/1/{name}" for name in ("there", f"of-{service}"))
            reads, writes = folder in rights.writes + rights.reads, folder in rights.writes
            assert refused(client.get_object, bucket_name=BUCKET, object_name=there) != reads, (service, folder)
            assert refused(put, client, own) != writes, (service, folder)
            assert refused(client.remove_object, bucket_name=BUCKET, object_name=own) != writes, (service, folder)


def test_a_folder_is_not_reached_through_another_of_the_same_name(provided: Any) -> None:
    client = object_client(provided, "ingest")
    for key in ("tenants/t/jobs/files/x", "tenants/t/evaluations/datasets/x", "elsewhere/files/x"):
        assert refused(put, client, key), key


def test_a_large_object_goes_in_parts_and_comes_back(provided: Any) -> None:
    client, size = object_client(provided, "trainer"), 6 * 1024**2
    key = "tenants/t/jobs/1/large"
    client.put_object(
        bucket_name=BUCKET, object_name=key, data=io.BytesIO(b"x" * size), length=size, part_size=5 * 1024**2
    )
    assert client.stat_object(bucket_name=BUCKET, object_name=key).size == size


def test_repeating_it_changes_nothing_and_a_new_secret_counts(provided: Any) -> None:
    main()
    home, _ = provided
    with database_client(provided, "ingest") as before:
        assert before["sartor_ingest"]["things"].insert_one({}).acknowledged
    url = home.secret("ingest_mongo_url")
    (home.secrets / "ingest_mongo_url").write_text(url.replace(url.split(":")[2].split("@")[0], "n" * 40))
    with database_client(provided, "ingest") as early, pytest.raises(PyMongoError):
        early["sartor_ingest"]["things"].find_one({})
    main()
    with database_client(provided, "ingest") as after:
        assert after["sartor_ingest"]["things"].insert_one({}).acknowledged

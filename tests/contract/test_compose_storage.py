"""What a container keeps, what it may use, and how long it has to end."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import pytest

from chassis.settings import ServiceSettings
from ingest.settings import Settings as IngestSettings
from serving_agent.launcher import STOP_SECONDS
from tests.contract.compose import COMPOSE, CONTAINERS, OURS, THIRD_PARTY, mounts, seconds, size

KEPT_BY = {
    "kafka": ["KAFKA_LOG_DIRS"],
    "mongodb": ["--dbpath"],
    "objects": ["server"],
    "milvus": ["ETCD_DATA_DIR", "LOCALSTORAGE_PATH", "ROCKSMQ_PATH"],
    "caddy": ["XDG_DATA_HOME"],
    "prometheus": ["--storage.tsdb.path"],
    "alertmanager": ["--storage.path"],
    "grafana": ["GF_PATHS_DATA"],
}
"""What says where a server keeps its data: an environment variable, or a word of its command before the path."""

WORK = {
    "ingest": ["TMPDIR", "SARTOR_INGEST_WORK_DIR"],
    "trainer": ["TMPDIR", "SARTOR_TRAINER_WORK_DIR"],
    "model-server": ["TMPDIR"],
    "serving-agent": ["TMPDIR", "SARTOR_ADAPTERS_DIR"],
}
"""Who lays large files aside, and the variables that say where."""


def path_of(one: dict[str, Any], setting: str) -> str:
    """The path that a container's setting names."""
    environment: dict[str, str] = one.get("environment", {})
    if setting in environment:
        return environment[setting]
    words = " ".join(one["command"]).replace("=", " ").split()
    return words[words.index(setting) + 1]


def volume_below(one: dict[str, Any], path: str) -> str | None:
    """The mount that `path` lies on; None where it lies in the container itself or in memory."""
    above = [target for target in mounts(one) if PurePosixPath(path).is_relative_to(target)]
    return max(above, key=len, default=None)


def test_every_server_is_known() -> None:
    assert set(KEPT_BY) == set(THIRD_PARTY)


@pytest.mark.parametrize("name", KEPT_BY)
def test_what_a_server_keeps_lies_on_a_named_volume(name: str) -> None:
    one = THIRD_PARTY[name]
    for setting in KEPT_BY[name]:
        path = path_of(one, setting)
        target = volume_below(one, path)
        assert target, f"{setting}={path} lies in the container: it is gone with it"
        assert mounts(one)[target] in COMPOSE["volumes"], target


@pytest.mark.parametrize("name", WORK)
def test_large_files_are_laid_aside_on_a_disk(name: str) -> None:
    one = OURS[name]
    for setting in WORK[name]:
        assert volume_below(one, path_of(one, setting)), setting
    assert all(not entry.startswith("/var/lib/sartor") for entry in one["tmpfs"])


def test_every_named_volume_is_used_by_one_container() -> None:
    users = [source for one in THIRD_PARTY.values() for source in mounts(one).values()]
    users += [source for one in OURS.values() for source in mounts(one).values()]
    assert {name: users.count(name) for name in COMPOSE["volumes"]} == dict.fromkeys(COMPOSE["volumes"], 1)


def test_memory_disks_are_small() -> None:
    for name, one in CONTAINERS.items():
        for entry in one.get("tmpfs", []):
            assert size(entry.partition("size=")[2]) <= 64 * 1024**2, (name, entry)


def test_every_container_has_a_limit_on_its_memory() -> None:
    limits = {name: size(one["mem_limit"]) for name, one in CONTAINERS.items()}
    assert all(limit >= 64 * 1024**2 for limit in limits.values())
    heap = THIRD_PARTY["kafka"]["environment"]["KAFKA_HEAP_OPTS"].partition("-Xmx")[2]
    probe = re.search(r"KAFKA_HEAP_OPTS=-Xmx(\w+) ", THIRD_PARTY["kafka"]["healthcheck"]["test"][1])
    assert probe, "the health check is a JVM beside the broker's"
    assert size(heap) * 1.5 + size(probe[1]) <= limits["kafka"]
    cache = float(path_of(THIRD_PARTY["mongodb"], "--wiredTigerCacheSizeGB"))
    assert cache * 1024**3 * 2 <= limits["mongodb"]
    parse = IngestSettings.model_fields["ingest_parse_memory_bytes"].default
    assert parse + 1024**3 <= limits["ingest"], "a parse may use what it is promised, and the service goes on beside it"


def test_a_service_has_longer_to_end_than_it_takes() -> None:
    for name, one in OURS.items():
        drain = float(one.get("environment", {}).get("SARTOR_STOP_TIMEOUT", 0))
        if "SARTOR_KAFKA_BOOTSTRAP" in one.get("environment", {}):
            assert drain >= ServiceSettings.model_fields["stop_timeout"].default, name
        if name == "serving-agent":
            drain += STOP_SECONDS
        assert seconds(one["stop_grace_period"]) > drain + 10, name


def test_a_server_has_longer_to_end_than_dockers_ten_seconds() -> None:
    """MongoDB alone waits 15 s for what is under way, Kafka hands its partitions over."""
    for name, one in THIRD_PARTY.items():
        assert seconds(one["stop_grace_period"]) >= 30, name

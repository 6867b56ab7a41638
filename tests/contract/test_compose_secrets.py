"""Who is given which secret: each service its own, and the servers' root credentials nobody but the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from localstack.home import write_secrets
from provision.rights import RIGHTS
from provision.settings import Settings as ProvisionSettings
from tests.contract.compose import COMPOSE, CONTAINERS, SERVICES, container

ROOTS = {
    "mongo_password": {"mongodb", "provision"},
    "mongo_keyfile": {"mongodb"},
    "objects_secret_key": {"objects", "provision"},
    "grafana_password": {"grafana"},
}
"""The root credential of each server, and the containers that have it."""

FURTHER = {"accounts": {"operator_key"}, "console": {"session_secret"}}
"""What a service is given besides its own key, database user and object store key, and everybody's public keys."""


def given(one: dict[str, Any]) -> dict[str, str]:
    """The secrets of a container: name -> file below /run/secrets."""
    listed = one.get("secrets", [])
    return {
        **{secret: secret for secret in listed if isinstance(secret, str)},
        **{secret["source"]: secret["target"] for secret in listed if isinstance(secret, dict)},
    }


def test_root_credentials_are_in_the_servers_and_in_what_provides_only() -> None:
    for secret, holders in ROOTS.items():
        assert {name for name, one in CONTAINERS.items() if secret in given(one)} == holders, secret


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_its_own_secrets_and_no_others(service: str) -> None:
    own = {f"{service}_key", f"{service}_objects_key", "services_jwks"} | FURTHER.get(service, set())
    if RIGHTS[service].documents:
        own.add(f"{service}_mongo_url")
    assert set(given(container(service))) == own


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_its_secrets_where_they_are_mounted(service: str) -> None:
    one = container(service)
    files = {value for name, value in one["environment"].items() if name.endswith("_FILE")}
    assert files == {f"/run/secrets/{target}" for target in given(one).values()}
    assert one["environment"]["SARTOR_OBJECTS_ACCESS_KEY"] == service
    assert given(one)[f"{service}_objects_key"] == "objects_secret_key"


def test_no_credential_stands_in_the_environment() -> None:
    for name, one in CONTAINERS.items():
        for variable, value in one.get("environment", {}).items():
            if any(part in variable for part in ("PASSWORD", "SECRET", "PRIVATE_KEY", "OPERATOR_KEY")):
                assert str(value).startswith("/run/secrets/"), (name, variable)


def test_what_provides_has_every_user_and_every_service_waits_for_it(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    settings = ProvisionSettings(secrets_dir=tmp_path)
    assert set(settings.objects_keys()) == set(SERVICES) == set(RIGHTS)
    passwords = settings.mongo_passwords()
    for service, password in passwords.items():
        url = urlsplit((tmp_path / f"{service}_mongo_url").read_text())
        assert (url.hostname, url.username, url.query) == ("mongodb", service, "replicaSet=rs0&authSource=admin")
        assert len(password) == 40
    secrets = [*passwords.values(), *settings.objects_keys().values()]
    assert len(set(secrets)) == len(secrets)
    expected = {f"{name}_objects_key" for name in RIGHTS} | {f"{name}_mongo_url" for name in passwords}
    provision = CONTAINERS["provision"]
    assert set(given(provision)) == expected | {"mongo_password", "objects_secret_key"}
    assert all(name == target for name, target in given(provision).items())
    for service in SERVICES:
        assert container(service)["depends_on"]["provision"] == {"condition": "service_completed_successfully"}
    for server in ("mongodb", "objects"):
        assert provision["depends_on"][server] == {"condition": "service_healthy"}


def test_the_root_users_have_one_name_in_server_and_provision() -> None:
    environment = CONTAINERS["provision"]["environment"]
    named = ProvisionSettings(**{name.removeprefix("SARTOR_").lower(): value for name, value in environment.items()})
    assert named.objects_root_user == CONTAINERS["objects"]["environment"]["MINIO_ROOT_USER"]
    assert named.mongo_root_user == CONTAINERS["mongodb"]["environment"]["MONGO_INITDB_ROOT_USERNAME"]
    assert named.objects_bucket == container("ingest")["environment"]["SARTOR_OBJECTS_BUCKET"]


def test_every_secret_is_made(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    used = {source for one in CONTAINERS.values() for source in given(one)}
    assert used == set(COMPOSE["secrets"])
    from_files = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values() if "file" in secret}
    assert from_files <= made
    assert {name for name, secret in COMPOSE["secrets"].items() if "environment" in secret} == {"alert_webhook_url"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_containers_can_read_their_secrets_and_nobody_else_can(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    write_secrets(folder, mode=0o444)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())
    write_secrets(folder, mode=0o444)


def test_secrets_stay_the_same(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_secrets(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

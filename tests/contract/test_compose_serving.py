"""Which address answers with which weights: each replica says its own, and says no other's."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from model_server.settings import Settings
from model_server.tgi_agent import AgentSettings
from tests.contract.compose import CONTAINERS, ROOT, dotenv, load, mounts

ANNOUNCERS = {"model-server": Settings, "tgi": AgentSettings}


@pytest.mark.parametrize("answers_for_bases", ["http://model-server:8000", "http://tgi:8080"])
def test_nobody_announces_the_address_of_another(answers_for_bases: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {}
    for name, settings in ANNOUNCERS.items():
        given = load(MODEL_SERVER_URL=answers_for_bases)["services"][name]["environment"]
        monkeypatch.setattr(socket, "gethostname", lambda name=name: f"container-of-{name}")
        said[name] = settings(
            model_server_url=given["SARTOR_MODEL_SERVER_URL"], replica_url=given["SARTOR_REPLICA_URL"]
        ).own_url
    assert said == {"model-server": "http://container-of-model-server:8000", "tgi": "http://container-of-tgi:8080"}


def test_a_replica_without_an_address_of_its_own_has_the_common_one() -> None:
    assert Settings(model_server_url="http://127.0.0.1:8109/").own_url == "http://127.0.0.1:8109"


def test_tgi_is_asked_where_it_listens_and_not_where_its_agent_does() -> None:
    given = CONTAINERS["tgi"]["environment"]
    agent = AgentSettings(tgi_port=given["SARTOR_TGI_PORT"], replica_url=given["SARTOR_REPLICA_URL"])
    assert urlsplit(agent.own_url).port == agent.tgi_port
    dockerfile = (ROOT / "infra/docker/tgi.Dockerfile").read_text()
    assert f"EXPOSE 8000 {agent.tgi_port}\n" in dockerfile
    assert "SARTOR_SERVICE_PORT=8000" in dockerfile


def test_the_addresses_named_in_the_example_exist() -> None:
    text = (ROOT / ".env.example").read_text()
    assert dotenv()["MODEL_SERVER_URL"] == "http://model-server:8000"
    assert f"http://tgi:{CONTAINERS['tgi']['environment']['SARTOR_TGI_PORT']} when the gpu profile runs" in text


def test_what_tgi_holds_is_one_replicas_own() -> None:
    tgi = CONTAINERS["tgi"]
    assert mounts(tgi)[tgi["environment"]["SARTOR_ADAPTERS_DIR"]] == "", "a named volume is shared by all replicas"


def test_tgi_runs_only_where_it_is_asked_for() -> None:
    assert CONTAINERS["tgi"]["profiles"] == ["gpu"]
    assert "profiles" not in CONTAINERS["model-server"]

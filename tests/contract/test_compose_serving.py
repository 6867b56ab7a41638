"""Which address answers with which weights: each replica says its own, and says no other's."""

from __future__ import annotations

import re
import socket
from urllib.parse import urlsplit

import pytest
import yaml

from model_server.settings import Settings
from serving_agent.settings import Settings as AgentSettings
from tests.contract.compose import CONTAINERS, ROOT, dotenv, load, mounts

ANNOUNCERS = {"model-server": Settings, "serving-agent": AgentSettings}


SCALED = {"MODEL_SERVER_REPLICA_URL": "http://{host}:8000", "TGI_REPLICA_URL": "http://{host}:8080"}


def addresses(hosts: dict[str, str], monkeypatch: pytest.MonkeyPatch, **given: str) -> dict[str, str]:
    """What each container says is its own address."""
    said = {}
    for name, settings in ANNOUNCERS.items():
        environment = load(**given)["services"][name]["environment"]
        monkeypatch.setattr(socket, "gethostname", lambda name=name: hosts[name])
        said[name] = settings(replica_url=environment["SARTOR_REPLICA_URL"]).own_url
    return said


def test_nobody_announces_the_address_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    said = addresses({"model-server": "a", "serving-agent": "b"}, monkeypatch)
    assert said == {"model-server": "http://model-server:8000", "serving-agent": "http://tgi:8080"}


def test_replicas_of_one_service_say_different_addresses_once_they_are_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    first = addresses({"model-server": "a", "serving-agent": "b"}, monkeypatch, **SCALED)
    second = addresses({"model-server": "c", "serving-agent": "d"}, monkeypatch, **SCALED)
    assert [*first.values(), *second.values()] == ["http://a:8000", "http://b:8080", "http://c:8000", "http://d:8080"]
    text = (ROOT / ".env.example").read_text()
    assert all(url in text for url in SCALED.values())


def test_a_replica_that_is_told_no_address_says_where_it_listens() -> None:
    server, agent = Settings(service_port=8109), AgentSettings()
    assert (server.own_url, server.own_id) == ("http://127.0.0.1:8109", "model-server@127.0.0.1:8109")
    assert (agent.own_url, agent.own_id) == ("http://127.0.0.1:8080", "tgi@127.0.0.1:8080")


def test_a_second_card_as_the_page_says_has_an_address_a_name_and_a_card_of_its_own() -> None:
    page = (ROOT / "docs/production.md").read_text()
    [told] = [block for block in re.findall(r"```yaml\n(.+?)```", page, re.DOTALL) if "device_ids" in block]
    assert told.count("!override [") == 1
    [(name, second)] = yaml.safe_load(told.replace("!override ", ""))["services"].items()
    first = CONTAINERS[second["extends"]["service"]]
    assert name not in CONTAINERS
    assert (ROOT / second["extends"]["file"]).exists()
    urls = [one["environment"]["SARTOR_REPLICA_URL"] for one in (first, second)]
    firsts, seconds = (AgentSettings(replica_url=url) for url in urls)
    assert firsts.own_id != seconds.own_id
    aliases = [set(one["networks"]["inner"]["aliases"]) for one in (first, second)]
    own = urlsplit(seconds.own_url).hostname
    assert own in aliases[1] - aliases[0]
    assert aliases[1] - {own} == aliases[0] | {second["extends"]["service"]}, "else Prometheus does not find it"
    cards = [one["deploy"]["resources"]["reservations"]["devices"] for one in (first, second)]
    assert [one["device_ids"] for [one] in cards] == [["0"], ["1"]]
    assert {**cards[0][0], "device_ids": []} == {**cards[1][0], "device_ids": []}


def test_tgi_is_asked_where_it_listens_and_not_where_its_agent_does() -> None:
    given = CONTAINERS["serving-agent"]["environment"]
    agent = AgentSettings(tgi_port=given["SARTOR_TGI_PORT"], replica_url=given["SARTOR_REPLICA_URL"])
    assert urlsplit(agent.own_url).port == agent.tgi_port
    dockerfile = (ROOT / "infra/docker/tgi.Dockerfile").read_text()
    assert f"EXPOSE 8000 {agent.tgi_port}\n" in dockerfile
    assert "SARTOR_SERVICE_PORT=8000" in dockerfile
    assert urlsplit(agent.own_url).hostname in CONTAINERS["serving-agent"]["networks"]["inner"]["aliases"]


def test_the_addresses_named_in_the_example_exist() -> None:
    text = (ROOT / ".env.example").read_text()
    assert (dotenv()["MODEL_SERVER_REPLICA_URL"], dotenv()["TGI_REPLICA_URL"]) == (
        CONTAINERS["model-server"]["environment"]["SARTOR_REPLICA_URL"],
        CONTAINERS["serving-agent"]["environment"]["SARTOR_REPLICA_URL"],
    )
    agent = CONTAINERS["serving-agent"]["environment"]
    assert urlsplit(dotenv()["TGI_REPLICA_URL"]).port == int(agent["SARTOR_TGI_PORT"])
    assert "http://serving-agent:8000 when the gpu profile runs" in text
    assert dotenv()["SERVING_AGENT_URL"] == CONTAINERS["console"]["environment"]["SARTOR_SERVING_AGENT_URL"] == ""


def test_what_tgi_holds_is_one_replicas_own() -> None:
    tgi = CONTAINERS["serving-agent"]
    assert mounts(tgi)[tgi["environment"]["SARTOR_ADAPTERS_DIR"]] == "", "a named volume is shared by all replicas"


def test_tgi_runs_only_where_it_is_asked_for() -> None:
    assert CONTAINERS["serving-agent"]["profiles"] == ["gpu"]
    assert "profiles" not in CONTAINERS["model-server"]

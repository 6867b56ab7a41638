"""What a replica says of itself where nobody told it."""

from __future__ import annotations

import socket

import pytest

from serving import ReplicaSettings


def test_a_replicas_address_is_where_it_listens_and_its_name_is_made_of_it() -> None:
    settings = ReplicaSettings(service_port=8109, model_server_url="http://everybody:1")
    assert (settings.own_url, settings.own_id) == ("http://127.0.0.1:8109", "replica@127.0.0.1:8109")


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_one_that_listens_everywhere_is_reached_by_its_host_name(
    everywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    assert ReplicaSettings(service_host=everywhere).own_url == "http://node-7:8000"
    given = ReplicaSettings(service_host=everywhere, replica_url="https://{host}.engines:443/", replica_id="a")
    assert (given.own_url, given.own_id) == ("https://node-7.engines:443", "a")

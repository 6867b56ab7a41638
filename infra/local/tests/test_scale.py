"""Several replicas of a service: what is asked for, and what the ingress does when one of them is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from localstack import LocalStack, StackError
from localstack.home import LOCAL_SERVICES, PORTS, Home
from localstack.ingress import caddyfile
from localstack.programs import services
from localstack.scale import MOST_REPLICAS, BadScale, balanced, base_servers, read_scale, replicas, service_of
from schemas.services import SERVICES
from testkit import eventually
from testkit.running import free_port


def test_a_scale_is_read_as_people_and_as_programs_write_services() -> None:
    assert read_scale("trainer=2, rag-indexer=3,inference_proxy=2") == {
        "trainer": 2,
        "rag_indexer": 3,
        "inference_proxy": 2,
    }
    assert read_scale("trainer=1") == read_scale("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo=2", "no service is called 'foo'; there are: inference-proxy, ingest,"),
        ("trainer=0", f"a number from 1 to {MOST_REPLICAS}"),
        ("trainer=-1", f"a number from 1 to {MOST_REPLICAS}"),
        (f"trainer={MOST_REPLICAS + 1}", f"a number from 1 to {MOST_REPLICAS}"),
        ("trainer=two", "for example trainer=2"),
        ("trainer", "for example trainer=2"),
        ("x", "no service is called 'x'"),
        ("trainer=2,trainer=3", "named twice"),
        ("model-server=2", "model-server runs once"),
        ("kafka=2", "no service is called 'kafka'"),
        ("serving-agent=2", "no service is called 'serving-agent'"),
    ],
)
def test_a_bad_scale_says_which_part_and_what_may_be_said(text: str, says: str) -> None:
    with pytest.raises(BadScale) as refused:
        read_scale(text)
    assert says in str(refused.value)
    assert repr(text.rsplit(",", maxsplit=1)[-1]) in str(refused.value)


def test_a_local_stack_runs_every_service_but_the_agent_of_an_engine_that_it_lacks(tmp_path: Path) -> None:
    assert set(SERVICES) - set(LOCAL_SERVICES) == {"serving_agent"}
    home = Home(tmp_path)
    home.prepare()
    stack = LocalStack(tmp_path)
    made = {program.name for program in stack._programs(home.choose_ports(usual=False))}
    assert made & set(SERVICES) == set(LOCAL_SERVICES)


def test_the_first_replica_keeps_the_usual_port_and_peers_ask_all_of_them(tmp_path: Path) -> None:
    home, scale = Home(tmp_path), {"trainer": 2}
    home.prepare()
    ports = home.choose_ports(("trainer-2", balanced("trainer")))
    assert len(set(ports.values())) == len(ports) == len(PORTS) + 2
    made = services(
        home, ports, ("ingest", "trainer"), models_dir=tmp_path, base_model="x", public_url="http://x", scale=scale
    )
    assert [program.name for program in made] == ["ingest", *replicas("trainer", scale)]
    assert [service_of(program.name) for program in made] == ["ingest", "trainer", "trainer"]
    assert [program.command[-1] for program in made] == ["ingest", "trainer", "trainer"]
    assert [program.port for program in made] == [ports["ingest"], ports["trainer"], ports["trainer-2"]]
    for program in made:
        told = program.environment
        assert told["SARTOR_SERVICE_PORT"] == str(program.port)
        assert told["SARTOR_TRAINER_URL"] == f"http://127.0.0.1:{ports['trainer-all']}"
        assert told["SARTOR_INGEST_URL"] == f"http://127.0.0.1:{ports['ingest']}"


def test_a_running_stack_is_not_given_another_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.prepare()
    home.save_state({"ports": PORTS, "scale": {"trainer": 2}})
    monkeypatch.setattr(LocalStack, "running", lambda _: True)
    with pytest.raises(StackError, match=r"other replicas \(trainer=2\); `sartor down` first"):
        LocalStack(tmp_path, services=(), scale={"ingest": 2}).up()


def test_each_further_base_has_a_model_server_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.prepare()
    ports = home.choose_ports(base_servers(["other"]), usual=False)
    named, facts = ("registry", "model_server"), {"models_dir": tmp_path, "public_url": "http://x", "scale": {}}
    made = services(home, ports, named, base_model="usual", more_bases=["other"], **facts)
    held = {program.name: program.environment["SARTOR_BASE_MODEL"] for program in made}
    assert held == {"registry": "usual", "model_server": "usual", "model_server-2": "other"}
    assert made[-1].environment["SARTOR_SERVICE_PORT"] == str(ports["model_server-2"])
    home.save_state({"ports": PORTS, "more_bases": ["other"]})
    monkeypatch.setattr(LocalStack, "running", lambda _: True)
    with pytest.raises(StackError, match=r"other further bases \(other\); `sartor down` first"):
        LocalStack(tmp_path, services=(), more_bases=["third"]).up()


def test_a_further_base_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no base model at .*third"):
        LocalStack(tmp_path, more_bases=["third"]).up()


class Replica(BaseHTTPRequestHandler):
    """Answers with its name, over a connection a request; one that is broken breaks the connection instead.

    It notes each request that reached it.
    """

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._answer()

    def _answer(self) -> None:
        self.server.reached.append(self.command)  # type: ignore[attr-defined]
        if self.server.broken:  # type: ignore[attr-defined]
            return
        body = self.server.name.encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


class Replicas:
    """Servers in the place of a service's replicas, behind an ingress."""

    def __init__(self, name: str, count: int) -> None:
        self.servers = []
        for number in range(1, count + 1):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
            server.daemon_threads = True
            server.name, server.broken = f"{name} {number}", False  # type: ignore[attr-defined]
            server.reached = []  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            self.servers.append(server)
        self.public = self.inner = ""

    def reached(self) -> list[str]:
        """The methods of the requests that reached any of them since this was last asked."""
        found = [method for server in self.servers for method in server.reached]  # type: ignore[attr-defined]
        for server in self.servers:
            server.reached.clear()  # type: ignore[attr-defined]
        return found

    def end(self, place: int) -> None:
        """As a killed process: nobody listens there."""
        self.servers[place].shutdown()
        self.servers[place].server_close()


@pytest.fixture
def scaled(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Replicas]:
    """Two of a service, unless the test says how many."""
    made = Replicas("trainer", getattr(request, "param", 2))
    scale = {"trainer": len(made.servers)}
    ports = {name: free_port() for name in (*PORTS, "trainer-all")}
    ports |= zip(replicas("trainer", scale), (server.server_port for server in made.servers), strict=True)
    (tmp_path / "Caddyfile").write_text(caddyfile(ports, scale))
    made.public = f"http://127.0.0.1:{ports['ingress']}/v1/fine_tuning/jobs"
    made.inner = f"http://127.0.0.1:{ports['trainer-all']}/internal/anything"
    caddy = subprocess.Popen(
        [
            str(Path(sys.executable).parent / "caddy"),
            *("run", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")),
        ],
        env={"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield made
    finally:
        caddy.terminate()
        caddy.wait()
        for server in made.servers:
            server.server_close()


async def _up(http: httpx2.AsyncClient, address: str) -> None:
    async def answers() -> bool:
        try:
            return (await http.get(address)).status_code == 200
        except httpx2.TransportError:
            return False

    await eventually(answers)


async def test_requests_are_shared_and_a_replica_that_is_gone_is_not_heard(scaled: Replicas) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        for address in (scaled.public, scaled.inner):
            await _up(http, address)
            shared = Counter([(await http.get(address)).text for _ in range(10)])
            assert shared == {"trainer 1": 5, "trainer 2": 5}
        scaled.end(0)
        for address in (scaled.public, scaled.inner):
            for method in ("GET", "POST"):
                found = [await http.request(method, address) for _ in range(6)]
                assert {answer.text for answer in found} == {"trainer 2"}, (method, address)


async def test_what_breaks_under_way_is_asked_again_where_that_changes_nothing(scaled: Replicas) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        await _up(http, scaled.public)
        scaled.servers[0].broken = True  # type: ignore[attr-defined]
        assert {(await http.get(scaled.public)).text for _ in range(6)} == {"trainer 2"}
        sent = [(await http.post(scaled.public, content=b"{}")).status_code for _ in range(6)]
        assert sorted(sent) == [200, 200, 200, 503, 503, 503]


@pytest.mark.parametrize("scaled", [4], indirect=True)
async def test_a_request_that_breaks_every_replica_breaks_two(scaled: Replicas) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        await _up(http, scaled.public)
        scaled.reached()
        scaled.end(0)
        for server in scaled.servers:
            server.broken = True  # type: ignore[attr-defined]
        for method, most in (("GET", 2), ("POST", 1)):
            for _ in range(4):
                assert (await http.request(method, scaled.public)).status_code == 503
                assert scaled.reached() == [method] * most
                with pytest.raises(httpx2.RemoteProtocolError):  # services ask again by themselves
                    await http.request(method, scaled.inner)
                assert scaled.reached() == [method]


async def test_a_request_that_is_answered_is_asked_once(scaled: Replicas) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        for address in (scaled.public, scaled.inner):
            await _up(http, address)
            scaled.reached()
            assert (await http.get(address)).status_code == 200
            assert scaled.reached() == ["GET"]


async def test_a_part_of_which_all_replicas_are_gone_says_so(scaled: Replicas) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        await _up(http, scaled.public)
        for place in (0, 1):
            scaled.end(place)
        answer = await http.get(scaled.public)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
        with pytest.raises(httpx2.RemoteProtocolError):  # as where there is one, which knows no answer of an ingress
            await http.get(scaled.inner)

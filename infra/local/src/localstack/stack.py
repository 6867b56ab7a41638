"""Starts, watches and stops a stack through supervisord, in order and with health checks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from chassis.settings import ServiceSettings
from localstack.home import LOCAL_SERVICES, Home
from localstack.ingress import caddyfile
from localstack.programs import Program, infrastructure, ingress, mongo_url, services
from localstack.readiness import is_ready, last_line, why_not_ready
from localstack.scale import balanced, base_servers, replicas
from localstack.supervision import supervisor_config
from stores.objects import Objects

READY_SECONDS = 120
SAY_AGAIN_SECONDS = 10
LONGEST_SOCKET_PATH = 100


class StackError(Exception):
    """The stack did not come up; the message says which part and where its log is."""


@dataclass(frozen=True)
class ProcessStatus:
    """One supervised process as it is now. `rss_bytes` and `cpu_percent` include its children."""

    name: str
    state: str
    pid: int
    port: int
    ready: bool
    rss_bytes: int
    cpu_percent: float
    uptime_seconds: int


class LocalStack:
    """One stack in one folder.

    Args:
        folder: its data; a second `up` in the same folder continues with it.
        services: which services to run; none for the bare infrastructure.
        scale: how many replicas of a service, by its name; one of each that is not named. None for as it runs already.
        base_model: id of the base model.
        more_bases: ids of further base models, each served by a model server of its own; None for as it runs already.
        models_dir: folder of converted base models; `models` in the data folder if None.
        environment: variables added to every service's.
        environment_of: variables added to one program's, by its name.
        usual_ports: whether to listen on the usual ports where they are free; tests do not, as several run at a time.
        durable_log: see `infrastructure`.
        say: called with a line of progress.
    """

    def __init__(
        self,
        folder: Path,
        *,
        services: tuple[str, ...] = LOCAL_SERVICES,
        scale: Mapping[str, int] | None = None,
        base_model: str = "gemma-3-270m",
        more_bases: Sequence[str] | None = None,
        models_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        environment_of: dict[str, dict[str, str]] | None = None,
        usual_ports: bool = True,
        durable_log: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = Home(folder)
        self._usual_ports = usual_ports
        self._durable_log = durable_log
        self._services = services
        self._scale = scale
        self._base_model = base_model
        self._more_bases = more_bases
        given = os.environ.get("SARTOR_MODELS_DIR")
        self.models_dir = models_dir or (Path(given) if given else self.home.folder / "models")
        self._environment = environment or {}
        self._environment_of = environment_of or {}
        self._say = say

    @property
    def base_url(self) -> str:
        """Address of the whole API, ending in `/v1`."""
        return f"http://127.0.0.1:{self.home.state['ports']['ingress']}/v1"

    @property
    def console_url(self) -> str:
        """Address of the console."""
        return f"http://127.0.0.1:{self.home.state['ports']['ingress']}/"

    def addresses(self) -> dict[str, str]:
        """Where the infrastructure answers, in the names of the services' settings."""
        ports = self.home.state["ports"]
        return {
            "kafka_bootstrap": f"127.0.0.1:{ports['kafka']}",
            "mongo_url": mongo_url(ports),
            "objects_endpoint": f"127.0.0.1:{ports['objects']}",
            "objects_access_key": "sartor",
            "objects_secret_key": self.home.secret("objects_secret_key"),
            "milvus_url": f"http://127.0.0.1:{ports['milvus']}",
        }

    def up(self) -> float:
        """Start everything and return when all of it is ready; nothing happens to what already runs.

        Returns:
            Seconds it took.

        Raises:
            StackError: a part did not become ready, or it runs already with other replicas.
        """
        began = time.monotonic()
        self.home.prepare()
        if self._services:
            self._ensure_base_model()
        if self.running():
            self._check_scale()
            programs = self._programs(self.home.state["ports"])
        else:
            scale, more_bases = dict(self._scale or {}), list(self._more_bases or ())
            further = [name for service in scale for name in (*replicas(service, scale)[1:], balanced(service))]
            further += base_servers(more_bases)
            ports = self.home.choose_ports(further, usual=self._usual_ports)
            self.home.save_state(
                {
                    "ports": ports,
                    "scale": scale,
                    "base_model": self._base_model,
                    "more_bases": more_bases,
                    "models_dir": str(self.models_dir),
                    "started": time.time(),
                }
            )
            programs = self._programs(ports)
            self._format_objects()
            self.home.path("Caddyfile").write_text(caddyfile(ports, scale))
            self._start_supervisor(programs)
        by_name = {program.name: program for program in programs}
        self._say(f"starting {len(programs)} programs")
        first = [by_name[name] for name in ("objects", "mongodb", "milvus")]
        self._start(first)
        self._wait([by_name["objects"], by_name["mongodb"]])
        asyncio.run(self._make_bucket("kafka"))
        for name in ("broker_storage", "kafka"):
            self._start([by_name[name]])
            self._wait([by_name[name]])
        rest = [program for program in programs if program.order >= 10]
        self._start(rest)
        self._wait([by_name["milvus"], *rest])
        return time.monotonic() - began

    def __enter__(self) -> Self:
        """Up; what had started by a failure is stopped again."""
        try:
            self.up()
        except BaseException:  # an interrupt leaves as much behind
            self.down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Down."""
        self.down()

    def down(self) -> None:
        """Stop everything, services first; the data stays."""
        pid = self._supervisor_pid()
        if pid is None:
            return
        self._rpc().supervisor.shutdown()
        try:
            psutil.Process(pid).wait(timeout=90)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired as error:
            raise StackError(f"the supervisor (pid {pid}) did not stop; see {self.home.logs}") from error

    def running(self) -> bool:
        """Whether this folder's supervisor is alive."""
        return self._supervisor_pid() is not None

    def status(self, *, sample_seconds: float = 0.5) -> list[ProcessStatus]:
        """Every process as it is now; CPU in percent of one core, over `sample_seconds`."""
        if not self.running():
            return []
        infos = self._rpc().supervisor.getAllProcessInfo()
        programs = {program.name: program for program in self._programs(self.home.state["ports"])}
        trees = {info["name"]: _tree(info["pid"]) for info in infos}
        for tree in trees.values():
            for process in tree:
                _quietly(process.cpu_percent)
        time.sleep(sample_seconds)
        # Before anybody is asked whether it is ready, which takes time of its own.
        cpu = {name: sum(_quietly(process.cpu_percent) for process in tree) for name, tree in trees.items()}
        return [
            ProcessStatus(
                name=info["name"],
                state=info["statename"].lower(),
                pid=info["pid"],
                port=programs[info["name"]].port,
                ready=info["statename"] == "RUNNING" and is_ready(programs[info["name"]]),
                rss_bytes=int(sum(_quietly(partial(_resident, process)) for process in trees[info["name"]])),
                cpu_percent=cpu[info["name"]],
                uptime_seconds=max(0, info["now"] - info["start"]) if info["pid"] else 0,
            )
            for info in infos
            if info["name"] in programs
        ]

    def _programs(self, ports: dict[str, int]) -> list[Program]:
        found = infrastructure(self.home, ports, durable_log=self._durable_log)
        if self._services:
            url = f"http://127.0.0.1:{ports['ingress']}"
            found += services(
                self.home,
                ports,
                self._services,
                models_dir=self.models_dir,
                base_model=self._base_model,
                public_url=url,
                scale=self.home.state.get("scale", {}),
                more_bases=self.home.state.get("more_bases", ()),
            )
            found.append(ingress(self.home, ports["ingress"]))
        return found

    def _check_scale(self) -> None:
        """Refuse other replicas and bases than run: ports and the ingress were made for these.

        Raises:
            StackError: it runs with others.
        """
        runs = self.home.state.get("scale", {})
        if self._scale is not None and dict(self._scale) != runs:
            many = ", ".join(f"{service}={number}" for service, number in runs.items()) or "one of each"
            raise StackError(f"the stack runs already, with other replicas ({many}); `sartor down` first")
        bases = self.home.state.get("more_bases", [])
        if self._more_bases is not None and list(self._more_bases) != bases:
            which = ", ".join(bases) or "none"
            raise StackError(f"the stack runs already, with other further bases ({which}); `sartor down` first")

    def _ensure_base_model(self) -> None:
        for base in self._more_bases or ():
            if not (self.models_dir / base / "base.json").exists():
                raise StackError(f"no base model at {self.models_dir / base}; put a folder with base.json there")
        if (self.models_dir / self._base_model / "base.json").exists():
            return
        if self._base_model != "gemma-3-270m":
            raise StackError(
                f"no base model at {self.models_dir / self._base_model}; put a folder with base.json there"
            )
        log = self.home.logs / "base_model.log"
        self._say(f"converting the base model into {self.models_dir}, once: about a minute (log: {log})")
        self.models_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "localstack.base_models", "gemma", str(self.models_dir)]
        began = time.monotonic()
        self._run("the base model could not be converted", command, log)
        self._say(f"the base model is converted ({time.monotonic() - began:.0f} s)")

    def _format_objects(self) -> None:
        database = self.home.path("objects.db")
        if database.exists():
            return
        command = [*infrastructure(self.home, self.home.state["ports"])[0].command[:1], "format", "--storage", "file"]
        command += ["--bucket", f"{self.home.path('objects')}/", f"sqlite3://{database}", "sartor"]
        self._run("the object store could not be formatted", command, self.home.logs / "objects_format.log")

    def _run(self, failed: str, command: list[str], log: Path) -> None:
        with log.open("wb") as file:
            done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise StackError(f"{failed}: {last_line(log)}; see {log}")

    async def _make_bucket(self, name: str) -> None:
        addresses = self.addresses()
        objects = Objects(
            ServiceSettings(
                objects_endpoint=addresses["objects_endpoint"],
                objects_secret_key=addresses["objects_secret_key"],  # type: ignore[arg-type]
                objects_bucket=name,
            ),
            workers=1,
        )
        await objects.prepare()
        objects.close()

    def _start_supervisor(self, programs: list[Program]) -> None:
        config = self.home.path("supervisord.conf")
        config.touch(mode=0o600)
        config.write_text(supervisor_config(self.home, self._socket(), programs, self._more_environment))
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        log = self.home.logs / "supervisord.log"
        self._run("the supervisor did not start", command, self.home.logs / "supervisord_start.log")
        deadline = time.monotonic() + 20
        while not self.running():
            if time.monotonic() > deadline:
                raise StackError(f"the supervisor was not up after 20 s: {last_line(log)}; see {log}")
            time.sleep(0.1)

    def _more_environment(self, program: Program) -> dict[str, str]:
        every = self._environment if program.ready == "/readyz" else {}
        return {**every, **self._environment_of.get(program.name, {})}

    def _socket(self) -> Path:
        """The supervisor's socket; beside the data unless that path is too long for a socket."""
        path = self.home.path("supervisor.sock")
        if len(str(path)) <= LONGEST_SOCKET_PATH:
            return path
        name = sha256(str(path).encode()).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"sartor-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{name}.sock"

    def _supervisor_pid(self) -> int | None:
        try:
            pid = int(self.home.path("supervisord.pid").read_text())
            alive = "supervisord" in " ".join(psutil.Process(pid).cmdline())
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return pid if alive else None

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket()}")
        return ServerProxy("http://127.0.0.1", transport=transport)

    def _start(self, programs: list[Program]) -> None:
        for program in programs:
            try:
                self._rpc().supervisor.startProcess(program.name, False)
            except Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    log = self.home.logs / f"{program.name}.log"
                    raise StackError(f"{program.name} could not be started ({fault.faultString}); see {log}") from fault

    def _wait(self, programs: list[Program]) -> None:
        began = time.monotonic()
        for program in programs:
            self._until_ready(program)
            self._say(f"{program.name} is ready ({time.monotonic() - began:.1f} s)")

    def _until_ready(self, program: Program) -> None:
        """Wait for a program, and say from time to time that it is waited for, and why.

        Raises:
            StackError: it was not ready in time.
        """
        began, log = time.monotonic(), self.home.logs / f"{program.name}.log"
        said = began
        while not is_ready(program):
            now = time.monotonic()
            if now - began > READY_SECONDS:
                why = f"{self._known_of(program)}; last line of its log: {last_line(log)}"
                raise StackError(f"{program.name} was not ready after {READY_SECONDS} s: {why}; see {log}")
            if now - said > SAY_AGAIN_SECONDS:
                said, waited = now, f"{now - began:.0f} s of at most {READY_SECONDS}"
                self._say(f"waiting for {program.name} ({waited}): {self._known_of(program)}; log: {log}")
            time.sleep(0.1)

    def _known_of(self, program: Program) -> str:
        state = self._rpc().supervisor.getProcessInfo(program.name)["statename"].lower()
        return "; ".join(filter(None, (f"process {state}", why_not_ready(program))))


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid) if pid else None
        return [process, *process.children(recursive=True)] if process else []
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> float:
    return float(process.memory_info().rss)


def _quietly(read: Callable[[], float]) -> float:
    try:
        return read()
    except psutil.Error:
        return 0.0

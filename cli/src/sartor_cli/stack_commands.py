"""Commands for the local stack: up, down, status, doctor, logs, demo, secrets."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from sartor_cli.client import CommandFailed, home_folder, operator_key, stderr, stdout
from sartor_cli.demo import Demo, DemoFailed
from sartor_cli.tables import human_size, show_rows

MIB = 1024 * 1024
SAMPLES = Path("infra/samples/support")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Scale = Annotated[
    str | None, typer.Option("--scale", help="Replicas of services: trainer=2,ingest=3. What is not named runs once.")
]

Bases = Annotated[
    list[str] | None,
    typer.Option("--base", help="A further base model of the models folder, with its own model server. Repeatable."),
]


class RotationStep(StrEnum):
    """The steps by which services get other keys to sign with."""

    ANNOUNCE = "announce"
    USE = "use"
    END = "end"


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status, doctor, logs, demo, secrets):
        app.command()(command)


def _stack(scale: str | None = None, **kwargs: Any) -> Any:
    """The stack of this folder, running or not; without a scale or further bases it stays as it runs."""
    try:
        from localstack import LocalStack
        from localstack.scale import BadScale, read_scale
    except ImportError as error:
        raise CommandFailed(f"the local stack is not installed ({error}); run `make venv`") from error
    try:
        wanted = None if scale is None else read_scale(scale)
    except BadScale as error:
        raise CommandFailed(f"--scale {error}") from error
    return LocalStack(home_folder(), scale=wanted, **kwargs)


def _up(scale: str | None, bases: list[str] | None = None, *, quiet: bool = False) -> tuple[Any, float]:
    from localstack import StackError

    def say(line: str) -> None:
        if not quiet:
            stderr.print(line, style="dim")

    stack = _stack(scale, more_bases=bases or None, say=say)
    say(f"starting the stack in {home_folder()}: about half a minute")
    try:
        return stack, stack.up()
    except StackError as error:
        raise CommandFailed(str(error)) from error


def up(scale: Scale = None, base: Bases = None, as_json: Json = False) -> None:
    """Start everything, some services several times if asked, and return when it is ready."""
    stack, seconds = _up(scale, base, quiet=as_json)
    addresses = {"base_url": stack.base_url, "console": stack.console_url, "operator_key": operator_key()}
    if as_json:
        typer.echo(json.dumps({**addresses, "seconds": round(seconds, 1)}))
        return
    stdout.print(f"ready in {seconds:.1f} s")
    stdout.print(f"console      {addresses['console']}")
    stdout.print(f"API          {addresses['base_url']}")
    stdout.print(f"operator key {addresses['operator_key']}")


def down(as_json: Json = False) -> None:
    """Stop everything; the data stays."""
    stack = _stack()
    ran = stack.running()
    stack.down()
    if as_json:
        typer.echo(json.dumps({"stopped": ran}))


def status(as_json: Json = False) -> None:
    """Show every process: state, memory, CPU."""
    stack = _stack()
    processes = stack.status(sample_seconds=2.0)
    if as_json:
        running = {"base_url": stack.base_url, "console": stack.console_url} if processes else {}
        typer.echo(json.dumps({**running, "processes": [asdict(process) for process in processes]}, indent=2))
        return
    if not processes:
        raise CommandFailed("the stack is not running; start it with `sartor up`")
    rows = [
        [
            process.name,
            process.state,
            "yes" if process.ready else "NO",
            str(process.pid),
            str(process.port),
            f"{process.rss_bytes / MIB:.0f}",
            f"{process.cpu_percent:.1f}",
            f"{process.uptime_seconds} s",
        ]
        for process in processes
    ]
    memory = sum(process.rss_bytes for process in processes) / MIB
    cpu = sum(process.cpu_percent for process in processes)
    rows.append(["total", "", "", "", "", f"{memory:.0f}", f"{cpu:.1f}", ""])
    columns = ("process", "state", "ready", "pid", "port", "MiB", "CPU %", "up")
    show_rows(columns, rows, numbers=("pid", "port", "MiB", "CPU %", "up"))
    stdout.print(f"API {stack.base_url}   console {stack.console_url}")


def doctor(as_json: Json = False) -> None:
    """Look for what is wrong, and say what to do about it."""
    checks = _checks()
    if as_json:
        rows = [{"check": what, "ok": good, "advice": None if good else advice} for what, good, advice in checks]
        typer.echo(json.dumps({"checks": rows}, indent=2))
    else:
        for what, good, advice in checks:
            stdout.print(
                f"{'ok  ' if good else 'BAD '} {what}" + ("" if good else f": {advice}"),
            )
    if problems := sum(not good for _, good, _ in checks):
        raise CommandFailed(f"{problems} of {len(checks)} checks are BAD; what to do stands beside each")


def _checks() -> list[tuple[str, bool, str]]:
    stack = _stack()
    free_disk = shutil.disk_usage(".").free
    free_memory = psutil.virtual_memory().available
    wrong = _wrong_versions(Path("requirements.lock"))
    found = [
        ("Python 3.11 or newer", sys.version_info >= (3, 11), "install it and set PYTHON= for make"),
        ("packages as in requirements.lock", not wrong, f"run `make venv`; differ: {', '.join(wrong[:5])}"),
        ("5 GiB of disk", free_disk > 5 * 1024 * MIB, f"only {human_size(free_disk)} are free here"),
        ("4 GiB of memory", free_memory > 4 * 1024 * MIB, f"only {human_size(free_memory)} are free"),
        ("base model converted", any(stack.models_dir.glob("*/base.json")), "it is made by `sartor up`"),
        ("stack running", stack.running(), "start it with `sartor up`"),
    ]
    if stack.running():
        for process in stack.status():
            log = home_folder() / "logs" / f"{process.name}.log"
            found.append(
                (f"{process.name} ready", process.ready, f"state {process.state}; {_last_error(log)} (see {log})")
            )
    return found


def _wrong_versions(lock: Path) -> list[str]:
    if not lock.exists():
        return []
    pins = dict(line.strip().split("==") for line in lock.read_text().splitlines() if "==" in line and line[0] != "#")
    wrong = []
    for name, pin in pins.items():
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        if installed != pin:
            wrong.append(f"{name} {installed}")
    return wrong


def _last_error(log: Path) -> str:
    if not log.exists():
        return "it has no log yet"
    lines = [line for line in log.read_text(errors="replace").splitlines()[-200:] if "rror" in line]
    return f"last error: {lines[-1][:300]}" if lines else "no error in its log"


def logs(
    service: Annotated[
        str | None, typer.Argument(help="One service with all its replicas, or one replica (trainer-2); all if none.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the newest lines.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Lines only, as the services wrote them: JSON.")] = False,
) -> None:
    """Print the newest lines of the services' logs."""
    found = [path for path in (home_folder() / "logs").glob("*.log") if _is_of(path.stem, service)]
    paths = sorted(found, key=lambda path: path.stem)
    if not paths:
        known = ", ".join(sorted(path.stem for path in (home_folder() / "logs").glob("*.log")))
        raise CommandFailed(
            f"no log of '{service or 'any service'}' in {home_folder() / 'logs'}; "
            + (f"there are: {known}" if known else "start the stack with `sartor up`")
        )
    command = ["tail", *(["-q"] if as_json else []), "-n", str(lines), *(["-F"] if follow else []), *map(str, paths)]
    try:
        subprocess.run(command, check=False)
    except KeyboardInterrupt:
        return


def _is_of(program: str, asked: str | None) -> bool:
    """Whether a program is what was asked for: itself, or the service it is a replica of."""
    if asked is None:
        return True
    service, dash, number = asked.rpartition("-")
    wanted = f"{service.replace('-', '_')}-{number}" if dash and number.isdigit() else asked.replace("-", "_")
    return program == wanted or re.sub(r"-[0-9]+$", "", program) == wanted


def demo(scale: Scale = None, as_json: Json = False) -> None:
    """The whole way: upload, automatic fine-tune, evaluation, promotion, chat."""
    if not SAMPLES.exists():
        raise CommandFailed(f"{SAMPLES} is not here; run the demo from the repository's folder")
    stack, seconds = _up(scale, quiet=as_json)
    stdout.quiet = as_json
    stdout.print(f"stack ready in {seconds:.1f} s")
    try:
        result = Demo(stack.base_url, operator_key(), SAMPLES, stdout).run()
    except DemoFailed as error:
        raise CommandFailed(f"{error}; logs: {home_folder() / 'logs'}") from error
    if as_json:
        typer.echo(json.dumps({**result, "up_seconds": round(seconds, 1)}, ensure_ascii=False, indent=2))
        return
    stdout.print("Chat with it:")
    command = f"sartor chat --api-key {result['api_key']} --model {result['model']} --system {result['system']!r}"
    stdout.print(command)
    stdout.print(f"Console: {stack.console_url}")


Step = Annotated[
    RotationStep | None,
    typer.Option("--rotate", help="A step of giving services other keys to sign with: announce, use, end, in turn."),
]


def secrets(folder: Path, rotate: Step = None, as_json: Json = False) -> None:
    """Make the secrets of an installation (for docker-compose.yml) in FOLDER; existing ones stay."""
    from localstack.home import OutOfTurn, rotate_token_keys, write_secrets

    write_secrets(folder, mode=0o444)
    if rotate is not None:
        try:
            rotate_token_keys(folder, rotate.value, mode=0o444)
        except OutOfTurn as error:
            raise CommandFailed(str(error)) from error
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "secrets": sorted(path.name for path in folder.iterdir())}))
        return
    stdout.print(f"{len(list(folder.iterdir()))} secrets in {folder}, which only you can enter")

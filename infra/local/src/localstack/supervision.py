"""The supervisor's configuration for the programs of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from localstack.home import Home
from localstack.programs import Program


def supervisor_config(
    home: Home, socket: Path, programs: Iterable[Program], more: Callable[[Program], Mapping[str, str]]
) -> str:
    """`supervisord.conf`.

    Args:
        home: of the stack.
        socket: where the supervisor is asked.
        programs: what it runs.
        more: variables added to a program's environment.
    """
    lines = [
        "[unix_http_server]",
        f"file={socket}",
        "chmod=0600",
        "[supervisord]",
        f"logfile={home.logs / 'supervisord.log'}",
        f"pidfile={home.path('supervisord.pid')}",
        f"directory={home.folder}",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs:
        environment = {**program.environment, **more(program)}
        values = ",".join(f'{name}="{value}"' for name, value in environment.items())
        command = " ".join(f'"{part}"' if " " in part else part for part in program.command)
        lines += [
            f"[program:{program.name}]",
            f"command={_escape(command)}",
            f"environment={_escape(values)}",
            f"priority={program.order}",
            f"stdout_logfile={home.logs / program.name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=2",
            "redirect_stderr=true",
            "autostart=false",
            "autorestart=true",
            "startsecs=1",
            "startretries=1000",
            "stopwaitsecs=25",
            "stopasgroup=false",
            "killasgroup=true",
        ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("%", "%%")

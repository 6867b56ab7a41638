"""Assembles the `sartor` command from its groups, and turns every expected failure into one clear line."""

from __future__ import annotations

import sys

import typer
from rich.text import Text

from sartor_cli import api_commands, stack_commands
from sartor_cli.client import CommandFailed, stderr

app = typer.Typer(
    help="Sartor: made-to-measure models.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
stack_commands.add_to(app)
api_commands.add_to(app)


def main() -> None:
    """Run the command line; exit status 0 for success, 1 for a failure, 2 for wrong usage."""
    try:
        app()
    except CommandFailed as error:
        line = " ".join(str(error).split())
        stderr.print(Text.assemble(("error: ", "red"), line))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

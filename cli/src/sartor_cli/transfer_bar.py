"""The bar that shows how much of a file has gone its way."""

from __future__ import annotations

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sartor_cli.client import stdout


def transfer_bar(*, quiet: bool) -> Progress:
    """A bar for a transfer; nobody sees it where nobody reads, or programs do (`quiet`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=stdout,
        disable=quiet or not stdout.is_terminal,
    )

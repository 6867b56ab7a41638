"""The API client of the command line: where the API is, whose key is used, and what went wrong in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx2
from rich.console import Console

stdout = Console(markup=False, highlight=False, soft_wrap=True)
stderr = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

LOCAL_URL = "http://127.0.0.1:8080/v1"


class CommandFailed(Exception):
    """Something a person can act on; printed as one line."""


def home_folder() -> Path:
    """The local stack's data folder: `SARTOR_HOME`, or `.sartor` in the working directory."""
    return Path(os.environ.get("SARTOR_HOME", ".sartor"))


def local_state() -> dict[str, Any]:
    """What the local stack's last start wrote; empty if there is none."""
    try:
        state: dict[str, Any] = json.loads((home_folder() / "state.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandFailed(
            f"{home_folder() / 'state.json'} cannot be read ({error}); run `sartor up` again"
        ) from error
    return state


class Client:
    """Calls the API as one key.

    Args:
        base_url: ending in `/v1`; else `SARTOR_BASE_URL`, the local stack's, or the usual local one.
        api_key: else `SARTOR_API_KEY`. `OPENAI_API_KEY` is not looked at: a key of OpenAI's must not be sent here.
        operator: use the local stack's operator key instead.
    """

    def __init__(self, *, base_url: str | None = None, api_key: str | None = None, operator: bool = False) -> None:
        ports = local_state().get("ports")
        local = f"http://127.0.0.1:{ports['ingress']}/v1" if ports else LOCAL_URL
        self.base_url = (base_url or os.environ.get("SARTOR_BASE_URL") or local).rstrip("/")
        key = api_key or os.environ.get("SARTOR_API_KEY")
        if operator:
            key = os.environ.get("SARTOR_OPERATOR_KEY") or operator_key()
        if not key:
            raise CommandFailed(
                "no API key: pass --api-key or set SARTOR_API_KEY (`sartor tenants create NAME` makes one)"
            )
        if not key.isascii() or not key.isprintable():
            raise CommandFailed("the API key holds characters that no key has; copy it again")
        self._http = httpx2.Client(headers={"authorization": f"Bearer {key}"}, timeout=600)

    def call(self, method: str, path: str, *ids: str, **kwargs: Any) -> Any:
        """One call; the decoded answer.

        Args:
            method: of HTTP.
            path: the address behind `/v1`, with `{}` where an id goes.
            ids: quoted into the path.
            kwargs: for the HTTP client.

        Raises:
            CommandFailed: the API refused or cannot be reached.
        """
        if not all(ids):
            raise CommandFailed("an id is empty; the `list` command of the same group shows them")
        try:
            address = self.base_url + path.format(*(quote(one, safe="") for one in ids))
            answer = self._http.request(method, address, **kwargs)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        if not answer.is_success:
            raise CommandFailed(explain(answer))
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise CommandFailed(
                f"{self.base_url} answered something else than JSON; --base-url is the API's address and ends in /v1"
            ) from error

    def download(self, path: str, *ids: str, to: BinaryIO, tell: Callable[[int, int | None], None]) -> None:
        """GET `path` and write what comes.

        Args:
            path: as of `call`.
            ids: quoted into the path.
            to: where to.
            tell: how many bytes came, and of how many in all where that is known.

        Raises:
            CommandFailed: the API refused, cannot be reached, or broke off.
        """
        address, begun = self.base_url + path.format(*(quote(one, safe="") for one in ids)), False
        try:
            with self._http.stream("GET", address) as answer:
                if not answer.is_success:
                    answer.read()
                    raise CommandFailed(explain(answer))
                begun, length = True, answer.headers.get("content-length")
                for piece in answer.iter_bytes():
                    tell(to.write(piece), int(length) if length else None)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if begun:
                raise CommandFailed(
                    f"the download broke off ({type(error).__name__}); nothing was kept; try again"
                ) from error
            raise self._unreachable(error) from error

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """POST and yield the chunks of a streamed answer.

        Raises:
            CommandFailed: the API refused, cannot be reached, or broke off.
        """
        try:
            with self._http.stream("POST", f"{self.base_url}{path}", json={**body, "stream": True}) as answer:
                if not answer.is_success:
                    answer.read()
                    raise CommandFailed(explain(answer))
                yield from _chunks(answer.iter_lines())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> CommandFailed:
        kind = type(error).__name__
        return CommandFailed(f"{self.base_url} cannot be reached ({kind}); is the stack up? (`sartor status`)")


def _chunks(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        data = line.removeprefix("data: ")
        if line.startswith("data: ") and data != "[DONE]":
            chunk = json.loads(data)
            if "error" in chunk:
                raise CommandFailed(chunk["error"]["message"])
            yield chunk


def explain(answer: httpx2.Response) -> str:
    """The API's own message, with the status and the request id to quote."""
    try:
        message = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text[:200]
    return f"{message} (HTTP {answer.status_code}, request {answer.headers.get('x-request-id', 'unknown')})"


def operator_key() -> str:
    """The operator credential the local stack made at its first start."""
    try:
        return (home_folder() / "secrets" / "operator_key").read_text().strip()
    except FileNotFoundError as error:
        raise CommandFailed(
            "no operator key: set SARTOR_OPERATOR_KEY, or start the local stack (`sartor up`)"
        ) from error

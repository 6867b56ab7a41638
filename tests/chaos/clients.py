"""A tenant's client under faults: it repeats what was not answered until it is, and writes down what it asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx2

from testkit.history import History

WORK_SECONDS = 600


class Violation(Exception):
    """Something promised did not hold."""


class Client:
    """A tenant's client that repeats what was not answered, with the same `Idempotency-Key`."""

    def __init__(self, base_url: str, api_key: str, history: History, name: str) -> None:
        self._http = httpx2.Client(
            base_url=base_url, headers={"authorization": f"Bearer {api_key}"}, timeout=30, trust_env=False
        )
        self._history = history
        self.name = name
        self._count = 0
        self._lock = threading.Lock()

    def call(
        self,
        method: str,
        path: str,
        *,
        gone: bool = False,
        accept: tuple[str, ...] = (),
        within: float = WORK_SECONDS,
        **kwargs: Any,
    ) -> Any:
        """The decoded answer.

        Args:
            method: of HTTP.
            path: below `/v1`.
            gone: 404 is as good as done: an attempt before did it.
            accept: codes of refusals that are an answer as well; they give None.
            within: seconds until it is given up.
            kwargs: for the HTTP client.
        """
        with self._lock:
            self._count += 1
            key = f"{self.name}-{self._count}"
        headers = {"idempotency-key": key} if method == "POST" else {}
        deadline = time.monotonic() + within
        while True:
            with self._history.operation(f"{method} {path}", tenant=self.name, key=key) as operation:
                answer = self._try(method, path, headers, kwargs)
                operation.ids["status"] = answer.status_code if answer is not None else None
                if answer is not None and answer.status_code == 500:
                    operation.ids["said"] = f"{answer.text[:300]} ({answer.headers.get('x-request-id')})"
            if answer is not None and (
                answer.is_success or _code(answer) in accept or (gone and answer.status_code == 404)
            ):
                return answer.json() if answer.content and answer.is_success else None
            known = answer is not None and answer.status_code < 500 and answer.status_code not in (409, 429)
            if known or time.monotonic() > deadline:
                said = "no answer" if answer is None else f"{answer.status_code} {answer.text[:200]}"
                raise Violation(f"{method} {path}: {said}")
            time.sleep(0.5)

    def _try(self, method: str, path: str, headers: dict[str, str], kwargs: Any) -> httpx2.Response | None:
        try:
            return self._http.request(method, path, headers=headers, **kwargs)
        except httpx2.TransportError:
            return None

    def pages(self, path: str) -> Iterator[Any]:
        """Everything in a list, page by page."""
        after = ""
        while True:
            page = self.call("GET", f"{path}?limit=100{after}")
            yield from page["data"]
            if not page["has_more"]:
                return
            after = f"&after={quote(page['data'][-1]['id'], safe='')}"

    def upload(self, name: str, body: bytes, purpose: str) -> str:
        made = self.call("POST", "files", files={"file": (name, body)}, data={"purpose": purpose})
        return str(made["id"])

    def until(self, what: str, probe: Callable[[], Any], *, within: float = WORK_SECONDS, every: float = 0.4) -> Any:
        """What the probe finds, once it does."""
        deadline = time.monotonic() + within
        while not (found := probe()):
            if time.monotonic() > deadline:
                raise Violation(f"not within {within:.0f} s: {what}")
            time.sleep(every)
        return found


def _code(answer: httpx2.Response) -> str | None:
    """The slug of a refusal."""
    if answer.status_code // 100 != 4:
        return None
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return None

"""Sends webhooks, and to nowhere inside: addresses are looked at after their names were resolved, and then kept."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from chassis.errors import Invalid
from event_gateway.domain import Endpoint, Outcome
from schemas import signed_headers

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses as IPv6 names them: https://www.rfc-editor.org/rfc/rfc6052."""

RESOLVE_SECONDS = 5.0
LONGEST_URL = 2000
GONE = 410


@dataclass(frozen=True)
class Target:
    """Where a webhook goes: the address that was looked at, and the host by whose name it is asked."""

    url: httpx2.URL
    host: str
    at: str


class WebhookSender:
    """Sends a webhook by one request, follows no redirect, and reads no answer but its status.

    Args:
        to_inside: whether addresses inside, and plain HTTP, are allowed.
        seconds: that one delivery may take.
    """

    def __init__(self, *, to_inside: bool, seconds: float) -> None:
        self._to_inside = to_inside
        self._seconds = seconds
        # No connection is used again: one that was made to a host would serve others at its address.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._http = httpx2.AsyncClient(timeout=seconds, follow_redirects=False, trust_env=False, limits=limits)

    async def close(self) -> None:
        """Close what is open."""
        await self._http.aclose()

    async def check(self, url: str) -> None:
        """See that a webhook may be sent there.

        Raises:
            Invalid: it is no address for webhooks, cannot be found, or lies inside.
        """
        await self._target(url)

    async def send(self, endpoint: Endpoint, webhook_id: str, body: str) -> Outcome:
        """Send it once."""
        at, content = int(time.time()), body.encode()
        secret, *former = endpoint.signing(at)
        headers = {"content-type": "application/json", "user-agent": "sartor-webhooks/1"}
        headers |= signed_headers(secret, webhook_id, at, content, *former)
        try:
            async with asyncio.timeout(self._seconds):
                target = await self._target(endpoint.url)
                headers["host"] = target.host
                extensions = {"sni_hostname": target.url.host}
                request = self._http.build_request(
                    "POST",
                    target.url.copy_with(host=target.at),
                    content=content,
                    headers=headers,
                    extensions=extensions,
                )
                response = await self._http.send(request, stream=True)
                await response.aclose()
        except Invalid as error:
            return Outcome(problem=error.message[:300])
        except (httpx2.HTTPError, TimeoutError) as error:
            return Outcome(problem=f"nobody answered ({type(error).__name__})")
        return _outcome(response)

    async def _target(self, url: str) -> Target:
        parts = _parsed(url)
        allowed = ("https", "http") if self._to_inside else ("https",)
        if parts.scheme not in allowed or not parts.host or parts.userinfo or parts.fragment:
            raise Invalid(
                f"url: an address of {' or '.join(allowed)} without a user and a fragment, at most {LONGEST_URL} "
                "characters.",
                param="url",
            )
        addresses = await _resolved(parts)
        if not self._to_inside and not all(map(is_outside, addresses)):
            raise Invalid("url: this host lies on an inside network, where no webhooks go.", param="url", code="inside")
        return Target(parts, urlsplit(url).netloc, str(addresses[0]))


def _parsed(url: str) -> httpx2.URL:
    try:
        return httpx2.URL(url if len(url) <= LONGEST_URL else "")
    except httpx2.InvalidURL as error:
        raise Invalid("url: is no address of the web.", param="url") from error


async def _resolved(url: httpx2.URL) -> list[Address]:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Invalid("url: this host cannot be found.", param="url", code="unknown_host") from error
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def is_outside(address: Address) -> bool:
    """Whether an address is one of the public network, also where it carries another inside."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_outside(carried)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _outcome(response: httpx2.Response) -> Outcome:
    status = response.status_code
    if response.is_success:
        return Outcome(status)
    if status == GONE:
        return Outcome(status, "answered 410: it wants no more", gone=True)
    if response.is_redirect:
        return Outcome(status, f"answered {status}; redirects are not followed")
    return Outcome(status, f"answered {status}")

"""Sends webhooks, and to nowhere inside: addresses are looked at after their names were resolved, and then kept."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from chassis.errors import Invalid
from chassis.ids import now
from event_gateway.domain import Endpoint, Outcome
from schemas import signed_headers

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses as IPv6 names them: https://www.rfc-editor.org/rfc/rfc6052."""

IPV6_PUBLIC = ipaddress.ip_network("2000::/3")
"""All that is given out of IPv6: https://www.iana.org/assignments/ipv6-address-space."""

NOT_PUBLIC = [
    ipaddress.ip_network(one)
    for one in (
        "168.63.129.16/32",  # Azure's services for its hosts
        "192.0.0.0/24",  # of protocols; holds the metadata of some clouds
        "192.88.99.0/24",  # the nearest 6to4 relay
        "3fff::/20",  # of documentation
    )
]
"""What `ipaddress` takes for public, and is not."""

RESOLVE_SECONDS = 5.0
LOOKUPS = 16
LOOKUPS_PER_TENANT = 4
LONGEST_URL = 2000
GONE = 410


@dataclass(frozen=True)
class Target:
    """Where a webhook goes: the address that was looked at, and the URL by whose host it is asked."""

    url: httpx2.URL
    at: str


class WebhookSender:
    """Sends a webhook by one request, follows no redirect, and reads no answer but its status.

    Args:
        to_inside: whether addresses inside, and plain HTTP, are allowed.
        seconds: that one delivery may take.
        transport: what sends requests; httpx's own where there is none.
    """

    def __init__(self, *, to_inside: bool, seconds: float, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._to_inside = to_inside
        self._seconds = seconds
        self._names = Names()
        # No connection is used again: one that was made to a host would serve others at its address.
        limits = httpx2.Limits(max_keepalive_connections=0)
        # No cookie is kept either: receivers of several tenants share an address.
        self._http = httpx2.AsyncClient(
            timeout=seconds,
            follow_redirects=False,
            trust_env=False,
            limits=limits,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
        )

    async def close(self) -> None:
        """Close what is open."""
        await self._http.aclose()
        self._names.close()

    async def check(self, tenant_id: str, url: str) -> None:
        """See that a webhook may be sent there.

        Raises:
            Invalid: it is no address for webhooks, cannot be found, or lies inside.
        """
        await self._target(tenant_id, url)

    async def send(self, endpoint: Endpoint, webhook_id: str, body: str) -> Outcome:
        """Send it once."""
        at, content = now(), body.encode()
        secret, *former = endpoint.signing(at)
        headers = {"content-type": "application/json", "user-agent": "sartor-webhooks/1"}
        headers |= signed_headers(secret, webhook_id, at, content, *former)
        try:
            async with asyncio.timeout(self._seconds):
                target = await self._target(endpoint.tenant_id, endpoint.url)
                headers["host"] = target.url.netloc.decode("ascii")
                extensions = {"sni_hostname": target.url.raw_host.decode("ascii")}
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

    async def _target(self, tenant_id: str, url: str) -> Target:
        parts = _parsed(url)
        allowed = ("https", "http") if self._to_inside else ("https",)
        if parts.scheme not in allowed or not parts.host or parts.userinfo or parts.fragment:
            raise Invalid(
                f"url: an address of {' or '.join(allowed)} without a user and a fragment, at most {LONGEST_URL} "
                "characters.",
                param="url",
            )
        addresses = await self._names.addresses(tenant_id, parts)
        if not self._to_inside and not all(map(is_outside, addresses)):
            raise Invalid("url: this host lies on an inside network, where no webhooks go.", param="url", code="inside")
        return Target(parts, str(addresses[0]))


class Names:
    """Looks up hosts, of each tenant some at a time: names that hang hold up nobody else's."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="names")
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(LOOKUPS_PER_TENANT))

    def close(self) -> None:
        """Look up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, tenant_id: str, url: httpx2.URL) -> list[Address]:
        """The addresses of a URL's host.

        Raises:
            Invalid: it cannot be found.
        """
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        places = self._places[tenant_id]
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                await places.acquire()
                loop = asyncio.get_running_loop()
                look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                lookup = loop.run_in_executor(self._threads, look_up)
                lookup.add_done_callback(lambda _: places.release())
                found = await asyncio.shield(lookup)  # who gives up leaves the thread where it is, and its place taken
        except (OSError, UnicodeError, TimeoutError) as error:
            raise Invalid("url: this host cannot be found.", param="url", code="unknown_host") from error
        return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _parsed(url: str) -> httpx2.URL:
    try:
        parts = httpx2.URL(url if len(url) <= LONGEST_URL else "")
    except httpx2.InvalidURL as error:
        raise Invalid("url: is no address of the web.", param="url") from error
    if parts.port is not None and not 0 < parts.port < 65_536:
        raise Invalid("url: ports are numbers from 1 to 65535.", param="url")
    return parts


def is_outside(address: Address) -> bool:
    """Whether an address is one of the public network, also where it carries another inside."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_outside(carried)
        if address not in IPV6_PUBLIC:
            return False
    if any(address in network for network in NOT_PUBLIC):
        return False
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

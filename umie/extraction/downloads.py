"""Images at URLs, if they are allowed: bounded, and by default only from public addresses."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from PIL import Image

import umie
from umie.errors import UmieError, check_choice, one_line
from umie.images import decode_image
from umie.records import Record

URLS = ("refuse", "public", "any")
MAX_BYTES = 20_000_000
MAX_SECONDS = 30.0
MAX_REDIRECTS = 3
_WAIT_S = 10.0  # for a connection, and for each part of an answer
_THREADS = 8
_CHUNK = 1 << 16
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class NotDownloaded(Image.Image):
    """Takes the place of an image that could not be downloaded: whoever opens it gets the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    @property
    def size(self) -> tuple[int, int]:
        """Raise UmieError with the reason."""
        raise UmieError(self.reason)


def is_url(source: object) -> bool:
    """Return whether a source of an image is the address of one on the web."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def downloaded(records: Sequence[Record], urls: str) -> list[Record]:
    """Return records whose images at URLs are in memory; each URL is asked once, several at the same time.

    An image that cannot be downloaded is a ``NotDownloaded``, so that it is treated as one that cannot be read.

    Args:
        records: the records.
        urls: one of ``URLS``: ``public`` refuses addresses of private networks and of this machine, also after
            redirects; ``any`` does not.
    """
    check_choice("urls", urls, URLS)
    wanted = list(dict.fromkeys(one for record in records for one in record.images if is_url(one)))
    if not wanted:
        return list(records)
    with ThreadPoolExecutor(min(_THREADS, len(wanted))) as pool:
        found = dict(zip(wanted, pool.map(lambda url: _attempt(str(url), urls), wanted), strict=True))
    return [
        replace(record, image=images[0], more_images=tuple(images[1:]))
        if (images := [found.get(one, one) if is_url(one) else one for one in record.images]) and record.images
        else record
        for record in records
    ]


def download_image(url: str, urls: str = "public") -> Image.Image:
    """Return the image at a URL, of at most 20 MB and within 30 seconds after its server is connected.

    Raises:
        UmieError: it cannot be reached or read, or its address is not allowed.
    """
    return decode_image(_content(url, urls), url)


def _attempt(url: str, urls: str) -> bytes | NotDownloaded:
    """Return the content of an image, which is decoded where it is used, so that many take little memory."""
    try:
        return _content(url, urls)
    except UmieError as error:
        return NotDownloaded(str(error))


def _content(url: str, urls: str) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        try:
            found = _answer(url, urls)
        except UmieError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:  # also a URL that is none
            raise UmieError(f"{url}: cannot be downloaded ({one_line(error) or type(error).__name__})") from error
        if isinstance(found, bytes):
            return found
        url = found
    raise UmieError(f"{url}: more than {MAX_REDIRECTS} redirects")


def _answer(url: str, urls: str) -> bytes | str:
    """Return the content at a URL, or the URL that it leads to."""
    parts = urlsplit(url)
    if not is_url(url) or not parts.hostname:
        raise UmieError(f"{url}: not an address of an image on the web")
    connection = _connected(parts, urls)
    opened, is_late = connection.sock, threading.Event()

    def stop() -> None:
        is_late.set()
        with suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)  # ends whatever waits for the server, also for its headers

    timer = threading.Timer(MAX_SECONDS, stop)
    timer.start()
    try:
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~?')}" if parts.query else ""
        agent = {"User-Agent": f"umie/{umie.__version__}", "Accept": "image/*"}
        connection.request("GET", f"{path}{query}", headers=agent)
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308) and answer.getheader("Location"):
            return urljoin(url, str(answer.getheader("Location")))
        if answer.status != 200:
            raise UmieError(f"{url}: the server answered {answer.status}")
        data = bytearray()
        while chunk := answer.read1(_CHUNK):
            data += chunk
            if len(data) > MAX_BYTES:
                raise UmieError(f"{url}: more than {MAX_BYTES / 1e6:.0f} MB")
        if not is_late.is_set():
            return bytes(data)
    except (OSError, ValueError, http.client.HTTPException):
        if not is_late.is_set():
            raise
    finally:
        timer.cancel()
        connection.close()
    raise UmieError(f"{url}: not complete after {MAX_SECONDS:.0f} s")


def _connected(parts: SplitResult, urls: str) -> http.client.HTTPConnection:
    """Return a connection to an address that was checked: a name could lead elsewhere the next time."""
    host, is_secure = str(parts.hostname), parts.scheme.lower() == "https"
    port = parts.port or (443 if is_secure else 80)
    problem: object = "no address"
    for family, *_, address in _resolved(host, port):
        if urls != "any" and not _is_public(str(address[0])):
            raise UmieError(f"{host}: an address of a private network, which only urls='any' allows")
        try:
            opened = socket.socket(family, socket.SOCK_STREAM)
            opened.settimeout(_WAIT_S)
            opened.connect(address)
            if is_secure:
                opened = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
        except OSError as error:
            opened.close()
            problem = error
            continue
        kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
        connection = kind(host, port, timeout=_WAIT_S)
        connection.sock = opened
        return connection
    raise UmieError(f"{host}: cannot be reached ({one_line(problem)})")


def _resolved(host: str, port: int) -> list[Any]:
    """Return the addresses of a host; a server of names that does not answer is not waited for."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    if not found or isinstance(found[0], Exception):
        reason = one_line(found[0]) if found else f"its name was not found within {_WAIT_S:.0f} s"
        raise UmieError(f"{host}: cannot be reached ({reason})")
    addresses: list[Any] = found[0]
    return addresses


def _is_public(address: str) -> bool:
    """Return whether an address is public, also one of version 4 inside one of version 6."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast

"""Images at URLs, if they are allowed: bounded, and by default only from public addresses."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import SplitResult, urljoin, urlsplit

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


class NotDownloaded(Image.Image):
    """Stands for an image that could not be downloaded: whoever opens it gets the reason."""

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
    """Return the image at a URL, of at most 20 MB and within 30 seconds.

    Raises:
        UmieError: it cannot be reached or read, or its address is not allowed.
    """
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        if not is_url(url) or not parts.hostname:
            raise UmieError(f"{url}: not an address of an image on the web")
        connection = _connected(parts, urls)
        try:
            path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            connection.request("GET", path, headers={"User-Agent": f"umie/{umie.__version__}", "Accept": "image/*"})
            answer = connection.getresponse()
            if answer.status in (301, 302, 303, 307, 308) and answer.getheader("Location"):
                url = urljoin(url, str(answer.getheader("Location")))
                continue
            if answer.status != 200:
                raise UmieError(f"{url}: the server answered {answer.status}")
            data = bytearray()
            while chunk := answer.read1(_CHUNK):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise UmieError(f"{url}: more than {MAX_BYTES / 1e6:.0f} MB")
                if time.monotonic() > deadline:
                    raise UmieError(f"{url}: not complete after {MAX_SECONDS:.0f} s")
            return decode_image(bytes(data), url)
        except (OSError, http.client.HTTPException) as error:
            raise UmieError(f"{url}: cannot be downloaded ({one_line(error) or type(error).__name__})") from error
        finally:
            connection.close()
    raise UmieError(f"{url}: more than {MAX_REDIRECTS} redirects")


def _attempt(url: str, urls: str) -> Image.Image:
    try:
        return download_image(url, urls)
    except UmieError as error:
        return NotDownloaded(str(error))


def _connected(parts: SplitResult, urls: str) -> http.client.HTTPConnection:
    """Return a connection to the address that was checked: a name could lead elsewhere the next time."""
    host, is_secure = str(parts.hostname), parts.scheme.lower() == "https"
    try:
        port = parts.port or (443 if is_secure else 80)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
        if urls != "any" and not all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_global for one in found):
            raise UmieError(f"{host}: an address of a private network, which only urls='any' allows")
        opened = socket.create_connection((address, port), _WAIT_S)
        if is_secure:
            opened = ssl.create_default_context().wrap_socket(opened, server_hostname=host)
    except (OSError, ValueError) as error:
        if isinstance(error, UmieError):
            raise
        raise UmieError(f"{host}: cannot be reached ({one_line(error)})") from error
    connection = http.client.HTTPConnection(host, port, timeout=_WAIT_S)
    connection.sock = opened
    return connection

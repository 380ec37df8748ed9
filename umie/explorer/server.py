"""The server of the page: on this machine by default, and closed to everything else."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from umie.errors import UmieError, import_extra, one_line
from umie.explorer.cards import template
from umie.explorer.explorer import Explorer
from umie.explorer.page import Page

MAX_WAITING = 100  # requests in the queue
MAX_PAGES = 100  # whose answers are kept
# the browser loads nothing from elsewhere, whatever Gradio's code asks for; that code evaluates templates
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; frame-ancestors 'self'"
)


@contextmanager
def served(explorer: Explorer, folder: Path, host: str = "127.0.0.1", port: int = 7860) -> Iterator[str]:
    """Serve the page inside the block, and yield its address.

    Args:
        explorer: the variants and examples.
        folder: an existing directory for uploads; they are not removed here.
        host: the address to listen on.
        port: the port.

    Raises:
        UmieError: gradio is not installed, or nothing can listen on the port.
    """
    with gradio_in(folder):
        check_port(host, port)
        # in a running event loop, Gradio makes no loops of its own, which it would not close
        page, address = asyncio.run(_started(explorer, host, port))
        try:
            yield address
        finally:
            page.close(verbose=False)


@contextmanager
def gradio_in(folder: Path) -> Iterator[None]:
    """Import Gradio with the settings for the page, which hold inside the block.

    Args:
        folder: an existing directory for uploads and whatever else Gradio writes.

    Raises:
        UmieError: gradio is not installed.
    """
    never = str(2**31)  # after so many events, Gradio computes statistics about them
    settings = {"GRADIO_TEMP_DIR": str(folder / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    with _environment(**settings, GRADIO_ANALYTICS_CACHE_FREQUENCY=never):
        import_extra("gradio", "web", "umie explore")  # it reads some of them now
        yield


async def _started(explorer: Explorer, host: str, port: int) -> tuple[Any, str]:
    """Return the page, served by a thread, and its address."""
    gr = import_extra("gradio", "web", "umie explore")
    page = Page(explorer).blocks.queue(default_concurrency_limit=4, max_size=MAX_WAITING)
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        inline=False,
        share=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        footer_links=[],
        max_file_size=int(explorer.max_mb * 2**20),
        state_session_capacity=MAX_PAGES,
        theme=gr.themes.Default(primary_hue="blue", neutral_hue="slate", **fonts),
        head=f"<style>{template('page.css')}</style><script>{template('page.js')}</script>",
        app_kwargs={"middleware": _middleware(host), "openapi_url": None},
    )
    return page, address


def check_port(host: str, port: int) -> None:
    """Raise UmieError if nothing can listen on a port of a host."""
    name = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        socket.create_server((name, port), family=family).close()
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UmieError(f"nothing can listen on {host}:{port} ({reason}): use another host or port") from error


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _middleware(host: str) -> list[Any]:
    part = import_extra("starlette.middleware", "web", "umie explore").Middleware
    found = [part(_WithPolicy)]
    if is_loopback(host):  # another site whose name leads to this machine gets no answer
        trusted = import_extra("starlette.middleware.trustedhost", "web", "umie explore").TrustedHostMiddleware
        found.append(part(trusted, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host]))
    return found


class _WithPolicy:
    """An ASGI app whose answers have the content security policy."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

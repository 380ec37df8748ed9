"""Serving an app with uvicorn: connections, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from umie.errors import UmieError
from umie.serving.batching import Batcher

_EXIT_S = 2  # after the last answer


class _Protocol(H11Protocol):
    """A connection, which is closed if the headers of a request do not arrive in time."""

    headers_s = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stop()  # from here on, the time to the first byte is that of keep-alive

    def _wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # the request is being answered
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.headers_s, self.timeout_keep_alive_handler)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_400_response(self, msg: str) -> None:
        content = json.dumps({"error": msg}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=content), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """A server for which a signal is a request to end, which is not raised again at the end."""

    def __init__(self, config: uvicorn.Config, batcher: Batcher, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._batcher, self._on_ready = batcher, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._batcher.drain()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address, which does not listen yet; port 0 is any that is free.

    Raises:
        UmieError: the address is unknown or in use.
    """
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        reason = f"{error.strerror}; use another --host or --port"
        raise UmieError(f"cannot listen at {host} port {port}: {reason}") from error
    return bound


def serve(app: FastAPI, batcher: Batcher, bound: socket.socket, on_ready: Callable[[], None] = lambda: None) -> None:
    """Answer requests until the process gets SIGTERM or SIGINT, then those that have been accepted, and return.

    Args:
        app: the app of the batcher.
        batcher: the batcher, which is closed at the end.
        bound: where to listen; see ``bind``.
        on_ready: called when requests are accepted.
    """
    timeout_s = batcher.limits.timeout_s

    class Protocol(_Protocol):
        headers_s = timeout_s

    options: dict[str, Any] = {"loop": "asyncio", "http": Protocol, "ws": "none", "lifespan": "off"}
    config = uvicorn.Config(
        app,
        **options,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(timeout_s) + 1,
    )
    _Server(config, batcher, on_ready).run([bound])
    if not batcher.close(_EXIT_S):
        # it works for clients that have stopped waiting; a thread within torch cannot be ended in an orderly way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

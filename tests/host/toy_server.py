# SPDX-License-Identifier: GPL-2.0-only
"""A web server on the loopback that misbehaves as told."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class ToyServer:
    """What it serves: path -> bytes; ``status`` answers a path with an error.

    ``breaks`` cuts the connection after so many bytes, once per entry;
    ``ranges`` off makes it send all of a file always, ``lengths`` off say no size.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    lengths: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    toy: ToyServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.toy.asked.append((self.path, wanted))
        data = self.toy.files.get(self.path)
        status = self.toy.status.get(self.path, 200 if data is not None else 404)
        if data is None or status != 200:
            self._head(status, 0)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.toy.ranges else 0
        if start and start >= len(data):
            self._head(416, 0)
            return
        more = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._head(206 if start else 200, len(data) - start, more)
        if self.toy.breaks:
            self.wfile.write(data[start : start + self.toy.breaks.pop(0)])
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data[start:])

    def _head(self, status: int, length: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if self.toy.lengths:
            self.send_header("Content-Length", str(length))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        for key, value in (more or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing: a client may go when it has seen enough."""


@contextlib.contextmanager
def serving() -> Iterator[ToyServer]:
    toy = ToyServer()
    handler = type("Handler", (_Handler,), {"toy": toy})
    with _Server(("127.0.0.1", 0), handler) as server:
        toy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield toy
        finally:
            server.shutdown()
            thread.join()

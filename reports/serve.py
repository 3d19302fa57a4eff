"""A server that shows runs to this machine only."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import threading
from collections.abc import Sequence
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

Request = socket.socket | tuple[bytes, socket.socket]
CLIENTS = 32  # answered at once
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
PATIENCE = 30.0  # seconds that one may take to say what it wants, or to take it
# A page may run what it carries itself; it reaches nothing, and sees none of its neighbours.
POLICY = (
    "default-src 'none'; img-src data: 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; sandbox allow-scripts allow-popups"
)


def server(paths: Sequence[Path], port: int) -> ThreadingHTTPServer:
    """A server of runs on 127.0.0.1, not started yet: an index, and every run's folder below its number.

    Parameters
    ----------
    paths : sequence of Path
        The runs' folders.
    port : int

    Returns
    -------
    http.server.ThreadingHTTPServer
    """
    folders = [path.resolve() for path in paths]
    return _Server(("127.0.0.1", port), partial(_Handler, folders))


class _Server(ThreadingHTTPServer):
    """Answers so many at once; whoever comes beyond that is told so and sent away."""

    daemon_threads = True

    def __init__(self, *others: object) -> None:
        self.free = threading.BoundedSemaphore(CLIENTS)
        super().__init__(*others)  # type: ignore[arg-type]

    def process_request(self, request: Request, client_address: object) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            if isinstance(request, socket.socket):
                request.sendall(BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()


class _Handler(SimpleHTTPRequestHandler):
    """Files of the runs' folders and an index of them; nothing else, and no listing."""

    timeout = PATIENCE

    def __init__(self, folders: Sequence[Path], *others: object) -> None:
        self.folders = folders
        super().__init__(*others)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in ("127.0.0.1", "localhost"):
            self.send_error(403)  # another site's name that leads here
            return
        file = self._file()
        if urlsplit(self.path).path == "/":
            index = _index(self.folders).encode()
            self._answer(io.BytesIO(index), len(index), "text/html; charset=utf-8")
        elif file is None:
            self.send_error(404)
        else:
            try:
                opened = file.open("rb")
            except OSError:
                self.send_error(404)
                return
            with opened:
                self._answer(opened, file.stat().st_size, self.guess_type(str(file)))

    do_HEAD = do_GET

    def _file(self) -> Path | None:
        """The file that a path means, links followed; None where it leaves its run's folder."""
        number, _, rest = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        known = number.isascii() and number.isdecimal() and len(number) < 10
        if not known or int(number) >= len(self.folders) or "\0" in rest:
            return None
        home = self.folders[int(number)]
        try:
            file = (home / (rest or "report.html")).resolve()
            return file if file.is_relative_to(home) and file.is_file() else None
        except (OSError, RuntimeError, ValueError):  # a name that is too long, a link to itself
            return None

    def _answer(self, content: BinaryIO, size: int, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        if self.command != "HEAD":
            shutil.copyfileobj(content, self.wfile)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: who serves to himself needs no log."""


def _index(folders: Sequence[Path]) -> str:
    rows = "".join(
        f'<li><a href="/{number}/report.html">{escape(path.name)}</a></li>'
        for number, path in enumerate(folders)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>robust runs</title>'
        '<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}'
        "body{font:16px/1.6 system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}</style>"
        f"<h1>Runs</h1><ul>{rows}</ul></html>"
    )

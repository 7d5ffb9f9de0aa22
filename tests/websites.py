"""Web servers on loopback, as well and as badly behaved as those on the web."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Page:
    """What a server has at one path."""

    content: bytes
    tag: str | None = '"t1"'
    modified: str | None = "Mon, 01 Jan 2024 00:00:00 GMT"
    length: bool = True
    head: int = 200
    failures: int = 0
    missing: int = 0  # bytes at the end of the content that never come
    location: str = ""  # where it redirects to
    asked: list[str] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)  # the client's port of each request


@contextlib.contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[str]:
    """Let a server answer, and yield its address."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            host, port = server.server_address[:2]
            yield f"http://{host!s}:{port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def speaking(words: bytes) -> Iterator[str]:
    """Yield the address of a server that says these words to all who ask, whatever they ask, and hangs up."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(words)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


@contextlib.contextmanager
def web(pages: dict[str, Page], host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve pages by path (with its query) and yield the address of the server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, page: Page | None, body: bool) -> None:
            if page:
                page.asked.append(self.command)
                page.peers.append(self.client_address[1])
            if page is None or (not body and page.head != 200) or page.failures:
                status = 404 if page is None else 503 if page.failures else page.head
                if page and page.failures:
                    page.failures -= 1
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if page.location:
                self.send_response(302)
                self.send_header("Location", page.location)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            partial = page.length and self.headers.get("Range") == "bytes=0-0"
            content = page.content[:1] if partial else page.content
            self.send_response(206 if partial else 200)
            if partial:
                self.send_header("Content-Range", f"bytes 0-0/{len(page.content)}")
            if page.length:
                self.send_header("Content-Length", str(len(content)))
            else:
                self.send_header("Connection", "close")
            if page.tag:
                self.send_header("ETag", page.tag)
            if page.modified:
                self.send_header("Last-Modified", page.modified)
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) - page.missing])
            self.close_connection = self.close_connection or not page.length or page.missing > 0

        def do_GET(self) -> None:
            self.answer(pages.get(self.path), True)

        def do_HEAD(self) -> None:
            self.answer(pages.get(self.path), False)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    with serving(Server((host, port), Handler)) as address:
        yield address

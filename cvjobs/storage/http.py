"""Files on web servers: length, version and bytes over http and https, through one pool of connections.

Every connection, also after a redirect, is to an address that was checked (``addresses``), and no error repeats what a
server said.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse

from cvjobs.storage.addresses import AddressRules, Barred
from cvjobs.storage.refusal import Refused
from cvjobs.storage.storage_options import Options

WEB = frozenset({"http", "https"})
LONGEST = 256 << 20  # bytes; what is longer is not read to its end
CONNECTIONS = 32
BACKOFF = 0.2  # seconds before the second try, doubled before each other one
BLOCK = 1 << 20
_NO_HEAD = frozenset({400, 403, 405, 501})
_DENIED = frozenset({401, 403, 407})
_GONE = frozenset({404, 410})
# Errors that speak of the connection alone.
_OWN_WORDS = (
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ResponseError,
    urllib3.exceptions.SSLError,
    urllib3.exceptions.ProxyError,
)
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})

# Length in bytes, time stamp in ns (0 where unknown) and ETag (empty where there is none).
Answer = tuple[int, int, str]


class Web:
    """The web as a process sees it; used by many threads at once. Errors are those of files."""

    def __init__(self, options: Options, rules: AddressRules | None = None) -> None:
        self._options, self._rules = options, rules or AddressRules()
        self._pools: dict[str, urllib3.PoolManager] = {}

    def look(self, uri: str) -> Answer:
        """Ask for a file's length and version: by HEAD, else by the first byte; what has no length is read."""
        with _as_files():
            response = self._ask("HEAD", uri)
            response.drain_conn()  # of nothing, which gives the connection back
            if response.status in _NO_HEAD or (response.status < 300 and _length(response) is None):
                response = self._ask("GET", uri, Range="bytes=0-0")
                length = _length(response)
                if response.status < 300 and length is None:
                    length = sum(len(block) for block in response.stream(BLOCK, decode_content=False))
                response.close()
            else:
                length = _length(response)
            _refuse(response)
            return length or 0, _modified(response), _tag(response)

    def read(self, uri: str) -> tuple[bytes, Answer]:
        """Return a file's bytes, and what ``look`` returns as it is now."""
        with _as_files():
            response = self._ask("GET", uri)
            try:
                _refuse(response)
                content = response.read(LONGEST + 1, decode_content=False)
                if len(content) <= LONGEST:
                    response.read(1)  # raises where the connection was cut off before the end
            finally:
                response.drain_conn() if response.status >= 300 else response.close()  # one that was read stays open
            return content, (len(content), _modified(response), _tag(response))

    def _ask(self, method: str, uri: str, **headers: str) -> BaseHTTPResponse:
        return self._pool(uri).request(method, uri, headers=headers, preload_content=False)

    def _pool(self, uri: str) -> urllib3.PoolManager:
        parts = urllib.parse.urlsplit(uri)
        proxy = self._options.get("proxy_url") or urllib.request.getproxies().get(parts.scheme, "")
        if urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = ""
        if proxy not in self._pools:
            retries = urllib3.Retry(
                total=5,
                redirect=10,
                backoff_factor=BACKOFF,
                backoff_max=5,
                status_forcelist=_AGAIN,
                raise_on_status=False,
            )
            shared: dict[str, Any] = {
                "num_pools": 64,
                "maxsize": CONNECTIONS,
                "retries": retries,
                "timeout": urllib3.Timeout(connect=5, read=15),
            }
            made = _manager(self._rules, proxy, shared)
            return self._pools.setdefault(proxy, made)  # another thread may have made one just now
        return self._pools[proxy]


def host_of(uri: str) -> str:
    """Return the host that a URL names, empty where it names none."""
    try:
        return urllib.parse.urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _manager(rules: AddressRules, proxy: str, shared: dict[str, Any]) -> urllib3.PoolManager:
    """Return a client that connects by these rules; to a proxy always, which is told where to only by them."""

    class Plain(_Checked, HTTPConnection):
        """A connection to a checked address."""

    class Secure(_Checked, HTTPSConnection):
        """The same, with TLS."""

    Plain.rules = Secure.rules = rules
    made = _ThroughProxy(rules, proxy, **shared) if proxy else urllib3.PoolManager(**shared)
    made.pool_classes_by_scheme = {
        "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": Plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure}),
    }
    return made


class _Checked(HTTPConnection):
    """Connects to the very addresses that were checked, so that the name cannot mean others a moment later."""

    rules: ClassVar[AddressRules]

    def _new_conn(self) -> socket.socket:
        if self.proxy:
            return super()._new_conn()
        name = self._dns_host
        try:
            addresses = self.rules.allowed(name, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(name, self, error) from error
        try:
            for address in addresses[:-1]:
                self._dns_host = address
                with suppress(NewConnectionError, ConnectTimeoutError):
                    return super()._new_conn()
            self._dns_host = addresses[-1]
            return super()._new_conn()
        finally:
            self._dns_host = name


class _ThroughProxy(urllib3.ProxyManager):
    """A client whose proxy connects: each URL, also of a redirect, is looked at before the proxy is told."""

    def __init__(self, rules: AddressRules, proxy: str, **shared: Any) -> None:
        super().__init__(proxy, **shared)
        self._rules = rules

    def urlopen(self, method: str, url: str, redirect: bool = True, **how: Any) -> BaseHTTPResponse:  # type: ignore[override]
        parts = urllib3.util.parse_url(url)
        self._rules.ask(parts.host or "", parts.port or 0)
        return super().urlopen(method, url, redirect=redirect, **how)


def _length(response: BaseHTTPResponse) -> int | None:
    _, _, total = response.headers.get("Content-Range", "").partition("/")
    if response.status == 206 and total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and response.status != 206 else None


def _modified(response: BaseHTTPResponse) -> int:
    try:
        return int(email.utils.parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError, OverflowError):
        return 0


def _tag(response: BaseHTTPResponse) -> str:
    return bare(response.headers.get("ETag", ""))


def bare(tag: str) -> str:
    """Return an ETag without its quotes and its mark of weakness, which differ between a server's own answers."""
    return tag.removeprefix("W/").strip('"')


def _refuse(response: BaseHTTPResponse) -> None:
    words = f"{response.status} {http.client.responses.get(response.status, '')}".strip()
    if response.status in _GONE:
        raise FileNotFoundError(errno.ENOENT, words)
    if response.status in _DENIED:
        raise PermissionError(errno.EACCES, words)
    if response.status >= 300:
        raise OSError(errno.EIO, words)


@contextmanager
def _as_files() -> Iterator[None]:
    try:
        yield
    except Barred as error:
        raise Refused(str(error)) from error
    except ValueError as error:  # of the standard library's parser, and of urllib3's
        raise FileNotFoundError(errno.ENOENT, "no URL that makes sense") from error
    except urllib3.exceptions.HTTPError as error:
        raise OSError(errno.EIO, _words(getattr(error, "reason", None) or error)) from error


def _words(error: Any) -> str:
    """Return what went wrong without a word of what the server said: a list may lead to one that speaks no HTTP."""
    if isinstance(error, urllib3.exceptions.ProtocolError) and len(error.args) > 1:
        error = error.args[1]  # what the connection was broken by
    if type(error) is urllib3.exceptions.IncompleteRead:  # its kinds repeat bytes
        return f"IncompleteRead: {error}"
    if isinstance(error, NameResolutionError):
        return f"the server's name cannot be looked up ({getattr(error.__cause__, 'strerror', None) or 'no answer'})"
    if isinstance(error, _OWN_WORDS):
        return f"{type(error).__name__}: {error}".split("\n", 1)[0][:200]
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: no answer that makes sense"

"""The listing of a bucket, of which many folders are asked for at once: what it yields, its requests, and its end."""

from __future__ import annotations

import http.server
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websites import serving

from cvjobs.common.errors import WrongUse
from cvjobs.storage import parallel_listing
from cvjobs.storage.object_store import Address, connect
from cvjobs.storage.remote_files import Remote

SIZE = 3  # keys a request


class Shop(http.server.ThreadingHTTPServer):
    """An S3 that only lists, three keys a request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.lock = threading.Lock()
        self.fill([])

    def fill(self, keys: list[str]) -> None:
        """Have these keys and no others, and forget all requests."""
        self.keys = sorted(keys)
        self.asked: list[str] = []
        self.now = self.most = 0  # requests in flight
        self.wait = 0.0  # seconds before an answer
        self.refused = "nothing"  # a key that no request may come to

    def page(self, prefix: str, delimiter: str, after: str) -> tuple[list[str], str]:
        """Return the entries of an answer, and the last where more follow."""
        entries: list[str] = []
        for key in self.keys[bisect_right(self.keys, after) :]:
            if key.startswith(prefix):
                name, slash, _ = key[len(prefix) :].partition("/")
                entry = prefix + name + slash if delimiter and slash else key
                if entry > after and entry not in entries[-1:] and not (delimiter and after.startswith(entry)):
                    if len(entries) == SIZE:
                        return entries, entries[-1] + ("\U0010ffff" if delimiter and entries[-1][-1:] == "/" else "")
                    entries.append(entry)
        return entries, ""


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Shop

    def do_GET(self) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        shop = self.server
        with shop.lock:
            shop.asked.append(prefix + "*" * bool(delimiter))
            shop.now += 1
            shop.most = max(shop.most, shop.now)
        time.sleep(shop.wait)
        entries, more = shop.page(prefix, delimiter, query.get("continuation-token", ""))
        with shop.lock:
            shop.now -= 1
        if shop.refused in entries:
            self._say(403, "<Error><Code>AccessDenied</Code><Message>not this one</Message></Error>")
            return
        rows = "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>"
            if delimiter and one.endswith("/") and one != prefix
            else f"<Contents><Key>{escape(one)}</Key><LastModified>2024-01-01T00:00:0{len(one) % 10}.000Z"
            f"</LastModified><ETag>&quot;{len(one)}&quot;</ETag><Size>{len(one)}</Size></Contents>"
            for one in entries
        )
        next_one = f"<NextContinuationToken>{escape(more)}</NextContinuationToken>" if more else ""
        truncated = str(bool(more)).lower()
        self._say(200, f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{next_one}{rows}</ListBucketResult>")

    def _say(self, status: int, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class World:
    """The store and what reads it."""

    options: ClassVar = {"region": "us-east-1", "skip_signature": "true"}

    def __init__(self, shop: Shop, endpoint: str) -> None:
        self.shop = shop
        self.remote = Remote({**self.options, "endpoint": endpoint})
        self.client = connect(Address("s3", "b", ""), {**self.options, "endpoint": endpoint})

    def below(self, prefix: str = "") -> Iterator[object]:
        return chain.from_iterable(self.remote.below(Address("s3", "b", prefix)))

    def plain(self, prefix: str = "") -> list[object]:
        return [meta for page in obstore.list(self.client, prefix or None, chunk_size=1000) for meta in page]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    shop = Shop()
    with serving(shop) as endpoint:
        yield World(shop, endpoint)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of which a few keys make use."""
    monkeypatch.setattr(parallel_listing, "PAGE", 4)
    monkeypatch.setattr(parallel_listing, "WORTH", 1)
    monkeypatch.setattr(parallel_listing, "AHEAD", 6)
    monkeypatch.setattr(parallel_listing, "WAITING", 1)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "list"]


def many(folder: str, count: int = 9) -> list[str]:
    return [f"{folder}{i:02}.jpg" for i in range(count)]


LAYOUTS = {
    "none": [],
    "one": ["a.jpg"],
    "flat": many("", 20),
    "folders": [key for folder in "abcdefgh" for key in many(f"{folder}/", 5)],
    "deep": [key for a in "ab" for b in "xyz" for c in "12" for key in many(f"{a}/{b}/{c}/", 3)],
    "one folder in another": many("a/b/c/d/e/", 12) + many("a/b/c2/", 12) + ["a/b/c.jpg", "z.jpg"],
    "mixed": many("a/") + many("b") + many("c/x/") + many("c/") + many("c/y/") + many("d") + many("e/", 2),
    "around a slash": [
        *(
            f"{name}{after}"
            for name in ("a", "b")
            for after in (" ", "!x", "-b/1", "-b/2", ".jpg", "", "/1", "0", "0/1")
        ),
        *(f"a/b{after}" for after in ("-/1", "-", "/1", "/2", "/-/3", ".", "0", "", "~/1")),
        *many("a/b/"),
    ],
    "folders' markers": [
        "a/",
        *many("a/"),
        "b/",
        "b",
        "b-",
        "b-x",
        "b/c/",
        *many("b/c/"),
        "b/d/",
        "b.jpg",
        "c/",
        "d/e/",
    ],
    "unicode": many("ä/") + many("a\u0308/") + many("\uffee/") + many("😀/") + ["😀.jpg", "z<&>/'\".jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_what_one_stream_yields_in_its_order(world: World, layout: str) -> None:
    for prefix in ("", "p", "p/q"):
        below = f"{prefix}/" if prefix else ""
        around = [below, "p-1", "p/q-", "p/q.jpg", "p0/1"] if prefix else []
        world.shop.fill(around + [below + key for key in LAYOUTS[layout]])
        pages = list(world.remote.below(Address("s3", "b", prefix)))
        assert all(pages)
        assert list(chain.from_iterable(pages)) == world.plain(prefix)
    assert not threads()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("ab-0/", min_size=1, max_size=7), max_size=60))
def test_any_keys(world: World, keys: list[str]) -> None:
    world.shop.fill(list({f"p/{key}" for key in keys if not key.startswith("/") and "//" not in key}))
    assert list(world.below("p")) == world.plain("p")


def test_small_and_flat_prefixes_cost_no_request_more(world: World) -> None:
    for keys in (LAYOUTS["flat"], ["a/1", "a/2", "b/1"], ["1", "2", "3", "4", "a/1"]):
        world.shop.fill(keys)
        assert list(world.below()) == world.plain()
        half = len(world.shop.asked) // 2
        assert world.shop.asked[:half] == world.shop.asked[half:]


def test_folders_are_listed_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_listing, "AHEAD", 1000)
    world.shop.fill([f"{a}/{b}/{i}.jpg" for a in range(4) for b in range(8) for i in range(8)])
    expected = world.plain()
    one_by_one = len(world.shop.asked)
    world.shop.asked.clear()
    world.shop.wait = 0.02
    assert list(world.below()) == expected
    assert world.shop.most >= 8
    assert len(world.shop.asked) < 3 * one_by_one


def test_small_folders_are_not_asked_for_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_listing, "WORTH", 4)
    world.shop.fill([f"{a}/{b}.jpg" for a in range(30) for b in range(2)])
    assert list(world.below()) == world.plain()
    assert set(world.shop.asked) == {""}


def test_no_more_than_some_objects_are_kept_before_their_turn(world: World) -> None:
    world.shop.fill([f"{folder}/{i:02}" for folder in "abcdefgh" for i in range(30)])
    found = world.below()
    first = [next(found) for _ in range(12)]
    time.sleep(0.3)
    limit = parallel_listing.AHEAD + (parallel_listing.STREAMS + 1) * (parallel_listing.PAGE + SIZE)
    assert len(world.shop.asked) * SIZE < 12 + limit < 240
    assert [*first, *found] == world.plain()


def test_an_error_comes_after_what_is_before_it(world: World) -> None:
    world.shop.fill([key for folder in "abcd" for key in many(f"{folder}/")])
    expected = world.plain()
    world.shop.refused = "d/00.jpg"
    found: list[object] = []
    with pytest.raises(WrongUse, match=r"s3://b refuses access \(not this one\): set AWS_ACCESS_KEY_ID"):
        found.extend(world.below())  # which keeps what came before an error
    assert found == expected[: len(found)]
    assert 18 <= len(found) <= 27
    assert not threads()


def test_a_key_that_cannot_be_read(world: World) -> None:
    world.shop.fill([*many("a/"), *many("b/"), "c//d.jpg"])
    with pytest.raises(WrongUse, match=r"s3://b holds a key that cannot be read \(.*c//.*\): rename it"):
        list(world.below())


def test_a_folder_that_is_slow_to_name_its_folders_is_one_stream(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_listing, "PATIENCE", 0.0)
    world.shop.fill(LAYOUTS["deep"])
    assert list(world.below()) == world.plain()


def test_who_stops_early_leaves_nothing_running(world: World) -> None:
    world.shop.fill([key for folder in "abcdefgh" for key in many(f"{folder}/")])
    world.shop.wait = 0.01
    found = world.remote.below(Address("s3", "b", ""))
    for _ in range(3):
        next(found)
    assert threads()
    found.close()  # type: ignore[attr-defined]
    assert not threads()
    time.sleep(0.1)
    asked = len(world.shop.asked)
    time.sleep(0.1)
    assert len(world.shop.asked) == asked
    world.shop.asked.clear()
    assert world.remote.any_below(Address("s3", "b", ""))
    assert len(world.shop.asked) == 2
    assert not threads()


def test_a_listing_that_its_own_thread_collects_as_garbage_ends(world: World) -> None:
    world.shop.fill([key for folder in "abcdefgh" for key in many(f"{folder}/")])
    found = [parallel_listing.objects_below(world.client, "")]
    for _ in range(3):
        next(found[0])
    (thread,) = threads()
    found[0].gi_frame.f_locals["ahead"]._loop.call_soon_threadsafe(found.clear)  # type: ignore[attr-defined]
    thread.join(10)
    assert not thread.is_alive()

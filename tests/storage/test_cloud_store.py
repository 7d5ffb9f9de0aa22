"""The store on a bucket: the same promises as a folder's, and sentences for what a bucket can refuse."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from buckets import KEYS, Bucket, made
from websites import serving

from cvjobs.common.errors import CvjobsError, JobFailed, OutputHeld, WrongUse
from cvjobs.storage import bucket_store
from cvjobs.storage.local_store import LocalStore
from cvjobs.storage.object_store import Address
from cvjobs.storage.remote_files import Remote
from cvjobs.storage.storage_options import hidden, parse_options
from cvjobs.storage.store import Store, begun_store, in_flight, open_store

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()


@pytest.fixture
def bucket(s3: str) -> Bucket:
    return made(s3, f"store{next(NUMBERS)}")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path, "w")
    found: Bucket = request.getfixturevalue("bucket")
    return open_store(found.url("a prefix/out"), "w", found.settings)


def filled(content: bytes) -> Callable[[BinaryIO], None]:
    def fill(file: BinaryIO) -> None:
        file.write(content)

    return fill


def test_what_is_written_is_read(store: Store) -> None:
    written = store.write("data/a+b %2F#?.parquet", filled(b"one"))
    assert (written.bytes, written.sha256) == (3, hashlib.sha256(b"one").hexdigest())
    store.write("data/a+b %2F#?.parquet", filled(b"two"))
    assert store.read("data/a+b %2F#?.parquet") == b"two"
    assert store.names("data") == ["a+b %2F#?.parquet"]
    assert store.sizes("data") == {"a+b %2F#?.parquet": 3}
    assert store.size("data/a+b %2F#?.parquet") == 3
    assert "data" in store.names(".")


def test_bytes_are_written_whole(store: Store) -> None:
    for content in (b"", b"one", b"\0two" * 9_000_000):
        written = store.write_bytes("a folder/of bytes", content)
        assert (written.bytes, written.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert store.read("a folder/of bytes") == content
    assert store.names("a folder") == ["of bytes"]


def test_what_is_not_there(store: Store) -> None:
    assert store.names("data") == []
    assert store.sizes("data") == {}
    assert store.size("data/none") is None
    with pytest.raises(FileNotFoundError):
        store.read("data/none")
    with pytest.raises(FileNotFoundError):
        store.open("data/none")
    store.delete("data/none")


def test_a_file_is_created_once(store: Store) -> None:
    assert store.create("_cvjobs/v1.json", b"first\n")
    assert not store.create("_cvjobs/v1.json", b"second\n")
    assert store.read("_cvjobs/v1.json") == b"first\n"
    assert [name for folder in ("_cvjobs", "_cvjobs/lease") for name in store.names(folder) if "tmp" in name] == []


def test_of_many_who_create_a_file_one_does(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(lambda n: store.create("_cvjobs/v1.json", b"%d" % n), range(8)))
    assert sum(created) == 1
    assert store.read("_cvjobs/v1.json") == b"%d" % created.index(True)


def test_folders_are_deleted_and_no_more_than_that(store: Store) -> None:
    for name in ("runs/r1/a", "runs/r1/b/c", "runs/r10/a", "runs/r"):
        store.write(name, filled(b"x"))
    store.delete("runs/r1")
    assert store.names("runs") == ["r", "r10"]
    store.delete("runs/r")
    assert store.names("runs") == ["r10"]


def test_a_write_that_fails_leaves_what_was_there(store: Store) -> None:
    store.write("a", filled(b"one"))

    def fails(file: BinaryIO) -> None:
        file.write(b"x" * (3 << 20))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.write("a", fails)
    assert store.read("a") == b"one"
    assert store.names(".") == ["a"]


def test_a_large_file_is_read_at_random_positions(store: Store) -> None:
    block = bytes(range(256)) * 4096
    written = store.write("large", filled(block * 20))
    assert written.bytes == store.size("large") == 20 * len(block)
    with store.open("large") as file:
        assert file.seek(-10, 2) == 20 * len(block) - 10
        assert file.read() == block[-10:]
        file.seek(3 * len(block) + 5)
        assert file.read(7) == block[5:12]
        assert file.tell() == 3 * len(block) + 12
        file.seek(0)
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(block * 20).digest()


def test_answers_come_in_order(store: Store) -> None:
    assert list(in_flight(store, lambda n: n * n, range(100))) == [n * n for n in range(100)]


def test_a_bucket_that_is_not_there(s3: str) -> None:
    store = open_store("s3://no-such-bucket/out", "w", {"endpoint": s3})
    for ask in (store.names, store.read, store.delete, lambda name: store.write(name, filled(b"x"))):
        with pytest.raises(WrongUse, match=r"There is no bucket s3://no-such-bucket: .*endpoint"):
            ask("data")


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """A server that has one answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as address:
        yield address


DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.mark.parametrize("size", [10, 40 << 20])
def test_a_write_that_the_guard_refuses_at_its_end_leaves_the_object_that_was_there(bucket: Bucket, size: int) -> None:
    asked: list[list[str]] = []

    def guard() -> None:
        asked.append(open_store(bucket.url("out"), options=bucket.settings).names("."))
        if len(asked) > 1:
            raise OutputHeld("another run took it over")

    store = begun_store(bucket.url("out"), bucket.settings, guard)
    store.write("model", filled(b"1" * size))
    with pytest.raises(OutputHeld, match="another run took it over"):
        store.write("model", filled(b"2" * size))
    with pytest.raises(OutputHeld, match="another run took it over"):
        store.write_bytes("model", b"3" * size)
    assert asked == [[], ["model"], ["model"]]
    assert set(store.read("model")) == {ord("1")}


@pytest.mark.parametrize("size", [10, 17 << 20])
@pytest.mark.parametrize("there", [b"", b"0"], ids=["new", "replaced"])
def test_a_write_that_is_late_on_its_way_undoes_no_later_one(bucket: Bucket, there: bytes, size: int) -> None:
    later = begun_store(bucket.url("out"), bucket.settings)
    if there:
        later.write_bytes("model", there)
    asked = itertools.count()

    def guard() -> None:  # nobody has taken it over when it is asked, and then somebody has, who writes
        if next(asked):
            raise OutputHeld("another run took it over")
        later.write_bytes("model", b"later")

    with pytest.raises(OutputHeld, match="another run took it over"):
        begun_store(bucket.url("out"), bucket.settings, guard).write_bytes("model", b"2" * size)
    assert later.read("model") == b"later"


def test_a_write_that_is_late_on_its_way_brings_back_nothing(bucket: Bucket) -> None:
    later = begun_store(bucket.url("out"), bucket.settings)
    later.write_bytes("history", b"1")
    asked = itertools.count()

    def guard() -> None:
        if next(asked):
            raise OutputHeld("another run took it over")
        later.delete("history")

    with pytest.raises(OutputHeld, match="another run took it over"):
        begun_store(bucket.url("out"), bucket.settings, guard).write_bytes("history", b"2")
    assert later.names(".") == []


def test_what_another_process_of_this_command_wrote_meanwhile_is_replaced(bucket: Bucket) -> None:
    other = begun_store(bucket.url("out"), bucket.settings)
    asked = itertools.count()

    def guard() -> None:
        if not next(asked):
            other.write_bytes("page", b"of another")

    store = begun_store(bucket.url("out"), bucket.settings, guard)
    store.write("page", filled(b"newest"))
    assert store.read("page") == b"newest"


@pytest.mark.parametrize("size", [10, 17 << 20])
def test_a_large_file_is_guarded_at_its_end(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(bucket_store, "WHOLE", 5)
    begun_store(bucket.url("out"), bucket.settings, lambda: None).write_bytes("model", b"1" * size)

    def guard() -> None:
        raise OutputHeld("another run took it over")

    store = begun_store(bucket.url("out"), bucket.settings, guard)
    with pytest.raises(OutputHeld, match="another run took it over"):
        store.write("model", filled(b"2" * size))
    assert set(store.read("model")) == {ord("1")}


@pytest.mark.parametrize("options", [{"conditional_put": "disabled"}, {}])
def test_a_store_that_knows_no_conditions_asks_the_guard_alone(bucket: Bucket, options: dict[str, str]) -> None:
    held: list[bool] = []
    first = begun_store(bucket.url("out"), bucket.settings)
    first.write_bytes("model", b"1")

    def guard() -> None:
        if held:
            raise OutputHeld("another run took it over")
        if not options:  # no object is for it what it was
            first.write_bytes("model", secrets.token_bytes(8))

    store = begun_store(bucket.url("out"), {**bucket.settings, **options}, guard)
    store.write_bytes("model", b"2")
    assert store.read("model") == b"2"
    held.append(True)
    with pytest.raises(OutputHeld):
        store.write_bytes("model", b"3")
    assert store.read("model") == b"2"


@pytest.mark.faults
@pytest.mark.usefixtures("s3")
def test_one_request_of_many_bytes_may_take_its_time() -> None:
    size, lengths = 80 << 20, []

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(404)

        def do_PUT(self) -> None:
            left = int(self.headers["Content-Length"])
            while left:
                left -= len(self.rfile.read(min(left, 1 << 20)))
                time.sleep(0.25)
            lengths.append(int(self.headers["Content-Length"]))
            self.answer(200)

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("ETag", '"1"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)) as endpoint:
        began = time.monotonic()
        begun_store("s3://bucket/out", {"endpoint": endpoint}, lambda: None).write_bytes("model", b"1" * size)
    assert lengths == [size]
    assert time.monotonic() - began > 18, "longer than a request with less in it may take"


@pytest.mark.usefixtures("s3")
def test_a_store_that_refuses_access() -> None:
    with answering(403, DENIED) as endpoint:
        store = open_store("s3://bucket/out", "w", {"endpoint": endpoint})
        for ask in (store.names, store.read, store.size, lambda name: store.create(name, b"x")):
            with pytest.raises(WrongUse, match=r"s3://bucket/out refuses access .*AWS_ACCESS_KEY_ID"):
                ask("data")


@pytest.mark.usefixtures("s3")
def test_a_store_that_creates_twice_is_refused() -> None:
    with answering(200, "") as endpoint:
        store = open_store("s3://bucket/out", "w", {"endpoint": endpoint})
        with pytest.raises(WrongUse, match=r"does not refuse to create an object twice .*: choose another -o\."):
            store.create("v1.json", b"{}")


def test_conditional_writes_switched_off(bucket: Bucket) -> None:
    store = open_store(bucket.url("out"), "w", {**bucket.settings, "conditional_put": "disabled"})
    with pytest.raises(WrongUse, match="does not refuse to create an object twice"):
        store.create("v1.json", b"{}")


@pytest.mark.usefixtures("s3")
def test_a_dead_endpoint_is_given_up_on() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = open_store("s3://bucket/out", options={"endpoint": f"http://127.0.0.1:{unused.getsockname()[1]}"})
        began = time.monotonic()
        with pytest.raises(JobFailed, match=r"s3://bucket/out cannot be reached \(Connection refused\): when it works"):
            store.names("data")
    assert time.monotonic() - began < 60


def test_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with answering(403, "no role") as metadata:
        store = open_store("s3://bucket/out", options={"endpoint": metadata, "metadata_endpoint": metadata})
        with pytest.raises(WrongUse, match=r"AWS_ACCESS_KEY_ID"):
            store.names("data")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("s3:///out", r"s3:///out names no bucket: give s3://BUCKET/PREFIX\."),
        ("ftp://host/out", r"Outputs on ftp:// are not supported"),
        ("s4://bucket/out", r"Outputs on s4:// are not supported .*s3"),
    ],
)
def test_places_that_make_no_sense(place: str, sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence):
        open_store(place)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["endpont=http://x"], r"no storage option 'endpont' \(nearest: endpoint"),
        (["endpoint"], r"'endpoint' has no value"),
        (["region="], r"'region' has no value"),
        (["MYSECRETVALUE" * 8], r"no storage option 'that'"),
        (["MYSECRETVALUE"], r"no storage option 'that'"),
        (["MYSECRETVALUE/a=b"], r"no storage option 'that'"),
        (["region=MYSECRET us-east-1"], r"'region' is no name of a region"),
        (["region=us-east-1\n"], r"'region' is no name of a region"),
        (["endpoint=http://user:MYSECRET@a host:9"], r"'endpoint' is no URL"),
    ],
)
def test_storage_options_that_make_no_sense(given: list[str], sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence) as error:
        parse_options(given)
    assert "MYSECRET" not in str(error.value)


def test_storage_options_that_a_store_cannot_read() -> None:
    with pytest.raises(WrongUse, match=r"storage options for s3://bucket/out make no sense \(failed to parse"):
        open_store("s3://bucket/out", options=parse_options(["connect_timeout=soon"]))


def test_what_a_library_says_of_options_holds_no_secret() -> None:
    given = ["account_name=MYSECRET VALUE", "account_key=MYSECRET=", "endpoint=htp://user:MYSECRET@ host"]
    with pytest.raises(WrongUse, match=r"storage options for az://bucket/out make no sense") as error:
        open_store("az://bucket/out", options=dict(one.split("=", 1) for one in given))
    assert "MYSECRET" not in str(error.value)
    assert hidden(given) == ["account_name=***", "account_key=***", "endpoint=htp://***@ host"]
    assert hidden(["endpoint=http://127.0.0.1:9000/a@b", "region=a@b"]) == [
        "endpoint=http://127.0.0.1:9000/a@b",
        "region=a@b",
    ]


def test_a_panic_of_the_client_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us east")
    options = {"skip_signature": "true"}
    with pytest.raises(WrongUse, match=r"storage options for s3://bucket/out make no sense \(a request cannot be made"):
        open_store("s3://bucket/out", options=options).names("data")
    with pytest.raises(WrongUse, match=r"storage options for s3://bucket/in make no sense \(a request cannot be made"):
        next(Remote(options).below(Address("s3", "bucket", "in")), None)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
def test_an_endpoint_from_the_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, bucket.endpoint)
    store = open_store(bucket.url("out"), "w")
    assert store.create("part.json", b"mine")
    assert store.read("part.json") == b"mine"


def test_an_answer_that_was_lost_counts_once(bucket: Bucket) -> None:
    store = open_store(bucket.url("out"), "w", bucket.settings)
    assert store.create("part.json", b"mine")
    assert store.create("part.json", b"mine")
    assert not store.create("part.json", b"theirs")


def test_errors_are_ours(store: Store) -> None:
    with pytest.raises((CvjobsError, FileNotFoundError)):
        store.open("nothing/here")

"""A server that gives nothing for a while costs a training no image; one that never gives some costs it those."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training import folder

from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.transform import Transform
from cvjobs.sources.file_reading import Unreadable
from cvjobs.sources.listing import list_source
from cvjobs.training.data import chunk_decoding, decoded
from cvjobs.training.data.decode_request import DecodeRequest

pytestmark = pytest.mark.slow

COUNT = 90  # two chunks
Gives = Callable[[str, int], bool]  # whether a path is given, and how often it was asked for before


class Server:
    """Files that somebody else gives, or not."""

    threads = 4

    def __init__(self, root: Path, gives: Gives) -> None:
        self._root, self._gives = root, gives
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, path: str, size: int, modified: int) -> bytes:  # noqa: ARG002
        with self._lock:
            before = self.asked[path]
            self.asked[path] += 1
        if not self._gives(path, before):
            raise Unreadable("read_io", "the server does not answer")
        return (self._root / path).read_bytes()


def codes(tmp_path: Path, gives: Gives) -> tuple[pa.ChunkedArray, Server]:
    root = folder(tmp_path / "images", COUNT // 3)
    rows = list_source(str(root)).images
    request = DecodeRequest(
        rows=rows,
        root=str(root),
        transform=Transform(resize=512, fit="whole"),
        max_pixels=10**6,
        folder=str(tmp_path / "cache"),
    )
    server = Server(root, gives)
    with closing(DecoderServer()) as decoder_server:
        found, table = decoded.decode(request, server, decoder_server, lambda _: None)
    assert np.array_equal(found.rows, np.flatnonzero(np.asarray(table["code"].is_null())))
    assert table["path"].equals(rows["path"])
    return table["code"], server


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_decoding, "PAUSE", 0.05)


def test_an_outage_costs_no_image(tmp_path: Path) -> None:
    found, server = codes(tmp_path, lambda _, before: before >= 3)
    assert found.null_count == COUNT
    assert set(server.asked.values()) == {4}


def test_what_a_server_never_gives_fails_soon_where_it_gives_the_rest(tmp_path: Path) -> None:
    found, server = codes(tmp_path, lambda path, _: not path.endswith("007.png"))
    assert found.drop_null().to_pylist() == ["read_io"] * 3
    assert {asked for path, asked in server.asked.items() if not path.endswith("007.png")} == {1}
    assert all(2 <= server.asked[f"{name}/007.png"] <= 1 + chunk_decoding.AGAIN for name in ("red", "green", "blue"))


def test_a_server_that_is_gone_for_good_ends_the_waiting(tmp_path: Path) -> None:
    found, server = codes(tmp_path, lambda *_: False)
    assert found.to_pylist() == ["read_io"] * COUNT
    assert set(server.asked.values()) == {1 + chunk_decoding.AGAIN}

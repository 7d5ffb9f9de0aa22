"""Reading ahead: one image that cannot be read is a row, a source that is gone ends the run."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from cvjobs.common.errors import JobFailed
from cvjobs.images import decode_worker, fetch
from cvjobs.images.decode_worker import Chunk
from cvjobs.sources.file_reading import Unreadable


class Share:
    """A source of which only the images of some numbers can be read."""

    threads = 1

    def __init__(self, *there: int) -> None:
        self._there = there

    def read(self, path: str, size: int, modified: int) -> bytes:  # noqa: ARG002 - what every source takes
        if int(path) not in self._there:
            raise Unreadable("read_io", "Stale file handle")
        return b"image"


def read(share: Share) -> tuple[list[Any], list[BaseException]]:
    """Read eleven images; return which could not be read, and what ended the reading."""
    rows: list[Any] = []
    ended: queue.Queue[BaseException] = queue.Queue()
    chunks: queue.Queue[Chunk | None] = queue.Queue()
    fetcher = fetch.Fetcher(share, chunks, lambda number, _: rows.append(number), ended.put, threads=1)
    fetcher.ask([(number, str(number), 5, 0) for number in range(11)])
    fetcher.close(10)
    return rows, list(ended.queue)


@pytest.mark.parametrize("there", [(), (0,)])
def test_a_source_that_is_gone_ends_the_run(there: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "LOST", 6)
    rows, (error,) = read(Share(*there))
    assert isinstance(error, JobFailed)
    assert "6 images in a row could not be read (Stale file handle): the source seems to be gone" in str(error)
    assert len(rows) == 5


@pytest.mark.parametrize("there", [(0, 2, 4, 6, 8), (5,)])
def test_images_that_cannot_be_read_are_rows(there: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_worker, "LOST", 6)
    assert read(Share(*there)) == ([number for number in range(11) if number not in there], [])

"""Chunks being decoded by the batch jobs' decoders: each is there whole, under its own name, or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from cvjobs.common import devices, progress
from cvjobs.common.failures import Failure
from cvjobs.dataset import sealed_table
from cvjobs.images.dark_images import DarkImages
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader, decoders
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.sources.reader import LocalSource, Source
from cvjobs.training.data.chunk_pixels import DIGEST, ROWS, SquarePixels, WholePixels, pixels_digest
from cvjobs.training.data.decode_request import DecodeRequest

AHEAD = 2
POLL = 0.05  # seconds between two looks for a chunk that is to be decoded
AGAIN, PAUSE = 8, 5.0  # times that images are asked for which a server did not give, and seconds before each
TEMPORARY = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{12}")  # the folder of a chunk that is being decoded
_END = object()


def fill_chunks(
    request: DecodeRequest,
    missing: Iterable[tuple[str, pa.Table] | None],
    source: Source,
    decoder_server: DecoderServer,
    tell: Callable[[int], None],
    published: Callable[[str, pa.Table], None] = lambda *_: None,
    *,
    check: Callable[[str, pa.Table], None] = lambda *_: None,
) -> None:
    """Decode chunks, given as folders and rows, one after the other; None stands for none now, and later perhaps one.

    ``tell`` is told how many images are done, ``published`` of each chunk that is there, and ``check`` before it is,
    which may raise. One that is not in the folder of the request is there for this run alone, and need not outlast the
    machine.
    """
    tray = _Tray(tell)
    how = Decoding(transform=request.transform, max_pixels=request.max_pixels)
    with closing(Loader(source, how, tray, decoders(devices.cpus()), decoder_server)) as loader:
        sheets: list[_Sheet] = []
        try:
            waiting, over = iter(missing), False
            while not over or sheets:
                while len(sheets) < AHEAD and not over:
                    following = next(waiting, _END)
                    over = following is _END
                    if not isinstance(following, tuple):
                        break
                    sheets.append(_Sheet(request, *following))
                    loader.ask(sheets[-1].rows, sheets[-1].tags())
                if sheets:
                    tray.full(sheets[0])
                    if not isinstance(source, LocalSource):
                        _ask_again(sheets[0], tray, loader)
                    published(sheets[0].folder, sheets[0].publish(check))
                    sheets.pop(0)
                elif not over:
                    tray.wait(lambda: False, POLL)
                    tray.tell()
            if tray.dark.count:
                progress.tell(str(tray.dark))
        finally:
            for sheet in sheets:
                sheet.drop()


def _ask_again(sheet: _Sheet, tray: _Tray, loader: Loader) -> None:
    """Read anew what a server did not give, twice where it gives others: an outage is no property of an image."""
    for time_ in range(AGAIN):
        lost, given = sheet.lost, tray.given
        if not lost:
            return
        tray.rest(PAUSE)
        tray.expect(sheet, len(lost))
        loader.ask(sheet.rows.take(pa.array(lost)), [(sheet, at) for at in lost])
        tray.full(sheet)
        if time_ and tray.given > given:
            return


@dataclass
class _Sheet:
    """A chunk that is being filled, in a folder beside its own."""

    request: DecodeRequest
    folder: str
    rows: pa.Table
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = count = self.rows.num_rows
        self.lost: list[int] = []  # the rows that a server did not give
        self._answers: list[dict[str, Any] | None] = [None] * count
        self._temporary = Path(f"{self.folder}.{secrets.token_hex(6)}")
        self._temporary.mkdir()
        try:
            size = self.request.transform.size
            self._pixels = SquarePixels(self._temporary, count, size) if size else WholePixels(self._temporary)
        except BaseException:
            self.drop()
            raise

    def tags(self) -> list[tuple[_Sheet, int]]:
        """Return the name that each row has for the loader."""
        return [(self, at) for at in range(self.rows.num_rows)]

    def put(self, at: int, pixels: Pixels | None, answer: dict[str, Any]) -> None:
        self._answers[at] = answer if pixels is None else answer | self._pixels.put(at, pixels)

    def publish(self, check: Callable[[str, pa.Table], None]) -> pa.Table:
        """Make the chunk durable under its own name, unless ``check`` raises, and return its table."""
        self._pixels.end()
        each = zip(self.rows["path"].to_pylist(), self._answers, strict=True)
        table = pa.Table.from_pylist([{"path": path, **(answer or {})} for path, answer in each], self.request.schema)
        check(self.folder, table)
        durable = os.path.dirname(self.folder) == self.request.folder.rstrip("/")
        digest = pixels_digest(self._temporary).encode() if durable else b""
        with (self._temporary / ROWS).open("wb") as file:
            sealed_table.dump(file, table.replace_schema_metadata({DIGEST: digest}))
        for name in (self._pixels.name, ROWS) if durable else ():
            descriptor = os.open(self._temporary / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        try:
            self._temporary.rename(self.folder)
        except OSError:
            self.drop()
            if not os.path.exists(os.path.join(self.folder, ROWS)):  # else another run was faster
                raise
        return table

    def drop(self) -> None:
        """Give the chunk up."""
        shutil.rmtree(self._temporary, ignore_errors=True)


class _Tray(Arrivals):
    """Where decoders deliver; several of them at once. A tag is a sheet and the place in it."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        super().__init__()
        self._tell, self._done = tell, 0
        self.given = 0  # images of which there was something to read
        self.dark = DarkImages()

    def decoded(self, tag: tuple[_Sheet, int], measured: Measured, pixels: Pixels) -> None:
        """See ``decode_worker.Outlet``."""
        tag[0].put(tag[1], pixels, {"content_hash": measured.content_hash})
        if measured.unsaid_bits:
            with self.changed:
                self.dark.add(measured.unsaid_bits, tag[0].rows["path"][tag[1]].as_py())
        self._count(tag[0])

    def failed(self, tag: tuple[_Sheet, int], failure: Failure) -> None:
        """See ``decode_worker.Outlet``."""
        tag[0].put(tag[1], None, {"stage": failure.stage, "code": failure.code, "detail": failure.detail})
        self._count(tag[0], tag[1] if failure.code == "read_io" else None)

    def _count(self, sheet: _Sheet, lost: int | None = None) -> None:
        with self.changed:
            sheet.left -= 1
            self._done += 1
            if lost is None:
                self.given += 1
            else:
                sheet.lost.append(lost)
            self.changed.notify_all()

    def expect(self, sheet: _Sheet, count: int) -> None:
        """Note that those which were lost are asked for anew."""
        with self.changed:
            sheet.lost = []
            sheet.left += count
            self._done -= count

    def rest(self, seconds: float) -> None:
        """Wait, telling how much is done; raises as ``full``."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.wait(lambda: False, min(left, 0.5))
            self.tell()
            if self.error is not None:
                raise self.error

    def tell(self) -> None:
        """Tell how many images are done."""
        self._tell(self._done)

    def full(self, sheet: _Sheet) -> None:
        """Wait until every image of a sheet has an answer; raises the error that ended a decoder."""
        while True:
            full = self.wait(lambda: not sheet.left, 0.5)
            self.tell()
            if self.error is not None:
                raise self.error
            if full:
                return

"""Decoding the splits of a training in the background, in the order in which training takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cvjobs.common.errors import storage_failure
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.reader import Source
from cvjobs.training.data import decoded
from cvjobs.training.data.chunk_decoding import fill_chunks
from cvjobs.training.data.decode_request import SCHEMA, DecodeRequest
from cvjobs.training.data.passage import Passage

POLL = 0.1  # seconds between two looks at how far it is


@dataclass(frozen=True, kw_only=True)
class FillingPart:
    """A split that is to be decoded: its name, how, and its chunks in the order in which an epoch takes them.

    Training begins in the epoch ``first``. Of one that is larger than its cache at most ``room`` bytes stay, and the
    rest is in the folder ``passing``.
    """

    name: str
    request: DecodeRequest
    order: Callable[[int], Sequence[int]] | None = None
    first: int = 0
    room: int = 0
    passing: str = ""


class Filling:
    """A thread that decodes splits one after the other; ``decoded`` of ``total`` images are, ``now`` of a split.

    ``source`` opens what is read; ``ended`` is called with the name and the table of a split, and may raise.
    """

    def __init__(
        self,
        parts: Sequence[FillingPart],
        source: Callable[[], Source],
        decoder_server: DecoderServer,
        ended: Callable[[str, pa.Table], None],
    ) -> None:
        """Delete what is damaged; raises JobFailed where the folder cannot be used."""
        self.now, self.decoded, self.total = parts[0].name, 0, sum(part.request.rows.num_rows for part in parts)
        self._parts, self._source, self._decoder_server, self._ended = parts, source, decoder_server, ended
        self._there = {part.name: decoded.present(part.request) for part in parts}
        self._passages = {
            part.name: Passage(part.request, self._there[part.name], part.order, part.room, part.passing)
            for part in parts
            if part.passing and part.order
        }
        for part in parts:
            if part.name in self._passages:
                self._passages[part.name].reach(part.first, 0)
        self._error: BaseException | None = None
        self._closed = self._all = False
        self._thread = threading.Thread(target=self._run, name="filling", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether all is decoded, at least once; raises as ``check``."""
        self.check()
        return self._all

    def reach(self, epoch: int, images: int) -> None:
        """Note where training is; see ``Passage.reach``."""
        for passage in self._passages.values():
            passage.reach(epoch, images)

    def check(self) -> None:
        """Raise what ended decoding before all was."""
        if self._error is not None:
            raise self._error

    def waited(self, seconds: float) -> Iterator[None]:
        """Yield often until all is decoded, for some seconds at most; raises as ``done``."""
        until = time.monotonic() + seconds
        while not self.done and time.monotonic() < until:
            yield
            time.sleep(POLL)

    def close(self) -> None:
        """End the thread where it is; what is decoded stays."""
        self._closed = True
        self._thread.join()

    def _run(self) -> None:
        try:
            before = 0
            for part in self._parts:
                self.now = part.name
                table = self._filled(part, before)
                before += part.request.rows.num_rows
                self.decoded = before
                self._ended(part.name, table)
            self._all = True
            for part in self._parts:
                if part.name in self._passages:
                    self._pass(part, all_known=False)
        except _ClosedError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised by ``done``
            self._error = error

    def _filled(self, part: FillingPart, before: int) -> pa.Table:
        there = self._there.pop(part.name)
        if part.name in self._passages:
            self._pass(part, all_known=True)
            return self._passages[part.name].table.select(SCHEMA.names)
        before += sum(table.num_rows for table in there.values())

        def tell(done: int) -> None:
            self.decoded = before + done
            if self._closed:
                raise _ClosedError

        order = part.order(part.first) if part.order else ()
        return decoded.fill(part.request, there, self._source(), self._decoder_server, tell, order)

    def _pass(self, part: FillingPart, *, all_known: bool) -> None:
        """Decode what is needed of a split larger than its cache, until all is known or, without that, to the end."""
        passage = self._passages[part.name]

        def tell(_: int) -> None:
            if not self._all:
                self.decoded = sum(table.num_rows for table in passage.tables.values())
            if self._closed:
                raise _ClosedError

        try:
            missing = passage.missing(all_known=all_known)
            how = part.request, missing, self._source(), self._decoder_server, tell, passage.published
            fill_chunks(*how, check=passage.check)
        except OSError as error:
            raise storage_failure(error, part.request.folder, "--cache", begun=True) from error


class _ClosedError(Exception):
    """Nobody waits for it any more."""

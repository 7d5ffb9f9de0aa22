"""The pictures of results: each image read and decoded again, in the isolated children, with what was found over it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import closing

import pyarrow as pa

from cvjobs.common import categories, devices
from cvjobs.common.failures import Failure
from cvjobs.dataset import schema
from cvjobs.dataset.snapshot_reader import SnapshotReader
from cvjobs.html.overlays import Shape
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.loader import Arrivals, Decoding, Loader
from cvjobs.images.measured import Measured
from cvjobs.images.picture import Pixels
from cvjobs.images.transform import Transform
from cvjobs.prediction.side_folder import annotate
from cvjobs.sources.reader import open_source
from cvjobs.storage.storage_options import Options

DECODERS = 4
KEYS = ["path", "bytes", "modified"]
CHANGED = "changed since the run"


class DrawnPictures:
    """See ``sync.Maker``; ``failed`` are the images that could not be read again, with the reason."""

    version = b"p1"

    def __init__(self, reader: SnapshotReader, options: Options, max_pixels: int) -> None:
        task = reader.task
        self._semantic = task == "semantic"
        more = [schema.CLASS_MAP, schema.CLASSES] if self._semantic else [schema.DETECTIONS]
        self.columns = [*KEYS, "content_hash", "width", "height", *more]
        self.failed: dict[str, str] = {}
        self._known = categories.things(reader.snapshot.facts)
        self._source = open_source(reader.snapshot.root, reader.base, options, reader.confined)
        like = Transform(fit="native", truncated="use").like(reader.snapshot.resolved.get("transform", {}))
        self._how = Decoding(transform=like, max_pixels=max_pixels)

    def make(self, table: pa.Table, rows: list[int], put: Callable[[int, bytes], None]) -> Iterator[int]:
        """See ``sync.Maker``."""
        tray = _Tray(lambda row, measured, pixels: self._one(table, row, measured, pixels, put))
        keys = table.select(KEYS).take(pa.array(rows))
        with closing(DecoderServer()) as server:
            loader = Loader(self._source, self._how, tray, min(devices.cpus(), DECODERS, len(rows)), server)
            try:
                loader.ask(keys, rows)
                for _ in rows:
                    row, reason = tray.next()
                    if reason:
                        self.failed[table["path"][row].as_py()] = reason
                    yield row
            finally:
                loader.close()

    def _one(
        self, table: pa.Table, row: int, measured: Measured, pixels: Pixels, put: Callable[[int, bytes], None]
    ) -> str:
        """Make and put one picture; return why not, where it cannot be made."""
        values = table.slice(row, 1).to_pylist()[0]
        if values["content_hash"] not in (None, measured.content_hash):
            return CHANGED
        image, size = annotate.opened(pixels), (values["height"], values["width"])
        if self._semantic:
            areas = {area["category_id"]: area["pixels"] for area in values[schema.CLASSES] or []}
            image = annotate.classes(image, values[schema.CLASS_MAP], self._known, areas, size)
        else:
            image = annotate.objects(image, [Shape.of(found) for found in values[schema.DETECTIONS] or []], size)
        put(row, annotate.encoded(image))
        return ""


class _Tray(Arrivals):
    """Where decoders deliver; what is drawn is drawn in their threads."""

    def __init__(self, draw: Callable[[int, Measured, Pixels], str]) -> None:
        super().__init__()
        self._draw = draw
        self._done: queue.Queue[tuple[int, str] | BaseException] = queue.Queue()

    def decoded(self, tag: int, measured: Measured, pixels: Pixels) -> None:
        """See ``decode_worker.Outlet``."""
        try:
            self._done.put((tag, self._draw(tag, measured, pixels)))
        except Exception as error:  # noqa: BLE001 - raised where the rows are awaited
            self._done.put(error)

    def failed(self, tag: int, failure: Failure) -> None:
        """See ``decode_worker.Outlet``."""
        self._done.put((tag, failure.code.replace("_", " ")))

    def broken(self, error: BaseException) -> None:
        """See ``decode_worker.Outlet``."""
        self._done.put(error)

    def next(self) -> tuple[int, str]:
        """Return a row that is done, and why it has no picture; raises what ended a decoder."""
        done = self._done.get()
        if isinstance(done, BaseException):
            raise done
        return done

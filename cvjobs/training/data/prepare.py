"""The images of a training, from listed to decoded: those that failed and those that are in two splits are noted."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common import rates
from cvjobs.common.errors import JobFailed
from cvjobs.common.formatting import counted, percent, size
from cvjobs.common.progress import Progress
from cvjobs.common.signals import Stop
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.transform import Transform
from cvjobs.networks.families import training_run
from cvjobs.sources.rows import id_bytes
from cvjobs.storage.object_store import address
from cvjobs.storage.store import Store
from cvjobs.training.data import cache_hold, omissions, outcomes
from cvjobs.training.data import decoded as data_decoded
from cvjobs.training.data import labels as data_labels
from cvjobs.training.data.cache_hold import CacheHold
from cvjobs.training.data.decode_order import DecodeOrder, check_some
from cvjobs.training.data.decode_request import SCHEMA, DecodedImages, DecodeRequest
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.data.few_images import FewImages, few_images
from cvjobs.training.data.filling import Filling
from cvjobs.training.data.labels import Double, LabelledImages, Leak, Split
from cvjobs.training.data.whole_pictures import opened
from cvjobs.training.plan import ERRORS, LEAKS, SplitPart

EARLY = 10.0  # seconds for which training waits for images to be decoded before it begins without the rest
SOON = 3.0  # of these, where it is plain that the rest takes much longer than they do


@dataclass(kw_only=True)
class Intake:
    """Decodes the splits of one training into a folder of chunks; ``glance`` is called often, and may end it.

    ``cache`` is what ``--cache`` names, None where the folder follows from the ``run``. With ``elsewhere`` each machine
    that has workers decodes for them, as ``order`` says, and the first one says what became of the images (``hear``);
    this machine then decodes only what is asked for ``first``, and squares.

    ``cache_side`` is the shorter side of whole pictures to train with, 0 for squares of the size that the model sees.
    Whole pictures are decoded in the background, in the order of the first epoch of a ``seed``; ``most_failed`` is the
    share of the images that may fail. ``cache_size`` is how many bytes of images to train with stay, 0 for all, and
    ``folder_of_run`` the cache that the run has if no other is asked for.
    With ``seen_whole`` images of the other splits keep their proportions, as a segmenter sees them.
    ``bounded`` is whether some of them do not stay.
    """

    labelled: LabelledImages
    transform: Transform
    run: str
    cache: str | None
    folder: str
    max_pixels: int
    storage: Mapping[str, str]
    confine: bool
    decoder_server: DecoderServer
    progress: Progress
    stop: Stop
    glance: Callable[[], None]
    cache_side: int = 0
    cache_size: int = 0
    folder_of_run: str = ""
    seed: int = 0
    most_failed: float = 1.0
    elsewhere: bool = False
    first: bool = False
    seen_whole: bool = False
    order: DecodeOrder | None = field(default=None, init=False)
    _heard: Mapping[str, Any] = field(default_factory=dict, init=False)
    _hold: CacheHold | None = field(default=None, init=False)
    _passing: CacheHold | None = field(default=None, init=False)
    _tables: dict[str, pa.Table] = field(default_factory=dict, init=False)
    bounded: bool = field(default=False, init=False)
    _filling: Filling | None = field(default=None, init=False)
    _splits: dict[str, Split] = field(default_factory=dict, init=False)
    _requests: dict[str, DecodeRequest] = field(default_factory=dict, init=False)

    def parts(self, names: tuple[str, ...] = data_labels.SPLITS) -> dict[str, SplitPart]:
        """Decode the splits of these names that there are, or begin to; raises JobFailed for one of which none can be.

        Of what is still being decoded all images are in the parts, and after ``EARLY`` seconds it goes on beside what
        follows.
        """
        self._splits = {name: self._mixed(name) for name in names if name in self.labelled.splits}
        self._requests = {name: self._request(name, split) for name, split in self._splits.items()}
        self.bounded = self._is_bounded()
        listing = self.labelled.listing
        self.order = DecodeOrder(
            requests=self._requests,
            root=listing.root,
            base=listing.base,
            storage=self.storage,
            confine=self.confine,
            run=self.run,
            cache=self.cache and os.path.abspath(self.cache),  # workers have folders of their own
            seed=self.seed,
            room=self.cache_size if self.bounded else 0,
        )
        if self.elsewhere and self.cache is None and not address(self.run):
            self.elsewhere = not self.order.begun  # by a version that decoded for all workers into the run's folder
        if self.elsewhere:
            self.order = self.order.here()
            self._requests, self.folder = dict(self.order.requests), self.order.folder
        if self.elsewhere and self.cache_side and not self.first:
            return {name: self._listed(name) for name in self._splits}
        if self.cache is None and (self.elsewhere or address(self.run)):
            self._hold = CacheHold(self.folder)
            cache_hold.sweep(os.path.dirname(self.folder))
        cache_hold.sweep(self.folder, passing=True)
        self.order.check_room()
        if self.cache_side:
            self._passing = cache_hold.claimed(self.folder, self.run) if self.bounded else None
            self._filling = self.order.filling(self._passes, self.decoder_server, self._ended)
            self._wait(math.inf if self.elsewhere and not self.bounded else EARLY)
            return {name: self._listed(name) for name in self._splits}
        parts = {name: self._part(name, split, self._requests[name]) for name, split in self._splits.items()}
        for name in parts:
            check_some(name, self._tables[name])
        return parts

    @property
    def done(self) -> bool:
        """Whether it is known of all images what became of them; raises what ended that before."""
        if self.elsewhere:
            self.check()
            return self._tables.keys() >= self._splits.keys()
        return self._filling is None or self._filling.done

    def check(self) -> None:
        """Raise what ended decoding in the background."""
        if self._filling is not None:
            self._filling.check()

    @property
    def told(self) -> str:
        """How much is decoded while that is not all, for people."""
        if self.done:
            return ""
        if self._filling is not None:
            return f"decoded {self._filling.decoded:,} of {self._filling.total:,}"
        total = sum(request.rows.num_rows for request in self._requests.values())
        return f"decoded {self._heard.get('decoded', 0):,} of {total:,}"

    def hear(self, said: Mapping[str, Any], run: Store) -> None:
        """Note how far the machine of the first worker is; raises what ends the training when a split is decoded."""
        self._heard = said
        for name in said["known"]:
            if name in self._tables:
                continue
            try:
                table = sealed_table.read(run, outcomes.outcome_table(name), SCHEMA)
            except (UnreadableTable, JobFailed):  # not seen here yet, or the store does not answer now
                return
            self._ended(name, table)

    def wait(self) -> None:
        """Return when all images are decoded; raises as ``parts``."""
        self._wait(math.inf)

    def known(self) -> dict[str, SplitPart]:
        """Return the images that could be decoded, when all of them are.

        Raises:
            JobFailed: the workers have ended and did not leave what became of them.
        """
        self.wait()
        if not self.done:
            raise JobFailed(f"{self.run}/{outcomes.OUTCOMES} is gone: the same command continues.")
        return {name: outcomes.good_of(self._listed(name), self._tables[name]["code"]) for name in self._splits}

    def reach(self, epoch: int, images: int) -> None:
        """Note where training is: in an epoch, from 0, with so many of its images behind it."""
        if self._filling is not None:
            self._filling.reach(epoch, images)

    def leave(self) -> None:
        """Decode no more on this machine, where others do."""
        if self.elsewhere:
            self.close()
            self._filling = None

    def clear(self, *, kept: bool) -> None:
        """Decode no more, and delete what no other run needs: all, unless that is to be ``kept``."""
        self.close()
        if self._passing is not None:
            self._passing.clear()
        if self._hold is not None:
            self._hold.clear()
        elif not kept and not self.elsewhere:
            data_decoded.clear(self.folder)
        if self.folder_of_run and os.path.realpath(self.folder_of_run) != os.path.realpath(self.folder):
            data_decoded.clear(self.folder_of_run)  # of a command that was killed, with other options

    @property
    def _passes(self) -> str:
        """The folder of chunks that do not stay, empty where there are none on this machine."""
        return self._passing.folder if self._passing else ""

    def _is_bounded(self) -> bool:
        """Return whether the training images are larger than their cache; what that costs is said."""
        request = self._requests["train"]
        whole = request.needed()
        if not (self.cache_side and self.cache_size and whole > self.cache_size):
            return False
        share = self.cache_size / whole
        self.progress.note(
            f"the decoded images to train with take about {size(whole)}, of which --cache-size keeps {percent(share)}: "
            f"the other {round((1 - share) * request.rows.num_rows):,} images are decoded again in each epoch"
        )
        return True

    def close(self) -> None:
        """Stop decoding."""
        if self._filling is not None:
            self._filling.close()
        for hold in filter(None, (self._hold, self._passing)):
            hold.close()

    def few(self, name: str, numbers: NDArray[np.int64]) -> AbstractContextManager[FewImages]:
        """Return the context in which some images of a split, by their numbers, are decoded on this machine, too."""
        assert self.order is not None
        return few_images(self.order, name, numbers, self.decoder_server)

    def pixels(self, name: str, part: SplitPart, which: NDArray[np.int64]) -> Any:
        """Return some images of a split that could be decoded, uint8 (n, height, width, 3), or a list of whole ones."""
        if not self.elsewhere:
            return _pixels(part.decoded, which)
        with self.few(name, part.decoded.rows[which]) as few:
            return _pixels(few.decoded, np.arange(len(which)))

    def _wait(self, seconds: float) -> None:
        filling = self._filling
        if filling is None or filling.done:
            return
        meter, began = rates.Meter(), time.monotonic()
        self.stop.guarded = False  # what is decoded is safe, and Ctrl-C may come at any time
        self.progress.phase("decoding", f"decoding {counted(filling.total, 'images')}")
        for _ in filling.waited(seconds):
            self.glance()
            meter.answered(filling.decoded)
            text = ", ".join(filter(None, [f"decoding to {filling.now} with", rates.told(meter.rate)]))
            left = meter.left(filling.total)
            self.progress.show(filling.decoded, filling.total, "images", text, left)
            if seconds < math.inf and time.monotonic() - began > SOON and (left or 0) > SOON * EARLY:
                break
        self.stop.guarded = True

    def _mixed(self, name: str) -> Split:
        """Return a split; whole pictures in the order of a digest of their paths, so that a chunk has some of each."""
        split = self.labelled.splits[name]
        if name != "train" or not self.cache_side:
            return split
        ids = np.frombuffer(id_bytes(split.rows["image_id"]), ">u8").reshape(-1, 2)
        return split.take(np.lexsort((ids[:, 1], ids[:, 0])))

    def _listed(self, name: str) -> SplitPart:
        split = self._splits[name]
        decoded = self._requests[name].listed()
        if name == "train" and self.bounded:
            decoded = replace(decoded, passing=self._passes)
        paths = split.rows["path"].to_pylist()
        return SplitPart(decoded=decoded, paths=paths, labels=split.labels, objects=split.objects)

    def _ended(self, name: str, table: pa.Table) -> None:
        """Raise what ends the training when a split is decoded: nothing is left of it, or too little of all of them."""
        self._tables = {**self._tables, name: table}
        check_some(name, table)
        omissions.check(self.labelled, self.failures, self.most_failed)

    def _request(self, name: str, split: Split) -> DecodeRequest:
        """Return how a split is decoded; the training images keep the borders that random crops reach for."""
        transform = self.transform
        if name == "train" and self.cache_side:
            transform = replace(transform, size=None, resize=self.cache_side, fit="whole")
        elif split.objects is not None:  # whose boxes are looked for in the pictures as they are
            transform = replace(transform, size=None, resize=0, fit="native")
        elif self.seen_whole:
            transform = training_run.whole_pictures(transform)
        elif name == "train" and transform.fit == "short" and transform.size is not None:
            side = max(transform.resize, *transform.size)
            transform = replace(transform, size=(side, side), resize=side)
        # Decoded images are the same ones whatever the model subtracts from them.
        transform = replace(transform, mean=Transform.mean, std=Transform.std)
        listing = self.labelled.listing
        return DecodeRequest(
            rows=split.rows,
            root=listing.root or listing.base,
            transform=transform,
            max_pixels=self.max_pixels,
            folder=self.folder,
        )

    def _part(self, name: str, split: Split, request: DecodeRequest) -> SplitPart:
        doing, meter = f"decoding to {name} with", rates.Meter()
        self.progress.phase("decoding", f"decoding {counted(len(split), 'images')} to {name} with")

        def tell(done: int) -> None:
            self.glance()
            meter.answered(done)
            text = ", ".join(filter(None, [doing, rates.told(meter.rate)]))
            self.progress.show(done, len(split), "images", text, meter.left(len(split)))

        assert self.order is not None
        self.stop.guarded = False  # what is decoded is safe, and Ctrl-C may come at any time
        decoded, table = data_decoded.decode(request, self.order.source(), self.decoder_server, tell)
        self.stop.guarded = True
        self._tables[name] = table
        paths = table["path"].take(pa.array(decoded.rows)).to_pylist()
        good = split.take(decoded.rows)
        return SplitPart(decoded=decoded, paths=paths, labels=good.labels, objects=good.objects)

    def note(self, run: Store) -> list[Leak]:
        """Write the images that failed, also while listing, and those that are in two splits; return the latter.

        What is not decoded yet is not among them.
        """
        tables = self._tables
        failed = [
            table.filter(table["code"].is_valid())
            .drop_columns(["content_hash"])
            .add_column(1, "split", pa.array([name] * (table.num_rows - table["code"].null_count), pa.string()))
            for name, table in tables.items()
        ]
        schema = pa.schema([(name, pa.string()) for name in ("path", "split", "stage", "code", "detail")])
        sealed_table.write(run, ERRORS, pa.concat_tables([*failed, self._unlisted(schema)]))
        good = {name: table.filter(table["code"].is_null()) for name, table in tables.items()}
        good.setdefault("train", SCHEMA.empty_table())
        leaks = data_labels.leaks(
            {name: (t["path"].to_pylist(), t["content_hash"].to_pylist()) for name, t in good.items()}
        )
        columns = ["split", "path", "train_path", "content_hash"]
        rows = [dict(zip(columns, leak, strict=True)) for leak in leaks]
        sealed_table.write(run, LEAKS, pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in columns])))
        return leaks

    @property
    def failures(self) -> list[omissions.Failure]:
        """The code and path of each image that failed, also while listing."""
        tables = [table.filter(table["code"].is_valid()) for table in self._tables.values()]
        decoded = [zip(table["code"].to_pylist(), table["path"].to_pylist(), strict=True) for table in tables]
        return [*omissions.listed(self.labelled), *itertools.chain.from_iterable(decoded)]

    def _unlisted(self, schema: pa.Schema) -> pa.Table:
        """Return the entries that failed while listing, which belong to no split."""
        failures = self.labelled.listing.failures
        said = {name: failures[name].to_pylist() for name in ("path", "code", "detail")}
        count = failures.num_rows
        return pa.table({**said, "split": [""] * count, "stage": ["list"] * count}).select(schema.names).cast(schema)

    def doubles(self) -> list[Double]:
        """Return the training images that are there before, by their content."""
        table, labels = self._tables["train"], self._splits["train"].labels
        return data_labels.doubles(table["path"].to_pylist(), table["content_hash"].to_pylist(), labels)


def _pixels(decoded: DecodedImages, which: NDArray[np.int64]) -> Any:
    pictures = opened(decoded)
    if isinstance(pictures, Pictures):
        return pictures.gather(which)
    return [picture.numpy().copy() for picture in pictures.some(decoded.rows[which])]

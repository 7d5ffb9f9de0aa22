"""The images of a training, from listed to decoded: those that failed and those that are in two splits are noted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from cvjobs.common import rates
from cvjobs.common.errors import JobFailed
from cvjobs.common.formatting import counted
from cvjobs.common.progress import Progress
from cvjobs.common.signals import Stop
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.transform import Transform
from cvjobs.sources import reasons
from cvjobs.sources.reader import open_source
from cvjobs.training import artifacts
from cvjobs.training.data import decoded as data_decoded
from cvjobs.training.data import labels as data_labels
from cvjobs.training.data import omissions
from cvjobs.training.data.labels import Double, LabelledImages, Leak, Split
from cvjobs.training.plan import ERRORS, LEAKS, SplitPart


@dataclass(kw_only=True)
class Intake:
    """Decodes the splits of one training into a folder of chunks; ``glance`` is called often, and may end it.

    ``cache_side`` is the shorter side of whole pictures to train with, 0 for squares of the size that the model sees.
    """

    labelled: LabelledImages
    transform: Transform
    folder: str
    max_pixels: int
    storage: Mapping[str, str]
    confine: bool
    decoder_server: DecoderServer
    progress: Progress
    stop: Stop
    glance: Callable[[], None]
    cache_side: int = 0
    _tables: dict[str, pa.Table] = field(default_factory=dict, init=False)

    def parts(self, names: tuple[str, ...] = data_labels.SPLITS) -> dict[str, SplitPart]:
        """Decode the splits of these names that there are; raises JobFailed for one of which no image can be."""
        splits = {name: self.labelled.splits[name] for name in names if name in self.labelled.splits}
        requests = {name: self._request(name, split) for name, split in splits.items()}
        data_decoded.check_room(list(requests.values()), self.folder)
        parts = {name: self._part(name, split, requests[name]) for name, split in splits.items()}
        for name, part in parts.items():
            if not len(part):
                raise JobFailed(self._undecoded(name))
        return parts

    def _request(self, name: str, split: Split) -> data_decoded.DecodeRequest:
        """Return how a split is decoded; the training images keep the borders that random crops reach for."""
        transform = self.transform
        if name == "train" and self.cache_side:
            transform = replace(transform, size=None, resize=self.cache_side, fit="whole")
        elif name == "train" and transform.fit == "short" and transform.size is not None:
            side = max(transform.resize, *transform.size)
            transform = replace(transform, size=(side, side), resize=side)
        # Decoded images are the same ones whatever the model subtracts from them.
        transform = replace(transform, mean=Transform.mean, std=Transform.std)
        listing = self.labelled.listing
        return data_decoded.DecodeRequest(
            rows=split.rows,
            root=listing.root or listing.base,
            transform=transform,
            max_pixels=self.max_pixels,
            folder=self.folder,
        )

    def _part(self, name: str, split: Split, request: data_decoded.DecodeRequest) -> SplitPart:
        listing = self.labelled.listing
        source = open_source(listing.root, listing.base, dict(self.storage), self.confine)
        doing, meter = f"decoding to {name} with", rates.Meter()
        self.progress.phase("decoding", f"decoding {counted(len(split), 'images')} to {name} with")

        def tell(done: int) -> None:
            self.glance()
            meter.answered(done)
            text = ", ".join(filter(None, [doing, rates.told(meter.rate)]))
            self.progress.show(done, len(split), "images", text, meter.left(len(split)))

        self.stop.guarded = False  # what is decoded is safe, and Ctrl-C may come at any time
        decoded, table = data_decoded.decode(request, source, self.decoder_server, tell)
        self.stop.guarded = True
        self._tables[name] = table
        paths = table["path"].take(pa.array(decoded.rows)).to_pylist()
        return SplitPart(decoded=decoded, paths=paths, labels=split.labels[decoded.rows])

    def note(self, run: str) -> list[Leak]:
        """Write the images that failed, also while listing, and those that are in two splits; return the latter."""
        failed = [
            table.filter(table["code"].is_valid())
            .drop_columns(["content_hash"])
            .add_column(1, "split", pa.array([name] * (table.num_rows - table["code"].null_count), pa.string()))
            for name, table in self._tables.items()
        ]
        artifacts.table(run, ERRORS, pa.concat_tables([*failed, self._unlisted(failed[0].schema)]))
        good = {name: table.filter(table["code"].is_null()) for name, table in self._tables.items()}
        leaks = data_labels.leaks(
            {name: (t["path"].to_pylist(), t["content_hash"].to_pylist()) for name, t in good.items()}
        )
        columns = ["split", "path", "train_path", "content_hash"]
        rows = [dict(zip(columns, leak, strict=True)) for leak in leaks]
        artifacts.table(run, LEAKS, pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in columns])))
        return leaks

    def _undecoded(self, name: str) -> str:
        table = self._tables[name]
        why = reasons.words(reasons.failed(zip(table["code"].to_pylist(), table["path"].to_pylist(), strict=True)))
        which = f"None of the {table.num_rows:,} images" if table.num_rows > 1 else "The only image"
        return f"{which} to {name} with could be decoded: {why}; replace them, then run again."

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
        table, labels = self._tables["train"], self.labelled.splits["train"].labels
        return data_labels.doubles(table["path"].to_pylist(), table["content_hash"].to_pylist(), labels)

"""The contact sheet of a run that made vectors; a run without anything to compute shows the one before."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.dataset import schema, sealed
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.prediction.context import Context
from cvjobs.storage.store import Store

SHEET = 36
BUDGET = 0.6


@dataclass(frozen=True)
class SheetImage:
    """An image of the sheet, in the version that was listed (bytes, ns since 1970)."""

    path: str
    bytes: int
    modified: int
    image: Thumbnail


@dataclass(frozen=True)
class ContactSheet:
    """Images of the run that ended at ``ended`` (s since 1970), 0 for the run that the page is about."""

    images: list[SheetImage]
    ended: float = 0.0


def sample(context: Context, done: pa.Table) -> ContactSheet:
    """Return pictures of images sampled evenly from those that were computed, as many as there is time for."""
    if not done.num_rows:
        return ContactSheet([])
    chosen = np.unique(np.linspace(0, done.num_rows - 1, min(SHEET, done.num_rows)).round().astype(np.int64))
    rows = done.take(pa.array(chosen))
    like = context.resolved.transform.record()
    images = thumbnails(context.source, rows, BUDGET, decoder_server=context.decoder_server, like=like)
    stamps = rows["modified"].cast(pa.int64()).to_pylist()
    each = zip(rows["path"].to_pylist(), rows["bytes"].to_pylist(), stamps, images, strict=True)
    return ContactSheet([shown for shown in map(SheetImage, *zip(*each, strict=True)) if shown.image.uri])


def keep(store: Store, sheet: ContactSheet, ended: float) -> None:
    """Keep a sheet for runs that compute nothing."""
    record = {"sheet": [asdict(shown) for shown in sheet.images], "ended": ended}
    content = sealed.pack(record)
    store.write_bytes(schema.PICTURES, content)


def load(store: Store, images: pa.Table) -> ContactSheet:
    """Return the sheet that is kept, without images that are not listed any more as they were."""
    try:
        content = sealed.unpack(store.read(schema.PICTURES)) or {}
        shown = [SheetImage(**{**record, "image": Thumbnail(**record["image"])}) for record in content["sheet"]]
        sheet = ContactSheet(shown, float(content["ended"]))
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return ContactSheet([])
    wanted = pa.array([entry.path for entry in sheet.images], pa.string())
    listed = images.filter(pc.is_in(images["path"], value_set=wanted))
    stamps = listed["modified"].cast(pa.int64()).to_pylist()
    still = set(zip(listed["path"].to_pylist(), listed["bytes"].to_pylist(), stamps, strict=True))
    return ContactSheet([s for s in sheet.images if (s.path, s.bytes, s.modified) in still], sheet.ended)

"""The pictures of a page: images of the lowest, median and highest scores, with their results drawn over them.

What was drawn is kept with the output, so that a run that finds nothing to do shows it without reading an image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import Category
from cvjobs.common.formatting import shortened
from cvjobs.dataset import schema, sealed, snapshot
from cvjobs.dataset.snapshot import Snapshot
from cvjobs.html import overlays, palette
from cvjobs.html.overlays import LONGEST, Overlay, Shape, Tag
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.prediction.context import Context
from cvjobs.prediction.report.result_statistics import PICKED, Pick, Statistics
from cvjobs.storage.store import Store

FORMAT = 1
WITHOUT = 4
SIZE = 320  # pixels
READING, DRAWING, STARTING = 4.0, 3.0, 5.0  # s; the last where decoders have to be started for the pictures alone
GUESSES = 3
Place = tuple[str, int]  # a file and a row


@dataclass(frozen=True, kw_only=True)
class ResultPicture:
    """An image with what was found in it; ``seen`` are the category ids that are drawn.

    ``note`` is what matters most, in words; ``more`` is what comes next.
    """

    image: Thumbnail
    path: str
    note: str
    more: str = ""
    over: Overlay | None = None
    seen: tuple[int, ...] = ()

    @classmethod
    def load(cls, record: Mapping[str, Any]) -> ResultPicture:
        """Return the picture that a JSON record describes; raises KeyError or TypeError where it describes none."""
        return cls(
            image=Thumbnail(**record["image"]),
            path=record["path"],
            note=record["note"],
            more=record["more"],
            over=None if record["over"] is None else Overlay.load(record["over"]),
            seen=tuple(record["seen"]),
        )


def choose(files: Mapping[str, Statistics]) -> dict[str, list[Place]]:
    """Return the images to show: ``lowest``, ``median`` and ``highest`` scores, and ``without`` any; none is twice.

    Where there are not more images than these show, ``all`` has every one that has a score, the lowest first.
    """

    def pool(name: str) -> list[tuple[float, Place]]:
        picks: Iterable[tuple[str, Pick]] = ((f, pick) for f, found in files.items() for pick in getattr(found, name))
        return sorted((pick.score, (file, pick.row)) for file, pick in picks)

    without = [place for _, place in pool("without")][:WITHOUT]
    lowest, spread, highest = pool("lowest"), pool("spread"), pool("highest")
    scored = sum(found.images - found.empty for found in files.values())
    if scored <= 3 * PICKED and len(known := sorted({*lowest, *spread, *highest})) == scored:
        return {"all": [place for _, place in known], "without": without}
    low = [place for _, place in lowest[:PICKED]]
    high = [place for _, place in highest[-PICKED:] if place not in low][::-1]
    middle = _median(files)
    rest = [entry for entry in {*lowest, *spread, *highest} if entry[1] not in (*low, *high)]
    near = sorted(sorted(rest, key=lambda entry: (abs(entry[0] - middle), entry))[:PICKED])
    return {"lowest": low, "median": [place for _, place in near], "highest": high, "without": without}


def _median(files: Mapping[str, Statistics]) -> float:
    """Return the median score of all images, by those at equal distances in each file."""
    scores = [pick.score for found in files.values() for pick in found.spread]
    weights = [
        (found.images - found.empty) / len(found.spread) for found in files.values() for _ in range(len(found.spread))
    ]
    order = np.argsort(scores)
    sums = np.cumsum(np.array(weights)[order])
    return float(np.array(scores)[order][np.searchsorted(sums, sums[-1] / 2)]) if len(order) else math.nan


def of(context: Context, base: Snapshot, chosen: Sequence[Place], task: str, idle: bool) -> dict[Place, ResultPicture]:
    """Return pictures of images, those that there is time for.

    An ``idle`` run has no decoders: it starts them only where there is no picture at all.
    Raises as ``snapshot.read_groups``.
    """
    earlier = _load(context.store)
    shown = {place: earlier[place] for place in chosen if place in earlier}
    missing = [place for place in chosen if place not in shown]
    if missing and not (idle and shown):
        drawn = _draw(context, base, missing, task, STARTING if idle else DRAWING)
        shown |= drawn
        _keep(context.store, {place: picture for place, picture in shown.items() if picture.image.uri})
    elif shown.keys() != earlier.keys():
        _keep(context.store, shown)
    return shown


def _draw(
    context: Context, base: Snapshot, places: list[Place], task: str, budget: float
) -> dict[Place, ResultPicture]:
    rows = _read(context.store, base, places, task)
    if not rows:
        return {}
    keys = pa.concat_tables(table.select(["path", "bytes", "modified"]) for table in rows.values())
    like = context.resolved.transform.record()
    images = thumbnails(context.source, keys, budget, SIZE, context.decoder_server, like)
    categories = common_categories.things(context.resolved.facts)
    paint = {"semantic": _semantic, "classify": _classify}.get(task, _detect)
    return {
        place: paint(image, table.drop_columns(["bytes", "modified"]).to_pylist()[0], categories)
        for image, (place, table) in zip(images, rows.items(), strict=True)
    }


def _read(store: Store, base: Snapshot, places: list[Place], task: str) -> dict[Place, pa.Table]:
    """Return the rows of places, one row group in memory at a time, and those that take too long not at all."""
    files = {file.name: file for file in base.results}
    columns = ["path", "bytes", "modified", "width", "height", *schema.SCHEMAS[task].names]
    until = time.monotonic() + READING
    found: dict[Place, pa.Table] = {}
    for name in dict.fromkeys(file for file, _ in places):
        if time.monotonic() > until:
            break
        rows = np.array(sorted(row for file, row in places if file == name), np.int64)
        for first, table in snapshot.read_groups(store, files[name], columns, rows):
            mine = rows[(rows >= first) & (rows < first + table.num_rows)]
            for row in mine.tolist():
                # A copy of the one row: a slice would hold the group.
                found[name, row] = table.take(pa.array([row - first]))
    return {place: found[place] for place in places if place in found}


def _detect(image: Thumbnail, row: dict[str, Any], categories: list[Category]) -> ResultPicture:
    shapes = [Shape.of(found) for found in row[schema.DETECTIONS] or []]
    del categories
    count = f"{len(shapes):,} detection{'' if len(shapes) == 1 else 's'}"
    note = f"{shapes[0].score:.2f} · {count}" if shapes else count
    picture = ResultPicture(image=image, path=row["path"], note=note)
    if not shapes or not image.uri:
        return picture
    over = overlays.draw(shapes, (row["height"], row["width"]), (image.height, image.width))
    seen = dict.fromkeys(shape.category_id for shape in shapes[: overlays.MOST])
    return replace(picture, over=over, seen=tuple(seen))


def _semantic(image: Thumbnail, row: dict[str, Any], categories: list[Category]) -> ResultPicture:
    known = {c.id for c in categories}
    areas = [area for area in row[schema.CLASSES] or [] if area["category_id"] in known and area["pixels"]]
    share = sum(area["pixels"] for area in areas) / max(row["height"] * row["width"], 1)
    note = f"{100 * share:.0f}% · {len(areas):,} class{'' if len(areas) == 1 else 'es'}"
    picture = ResultPicture(image=image, path=row["path"], note=note if areas else "no class")
    if not areas or not image.uri:
        return picture
    try:
        over = overlays.colour_map(row[schema.CLASS_MAP], sorted(known), (image.height, image.width))
    except (ValueError, OSError, TypeError):  # it is damaged; the picture itself is not
        return picture
    return replace(picture, over=over, seen=tuple(area["category_id"] for area in areas))


def _classify(image: Thumbnail, row: dict[str, Any], categories: list[Category]) -> ResultPicture:
    ids = {c.name: c.id for c in reversed(categories)}
    label, score = row["label"], row["score"]
    if label is None or score is None:
        return ResultPicture(image=image, path=row["path"], note="no label")
    others = [f"{guess['label']} {guess['score']:.2f}" for guess in (row["top"] or [])[1:GUESSES]]
    # More classes than colours have none of their own.
    colour = palette.place(ids[label]) if label in ids and len(categories) <= len(palette.COLOURS) else None
    tag = Tag(left=0, top=0, colour=colour, text=shortened(label, LONGEST), figure=f"{score:.2f}")
    over = Overlay(width=image.width, height=image.height, tags=(tag,)) if image.uri else None
    note = "" if over and len(label) <= LONGEST else f"{label} {score:.2f}"
    return ResultPicture(image=image, path=row["path"], note=note, more=", ".join(others), over=over)


def _load(store: Store) -> dict[Place, ResultPicture]:
    try:
        content = sealed.unpack(store.read(schema.PICTURES)) or {}
        if content["format"] != FORMAT:
            return {}
        return {(entry["file"], entry["row"]): ResultPicture.load(entry["picture"]) for entry in content["pictures"]}
    except (FileNotFoundError, KeyError, TypeError, AttributeError):
        return {}


def _keep(store: Store, pictures: Mapping[Place, ResultPicture]) -> None:
    entries = [{"file": file, "row": row, "picture": asdict(picture)} for (file, row), picture in pictures.items()]
    content = sealed.pack({"format": FORMAT, "pictures": entries})
    store.write_bytes(schema.PICTURES, content)

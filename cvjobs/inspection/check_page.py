"""The page of a look at data, from what was found."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cvjobs.common.formatting import counted, percent
from cvjobs.html import charts, render
from cvjobs.inspection.check_pictures import CheckSheet
from cvjobs.inspection.data_check import DataCheck
from cvjobs.inspection.object_statistics import SMALL, ObjectStatistics, ValueBins
from cvjobs.inspection.problems import FILE, KINDS
from cvjobs.training.data.class_statistics import OPEN, Survey

BESIDE = ("near_leak", "label_doubtful")  # kinds whose two images are not the same
CLASSES = 200
NAMED = 12
SIDES = (0, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


@dataclass(frozen=True, kw_only=True)
class CheckShow:
    """What a page shows beside the figures: the survey of a training, statistics of objects, and sheets of pictures.

    ``sides`` are bins of the images' shorter sides, of which there are so many ``sizes``.
    """

    sides: ValueBins
    sizes: int
    survey: Survey | None = None
    objects: ObjectStatistics | None = None
    samples: Sequence[CheckSheet] = ()
    sheets: Sequence[CheckSheet] = field(default_factory=tuple)


def page(found: DataCheck, show: CheckShow, original: Callable[[str], str]) -> str:
    """Return the page as HTML; ``original`` makes an image's path the address of the image itself."""
    columns, rows = _classes(found.classes)
    return render.render(
        "check.html",
        found=found,
        heading=_heading(found),
        tiles=_tiles(found, show),
        problems=[
            {
                **own,
                "remedy": KINDS[kind].remedy,
                "relation": "beside" if kind in BESIDE else "is",
                "first": _rows(own),
            }
            for kind, own in found.problems.items()
        ],
        survey=show.survey,
        open_classes=OPEN,
        named=NAMED,
        errors_file=FILE,
        leaks_file=FILE,
        columns=columns,
        classes=rows[:CLASSES],
        more_classes=max(len(rows) - CLASSES, 0),
        objects=_sentence(show.objects),
        charts=[chart for chart in _charts(show) if chart],
        sizes=[(f"{width:,} × {height:,}", f"{count:,}") for width, height, count in found.image_sizes["frequent"]],
        samples=show.samples,
        sheets=show.sheets,
        original=original,
        made=time.time(),
    )


def _heading(found: DataCheck) -> str:
    if found.wrong:
        return f"{counted(found.wrong, 'problems')} to correct"
    return f"Nothing to correct, {found.doubtful:,} to look at" if found.doubtful else "No problem found"


def _rows(own: Mapping[str, Any]) -> list[dict[str, str]]:
    names = ("path", "where", "other", "detail")
    rows = [{name: row.get(name, "") for name in names} for row in own["first"]]
    return [{**row, "where": posixpath.basename(row["where"])} for row in rows]


def _tiles(found: DataCheck, show: CheckShow) -> list[tuple[str, ...]]:
    tiles: list[tuple[str, ...]] = [
        (f"{count:,}", _of_split(split, len(found.images))) for split, count in found.images.items()
    ]
    tiles.append((f"{len(found.classes):,}", "classes"))
    if show.objects:
        tiles.append((f"{show.objects.objects:,}", "objects"))
        tiles.append((f"{show.objects.without:,}", "images without an object"))
    failed = found.problems.get("failed", {}).get("count", 0)
    tiles.append((f"{failed:,}", "images not decoded", "bad" if failed else ""))
    tiles.append((f"{found.wrong:,}", "to correct", "bad" if found.wrong else "good"))
    tiles.append((f"{found.doubtful:,}", "to look at", "warn" if found.doubtful else ""))
    return tiles


def _of_split(split: str, splits: int) -> str:
    return f"images in {split}" if split else "images" if splits == 1 else "images in no split"


def _classes(classes: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the titles of the columns and the rows of the table of classes, the rarest first."""
    kinds = [kind for kind in ("objects", "images", "pixels") if classes and kind in classes[0]]
    splits = list(dict.fromkeys(split for row in classes for kind in kinds for split in row[kind]))
    columns = [" ".join(filter(None, (kind, split))) for kind in kinds for split in splits]
    median = bool(classes) and "median_share" in classes[0]
    key = kinds[0] if kinds and kinds[0] == "objects" else kinds[-1] if kinds else ""
    totals = [sum(row[key].values()) if key else 0 for row in classes]
    most = max(totals, default=0) or 1
    rows = []
    for row, total in sorted(zip(classes, totals, strict=True), key=lambda pair: pair[1]):
        cells = [_cell(kind, row[kind].get(split, 0)) for kind in kinds for split in splits]
        if median:
            cells.append("–" if row["median_share"] is None else percent(row["median_share"]))
        rows.append({"name": row["name"], "share": total / most, "cells": cells})
    return [*columns, *(["median side"] if median else [])], rows


def _cell(kind: str, value: float) -> str:
    return percent(value) if kind == "pixels" else f"{value:,}"


def _sentence(objects: ObjectStatistics | None) -> str:
    if objects is None or not objects.objects:
        return ""
    small = (
        f"Where the shorter side of an image is {objects.input_side:,} pixels (--img-size), {percent(objects.small)} "
        f"of the objects have a side below {SMALL} pixels, which a detector hardly sees."
    )
    return f"{small} {objects.anchors}" if objects.anchors else small


def _charts(show: CheckShow) -> list[charts.Histogram | None]:
    found = [_chart(show.sides, "Shorter side of the images", "pixels", "images", str)] if show.sizes > 1 else []
    if show.objects:
        own, side = show.objects, show.objects.input_side
        found += [
            _chart(own.in_an_image, "Objects in an image", "objects", "images", lambda edge: f"{edge:g}"),
            _chart(own.shares, "Side of an object as a share of the image's", "", "objects", lambda e: f"{e:.0%}"),
            _chart(own.pixels, f"Side of an object, image reduced to {side}", "pixels", "objects", lambda e: f"{e:g}"),
            _chart(own.ratios, "Width of an object by its height", "", "objects", _ratio),
        ]
    return found


def _ratio(edge: float) -> str:
    return f"{edge:g}" if edge >= 1 else f"1:{1 / edge:g}" if edge else "0"


def _chart(
    bins: ValueBins, title: str, x_title: str, y_title: str, name: Callable[[float], str]
) -> charts.Histogram | None:
    some = [at for at, count in enumerate(bins.counts) if count] or [0]
    first, last = max(some[0] - 1, 0), some[-1] + 1
    names = [*map(name, bins.edges[first:last]), name(bins.edges[last]) if last < len(bins.edges) else "more"]
    return charts.histogram(bins.counts[first:last], names, title, x_title, y_title, every=1)

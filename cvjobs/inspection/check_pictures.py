"""The pictures of a look at data: samples with their truth drawn over them, what is wrong, and pairs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.evaluation.ground_truth.types import BadTruth, PixelTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.html import overlays, palette
from cvjobs.html.overlays import Overlay, Shape
from cvjobs.html.thumbnails import Thumbnail, thumbnails
from cvjobs.images.decode_children import DecoderServer
from cvjobs.inspection.found_objects import FoundObjects
from cvjobs.inspection.labelled_data import ImageLabels
from cvjobs.inspection.mask_classes import MaskClasses
from cvjobs.inspection.problems import KINDS, Problems
from cvjobs.inspection.truth_files import SplitTruth
from cvjobs.sources.reader import Source

SAMPLES = 12
EXAMPLES = 4  # pictures of a kind of problem
PAIRS = 8  # of a kind
OF_CLASSES = 24  # pictures, one of each class or more
SIZE = 320  # pixels
BUDGET = 30.0  # seconds
BESIDE = ("leak", "contradiction", "near_leak", "label_doubtful")  # kinds that are shown as two pictures
ALONE = ("size_differs", "blank", "mask_size", "mask_beyond")


@dataclass(frozen=True, kw_only=True)
class CheckSheet:
    """Pictures below a title and a sentence; ``pairs`` are two pictures each, ``small`` pictures are many."""

    title: str
    words: str
    pictures: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    legend: Sequence[tuple[int, str, str]] = ()
    small: bool = False


@dataclass(kw_only=True)
class Album:
    """The pictures that a page is going to show: wanted first, then decoded all together, by their place."""

    paths: list[str]
    wanted: dict[int, Thumbnail] = field(default_factory=dict)

    def want(self, images: Iterable[int]) -> None:
        """Note that some images are going to be shown."""
        self.wanted.update(dict.fromkeys(images, Thumbnail(reason="not read")))

    def read(self, source: Source, rows: pa.Table, decoder_server: DecoderServer) -> None:
        """Decode the pictures that are wanted."""
        at = sorted(self.wanted)
        found = thumbnails(source, rows.take(pa.array(at, pa.int64())), BUDGET, SIZE, decoder_server)
        self.wanted = dict(zip(at, found, strict=True))


def spread(known: Ints, classes: Sequence[Iterable[int]], most: int = SAMPLES) -> list[int]:
    """Return the places of images to show: one of each class, those of few images first, then some at equal distances.

    ``classes`` are the images of each class.
    """
    chosen: dict[int, None] = {}
    own = [list(images) for images in classes]
    for images in sorted((images for images in own if images), key=len):
        if len(chosen) < most - most // 3 and not any(at in chosen for at in images):
            chosen[images[len(images) // 2]] = None
    for at in known[np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(np.int64)].tolist():
        if len(chosen) < most:
            chosen[at] = None
    return list(chosen)


def drawn(found: FoundObjects, at: int, size: tuple[int, int], box: Sequence[float] | None = None) -> Overlay | None:
    """Return what lies over the picture of an image: its objects, or beside one ``box`` that is wrong these dashed.

    ``size`` is (height, width) of the picture.
    """
    mine = np.flatnonzero(found.image == at)
    if not len(mine):
        return None
    mine = mine[np.argsort(-found.boxes[mine, 2] * found.boxes[mine, 3], kind="stable")][::-1]
    height, width = found.sizes[mine[0]].tolist()
    shapes = [_shape(found, number, dashed=box is not None) for number in mine.tolist()]
    if box is not None:
        wrong = next((shape for shape in shapes if np.allclose(_corners(box), shape.box)), None)
        label = wrong.label if wrong else ""
        shapes = [Shape(category_id=5, label=label, box=_corners(box)), *(s for s in shapes if s is not wrong)]
        shapes = [shapes[0], *(Shape(category_id=0, label="", box=s.box, dashed=True) for s in shapes[1:])]
    return overlays.draw(shapes, (height, width), size)


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _shape(found: FoundObjects, number: int, dashed: bool) -> Shape:
    category = int(found.category[number])
    text = ""
    if found.masks is not None:
        counts = found.masks[number]["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    return Shape(
        category_id=category + 1,
        label=found.classes[category],
        box=_corners(found.boxes[number].tolist()),
        rle=text,
        dashed=dashed,
    )


def objects_sheet(found: FoundObjects, chosen: Sequence[int], album: Album) -> CheckSheet:
    """Return samples with boxes and masks."""
    pictures = []
    for at in chosen:
        image = album.wanted[at]
        over = drawn(found, at, (image.height, image.width)) if image.uri else None
        count = int((found.image == at).sum())
        note = f"{count:,} object{'' if count == 1 else 's'}"
        pictures.append({"image": image, "path": album.paths[at], "over": over, "note": note})
    seen = sorted({int(found.category[n]) for n in np.flatnonzero(np.isin(found.image, chosen)).tolist()})
    legend = [(palette.place(number + 1), found.classes[number], "") for number in seen]
    return CheckSheet(
        title="Samples",
        words="The truth drawn over some images, of each class if it may be",
        pictures=pictures,
        legend=legend,
    )


def masks_sheet(
    truths: Sequence[SplitTruth], places: Sequence[Ints], classes: MaskClasses, chosen: Sequence[int], album: Album
) -> CheckSheet:
    """Return samples with class maps."""
    pictures, seen = [], set()
    for at in chosen:
        image, over = album.wanted[at], None
        for one, place in zip(truths, places, strict=True):
            numbers = np.flatnonzero(place == at)
            if not len(numbers) or not image.uri or not isinstance(one.truth, PixelTruth):
                continue
            try:
                ids = one.truth.load(int(numbers[0]))
            except BadTruth:
                continue
            known = [id_ for id_ in np.unique(ids).tolist() if id_ in classes.ids]
            seen.update(known)
            over = overlays.coloured(ids, known, (image.height, image.width))
        pictures.append({"image": image, "path": album.paths[at], "over": over, "note": ""})
    legend = [(palette.place(id_), classes.title(id_), "") for id_ in sorted(seen)]
    words = "Class maps drawn over some images; what does not count stays clear"
    return CheckSheet(title="Samples", words=words, pictures=pictures, legend=legend)


def labels_sheet(own: ImageLabels, chosen: Sequence[int], album: Album) -> CheckSheet:
    """Return an image of each class."""
    pictures = [
        {"image": album.wanted[at], "path": album.paths[at], "over": None, "note": ", ".join(own.names[at])}
        for at in chosen
    ]
    return CheckSheet(title="Samples", words="Images of the classes", pictures=pictures, small=True)


def wanted_of_problems(problems: Problems, places: dict[str, int]) -> list[int]:
    """Return the images that the sheets of problems show."""
    names = [row["path"] for kind in KINDS for row, _ in problems.boxed(kind, EXAMPLES)]
    names += [row["path"] for kind in ALONE for row in problems.of(kind, EXAMPLES)]
    names += [row[side] for kind in BESIDE for row in problems.of(kind, PAIRS) for side in ("path", "other")]
    return [places[name] for name in names if name in places]


def problem_sheets(
    problems: Problems, album: Album, places: dict[str, int], found: FoundObjects | None
) -> list[CheckSheet]:
    """Return pictures of what is wrong, kind by kind."""
    sheets = []
    for kind, about in KINDS.items():
        title = about.title[:1].upper() + about.title[1:]
        rows: list[tuple[dict[str, Any], Sequence[float] | None]] = [*problems.boxed(kind, EXAMPLES)]
        rows = rows or [(row, None) for row in problems.of(kind, EXAMPLES) if kind in ALONE]
        pictures = []
        for row, box in rows:
            at = places.get(row["path"], -1)
            if at < 0 or at not in album.wanted:
                continue
            image = album.wanted[at]
            size = (image.height, image.width)
            over = drawn(found, at, size, box) if found is not None and image.uri and box is not None else None
            pictures.append({"image": image, "path": row["path"], "over": over, "note": row["detail"]})
        pairs = []
        for row in problems.of(kind, PAIRS) if kind in BESIDE else ():
            both = [places.get(row[side], -1) for side in ("path", "other")]
            if all(at in album.wanted for at in both):
                pairs.append({**row, "images": [album.wanted[at] for at in both]})
        if pictures or pairs:
            sheets.append(CheckSheet(title=title, words=f"To do: {about.remedy}", pictures=pictures, pairs=pairs))
    return sheets

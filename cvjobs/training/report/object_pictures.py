"""What the page of a trained detector shows: the figures of each class, the worst false alarms and the worst misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rles
from numpy.typing import NDArray
from PIL import Image

from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.coco_ap import DetectionScores
from cvjobs.evaluation.metrics.objects import Detections, Objects, Truths
from cvjobs.html import drawn_boxes, drawn_masks
from cvjobs.html.thumbnails import Thumbnail, encoded
from cvjobs.training.data.whole_pictures import WholePictures
from cvjobs.training.loop.tasks.detect import objects_of
from cvjobs.training.report.training_page import EndedRun

SHOWN = 12
SIDE = 240  # pixels of a picture's longer side
SURE = 0.5  # the score from which on a box counts as said


@dataclass(frozen=True)
class ObjectPicture:
    """A picture with one box, its path and what is said of the box."""

    path: str
    words: str
    image: Thumbnail


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what the page of a trained detector needs; see ``training_page.Section``."""
    if ended.plan.decoding is not None:  # whose pictures are on other machines
        return {"classes": [], "alarms": [], "misses": []}
    pictures = WholePictures(ended.part.decoded)
    heights, widths = (sides.numpy() for sides in pictures.sizes(ended.part.decoded.rows))
    return shown(ended, objects_of(ended.part).truths(heights, widths), found(ended), pictures)


def shown(ended: EndedRun, truths: Truths, found: Detections, pictures: WholePictures) -> dict[str, Any]:
    """Return what the page needs of objects that are there and of those that were found, with masks or without."""
    part, classes = ended.part, ended.plan.classes
    scores = coco_ap.evaluate(truths, found, len(classes))
    counts = np.bincount(found.category, minlength=len(classes))
    rows = [
        (name, int(scores.counted[at]), int(counts[at]), scores.average("AP", at), scores.average("AP50", at))
        for at, name in enumerate(classes)
    ]
    kept = scores.found
    wrong = kept.row[np.flatnonzero(kept.wrong)]
    wrong = wrong[np.argsort(-found.score[wrong], kind="stable")][:SHOWN]
    missed = _missed(truths, scores)[:SHOWN]

    def picture(objects: Objects, row: int, words: str) -> ObjectPicture:
        image = int(objects.image[row])
        pixels = pictures.some(part.decoded.rows[image : image + 1])[0].numpy()
        return ObjectPicture(part.paths[image], words, _drawn(pixels, objects, row))

    return {
        "thing": "boxes" if found.masks is None else "masks",
        "classes": sorted(rows, key=lambda row: row[3]),
        "alarms": [
            picture(found, row, f"{classes[found.category[row]]} {found.score[row]:.2f}") for row in wrong.tolist()
        ],
        "misses": [picture(truths, row, classes[truths.category[row]]) for row in missed.tolist()],
    }


def found(ended: EndedRun) -> Detections:
    """Return what was found in the split, as its table has it, without masks."""
    table = ended.found.to_pydict()
    number = {name: at for at, name in enumerate(ended.plan.classes)}
    boxes = np.array([box for own in table["boxes"] for box in own], np.float64).reshape(-1, 4)
    return Detections(
        image=np.repeat(np.arange(len(table["scores"])), [len(own) for own in table["scores"]]),
        category=np.array([number[name] for own in table["labels"] for name in own], np.int64),
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        score=np.array([score for own in table["scores"] for score in own], np.float64),
    )


def _missed(truths: Truths, scores: DetectionScores) -> NDArray[np.int64]:
    """Return the objects that nothing sure finds, the largest first."""
    kept = scores.found
    seen = kept.truth[kept.right & (kept.score >= SURE)]
    free = ~truths.ignored
    free[seen] = False
    rows = np.flatnonzero(free)
    return rows[np.argsort(-truths.area[rows], kind="stable")]


def _drawn(pixels: NDArray[np.uint8], objects: Objects, row: int) -> Thumbnail:
    image, label = Image.fromarray(np.ascontiguousarray(pixels)), int(objects.category[row])
    scale = min(SIDE / max(image.size), 1.0)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    if objects.masks is not None:
        image = drawn_masks.painted(pixels, [rles.decode(objects.masks[row])], [label])
    image = image.resize(size)
    left, top, wide, high = (side * scale for side in objects.boxes[row].tolist())
    drawn_boxes.draw(image, [(left, top, left + wide, top + high)], [label])
    return encoded(image)

"""What the page of a trained segmenter shows: the IoU of each class, and the images that it is worst at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cvjobs.evaluation.metrics.confusion import UNDEFINED
from cvjobs.html import palette
from cvjobs.html.thumbnails import Thumbnail, encoded
from cvjobs.training.loop.tasks.segment import FIGURES, SegmentTask, SegmentView, iou, paint
from cvjobs.training.recipe.padded_crops import nearest
from cvjobs.training.report.training_page import EndedRun

WORST = 12
CLASSES = 200
SIDE = 320  # pixels of the longer side of a picture


@dataclass(frozen=True)
class SegmentedRow:
    """An image with its mask and what the model says painted over it."""

    path: str
    miou: float
    pictures: tuple[tuple[str, Thumbnail], ...]


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what the page of a trained segmenter needs; see ``training_page.Section``."""
    found = ended.found
    counts = np.array([sum(map(np.array, found[name].to_pylist())) for name in FIGURES], np.int64)
    shown, rows = _worst(ended, np.asarray(found["miou"], np.float64))
    return {
        "classes": _classes(ended.plan.classes, counts),
        "more_classes": max(len(ended.plan.classes) - CLASSES, 0),
        "accuracy": counts[0].sum() / max(int(counts[1].sum()), 1),
        "worst": rows,
        "legend": [(ended.plan.classes[number], palette.COLOURS[palette.place(number)]) for number in shown],
    }


def _classes(names: tuple[str, ...], counts: NDArray[np.int64]) -> list[tuple[str, str, float, int, str, str]]:
    """Return name, colour, IoU as a share, pixels, IoU and accuracy of each class that is there, the worst first."""
    own = iou(counts)
    there = [number for number in np.argsort(own, kind="stable").tolist() if own[number] != UNDEFINED]
    return [
        (
            names[at],
            palette.COLOURS[palette.place(at)],
            float(own[at]),
            int(counts[1][at]),
            f"{own[at]:.4f}",
            f"{counts[0][at] / counts[1][at]:.4f}" if counts[1][at] else "–",
        )
        for at in there[:CLASSES]
    ]


def _worst(ended: EndedRun, miou: NDArray[np.float64]) -> tuple[list[int], list[SegmentedRow]]:
    """Return the classes that are painted, and the images with the lowest mIoU of their own."""
    which = np.argsort(miou, kind="stable")[:WORST]
    plan, task, rows = ended.plan, SegmentTask(ended.plan), []
    seen, load = SegmentView(plan, plan.trained(), torch.device("cpu")), task.masks.whole
    shown: set[int] = set()
    for number, pixels in zip(which.tolist(), ended.pixels(which), strict=True):
        truth = load(ended.part.paths[number])
        said, _ = seen(torch.from_numpy(pixels), truth.shape)
        maps = [("truth", truth), ("model", truth * 0 - 1 if said is None else said.astype(np.int64))]
        shown.update(*(np.unique(one[one >= 0]).tolist() for _, one in maps))
        small = _small(pixels)
        pictures = [("image", encoded(Image.fromarray(small)))]
        pictures += [(name, encoded(Image.fromarray(paint(small, _like(one, small))))) for name, one in maps]
        rows.append(SegmentedRow(ended.part.paths[number], float(miou[number]), tuple(pictures)))
    return sorted(shown), rows


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(SIDE / max(image.size), 1.0)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return np.array(image.resize(size, Image.Resampling.BICUBIC))


def _like(classes: NDArray[Any], picture: NDArray[np.uint8]) -> NDArray[Any]:
    rows, columns = (nearest(0, of, to) for of, to in zip(classes.shape, picture.shape[:2], strict=True))
    return classes[rows[:, None], columns]

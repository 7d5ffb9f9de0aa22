"""Copy-paste: objects of one image pasted into another of its batch, with their masks (Ghiasi et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cvjobs.training.recipe import packed_masks
from cvjobs.training.recipe.packed_masks import Packed

LEFT = 0.1  # of an object's area: with less of it to be seen it goes


@dataclass(frozen=True, kw_only=True)
class CanvasObjects:
    """The objects on a canvas: ``boxes`` (k, 4) in its pixels, ``labels`` (k,) and ``masks`` (k, side, bytes)."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: Packed

    def only(self, some: NDArray[np.bool_]) -> CanvasObjects:
        """Return some of them."""
        return CanvasObjects(boxes=self.boxes[some], labels=self.labels[some], masks=self.masks[some])


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """Canvases with objects of others: which image is pasted into each (N,), and its pixels, ``cover``, a mask each."""

    objects: list[CanvasObjects]
    partners: NDArray[np.int64]
    cover: Packed


def paste(each: Sequence[CanvasObjects], share: float, random: torch.Generator) -> Pasted:
    """Paste into a share of the images a random half of the objects of another one, at least one.

    What is pasted lies above: masks below lose what is covered, and their boxes are those around what is left; objects
    with less than a tenth of their area left go. Pasted are the objects as they were before.

    Args:
        each: The objects on the canvas of each image, N of them.
        share: Of the images into which others are pasted.
        random: Where everything random comes from, on the CPU.
    """
    count, side = len(each), each[0].masks.shape[1]
    chosen = (torch.rand(count, generator=random) < share).tolist()
    partners = (np.arange(count) + _others(count, random)) % count
    cover = packed_masks.empty(count, side)
    found = list(each)
    for number, (wanted, partner) in enumerate(zip(chosen, partners.tolist(), strict=True)):
        source = each[partner]
        taken = _half(len(source.labels), random)
        if not wanted or partner == number or not len(source.labels):
            continue
        new = source.only(taken)
        cover[number] = np.bitwise_or.reduce(new.masks, 0)
        found[number] = _together(_below(each[number], cover[number]), new)
    return Pasted(objects=found, partners=partners, cover=cover)


def _others(count: int, random: torch.Generator) -> NDArray[np.int64]:
    """Return how far from each image its partner is, 0 for one that is alone."""
    if count == 1:
        return np.zeros(1, np.int64)
    steps: NDArray[np.int64] = torch.randint(1, count, (count,), generator=random).numpy()
    return steps


def _half(count: int, random: torch.Generator) -> NDArray[np.bool_]:
    """Return which of so many objects are pasted, at least one of some."""
    numbers = torch.rand(count, generator=random).numpy()
    taken: NDArray[np.bool_] = numbers <= max(0.5, numbers.min(initial=1.0))
    return taken


def _below(objects: CanvasObjects, cover: Packed) -> CanvasObjects:
    """Return the objects that are still to be seen below what covers them."""
    masks = objects.masks & ~cover
    before, after = packed_masks.areas(objects.masks), packed_masks.areas(masks)
    kept = (after > 0) & (after >= LEFT * before)
    touched = (after < before)[kept]
    boxes, masks = objects.boxes[kept], masks[kept]
    boxes[touched] = packed_masks.boxes(masks[touched])
    return CanvasObjects(boxes=boxes, labels=objects.labels[kept], masks=masks)


def _together(one: CanvasObjects, other: CanvasObjects) -> CanvasObjects:
    return CanvasObjects(
        boxes=np.concatenate([one.boxes, other.boxes]),
        labels=np.concatenate([one.labels, other.labels]),
        masks=np.concatenate([one.masks, other.masks]),
    )

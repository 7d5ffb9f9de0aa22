"""Decoded images beside what is said of them: labels, boxes or masks; what they come to, and what the page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvjobs.common.progress import Progress
from cvjobs.evaluation.ground_truth.types import LabelTruth, PixelTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.transform import Truncated
from cvjobs.inspection import (
    check_pictures,
    found_objects,
    labelled_data,
    mask_classes,
    object_statistics,
    same_pictures,
)
from cvjobs.inspection.check_page import SIDES, CheckShow
from cvjobs.inspection.check_pictures import Album
from cvjobs.inspection.decoded_facts import DecodedFacts
from cvjobs.inspection.labelled_data import ImageLabels
from cvjobs.inspection.object_statistics import ValueBins, split_order
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth
from cvjobs.sources import reasons
from cvjobs.sources.reader import Source
from cvjobs.sources.rows import Listing
from cvjobs.training.data import omissions
from cvjobs.training.data.labels import LabelledImages

FREQUENT = 6  # sizes of images
TOLD = ("skipped", "followed", "respelt")  # of what a training leaves out; the rest are problems


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What is looked at, and how: the options of the command; ``names`` are those of classes that are numbers."""

    data: str
    out: str
    truths: Sequence[str]
    names: Sequence[str]
    vectors: str | None
    val: float
    input_side: int
    max_pixels: int
    bits: int | None
    truncated: Truncated
    exclude: Sequence[str]
    confine: bool
    storage: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What a kind of data comes to: the split of each image, classes, figures, and what its page shows."""

    task: str
    splits: list[str]
    classes: list[dict[str, Any]]
    figures: dict[str, Any]
    show: CheckShow
    left_out: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class CheckedImages:
    """Images that are decoded, before they are compared with their labels."""

    request: CheckRequest
    listing: Listing
    facts: DecodedFacts
    source: Source
    found: Problems
    progress: Progress
    decoder_server: DecoderServer

    def labelled(self, labelled: LabelledImages) -> Appraisal:
        """Return what labels as a training takes them come to."""
        own = labelled_data.of_training(labelled)
        survey = labelled_data.look(labelled, own, self.facts, self.found)
        near = self._neighbours(own.splits, None if labelled.multilabel else own.names)
        album = self._album()
        chosen = self._of_classes(own)
        sheets = self._pictures(album, chosen, None)
        show = CheckShow(
            **self._sides(),
            survey=survey,
            samples=[check_pictures.labels_sheet(own, chosen, album)],
            sheets=sheets,
        )
        return Appraisal(
            task="classify",
            splits=own.splits,
            classes=self._label_classes(own),
            figures={"imbalance": round(survey.imbalance, 4), **near},
            show=show,
            left_out=survey.left_out,
            notes=_told(survey.left_out),
        )

    def truths(self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str]) -> Appraisal:
        """Return what truths come to, which are all of one kind."""
        kind = truths[0].truth
        if isinstance(kind, LabelTruth):
            return self._of_labels(truths, places, splits)
        same_pictures.note(self.facts.paths, self.facts.hashes, splits, None, self.found)
        near = self._neighbours(splits, None)
        seen = (self._of_masks if isinstance(kind, PixelTruth) else self._of_objects)(truths, places, splits)
        return replace(seen, figures={**seen.figures, **near})

    def _of_objects(self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str]) -> Appraisal:
        objects = found_objects.gather(truths, places, self.facts, self.found)
        statistics = object_statistics.measure(objects, splits, self.request.input_side)
        album = self._album()
        each = [np.unique(objects.image[objects.category == n]).tolist() for n in range(len(objects.classes))]
        chosen = check_pictures.spread(objects.known, each)
        sheets = self._pictures(album, chosen, objects)
        samples = [check_pictures.objects_sheet(objects, chosen, album)] if chosen else []
        show = CheckShow(**self._sides(), objects=statistics, samples=samples, sheets=sheets)
        return Appraisal(
            task="detect" if objects.masks is None else "instance",
            splits=splits,
            classes=statistics.classes,
            figures=statistics.record(),
            show=show,
            left_out={"skipped": reasons.skipped(self.listing)},
            notes=[note for one in truths for note in one.truth.notes],
        )

    def _of_masks(self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str]) -> Appraisal:
        total = sum(len(one.truth) for one in truths)
        self.progress.phase("masks", f"reading {total:,} masks")
        tell = self.progress.counting(total, "masks", "masks")
        classes = mask_classes.count(truths, places, self.facts, splits, self.found, tell=tell)
        album = self._album()
        known = np.unique(np.concatenate([place[place >= 0] for place in places]))
        chosen = check_pictures.spread(known[self.facts.good[known]], ())
        sheets = self._pictures(album, chosen, None)
        samples = [check_pictures.masks_sheet(truths, places, classes, chosen, album)] if chosen else []
        named = next((one.truth.names_file for one in truths if isinstance(one.truth, PixelTruth)), None)
        return Appraisal(
            task="semantic",
            splits=splits,
            classes=classes.classes,
            figures={"masks": classes.masks, "void": classes.void},
            show=CheckShow(**self._sides(), samples=samples, sheets=sheets),
            left_out={"skipped": reasons.skipped(self.listing)},
            notes=[f"the names of the classes are those of {named}"] if named else [],
        )

    def _of_labels(self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str]) -> Appraisal:
        names: list[tuple[str, ...]] = [()] * len(splits)
        for one, place in zip(truths, places, strict=True):
            assert isinstance(one.truth, LabelTruth)
            for at, label in zip(place.tolist(), one.truth.labels, strict=True):
                if at >= 0:
                    names[at] = (label,)
        classes = tuple(sorted({name for own in names for name in own}))
        own = ImageLabels(classes=classes, splits=splits, names=names)
        same_pictures.note(self.facts.paths, self.facts.hashes, splits, names, self.found)
        near = self._neighbours(splits, names)
        album, chosen = self._album(), self._of_classes(own)
        sheets = self._pictures(album, chosen, None)
        samples = [check_pictures.labels_sheet(own, chosen, album)]
        return Appraisal(
            task="classify",
            splits=splits,
            classes=self._label_classes(own),
            figures=near,
            show=CheckShow(**self._sides(), samples=samples, sheets=sheets),
            left_out={"skipped": reasons.skipped(self.listing)},
            notes=[note for one in truths for note in one.truth.notes],
        )

    def _neighbours(self, splits: Sequence[str], names: Sequence[tuple[str, ...]] | None) -> dict[str, Any]:
        """Note what vectors tell of the images, where there are some, and return figures of that."""
        if self.request.vectors is None:
            return {}
        from cvjobs.inspection import vector_neighbours  # FAISS is imported for those who have vectors

        labels = None if names is None else [own[0] if own else "" for own in names]
        told = vector_neighbours.look(
            self.request.vectors, self.request.storage, self.facts, (splits, labels), self.found, self.progress
        )
        return {"vectors": told}

    def _label_classes(self, own: ImageLabels) -> list[dict[str, Any]]:
        counts = own.counts(self.facts.good.tolist())
        return [
            {"name": name, "images": {split: counts[split].get(name, 0) for split in sorted(counts, key=split_order)}}
            for name in own.classes
        ]

    def _of_classes(self, own: ImageLabels) -> list[int]:
        """Return the images of a sheet of classes: as many of each as there is room for, at equal distances."""
        room = max(check_pictures.OF_CLASSES // max(len(own.classes), 1), 1)
        images: dict[str, list[int]] = {}
        for at in np.flatnonzero(self.facts.good).tolist():
            for name in own.names[at][:1]:
                images.setdefault(name, []).append(at)
        chosen = [
            mine[len(mine) * n // room] for _, mine in sorted(images.items()) for n in range(min(room, len(mine)))
        ]
        return list(dict.fromkeys(chosen))[: check_pictures.OF_CLASSES]

    def _album(self) -> Album:
        return Album(paths=self.facts.paths)

    def _pictures(
        self,
        album: Album,
        chosen: Sequence[int],
        objects: found_objects.FoundObjects | None,
    ) -> list[check_pictures.CheckSheet]:
        """Decode the pictures of the page, and return the sheets of problems."""
        self.progress.phase("page", "drawing pictures")
        places = {path: at for at, path in enumerate(self.facts.paths)}
        album.want([*chosen, *check_pictures.wanted_of_problems(self.found, places)])
        album.read(self.source, self.listing.images.select(["path", "bytes", "modified"]), self.decoder_server)
        return check_pictures.problem_sheets(self.found, album, places, objects)

    def _sides(self) -> dict[str, Any]:
        sizes = self.facts.sizes[self.facts.good]
        return {
            "sides": ValueBins.of(sizes.min(axis=1, initial=1 << 30), SIDES),
            "sizes": len(np.unique(sizes, axis=0)),
        }

    @property
    def image_sizes(self) -> dict[str, Any]:
        """The least, median and largest sides of the images, and the most frequent sizes (width, height, count)."""
        sizes = self.facts.sizes[self.facts.good]
        if not len(sizes):
            return {"frequent": []}
        most = Counter(map(tuple, sizes.tolist())).most_common(FREQUENT)
        shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
        return {
            "shorter_side": [int(shorter.min()), int(np.median(shorter)), int(shorter.max())],
            "longer_side": [int(longer.min()), int(np.median(longer)), int(longer.max())],
            "frequent": [[width, height, count] for (height, width), count in most],
        }


def _told(left_out: Mapping[str, Any]) -> list[str]:
    """Return lines on what is no problem of its own."""
    return [line.strip() for line in omissions.lines({name: left_out[name] for name in TOLD if name in left_out})]

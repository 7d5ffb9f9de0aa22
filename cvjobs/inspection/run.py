"""One `cvjobs check` from its data to its page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cvjobs.common import json_values
from cvjobs.common.errors import WrongUse
from cvjobs.common.progress import Progress
from cvjobs.dataset import contents, sealed_table
from cvjobs.evaluation.ground_truth.types import LabelTruth, PixelTruth
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.html.original_links import links
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.transform import Truncated
from cvjobs.inspection import (
    check_pictures,
    decoded_facts,
    found_objects,
    labelled_data,
    mask_classes,
    object_statistics,
    paired_images,
    problems,
    same_pictures,
    truth_files,
)
from cvjobs.inspection.check_page import SIDES, CheckShow, page
from cvjobs.inspection.check_pictures import Album
from cvjobs.inspection.data_check import NUMBERS, PAGE, DataCheck
from cvjobs.inspection.decoded_facts import DecodedFacts, FactsRequest
from cvjobs.inspection.labelled_data import ImageLabels
from cvjobs.inspection.object_statistics import ValueBins, split_order
from cvjobs.inspection.problems import Problems
from cvjobs.inspection.truth_files import SplitTruth
from cvjobs.sources import reasons
from cvjobs.sources.listing import list_source, nothing_found
from cvjobs.sources.reader import Source, open_source
from cvjobs.sources.rows import Listing
from cvjobs.storage.store import Store, open_store
from cvjobs.training.data import labels
from cvjobs.training.data.labels import LabelledImages

FREQUENT = 6  # sizes of images


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What is looked at, and how: the options of the command; ``names`` are those of classes that are numbers."""

    data: str
    out: str
    truths: Sequence[str]
    names: Sequence[str]
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


def check(request: CheckRequest, decoder_server: DecoderServer, progress: Progress) -> DataCheck:
    """Look at data, leave ``check.json``, ``problems.parquet`` and ``report.html``, and return what was found.

    Raises a CvjobsError with one sentence for what cannot be looked at at all.
    """
    store = open_store(request.out, options=request.storage)
    contents.check(store, contents.CHECK)
    progress.phase("listing", "listing the images")
    listing = list_source(
        request.data,
        dict(request.storage),
        confine=request.confine,
        exclude=request.exclude,
        links=True,
        columns=("label", "labels", "split"),
    )
    found = Problems()
    labelled, truths = None, []
    if request.truths:
        progress.phase("reading", "reading the truth")
        truths = truth_files.read(request.truths, request.names, found)
        listing = replace(listing, images=paired_images.without_masks(listing, truths))
    else:
        labelled = _labelled(listing, request.val)
    if not listing.images.num_rows:
        raise WrongUse(nothing_found(listing))
    places: list[Ints] = []
    splits: list[str] = []
    if truths:
        places, splits = paired_images.pair(listing.images["path"].to_pylist(), truths, found)
    source = open_source(listing.root, listing.base, dict(request.storage), request.confine)
    facts = _decoded(request, listing, source, decoder_server, progress, found)
    look = _Look(request=request, listing=listing, facts=facts, source=source, found=found, progress=progress)
    seen = look.labelled(labelled, decoder_server) if labelled else look.truths(truths, places, splits, decoder_server)
    return _leave(look, store, truths, seen)


def _labelled(listing: Listing, val: float) -> LabelledImages:
    try:
        return labels.label(listing, val)
    except WrongUse as error:
        raise WrongUse(f"{str(error).removesuffix('.')}; a truth of boxes or masks is named with --truth.") from error


def _decoded(
    request: CheckRequest,
    listing: Listing,
    source: Source,
    decoder_server: DecoderServer,
    progress: Progress,
    found: Problems,
) -> DecodedFacts:
    """Decode all images, and note those that fail, also while listing, and those in which there is nothing to see."""
    rows = listing.images
    progress.phase("decoding", f"decoding {rows.num_rows:,} images")
    asked = FactsRequest(
        rows=rows, source=source, max_pixels=request.max_pixels, bits=request.bits, truncated=request.truncated
    )
    facts = decoded_facts.decode_all(asked, decoder_server, progress.counting(rows.num_rows))
    failures = listing.failures
    for path, code, detail in zip(*(failures[name].to_pylist() for name in ("path", "code", "detail")), strict=True):
        found.add("failed", path, detail=f"{code}: {detail}")
    for at, failure in enumerate(facts.failures):
        if failure is not None:
            found.add("failed", facts.paths[at], detail=f"{failure.code}: {failure.detail}")
    for at in np.flatnonzero(facts.looks).tolist():
        found.add("blank", facts.paths[at], detail=facts.look(at))
    progress.phase("comparing", "comparing the images with what is said of them")
    return facts


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Images that are decoded, before they are compared with their labels."""

    request: CheckRequest
    listing: Listing
    facts: DecodedFacts
    source: Source
    found: Problems
    progress: Progress

    def labelled(self, labelled: LabelledImages, decoder_server: DecoderServer) -> Appraisal:
        """Return what labels as a training takes them come to."""
        own = labelled_data.of_training(labelled)
        survey = labelled_data.look(labelled, own, self.facts, self.found)
        album = self._album()
        chosen = self._of_classes(own)
        sheets = self._pictures(album, chosen, None, decoder_server)
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
            figures={"imbalance": round(survey.imbalance, 4)},
            show=show,
            left_out=survey.left_out,
        )

    def truths(
        self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str], decoder_server: DecoderServer
    ) -> Appraisal:
        """Return what truths come to, which are all of one kind."""
        kind = truths[0].truth
        if isinstance(kind, LabelTruth):
            return self._of_labels(truths, places, splits, decoder_server)
        same_pictures.note(self.facts.paths, self.facts.hashes, splits, None, self.found)
        if isinstance(kind, PixelTruth):
            return self._of_masks(truths, places, splits, decoder_server)
        return self._of_objects(truths, places, splits, decoder_server)

    def _of_objects(
        self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str], decoder_server: DecoderServer
    ) -> Appraisal:
        objects = found_objects.gather(truths, places, self.facts, self.found)
        statistics = object_statistics.measure(objects, splits, self.request.input_side)
        album = self._album()
        each = [np.unique(objects.image[objects.category == n]).tolist() for n in range(len(objects.classes))]
        chosen = check_pictures.spread(objects.known, each)
        sheets = self._pictures(album, chosen, objects, decoder_server)
        samples = [check_pictures.objects_sheet(objects, chosen, album)] if chosen else []
        show = CheckShow(**self._sides(), objects=statistics, samples=samples, sheets=sheets)
        return Appraisal(
            task="detect" if objects.masks is None else "instance",
            splits=splits,
            classes=statistics.classes,
            figures=statistics.record(),
            show=show,
            left_out=reasons.of(self.listing),
            notes=[note for one in truths for note in one.truth.notes],
        )

    def _of_masks(
        self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str], decoder_server: DecoderServer
    ) -> Appraisal:
        total = sum(len(one.truth) for one in truths)
        self.progress.phase("masks", f"reading {total:,} masks")
        tell = self.progress.counting(total, "masks", "masks")
        classes = mask_classes.count(truths, places, self.facts, splits, self.found, tell=tell)
        album = self._album()
        known = np.unique(np.concatenate([place[place >= 0] for place in places]))
        chosen = check_pictures.spread(known[self.facts.good[known]], ())
        sheets = self._pictures(album, chosen, None, decoder_server)
        samples = [check_pictures.masks_sheet(truths, places, classes, chosen, album)] if chosen else []
        named = next((one.truth.names_file for one in truths if isinstance(one.truth, PixelTruth)), None)
        return Appraisal(
            task="semantic",
            splits=splits,
            classes=classes.classes,
            figures={"masks": classes.masks},
            show=CheckShow(**self._sides(), samples=samples, sheets=sheets),
            left_out=reasons.of(self.listing),
            notes=[f"the names of the classes are those of {named}"] if named else [],
        )

    def _of_labels(
        self, truths: Sequence[SplitTruth], places: Sequence[Ints], splits: list[str], decoder_server: DecoderServer
    ) -> Appraisal:
        names: list[tuple[str, ...]] = [()] * len(splits)
        for one, place in zip(truths, places, strict=True):
            assert isinstance(one.truth, LabelTruth)
            for at, label in zip(place.tolist(), one.truth.labels, strict=True):
                if at >= 0:
                    names[at] = (label,)
        classes = tuple(sorted({name for own in names for name in own}))
        own = ImageLabels(classes=classes, splits=splits, names=names)
        same_pictures.note(self.facts.paths, self.facts.hashes, splits, names, self.found)
        album, chosen = self._album(), self._of_classes(own)
        sheets = self._pictures(album, chosen, None, decoder_server)
        samples = [check_pictures.labels_sheet(own, chosen, album)]
        return Appraisal(
            task="classify",
            splits=splits,
            classes=self._label_classes(own),
            figures={},
            show=CheckShow(**self._sides(), samples=samples, sheets=sheets),
            left_out=reasons.of(self.listing),
            notes=[note for one in truths for note in one.truth.notes],
        )

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
        decoder_server: DecoderServer,
    ) -> list[check_pictures.CheckSheet]:
        """Decode the pictures of the page, and return the sheets of problems."""
        self.progress.phase("page", "drawing pictures")
        places = {path: at for at, path in enumerate(self.facts.paths)}
        album.want([*chosen, *check_pictures.wanted_of_problems(self.found, places)])
        album.read(self.source, self.listing.images.select(["path", "bytes", "modified"]), decoder_server)
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


def _leave(look: _Look, store: Store, truths: Sequence[SplitTruth], seen: Appraisal) -> DataCheck:
    """Write the table, the page and the numbers, each whole, and return what was found."""
    facts, phases = look.facts, look.progress.phases
    images = Counter(split for split, good in zip(seen.splits, facts.good.tolist(), strict=True) if good)
    if look.request.truths == () and "" in images:
        del images[""]  # what has no label is told as a problem
    table: pa.Table = look.found.table()
    decoding = phases.spent().get("decoding", 0.0)
    found = DataCheck(
        data=look.listing.source,
        task=seen.task,
        out=store.place,
        truths=[{"place": one.place, "format": one.truth.format, "split": one.split} for one in truths],
        listed=look.listing.images.num_rows + look.listing.failures.num_rows,
        images={split: images[split] for split in sorted(images, key=split_order)},
        classes=seen.classes,
        figures=seen.figures,
        image_sizes=look.image_sizes,
        problems=look.found.record(),
        left_out=seen.left_out,
        notes=[*seen.notes, *_left_out(seen.left_out)],
        seconds=round(phases.seconds, 3),
        images_per_second=round(len(facts.paths) / decoding, 1) if decoding else 0.0,
        table=table,
    )
    original = links(f"{store.place}/{PAGE}", look.listing.root, look.listing.base)
    store.write(problems.FILE, partial(sealed_table.dump, rows=table))
    store.write_bytes(PAGE, page(found, seen.show, original).encode(errors="replace"))
    store.write_bytes(NUMBERS, (json.dumps(json_values.finite(found.as_dict()), indent=1) + "\n").encode())
    return found


def _left_out(left_out: Mapping[str, Any]) -> list[str]:
    """Return sentences on what is no image, and on labels in another spelling; failures are problems."""
    found = []
    if skipped := left_out.get("skipped"):
        found.append(f"skipped, as no images: {reasons.words(skipped)}")
    if respelt := left_out.get("respelt"):
        found.append(f"labels in another spelling of a class: {reasons.counted(respelt)}")
    return found

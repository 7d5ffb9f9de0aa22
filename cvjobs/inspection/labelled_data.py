"""Images with a class each, in splits, as ``cvjobs train`` takes them: what it would say of them before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvjobs.inspection import same_pictures
from cvjobs.inspection.decoded_facts import DecodedFacts
from cvjobs.inspection.problems import Problems
from cvjobs.training.data import labels, omissions
from cvjobs.training.data.class_statistics import Survey
from cvjobs.training.data.labels import LabelledImages


@dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """The split and the classes of each of n images: no split or no class where it has none."""

    classes: tuple[str, ...]
    splits: list[str]
    names: list[tuple[str, ...]]

    def counts(self, good: Sequence[bool]) -> dict[str, dict[str, int]]:
        """Return how many images each split has of each class, of those that are ``good``."""
        found: dict[str, dict[str, int]] = {}
        for split, own, fine in zip(self.splits, self.names, good, strict=True):
            if fine and own:
                counts = found.setdefault(split, {})
                for name in own:
                    counts[name] = counts.get(name, 0) + 1
        return found


def of_training(labelled: LabelledImages) -> ImageLabels:
    """Return the labels of the images of a listing, in its order."""
    places = {path: at for at, path in enumerate(labelled.listing.images["path"].to_pylist())}
    splits, names = [""] * len(places), [()] * len(places)  # type: tuple[list[str], list[tuple[str, ...]]]
    for split, part in labelled.splits.items():
        for path, own in zip(part.rows["path"].to_pylist(), part.labels, strict=True):
            splits[places[path]] = split
            numbers = np.flatnonzero(own).tolist() if labelled.multilabel else [int(own)]
            names[places[path]] = tuple(labelled.classes[number] for number in numbers)
    return ImageLabels(classes=labelled.classes, splits=splits, names=names)


def look(labelled: LabelledImages, own: ImageLabels, facts: DecodedFacts, problems: Problems) -> Survey:
    """Note what is wrong with labelled images, and return what a training's page says of them."""
    used = [at for at, split in enumerate(own.splits) if split]
    for at, split in enumerate(own.splits):
        if not split:
            problems.add("unlabelled", facts.paths[at])
    same_pictures.note(
        [facts.paths[at] for at in used],
        [facts.hashes[at] for at in used],
        [own.splits[at] for at in used],
        [own.names[at] for at in used],
        problems,
    )
    failures = [*omissions.listed(labelled), *_failed(facts, used)]
    counts, decoded = {}, facts.good
    for name, part in labelled.splits.items():
        good = decoded[[at for at in used if own.splits[at] == name]]
        counts[name] = (int(good.sum()), labels.counts(part.labels[good], len(labelled.classes)))
    return Survey(
        classes=labelled.classes,
        images={name: images for name, (images, _) in counts.items()},
        counts={name: each for name, (_, each) in counts.items()},
        failed=len(failures),
        unlabelled=labelled.unlabelled,
        leaks=[
            (row["split"], row["path"], row["other"], "")
            for row in problems.of("leak")
            if row["detail"].startswith("in train")
        ],
        doubles=[
            (row["path"], row["other"], row["problem"] == "contradiction")
            for row in [*problems.of("double"), *problems.of("contradiction")]
            if row["split"] == "train"
        ],
        left_out=omissions.record(labelled, failures),
    )


def _failed(facts: DecodedFacts, used: Sequence[int]) -> list[omissions.Failure]:
    found = [(facts.failures[at], facts.paths[at]) for at in used]
    return [(failure.code, path) for failure, path in found if failure is not None]

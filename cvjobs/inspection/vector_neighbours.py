"""What vectors tell of images: labels that their neighbours do not have, and near-duplicates in two splits.

Vectors are of the same images where the bytes are the same, wherever the images were when they were embedded.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.errors import WrongUse
from cvjobs.common.progress import Progress
from cvjobs.dataset import contents
from cvjobs.evaluation.metrics.objects import Ints
from cvjobs.indexing import generation, index_update
from cvjobs.indexing.index_update import IndexRequest
from cvjobs.indexing.search import score_choice
from cvjobs.indexing.search.distinct_images import DistinctImages
from cvjobs.indexing.search.opened_index import Index, open_index
from cvjobs.indexing.vectors import open_embeddings
from cvjobs.inspection.decoded_facts import DecodedFacts
from cvjobs.inspection.object_statistics import split_order
from cvjobs.inspection.problems import Problems
from cvjobs.storage.store import open_store

BLOCK = 4096  # vectors that are looked up at once
ASKED, COUNTED = 24, 10  # neighbours that are asked for, copies among them, and those that have a say
LEAST = 6  # images of a class that is judged, and neighbours that judge
AGREE, OWN = 0.7, 0.1  # the least share of neighbours of one other class, and the largest of the own one


def check_there(place: str, storage: Mapping[str, str]) -> None:
    """Raise WrongUse where a place holds no vectors: images are decoded for minutes before they are read."""
    store = open_store(place, options=storage, option="--vectors")
    if contents.INDEX in contents.of(store):
        generation.current(store)
    else:
        open_embeddings(store)


@contextmanager
def opened(place: str, storage: Mapping[str, str], progress: Progress) -> Iterator[Index]:
    """Yield the index at a place, or one made for the time of the context of the vectors there."""
    store = open_store(place, options=storage, option="--vectors")
    if contents.INDEX in contents.of(store):
        with open_index(place, dict(storage)) as index:
            yield index
        return
    with tempfile.TemporaryDirectory(prefix="cvjobs-check-") as folder:
        index_update.update(place, f"{folder}/index", IndexRequest(storage=storage), progress)
        with open_index(f"{folder}/index") as index:
            yield index


@dataclass(frozen=True, kw_only=True)
class KnownVectors:
    """Which vectors of an index are of the n images: ``image`` of each position, -1 for none; of copies the first."""

    image: Ints

    @classmethod
    def of(cls, index: Index, facts: DecodedFacts) -> KnownVectors:
        """Compare the contents of an index with those of images."""
        first: dict[bytes, int] = {}
        for at, content in enumerate(facts.hashes):
            if content is not None:
                first.setdefault(content, at)
        ids = index.ids
        rows = ids["row"].to_numpy()
        image = np.full(int(rows.max(initial=-1)) + 2, -1, np.int64)
        image[rows] = [first.get(content, -1) for content in ids["content_hash"].to_pylist()]
        return cls(image=image)  # the last one answers for position -1


def look(
    place: str,
    storage: Mapping[str, str],
    facts: DecodedFacts,
    said: tuple[Sequence[str], Sequence[str] | None],
    problems: Problems,
    progress: Progress,
) -> dict[str, Any]:
    """Note doubtful labels and images that are nearly the same in two splits; return figures as JSON types.

    Args:
        place: The folder of the vectors.
        storage: Options of object stores.
        facts: What is known of the images.
        said: The split of each image, and its label, empty for none; None where the labels are not compared.
        problems: Where it is noted.
        progress: Told what is going on.

    Raises:
        WrongUse: none of the vectors is of these images.
    """
    splits, labels = said
    with opened(place, storage, progress) as index:
        progress.phase("neighbours", "comparing vectors")
        known = KnownVectors.of(index, facts)
        contained = {facts.hashes[at] for at in known.image[known.image >= 0].tolist()}
        count = sum(content in contained for content in facts.hashes if content is not None)
        if not count:
            raise WrongUse(f"The vectors in {place} are of other images: embed these with `cvjobs embed DATA -o OUT`.")
        choice = score_choice.measured(index, DistinctImages(index))
        judge = _Judge(facts=facts, splits=splits, labels=labels, least=choice.min_score, problems=problems)
        tell = progress.counting(len(index), "vectors", "vectors")
        done: set[int] = set()
        looked = 0
        for positions, vectors in index.blocks(BLOCK):
            images = known.image[positions]
            mine = np.array([at >= 0 and at not in done for at in images.tolist()], np.bool_)
            done.update(images[mine].tolist())
            if mine.any():
                scores, rows = index.search(vectors[mine], ASKED)
                judge.take(images[mine], scores, known.image[rows])
            looked += len(positions)
            tell(looked)
    judge.note()
    return {
        "place": place,
        "images": count,
        "without": int(facts.good.sum()) - count,
        "near_from": choice.min_score,
        "reason": choice.reason,
    }


@dataclass(frozen=True, kw_only=True)
class _Doubt:
    """An image and the label that so many of its neighbours have, with the nearest of these."""

    image: int
    label: str
    votes: int
    of: int
    nearest: int
    score: float


class _Judge:
    """Compares images with their neighbours; the most doubtful labels are noted first."""

    def __init__(
        self,
        *,
        facts: DecodedFacts,
        splits: Sequence[str],
        labels: Sequence[str] | None,
        least: float,
        problems: Problems,
    ) -> None:
        self._facts, self._splits, self._labels, self._least, self._problems = facts, splits, labels, least, problems
        self._sizes = Counter(labels or ())
        self._doubts: list[_Doubt] = []
        self._near: list[tuple[float, int, int]] = []

    def take(self, images: Ints, scores: NDArray[np.float32], neighbours: Ints) -> None:
        """Look at images (n,), the cosines (n, k) to their neighbours, and which images these are, -1 for none."""
        for image, own, near in zip(images.tolist(), scores.tolist(), neighbours.tolist(), strict=True):
            others = {at: score for at, score in zip(near[::-1], own[::-1], strict=True) if at >= 0 and at != image}
            pairs = sorted(others.items(), key=lambda pair: -pair[1])
            self._note_near(image, pairs)
            if self._labels is not None:
                self._judge(image, pairs, self._labels)

    def _note_near(self, image: int, pairs: Sequence[tuple[int, float]]) -> None:
        split = self._splits[image]
        for at, score in pairs:
            other = self._splits[at]
            if score >= self._least and other != split and split_order(other) < split_order(split):
                self._near.append((score, image, at))
                return

    def _judge(self, image: int, pairs: Sequence[tuple[int, float]], labels: Sequence[str]) -> None:
        own = labels[image]
        voting = [(at, score) for at, score in pairs if labels[at]][:COUNTED]
        if not own or self._sizes[own] < LEAST or len(voting) < LEAST:
            return
        votes = Counter(labels[at] for at, _ in voting)
        label, most = votes.most_common(1)[0]
        if label != own and most >= AGREE * len(voting) and votes[own] <= OWN * len(voting):
            nearest, score = next((at, score) for at, score in voting if labels[at] == label)
            doubt = _Doubt(image=image, label=label, votes=most, of=len(voting), nearest=nearest, score=score)
            self._doubts.append(doubt)

    def note(self) -> None:
        """Note what was found, the most certain first."""
        paths = self._facts.paths
        for score, image, other in sorted(self._near, key=lambda near: (-near[0], paths[near[1]])):
            detail = f"cosine {score:.4f}" + (f", in {self._splits[other]}" if self._splits[other] else "")
            self._problems.add("near_leak", paths[image], split=self._splits[image], other=paths[other], detail=detail)
        for doubt in sorted(self._doubts, key=lambda own: (-own.votes / own.of, -own.score, paths[own.image])):
            own = (self._labels or ())[doubt.image]
            detail = f"{own} here, {doubt.votes} of {doubt.of} neighbours are {doubt.label} (cosine {doubt.score:.3f})"
            self._problems.add(
                "label_doubtful",
                paths[doubt.image],
                split=self._splits[doubt.image],
                other=paths[doubt.nearest],
                detail=detail,
            )

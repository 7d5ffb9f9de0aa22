"""The chunks of a split that is larger than its cache: those that stay, and those that come and go with the steps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cvjobs.common.errors import JobFailed
from cvjobs.dataset import sealed_table
from cvjobs.dataset.sealed_table import UnreadableTable
from cvjobs.sources import reasons
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.decode_request import DecodeRequest
from cvjobs.training.recipe.sampling import WINDOW, windows

_SEEN = ".seen"  # files with what became of the images of a chunk that is gone


class Passage:
    """Which chunk is decoded next: those of the window that training is in and of the next, and then what stays.

    What stays is what is decoded first, until it takes ``room`` bytes; chunks are random samples of the images, so that
    as large a share of every later window is there. ``order`` returns the numbers of the chunks as an epoch takes them,
    ``folder`` is for those that pass.
    """

    def __init__(
        self,
        request: DecodeRequest,
        there: Mapping[str, pa.Table],
        order: Callable[[int], Sequence[int]],
        room: int,
        folder: str,
    ) -> None:
        """Note what is there, and delete what an earlier command of the run left of what passes."""
        self._request, self._order, self._room, self._folder = request, order, room, folder
        self._chunks = request.chunks()
        self._numbers = {os.path.basename(name): number for number, (name, _) in enumerate(self._chunks)}
        self._kept = {self._numbers[os.path.basename(name)] for name in there}
        self._used = sum(map(_pixels, there.values()))
        self._passing: set[int] = set()
        self._coming: dict[int, bool] = {}
        self._at, self._looked = (0, 0), (-1, 0)
        self._found: tuple[int, Sequence[int], int, Sequence[int]] = (0, (), 0, ())
        self.tables = {self._numbers[os.path.basename(name)]: table for name, table in there.items()}
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(folder):
            number = self._numbers.get(name.removesuffix(_SEEN))
            if not name.endswith(_SEEN):
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
            elif number is not None and number not in self.tables:
                self._remember(number, name)

    @property
    def known(self) -> bool:
        """Whether it is known of every image what became of it."""
        return len(self.tables) == len(self._chunks)

    @property
    def table(self) -> pa.Table:
        """What became of the images, in their order."""
        return pa.concat_tables([self.tables[number] for number in range(len(self._chunks))])

    def reach(self, epoch: int, images: int) -> None:
        """Note where training is: in an epoch, from 0, with so many of its images behind it."""
        self._at = epoch, images

    def missing(self, *, all_known: bool) -> Iterator[tuple[str, pa.Table] | None]:
        """Yield a chunk after the other, as ``fill_chunks`` takes them; with ``all_known`` until that is so."""
        while not (all_known and self.known):
            yield self._next()

    def check(self, folder: str, table: pa.Table) -> None:
        """Raise JobFailed where images of a chunk are no more what they were when it was decoded before."""
        before = self.tables.get(self._numbers[os.path.basename(folder)])
        if before is None:
            return
        other = pc.fill_null(pc.not_equal(before["content_hash"], table["content_hash"]), table["code"].is_valid())
        changed = table.filter(pc.and_(before["code"].is_null(), other))
        if changed.num_rows:
            codes = changed["code"].fill_null("changed").to_pylist()
            why = reasons.words(reasons.failed(zip(codes, changed["path"].to_pylist(), strict=True)))
            raise JobFailed(
                f"Images are no more what they were when they were decoded before: {why}; make them what they were, "
                "then run the same command to continue."
            )

    def published(self, folder: str, table: pa.Table) -> None:
        """Note that a chunk is there."""
        number = self._numbers[os.path.basename(folder)]
        if self._coming.pop(number):
            self._kept.add(number)
            self._used += _pixels(table)
        else:
            self._passing.add(number)
            if number not in self.tables:
                sealed_table.write(LocalStore(self._folder), os.path.basename(folder) + _SEEN, table)
        self.tables[number] = table

    def _remember(self, number: int, name: str) -> None:
        try:
            self.tables[number] = sealed_table.read(LocalStore(self._folder), name, self._request.schema)
        except UnreadableTable:
            os.unlink(os.path.join(self._folder, name))

    def _next(self) -> tuple[str, pa.Table] | None:
        epoch, order, start, window = self._wanted(*self._at)
        wanted = self._with_stand_ins(window)
        self._drop(set(wanted))
        there = self._kept | self._passing | self._coming.keys()
        for number in wanted:
            if number not in there:
                return self._begun(number)
        ahead = next((number for number in order[start:] if number not in there), None)
        if ahead is not None and self._stays(ahead):
            return self._begun(ahead)
        behind = order if epoch else order[:start]  # of which an earlier command did not note what became of them
        for number in behind:
            if number not in self.tables and number not in self._coming:
                return self._begun(number)
        return None

    def _wanted(self, epoch: int, images: int) -> tuple[int, Sequence[int], int, Sequence[int]]:
        """Return the epoch, its order, the place in it where the present window begins, and what is wanted."""
        if (epoch, images) == self._looked:
            return self._found
        order = list(self._order(epoch))
        ends = np.cumsum([self._chunks[number][1].num_rows for number in order])
        at = int(np.searchsorted(ends, images, side="right"))  # the chunk that training is in
        start = max((first for first, _ in windows(len(order), epoch) if first <= at), default=0)
        start = len(order) if at == len(order) else start
        wanted = list(islice((*order[start:], *self._order(epoch + 1)), 2 * WINDOW))
        self._looked, self._found = (epoch, images), (epoch, order, start, wanted)
        return self._found

    def _with_stand_ins(self, numbers: Iterable[int]) -> list[int]:
        """Return numbers of chunks, and those that stand in for the ones of which no image can be decoded."""
        found: dict[int, None] = dict.fromkeys(numbers)
        for number in list(found):
            for following in range(number, number + len(self._chunks)):
                found[following % len(self._chunks)] = None
                table = self.tables.get(following % len(self._chunks))
                if table is None or table["code"].null_count:
                    break
        return list(found)

    def _stays(self, number: int) -> bool:
        """Return whether there is room for a chunk that stays, beside those that are on their way there."""
        each = self._used / self._images(self._kept) if self._kept else self._request.each
        coming = [other for other, stays in self._coming.items() if stays]
        return self._used + each * self._images([*coming, number]) <= self._room

    def _images(self, numbers: Iterable[int]) -> int:
        return sum(int(self._chunks[number][1].num_rows) for number in numbers)

    def _begun(self, number: int) -> tuple[str, pa.Table]:
        folder, rows = self._chunks[number]
        self._coming[number] = self._stays(number)
        return (folder if self._coming[number] else os.path.join(self._folder, os.path.basename(folder))), rows

    def _drop(self, wanted: set[int]) -> None:
        """Delete what passed and is not wanted any more."""
        for number in self._passing - wanted:
            folder = os.path.join(self._folder, os.path.basename(self._chunks[number][0]))
            os.rename(folder, f"{folder}.gone")  # no reader finds a part of it
            shutil.rmtree(f"{folder}.gone", ignore_errors=True)
            self._passing.discard(number)


def _pixels(table: pa.Table) -> int:
    """Return the bytes of the pixels of whole pictures."""
    area: int = pc.sum(pc.multiply(table["height"], table["width"])).as_py() or 0
    return 3 * area

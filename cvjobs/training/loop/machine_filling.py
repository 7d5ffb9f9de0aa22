"""The images of the workers of one machine: its first worker decodes them in the background, and all wait for them."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.common.errors import CvjobsError, JobFailed, StoreUnreachable
from cvjobs.dataset import sealed_table
from cvjobs.images.decode_children import DecoderServer
from cvjobs.storage.store import Store
from cvjobs.training.data import cache_hold, own_cache
from cvjobs.training.data.decode_order import DecodeOrder, check_some
from cvjobs.training.data.filling import Filling
from cvjobs.training.data.outcomes import good_rows, known, outcome_table
from cvjobs.training.loop import board
from cvjobs.training.loop.board import Board
from cvjobs.training.loop.loop import WAITING, State
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.plan import SplitPart, TrainPlan

POLL = 0.5  # seconds between two notes of how far decoding is
LOOK = 1.0  # seconds between two looks for what ended another worker, while images are waited for


class MachineFilling:
    """In its context the images of a plan (``plan``) are those of this machine, of which some may come later.

    The first worker of a machine leads: it decodes. The very first one notes how far it is, and leaves what became of
    the images in the run.
    """

    def __init__(
        self, plan: TrainPlan, team: ProcessGroup, machines: list[str], notes: Board, store: Store, *, epoch: int
    ) -> None:
        """Begin; all workers do so together. ``machines`` are the ids of the machine of each, ``epoch`` is from 0.

        Raises:
            JobFailed: there is no room, or decoding cannot go on at all.
            WrongUse: this machine does not see the images.
        """
        assert plan.decoding is not None
        self._team, self._notes, self._store, self._batch = team, notes, store, plan.batch
        self._first = machines.index(machines[team.rank])
        self._digests: dict[str, str] = {}
        self._known: list[str] = []
        self._stack, self._over = ExitStack(), threading.Event()
        self._filling: Filling | None = None
        self._holds: list[cache_hold.CacheHold] = []
        self._looked, self._noting = 0.0, threading.Lock()
        self._kept = plan.decoding.cache is not None
        try:
            places = team.gathered(self._lead(plan.decoding.here(), epoch) if self._leads else ("", ""))
        except BaseException:
            self._stack.close()
            raise
        folder, passing = places[self._first]
        train, val, test = _moved(plan.train, folder, passing), _moved(plan.val, folder), plan.test
        self.plan = replace(plan, train=train, val=val, test=test and _moved(test, folder))

    def __enter__(self) -> MachineFilling:
        """Wait, for squares, until all are there; raises as ``agree``."""
        if not self.plan.train.decoded.whole:
            try:
                self.finish()
            except BaseException:
                self._stack.close()
                raise
        return self

    @property
    def _leads(self) -> bool:
        return self._first == self._team.rank

    def _lead(self, order: DecodeOrder, epoch: int) -> tuple[str, str]:
        """Begin to decode; return the folder of the images, and that of those which do not stay, empty without any."""
        if self._team.rank:  # the very first worker alone tests
            order = order.without("test")
        hold, passing = cache_hold.CacheHold(order.folder), ""
        self._holds.append(hold)
        self._stack.callback(hold.close)
        cache_hold.sweep(os.path.dirname(own_cache.of_machine(order.run, None)))
        cache_hold.sweep(order.folder, passing=True)
        if order.room:
            self._holds.append(cache_hold.claimed(order.folder, order.run))
            self._stack.callback(self._holds[-1].close)
            passing = self._holds[-1].folder
        order.check_seen()
        order.check_room()
        decoder_server = self._stack.enter_context(closing(DecoderServer(keep=False)))
        self._filling = self._stack.enter_context(closing(order.filling(passing, decoder_server, self._ended, epoch)))
        watch = threading.Thread(target=self._watch, args=(self._filling,), name="filling notes", daemon=True)
        watch.start()
        self._stack.callback(watch.join)
        self._stack.callback(self._over.set)
        return order.folder, passing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End decoding; what is decoded stays."""
        self._stack.close()

    def look(self, state: State) -> None:
        """Note where this worker is; raises what ended its decoding, and, while it waits for images, another worker."""
        if self._filling is not None:
            self._filling.check()
            self._filling.reach(state.epoch - 1, state.done * self._batch)
        if state.phase == WAITING:
            self.glance()

    def glance(self) -> None:
        """Raise what ended decoding, here or on another machine; cheap to call often."""
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            if (ended := board.ended_by(self._notes)) is not None:
                raise ended

    def agree(self, val: SplitPart) -> None:
        """Raise JobFailed where the machines know of different images to fail; all workers call it together.

        ``val`` are those to validate with that could be decoded.
        """
        mine = [*dict(self._digests).items(), ("val", _digest(val.decoded.rows))]
        if not self.plan.train.decoded.pending:  # the command knows which
            mine.append(("train", _digest(self.plan.train.decoded.rows)))
        found: dict[str, set[str]] = {}
        for name, digest in itertools.chain.from_iterable(self._team.gathered(mine)):
            found.setdefault(name, set()).add(digest)
        if any(len(digests) > 1 for digests in found.values()):
            raise JobFailed(
                "The images that can be decoded differ between the machines: make the libraries of all of them equal."
            )

    def finish(self) -> None:
        """Return when all is decoded on all machines; raises as ``agree``."""
        if self._filling is not None:
            for _ in self._filling.waited(math.inf):
                self.glance()
            self._note(self._filling)
        self.agree(known(self.plan.val))

    def clear(self) -> None:
        """Delete what no other run needs, when all workers have ended: all of it, unless ``--cache`` keeps it."""
        self._stack.close()
        for hold in self._holds[1:] if self._kept else self._holds[:1]:
            hold.clear()

    def _ended(self, name: str, table: pa.Table) -> None:
        """Leave what became of the images of a split."""
        check_some(name, table)
        self._digests[name] = _digest(good_rows(table["code"]))
        if self._team.rank == 0:
            sealed_table.write(self._store, outcome_table(name), table)
            self._known.append(name)

    def _watch(self, filling: Filling) -> None:
        """Note how far decoding is, and what ends it before all is done, which another worker may wait for."""
        while not self._over.wait(POLL):
            try:
                filling.check()
            except StoreUnreachable:
                return  # which the worker raises: others may start in its place
            except CvjobsError as error:
                board.end_with(self._notes, error)
                return
            except Exception as error:  # noqa: BLE001 - what else it may be, the workers wait for it in vain
                why = f"Decoding on a machine of a worker ended ({type(error).__name__}: {error})."
                board.end_with(self._notes, JobFailed(why))
                return
            self._note(filling)

    def _note(self, filling: Filling) -> None:
        if self._team.rank:
            return
        with self._noting:
            said = {"decoded": filling.decoded, "total": filling.total, "known": list(self._known)}
            self._notes.tell(board.DECODING, said)


def _moved(part: SplitPart, folder: str, passing: str = "") -> SplitPart:
    """Return images whose chunks are in another folder."""
    folders = tuple(os.path.join(folder, os.path.basename(chunk)) for chunk in part.decoded.folders)
    return replace(part, decoded=replace(part.decoded, folders=folders, passing=passing))


def _digest(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()

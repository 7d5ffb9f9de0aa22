"""What is to be decoded for a training, and where from: for the machine of the command, or each that has workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources import reasons
from cvjobs.sources.reader import Source, open_source
from cvjobs.training.data import decoded, own_cache
from cvjobs.training.data.chunk_pixels import ROWS
from cvjobs.training.data.decode_request import DecodeRequest
from cvjobs.training.data.filling import Filling, FillingPart
from cvjobs.training.recipe import sampling


@dataclass(frozen=True, kw_only=True)
class DecodeOrder:
    """The splits of a training by name, each with how it is decoded and into which folder.

    ``root`` and ``base`` are where the images are, reached with the options ``storage``. ``run`` is whose they are, and
    ``cache`` what ``--cache`` names. Of those to train with, in the order of the epochs of a ``seed``, at most ``room``
    bytes stay, 0 for all.
    """

    requests: Mapping[str, DecodeRequest] = field(repr=False)
    root: str
    base: str
    storage: Mapping[str, str] = field(repr=False)
    confine: bool
    run: str
    cache: str | None
    seed: int
    room: int = 0

    def here(self) -> DecodeOrder:
        """Return what is decoded into this machine's own folder."""
        folder = own_cache.of_machine(self.run, self.cache)
        requests = {name: replace(request, folder=folder) for name, request in self.requests.items()}
        return replace(self, requests=requests)

    def without(self, name: str) -> DecodeOrder:
        """Return what is decoded but for a split."""
        return replace(self, requests={key: request for key, request in self.requests.items() if key != name})

    @property
    def folder(self) -> str:
        """Where all of it is decoded to."""
        return self.requests["train"].folder

    @property
    def begun(self) -> bool:
        """Whether some of it is there."""
        chunks = (folder for request in self.requests.values() for folder, _ in request.chunks())
        return any(os.path.exists(os.path.join(folder, ROWS)) for folder in chunks)

    def check_room(self) -> None:
        """Raise JobFailed where the disk has no room for what no chunk has yet."""
        staying = [request for name, request in self.requests.items() if not (self.room and name == "train")]
        train = self.requests["train"]
        whole = train.needed()
        passing = 2 * sampling.WINDOW * train.length * whole // train.rows.num_rows
        decoded.check_room(staying, self.folder, min(self.room + passing, whole) if self.room else 0)

    def check_seen(self) -> None:
        """Raise WrongUse where this machine does not see the images."""
        place = self.root or self.base
        if place and "://" not in place and not os.path.exists(place):
            raise WrongUse(
                f"The machine of a worker does not see {place}: use images that every machine of the cluster sees, as "
                "in a bucket."
            )

    def source(self) -> Source:
        """Open where the images are."""
        return open_source(self.root, self.base, dict(self.storage), self.confine)

    def filling(
        self, passing: str, decoder_server: DecoderServer, ended: Callable[[str, pa.Table], None], epoch: int = 0
    ) -> Filling:
        """Begin to decode, what an epoch takes first; chunks that do not stay are in the folder ``passing``.

        ``ended`` is called as ``Filling`` does.
        """

        def part(name: str, request: DecodeRequest) -> FillingPart:
            if name != "train" or not request.whole:
                return FillingPart(name=name, request=request)
            order, more = partial(self._chunks, request), passing if self.room else ""
            return FillingPart(name=name, request=request, order=order, first=epoch, room=self.room, passing=more)

        parts = [part(name, request) for name, request in self.requests.items()]
        return Filling(parts, self.source, decoder_server, ended)

    def _chunks(self, request: DecodeRequest, epoch: int) -> list[int]:
        """Return the numbers of the chunks as an epoch takes them."""
        found: list[int] = sampling.chunk_order(request.rows.num_rows, request.length, self.seed, epoch).tolist()
        return found


def check_some(name: str, table: pa.Table) -> None:
    """Raise JobFailed where no image of a split could be decoded; the table has what became of each."""
    if table["code"].null_count:
        return
    why = reasons.words(reasons.failed(zip(table["code"].to_pylist(), table["path"].to_pylist(), strict=True)))
    which = f"None of the {table.num_rows:,} images" if table.num_rows > 1 else "The only image"
    raise JobFailed(f"{which} to {name} with could be decoded: {why}; replace them, then run again.")

"""The decoded images of a run in a bucket, on each machine that trains: made there once, by one of its workers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cvjobs.common.errors import JobFailed, storage_failure
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.reader import open_source
from cvjobs.training.data import decoded, own_cache
from cvjobs.training.data.decode_request import DecodeRequest

_LOCK = ".lock"


@dataclass(frozen=True, kw_only=True)
class DecodeOrder:
    """How a machine makes the decoded images of a split: ``run`` is whose they are, ``cache`` what ``--cache`` names.

    ``root`` and ``base`` are where the images are, reached with the options ``storage``; ``request.folder`` is where
    the machine of the command has them, which could decode those in the rows ``good``.
    """

    run: str
    cache: str | None
    request: DecodeRequest
    good: NDArray[np.int64] = field(repr=False)
    root: str
    base: str
    storage: Mapping[str, str] = field(repr=False)
    confine: bool

    @property
    def folder(self) -> str:
        """Where this machine has them."""
        return own_cache.folder(self.run, self.cache)

    def made(self, tell: Callable[[int], None]) -> tuple[str, ...]:
        """Return the folders of this machine's chunks, decoding what it lacks; ``tell`` is told how many are done.

        Raises:
            JobFailed: there is no room, decoding cannot go on at all, or other images fail here.
        """
        request = replace(self.request, folder=self.folder)
        try:
            os.makedirs(request.folder, exist_ok=True)
            lock = open(os.path.join(request.folder, _LOCK), "wb")  # noqa: SIM115 - closed below
        except OSError as error:
            raise storage_failure(error, request.folder, "--cache") from error
        with lock, closing(DecoderServer()) as decoder_server:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of this machine may be at it
            if request.absent():
                decoded.check_room([request], request.folder)
                decoder_server.start()
            source = open_source(self.root, self.base, dict(self.storage), self.confine)
            found, _ = decoded.decode(request, source, decoder_server, tell)
        if not np.array_equal(found.rows, self.good):
            raise JobFailed(
                "The images that can be decoded differ between this machine and that of the command: make the "
                "libraries of both equal."
            )
        return found.folders

    def clear(self) -> None:
        """Delete what this machine made, unless ``--cache`` keeps it."""
        if self.cache is None:
            decoded.clear(self.folder)

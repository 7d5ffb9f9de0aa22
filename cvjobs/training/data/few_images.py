"""Some images of a training, decoded for people to see on a machine that has not decoded the others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cvjobs.images.decode_children import DecoderServer
from cvjobs.training.data import decoded
from cvjobs.training.data.decode_order import DecodeOrder
from cvjobs.training.data.decode_request import DecodedImages


@dataclass(frozen=True, kw_only=True)
class FewImages:
    """Images that could be decoded: their ``numbers`` among those of a split, and the ``rows`` that they are here."""

    decoded: DecodedImages
    numbers: NDArray[np.int64]
    rows: NDArray[np.int64]


@contextmanager
def few_images(
    order: DecodeOrder, name: str, numbers: NDArray[np.int64], decoder_server: DecoderServer
) -> Iterator[FewImages]:
    """Yield images of a split, by their numbers among those that are listed; the files are there within the context."""
    with tempfile.TemporaryDirectory(prefix="cvjobs-") as folder:
        request = order.requests[name]
        request = replace(request, rows=request.rows.take(pa.array(numbers)), folder=folder)
        found, _ = decoded.decode(request, order.source(), decoder_server, lambda _: None)
        here = replace(found, rows=np.arange(len(numbers)))
        yield FewImages(decoded=here, numbers=numbers[found.rows], rows=found.rows)

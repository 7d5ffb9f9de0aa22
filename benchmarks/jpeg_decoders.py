"""How far the JPEG decoders of this machine are apart: the largest and the mean difference of a pixel, 0 to 255.

python benchmarks/jpeg_decoders.py SOURCE
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cvjobs.images import decode
from cvjobs.images.transform import Transform

MAX_PIXELS = 80_000_000
Decoder = Callable[[bytes], NDArray[np.uint8]]


def _pillow(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _cvjobs(content: bytes) -> NDArray[np.uint8]:
    return decode.decode(content, Transform(fit="native"), MAX_PIXELS).pixels


def _of_torch(module: str) -> Decoder | None:
    """Return the decoder of a library on torch, None where it is not installed, does not load or has none."""
    import torch

    try:
        decoder = importlib.import_module(module).decode_jpeg
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None

    def pixels(content: bytes) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = decoder(torch.frombuffer(bytearray(content), dtype=torch.uint8)).numpy()
        return found.transpose(1, 2, 0)

    return pixels


def main() -> None:
    """Decode every JPEG below SOURCE with each, and print the differences of each two as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    contents = [path.read_bytes() for path in sorted(parser.parse_args().source.rglob("*.jpg"))]
    tried = {"torchcodec": _of_torch("torchcodec.decoders"), "torchvision": _of_torch("torchvision.io")}
    found = {name: decoder for name, decoder in tried.items() if decoder} | {"Pillow": _pillow, "cvjobs": _cvjobs}
    decoded = {name: [decoder(content) for content in contents] for name, decoder in found.items()}
    apart = {}
    for one, other in combinations(decoded, 2):
        pairs = zip(decoded[one], decoded[other], strict=True)
        gaps = [np.abs(first.astype(np.int16) - second) for first, second in pairs]
        apart[f"{one} and {other}"] = {
            "largest": max(int(gap.max()) for gap in gaps),
            "mean": float(np.mean([gap.mean() for gap in gaps])),
        }
    print(json.dumps({"decoders": list(decoded), "apart": apart}))


if __name__ == "__main__":
    main()

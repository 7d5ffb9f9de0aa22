"""The program of the process that decodes JPEGs on a device: as a decode child, but many images at a time.

Started as ``python -m cvjobs.images.device_decoder SETTINGS FD FD FD FD``; no other process has both a GPU and the
bytes of strangers. What a device would not decode right by its header, and every chunk that it refuses, is another's:
it answers with their numbers, and a decode child has the last word.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from cvjobs.common.errors import LimitReached
from cvjobs.common.failures import Failure
from cvjobs.images import device_resizing
from cvjobs.images.blank_images import look
from cvjobs.images.child_limits import limit
from cvjobs.images.decode import Decoded, decode
from cvjobs.images.decode_service import DecodeService, facts
from cvjobs.images.device_jpegs import suited
from cvjobs.images.ipc import DECODING, FILLING, DecodeSettings, fill, send
from cvjobs.images.measured import MEASURED, Measurements
from cvjobs.images.picture import Pixels

TOGETHER = 128 << 20  # pixels that are decoded by one call, 3 bytes and, resized, 12 more of each
_TRIAL = 64  # pixels a side


def main() -> None:
    """Get the device ready, then answer until the socket ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the worker decides when to end
        signal.signal(number, signal.SIG_IGN)
    limit()
    torch.set_grad_enabled(False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = DecodeSettings(**json.loads(sys.argv[1]))
    DeviceService([int(word) for word in sys.argv[2:]], settings, device).run()


class DeviceService(DecodeService):
    """Decodes the images of a message that are suited by one call, or a few."""

    def __init__(self, descriptors: list[int], settings: DecodeSettings, device: torch.device) -> None:
        super().__init__(descriptors, settings, decode)
        self._device = device

    def run(self) -> None:
        """Say whether the device decodes at all, then answer every message."""
        send(self._connection, {"works": self._works()})
        super().run()

    def _works(self) -> bool:
        content = io.BytesIO()
        Image.new("RGB", (_TRIAL, _TRIAL)).save(content, "JPEG")
        return self._decoded([content.getvalue()], [(_TRIAL, _TRIAL)]) is not None

    def _answer(self, message: dict[str, Any]) -> tuple[dict[str, Any], Measurements]:
        answer: dict[str, Any] = {"failed": [], "places": {}, "elsewhere": []}
        measured: Measurements = np.zeros(len(message["at"]), MEASURED)
        block, most = self._blocks[message["block"]], min(self._settings.max_pixels, TOGETHER)
        mine: list[int] = []
        coded: list[bytes] = []
        sizes: list[tuple[int, int]] = []
        try:
            for image, content in enumerate(self._contents(message, block)):
                if isinstance(content, Failure):
                    answer["failed"].append([image, content.stage, content.code, content.detail, content.attempts])
                elif (size := suited(content, most)) is None:
                    answer["elsewhere"].append(image)
                else:
                    mine.append(image)
                    coded.append(content)
                    sizes.append(size)
        except LimitReached as error:  # of this machine, and no image's fault
            return {**answer, "limit": str(error)}, measured
        block.unmap()
        pixels = self._decoded(coded, sizes, message["number"])
        if pixels is None:
            if not self._works():
                raise RuntimeError("the device decodes nothing any more")  # a new process may
            answer["elsewhere"] = sorted([*answer["elsewhere"], *mine])
        elif mine:
            self._progress.set(message["number"], -1, FILLING)
            for image, content, (height, width), one in zip(mine, coded, sizes, pixels, strict=True):
                measured[image] = facts(Decoded(one, width, height, 1), content)
            measured["look"][mine] = look(list(pixels))
            fill(self._buffers[message["buffer"]], list(pixels), [message["at"][image] for image in mine])
        return answer, measured

    def _decoded(self, contents: Sequence[bytes], sizes: list[tuple[int, int]], number: int = 0) -> Pixels | None:
        """Return images at the transform's size, in their order; None where the device does not decode them all.

        Each call is progress with the message of this number.
        """
        found: list[Tensor] = []
        start = 0
        try:
            while start < len(contents):
                end, area = start, 0
                while end < len(contents) and (end == start or area + sizes[end][0] * sizes[end][1] <= TOGETHER):
                    area += sizes[end][0] * sizes[end][1]
                    end += 1
                self._progress.set(number, start, DECODING)
                found += self._together(contents[start:end], sizes[start:end])
                start = end
            return torch.stack(found).cpu().numpy() if found else np.empty((0,), np.uint8)
        except (RuntimeError, MemoryError):  # one file fails the call for all
            return None

    def _together(self, contents: Sequence[bytes], sizes: list[tuple[int, int]]) -> list[Tensor]:
        coded = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
        images = decode_jpeg(coded, mode=ImageReadMode.RGB, device=self._device)
        if [tuple(image.shape[1:]) for image in images] != sizes:
            raise RuntimeError("a picture has not the size that its header says")
        found: dict[int, Tensor] = {}
        for size in dict.fromkeys(sizes):
            which = [i for i, other in enumerate(sizes) if other == size]
            fitted = device_resizing.fit(torch.stack([images[i] for i in which]), self._transform)
            found.update(zip(which, fitted, strict=True))
        return [found[i] for i in range(len(contents))]


if __name__ == "__main__":
    main()

"""A process that stands for the one that decodes on a device, and goes wrong as the variable ODD_DEVICE says.

``silent`` never says that it is ready, ``dies`` at once, ``useless`` decodes nothing; ``refuses`` leaves every image to
the processor, ``hangs`` at its first message, ``once`` dies at it and the next process is useless. With ``memory``,
``size`` and ``broken`` it is the true program, whose calls run out of memory over four images, return pictures of
another size, or fail for good after the first.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cvjobs.images.decode import decode
from cvjobs.images.decode_service import DecodeService
from cvjobs.images.ipc import DecodeSettings, send
from cvjobs.images.measured import MEASURED, Measurements

HOW = os.environ["ODD_DEVICE"]
TRUE = ("memory", "size", "broken")


class OddDevice(DecodeService):
    """Goes wrong."""

    def run(self) -> None:
        if HOW == "silent":
            time.sleep(600)
        if HOW == "dies":
            return
        mark = Path(os.environ.get("ODD_DEVICE_MARK", os.devnull))
        useless = HOW == "useless" or (HOW == "once" and mark.exists())
        mark.touch()
        send(self._connection, {"works": not useless})
        super().run()

    def _answer(self, message: dict[str, Any]) -> tuple[dict[str, Any], Measurements]:
        if HOW == "hangs":
            time.sleep(600)
        if HOW == "once":
            os._exit(1)
        count = len(message["at"])
        return {"failed": [], "places": {}, "elsewhere": [*range(count)]}, np.zeros(count, MEASURED)


def _true_program() -> None:
    import torch
    from torchvision.io import decode_jpeg

    from cvjobs.images import device_decoder

    real, calls = decode_jpeg, []

    def odd(coded: list[Any], **how: Any) -> Any:
        calls.append(len(coded))
        if (HOW == "memory" and len(coded) > 4) or (HOW == "broken" and len(calls) > 1):
            raise torch.OutOfMemoryError("CUDA out of memory")
        images = real(coded, **how)
        return [image[:, 1:] for image in images] if HOW == "size" and len(calls) > 1 else images

    vars(device_decoder)["decode_jpeg"] = odd
    device_decoder.main()


if __name__ == "__main__":
    if HOW in TRUE:
        _true_program()
    else:
        OddDevice([int(word) for word in sys.argv[2:]], DecodeSettings(**json.loads(sys.argv[1])), decode).run()

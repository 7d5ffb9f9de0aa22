"""An ONNX model that runs: on which device, with how many threads, and in batches that its file allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvjobs.common import devices, extras
from cvjobs.common.errors import WrongUse
from cvjobs.networks import cpu_pieces
from cvjobs.networks.onnx.onnx_file import AGAIN, OnnxFile

MOST = 1 << 16  # images of a batch
LANES = 4  # threads of the engine that run a model on a CPU
_NO_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
# What onnxruntime says before the reason: its code, the file, and the place in its source that raised.
_NOISE = re.compile(
    r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(Load model from .*? failed:\s*)?(\S+\.(cc|h):\d+ .*\) (?=[A-Z]))?"
)

Outputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input that takes images: its name, type and layout (``NCHW``, ``NHWC``, ``CHW`` or ``HWC``).

    ``batch`` is the number of images that it takes, 1 where the layout has none, None for any; ``size`` its (height,
    width), None for any.
    ``sizes`` are the inputs beside it, by name with their types, which are told the size of the image.
    """

    name: str
    kind: str
    layout: str
    batch: int | None
    size: tuple[int, int] | None
    sizes: Mapping[str, str]


class Session:
    """An ONNX model on one device; several threads may call it at once."""

    def __init__(self, file: OnnxFile, device: str = "cpu") -> None:
        """Raise WrongUse where onnxruntime does not take the file, or has no CUDA and that is asked for."""
        self._alone = False
        self._names = [value.name for value in file.outputs]
        self._session = _made(file, device)
        self._on_cpu = device == "cpu"

    def pieces(self, images: Tensor, taken: ImageInput, each: Sequence[str] = ()) -> Iterator[tuple[int, Outputs]]:
        """Yield how many of (B, 3, H, W) float32 images an answer is about, and the outputs by name.

        A file with a batch of its own gets that many images, where there are less with black ones at the end, whose
        results are among the outputs. One that fails on several, or answers about another number, gets them one by one.

        Args:
            images: the batch.
            taken: the input.
            each: the outputs that have a row for every image, unless an image is alone.

        Raises:
            MemoryError: they are too many for the device.
            RuntimeError: the file fails, or has a batch of its own and answers about another number.
        """
        rest, together = images, self._together(images.shape)
        while len(rest):
            step = taken.batch or (1 if self._alone else together)
            piece, left = rest[:step], rest[step:]
            count = len(piece)
            if count < (taken.batch or 0):
                piece = torch.cat([piece, piece.new_zeros((step - count, *piece.shape[1:]))])
            try:
                found = self.run(piece, taken)
                if len(piece) > 1:
                    _check_rows(found, each, len(piece))
            except RuntimeError:
                if taken.batch or count == 1:
                    raise
                self._alone = True  # of what is exported for one image the batch may be open by name alone
                continue
            yield count, found
            rest = left

    def _together(self, shape: Sequence[int]) -> int:
        count, _, height, width = shape
        return cpu_pieces.step(count, height, width) if self._on_cpu else MOST

    def run(self, images: Tensor, taken: ImageInput) -> Outputs:
        """Return the outputs by name of as many (B, 3, H, W) float32 images as the file takes; raises as ``pieces``."""
        height, width = images.shape[2:]
        feeds: dict[str, Any] = {taken.name: _laid_out(images, taken)}
        for name, kind in taken.sizes.items():
            value = SIZES[name](height, width)
            feeds[name] = np.array([value] * len(images), kind)
        try:
            found = self._session.run(self._names, feeds)
        except Exception as error:  # noqa: BLE001 - of its own kinds
            reason = _reason(error)
            if not any(words in reason for words in _NO_MEMORY):
                raise RuntimeError(reason) from None
        else:
            return {name: _tensor(value) for name, value in zip(self._names, found, strict=True)}
        # Raised out here because the traceback of the first error would keep the batch's tensors alive.
        raise MemoryError(reason)


# Inputs that detectors of PaddleDetection and RT-DETR have beside the image, and what they are told: that the boxes are
# to be in pixels of their input.
SIZES: dict[str, Callable[[int, int], tuple[float, float]]] = {
    "orig_target_sizes": lambda height, width: (width, height),
    "im_shape": lambda height, width: (height, width),
    "scale_factor": lambda height, width: (1.0, 1.0),  # noqa: ARG005
}


def _laid_out(images: Tensor, taken: ImageInput) -> Any:
    """Return images (B, 3, H, W) as an array of the type and the layout of an input."""
    if taken.kind == "uint8":
        images = images.round().clamp(0, 255).to(torch.uint8)
    elif taken.kind == "float16":
        images = images.half()
    if taken.layout.endswith("C"):
        images = images.permute(0, 2, 3, 1)
    if len(taken.layout) == 3:
        (images,) = images
    return images.contiguous().numpy()


def _check_rows(found: Outputs, each: Sequence[str], count: int) -> None:
    for name in each:
        rows = len(found[name]) if found[name].dim() else 0
        if rows != count:
            raise RuntimeError(f"the output {name!r} has {rows} rows for a batch of {count} images")


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        raise RuntimeError("an output is no tensor of numbers")
    return torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" and value.itemsize > 1 else value)


def _made(file: OnnxFile, device: str) -> Any:
    runtime: Any = extras.load("onnx", "--model onnx/FILE")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised
    # Each thread of the engine that calls works, too: with these all cores do, and no more.
    cores = devices.threads()
    options.intra_op_num_threads = cores - min(cores, LANES) + 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the decoders need the cores
    providers = _providers(runtime, device)
    try:
        # Its own second try prints on stdout.
        session = runtime.InferenceSession(str(file.path), options, providers=providers, enable_fallback=False)
    except Exception as error:  # noqa: BLE001 - of its own kinds
        raise WrongUse(
            f"onnxruntime {runtime.__version__} cannot run {file.path} ({_reason(error)}): {AGAIN}."
        ) from None
    if device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise WrongUse(
            "onnxruntime cannot use the GPU, for libraries of CUDA or cuDNN are missing or of another version than it "
            "was made for: install what it needs, or give --device cpu."
        )
    return session


def _providers(runtime: Any, device: str) -> list[Any]:
    there = runtime.get_available_providers()
    if device != "cpu":
        if "CUDAExecutionProvider" not in there:
            raise WrongUse(
                "This onnxruntime computes on the CPU alone: put onnxruntime-gpu in its place (pip uninstall "
                "onnxruntime; pip install onnxruntime-gpu), or give --device cpu."
            )
        number = device.partition(":")[2]
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    return [name for name in ("OpenVINOExecutionProvider", "CPUExecutionProvider") if name in there]


def _reason(error: Exception) -> str:
    """Return the first line of an error of onnxruntime's, without the places in its source."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return _NOISE.sub("", line).strip().rstrip(".:")[:300]

"""Torch models as embedders and classifiers: one copy on one device, called by several threads; a layer's output."""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from cvjobs.common import categories as common_categories
from cvjobs.common import devices
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks import weights as files
from cvjobs.networks.weights import Activation, Weights

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@dataclass(frozen=True, kw_only=True)
class TorchEmbedder:
    """A torch module from normalised (B, 3, H, W) floats to (B, dim) vectors, with its weights, on the CPU.

    ``file`` is where the weights came from, empty where they are random; files ``beside`` it may change results, too.
    """

    name: str
    dim: int
    transform: Transform
    facts: Mapping[str, Any]
    module: nn.Module = field(repr=False)
    file: str = ""
    beside: tuple[str, ...] = ()

    def load(self, device: str, precision: str) -> TorchNetwork:
        """Return a copy of the model on a device, in ``fp32``, ``bf16`` or ``fp16``."""
        on_cpu = torch.device(device).type == "cpu"
        module = folded(self.module, _size(self.transform)) if on_cpu else copy.deepcopy(self.module)
        return TorchNetwork(module, self.transform, torch.device(device), precision)


@dataclass(frozen=True, kw_only=True)
class TorchClassifier(TorchEmbedder):
    """A model whose vectors are the logits of its classes, in the order of ``labels``."""

    labels: tuple[str, ...]
    activation: Activation


class TorchNetwork:
    """One model on one device. On CUDA each calling thread has a stream of its own, so that copies and work overlap."""

    def __init__(self, module: nn.Module, transform: Transform, device: torch.device, precision: str) -> None:
        self._device = device
        self._type = TYPES[precision]
        self._module = module.eval().to(device, self._type, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._size = _size(transform)
        self._normalizer = Normalizer(transform, device, self._type)
        self._streams = Streams(device)

    @property
    def image_bytes(self) -> int:
        """The bytes of the inputs and outputs of the widest layer for one image, 0 where they cannot be told."""
        try:
            return widest(self._module, self._size)
        except Exception:  # noqa: BLE001 - a module that cannot run without numbers may still run
            return 0

    def pin(self, pixels: NDArray[np.uint8]) -> bool:
        """Pin a buffer where the device is CUDA, so that a copy to it needs no other; False where that is refused."""
        if self._device.type != "cuda":
            return True
        refusal = torch.cuda.cudart().cudaHostRegister(pixels.ctypes.data, pixels.nbytes, 0)  # type: ignore[no-untyped-call]
        if int(refusal):
            with contextlib.suppress(RuntimeError):  # or the next launch would raise what was refused here
                torch.zeros(1, device=self._device)
        return not int(refusal)

    def unpin(self, pixels: NDArray[np.uint8]) -> None:
        """Undo ``pin``; what was not pinned stays as it is."""
        if self._device.type == "cuda":
            torch.cuda.cudart().cudaHostUnregister(pixels.ctypes.data)  # type: ignore[no-untyped-call]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the (B, dim) float32 vectors of (B, height, width, 3) RGB pixels, or of twice the height with 16 bits.

        Raises:
            MemoryError: the batch does not fit the device; a smaller one may.
        """
        try:
            return self._vectors(pixels)
        except RuntimeError as error:
            reason = out_of_memory(error)
            if not reason:
                raise
        # Raised out here because the traceback of the first error would keep the batch's tensors alive.
        raise MemoryError(reason)

    def _vectors(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode(), self._streams.own():
            images = torch.from_numpy(pixels).to(self._device, non_blocking=True).permute(0, 3, 1, 2)
            if images.shape[2] == 2 * self._size[0]:  # 16 bits of each grey value, see ``resizing.fit``
                whole, rest = images.float().chunk(2, dim=2)
                images = whole.add_(rest, alpha=1 / 256)
            images = self._normalizer(images)
            output = self._module(images.contiguous(memory_format=torch.channels_last))
            vectors: NDArray[np.float32] = output.float().cpu().numpy()  # waits for this thread's stream
            return vectors


class Normalizer:
    """Grey values of 0 to 255 as a model wants them: divided by 255, less the mean, divided by the deviation.

    One multiplication and one addition, in float32 whatever the model's type: in bfloat16 the two roundings would cost
    a grey level.
    """

    def __init__(self, transform: Transform, device: torch.device, dtype: torch.dtype) -> None:
        std = torch.tensor(transform.std, dtype=torch.float64).view(1, 3, 1, 1)
        mean = torch.tensor(transform.mean, dtype=torch.float64).view(1, 3, 1, 1)
        self._scale = (1 / (255 * std)).to(device, torch.float32)
        self._shift = (-mean / std).to(device, torch.float32)
        self._type = dtype

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of any type in the model's."""
        return torch.addcmul(self._shift, images.float(), self._scale).to(self._type)

    def in_place(self, images: Tensor) -> None:
        """Normalise float32 images (B, 3, H, W) where they are."""
        torch.addcmul(self._shift, images, self._scale, out=images)


class Streams:
    """A CUDA stream of its own for each calling thread, so that one's copies overlap another's work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._local = threading.local()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the callers' streams do not wait for this thread's, which loaded the model

    def own(self) -> AbstractContextManager[Any]:
        """Return the calling thread's stream as a context; on other devices nothing happens in it."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._local.stream)


def out_of_memory(error: RuntimeError) -> str:
    """Return the first line of torch's error where it says that memory ran out, ``""`` for any other."""
    reason = str(error)
    ran_out = isinstance(error, torch.OutOfMemoryError) or any(words in reason for words in _NO_MEMORY)
    return (reason.partition("\n")[0] or "out of memory") if ran_out else ""


def embedder(
    name: str,
    transform: Transform,
    weights: Weights,
    model: nn.Module,
    layer: str,
    pooled: Callable[[nn.Module], nn.Module],
) -> TorchEmbedder:
    """Return a model as an embedder: what ``pooled`` makes of it, or the pooled output of one of its layers."""
    module = FeatureExtractor(model, name, layer, _size(transform)) if layer else pooled(model)
    return TorchEmbedder(
        name=name,
        dim=vector_length(module, name, _size(transform)),
        transform=transform,
        facts={"model": name, **weights.facts, "layer": layer or "pooled"},
        module=module,
        file=str(weights.file or ""),
    )


def classifier(
    name: str,
    transform: Transform,
    weights: Weights,
    model: nn.Module,
    given: Sequence[str],
    published: Sequence[str],
) -> TorchClassifier:
    """Return a model as a classifier; its classes are named by the user, its file of weights, or who published it."""
    classes = vector_length(model, name, _size(transform))
    head = files.head(weights)
    if given or not head.labels:
        named = class_names.for_head(classes, given, published, name)
    else:
        named = class_names.for_head(classes, head.labels, (), name, f"The metadata of the file {weights.file}")
    categories = [Category(number, label) for number, label in enumerate(named)]
    return TorchClassifier(
        name=name,
        dim=classes,
        transform=transform,
        facts={
            "model": name,
            **weights.facts,
            "activation": head.activation,
            **common_categories.facts("classify", categories),
        },
        module=model,
        file=str(weights.file or ""),
        labels=tuple(named),
        activation=head.activation,
    )


def _size(transform: Transform) -> tuple[int, int]:
    assert transform.size is not None, "a model of vectors takes images of one size"
    return transform.size


def folded(module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Return a copy of a module for inference, with batch norms folded into the convolutions before them.

    On a CPU that is 1.2 to 1.8 times as fast. A module that cannot be traced, or whose results (a tensor or a dict of
    them) would change by more than rounding, is copied as it is.
    """
    held = sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
    devices.check_memory(held, "A copy of the model for inference", "use a smaller model, or raise the limit")
    if not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return copy.deepcopy(module)
    sample = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fast = fuse(module.eval())
            before, after, one = (_tensors(output) for output in (module(sample), fast(sample), fast(sample[:1])))
    except Exception:  # noqa: BLE001 - whatever tracing trips over, the module itself works
        return copy.deepcopy(module)
    same = len(before) == len(after) and all(map(_close, before, after)) and all(map(_close, before, one))
    return fast if same else copy.deepcopy(module)


def _tensors(output: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return list(output.values()) if isinstance(output, dict) else [output]


def _close(before: Tensor, after: Tensor) -> bool:
    """Whether the results of the first images are the same but for rounding."""
    first = before[: len(after)]
    return float((first - after).abs().max()) <= 1e-4 * float(before.abs().max())


class FeatureExtractor(nn.Module):
    """A model whose result is the pooled output of one of its modules, at that module's last call in a pass.

    A feature map is averaged over height and width, a row of tokens over the tokens, a vector taken as it is. Maps
    are (B, C, H, W) or (B, H, W, C): height and width are the neighbouring pair with the proportions of the input,
    the last two where both are.
    """

    def __init__(self, model: nn.Module, name: str, layer: str, size: tuple[int, int]) -> None:
        super().__init__()
        layers = {path: module for path, module in model.named_modules() if path}
        if layer not in layers:
            raise WrongUse(f"{name} has no layer {layer!r}{nearest(layer, layers)}: name one of its modules.")
        self.model = model
        self._where = f"Layer {layer} of {name}"
        self._size = size
        self._taken: dict[int, Tensor] = {}  # by thread: several are inside the model at once
        layers[layer].register_forward_hook(self._take)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) vectors of (B, 3, H, W) images."""
        thread = threading.get_ident()
        try:
            self.model(images)
            if thread not in self._taken:
                raise WrongUse(f"{self._where} is not called when the model runs: name another layer.")
            return self._taken[thread]
        finally:
            self._taken.pop(thread, None)

    def _take(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        # Pooled at once: the next module may work in place on this very output.
        self._taken[threading.get_ident()] = self._pooled(output)

    def _pooled(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor):
            raise WrongUse(f"{self._where} gives no tensor: name another layer.")
        if output.ndim == 2:
            return output.clone()
        if output.ndim == 3:
            return output.float().mean(1)
        if output.ndim == 4 and (plane := self._plane(output.shape)):
            return output.float().mean(plane)
        raise WrongUse(f"{self._where} gives neither a vector, tokens nor a feature map: name another layer.")

    def _plane(self, shape: torch.Size) -> tuple[int, int] | None:
        height, width = self._size
        fitting = [pair for pair in ((2, 3), (1, 2)) if shape[pair[0]] * width == shape[pair[1]] * height]
        return fitting[0] if fitting else None


def _shapes(module: nn.Module) -> nn.Module:
    """Return a copy with shapes for tensors: it costs nothing, and what a model remembers of a pass goes with it."""
    shapes: dict[int, Any] = {id(tensor): tensor.to("meta") for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shapes)


def widest(module: nn.Module, size: tuple[int, int]) -> int:
    """Return the bytes of the inputs and outputs of a module's widest layer for an image; nothing is computed."""
    sums = [0]

    def measure(layer: nn.Module, inputs: Any, outputs: Any) -> None:  # noqa: ARG001
        found = [tensor for tensor in (*inputs, outputs) if isinstance(tensor, Tensor)]
        sums.append(sum(tensor.numel() * tensor.element_size() for tensor in found))

    copied = _shapes(module)
    for layer in copied.modules():
        if not any(layer.children()):
            layer.register_forward_hook(measure)
    with torch.inference_mode():
        copied(torch.empty(2, 3, *size, dtype=next(copied.parameters()).dtype, device="meta"))
    return max(sums) // 2


def vector_length(module: nn.Module, name: str, size: tuple[int, int]) -> int:
    """Return the length of the vectors that a module makes; its shapes are worked out without computing anything."""
    with torch.inference_mode():
        vectors = _shapes(module)(torch.empty(2, 3, *size, device="meta"))
    if vectors.ndim != 2 or len(vectors) != 2:
        raise WrongUse(f"The output of {name} there is not one vector an image: name another layer with --layer.")
    return int(vectors.shape[1])

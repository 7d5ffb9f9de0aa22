"""Where in an image a classifier sees a class: Grad-CAM of its last feature map (Selvaraju et al. 2017), by captum."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.common import extras

BATCH = 4
# They hand features on, mix channels of one place only, or give shares of attention, which are no features.
_PASSED_OVER = (nn.Identity, nn.Dropout, nn.Softmax)


def heat(
    network: nn.Module, images: Tensor, classes: NDArray[np.int64], budget: float = float("inf")
) -> list[NDArray[np.float32] | None]:
    """Return how much each place of an image speaks for a class, float32 (h, w) from 0 to 1, the most of the image.

    Args:
        network: a classifier in evaluation mode, on the CPU; it is left as it was.
        images: as the network takes them, (N, 3, H, W).
        classes: of each image the class that is looked for, (N,).
        budget: seconds after which images have None instead.

    Raises:
        ValueError: there are no features of places in the network, or none that speaks for the class.
        WrongUse: captum is not installed.
    """
    until = time.monotonic() + budget
    layer, grid = _features(network, images[:1], int(classes[0]))
    found: list[NDArray[np.float32] | None] = []
    with _seen_as_planes(layer, grid) as planes:
        cam = _grad_cam()(network, planes)
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            if time.monotonic() > until:
                found += [None] * len(batch)
                continue
            with torch.enable_grad():
                target = torch.from_numpy(classes[start : start + BATCH])
                maps: Tensor = cam.attribute(batch, target=target, relu_attributions=True).detach()[:, 0]
            most = maps.amax((1, 2), keepdim=True)
            found += list((maps / most.where(most > 0, 1)).numpy())
    return found


@dataclass(frozen=True)
class _Grid:
    """How the features of ``height`` x ``width`` places lie in an output.

    They are (N, C, height, width), or with ``last`` (N, height, width, C), or (N, before + height * width, C) where
    there are tokens ``before`` those of the places.
    """

    height: int
    width: int
    last: bool = False
    before: int | None = None

    def planes(self, output: Tensor) -> Tensor:
        """Return the features as (N, C, height, width)."""
        if self.before is not None:
            output = output[:, self.before :]
            output = output.reshape(len(output), self.height, self.width, -1)
        return output.permute(0, 3, 1, 2) if self.last else output

    def back(self, planes: Tensor, output: Tensor) -> Tensor:
        """Return an output with other features of the places."""
        if self.last:
            planes = planes.permute(0, 2, 3, 1)
        return planes if self.before is None else torch.cat([output[:, : self.before], planes.flatten(1, 2)], 1)


def _grid(module: nn.Module, output: Any, size: tuple[int, int]) -> _Grid | None:
    """Return how features lie in the output for one image of a size; None where it has none of several places."""
    if not isinstance(output, Tensor) or not output.requires_grad or isinstance(module, _PASSED_OVER):
        return None
    shape = tuple(output.shape)
    if len(shape) == 4 and shape[0] == 1:
        if _alike(shape[2:], size):
            return _Grid(*shape[2:])
        return _Grid(*shape[1:3], last=True) if _alike(shape[1:3], size) else None
    if len(shape) == 3 and shape[0] == 1 and size[0] == size[1] and not isinstance(module, nn.Linear):
        side = int(shape[1] ** 0.5)
        return _Grid(side, side, last=True, before=shape[1] - side * side) if side > 1 else None
    return None


def _alike(places: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Return whether places lie like the pixels of an image: more than one, and as many across for those down."""
    (height, width), step = places, max(size) / max(places)
    return height * width > 1 and all(abs(n * step - pixels) < step for n, pixels in zip(places, size, strict=True))


def _features(network: nn.Module, image: Tensor, number: int) -> tuple[nn.Module, _Grid]:
    """Return the last module whose output has features of places on which the logit of a class depends."""
    calls: Counter[nn.Module] = Counter()
    outputs: list[tuple[nn.Module, Any]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        calls[module] += 1
        outputs.append((module, output))

    hooks = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        with torch.enable_grad():
            logit = network(image)[0, number]
    finally:
        for hook in hooks:
            hook.remove()
    size = (image.shape[2], image.shape[3])
    for module, output in reversed(outputs):
        grid = _grid(module, output, size) if calls[module] == 1 else None
        if grid is None:
            continue
        (gradient,) = torch.autograd.grad(logit, output, retain_graph=True, allow_unused=True)
        # Of a transformer only the class token goes on from the last block: what is left of the others is before it.
        if gradient is not None and bool(grid.planes(gradient).any()):
            return module, grid
    raise ValueError("the model keeps no map of features")


@contextmanager
def _seen_as_planes(module: nn.Module, grid: _Grid) -> Iterator[nn.Module]:
    """Yield a module through which the features of another one's output go as planes."""
    planes = nn.Identity()

    def through(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return grid.back(planes(grid.planes(output)), output)

    hook = module.register_forward_hook(through)
    try:
        yield planes
    finally:
        hook.remove()


def _grad_cam() -> Any:
    """Return captum's class; with it comes matplotlib, which has something to say of a home that it cannot write."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return extras.load("maps", "Grad-CAM").LayerGradCam
    finally:
        logger.setLevel(level)

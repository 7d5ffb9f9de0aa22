"""What the model tests compare with: the same images and weights, as the model's own library sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.images.transform import Transform
from cvjobs.networks.registry import embedder

Pixels = NDArray[np.uint8]
SMALL = "torchvision/mobilenet_v3_small"
TINY = "timm/test_resnet"


def pixels(count: int, transform: Transform, seed: int = 0) -> Pixels:
    assert transform.size
    return np.random.default_rng(seed).integers(0, 256, (count, *transform.size, 3), dtype=np.uint8)


def normalised(images: Pixels, transform: Transform) -> Tensor:
    """What torchvision's own transform hands to a model."""
    scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transform.mean, transform.std))
    return (scaled - mean) / std


def seeded(build: Any, **options: Any) -> Any:
    """The model as it is made after ``torch.manual_seed(0)``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(**options).eval()


def vectors(name: str, images: int = 2, **options: str) -> tuple[NDArray[np.float32], Tensor]:
    """The vectors of random images, and the images as the model's own library would see them."""
    model = embedder(name, **{"weights": "random", **options})
    batch = pixels(images, model.transform)
    result = model.load("cpu", "fp32")(batch)
    assert result.dtype == np.float32
    assert result.shape == (images, model.dim)
    return result, normalised(batch, model.transform)


def same(found: Any, expected: Any) -> None:
    """Equal but for rounding; random weights may make all numbers tiny, so nothing is compared with 0."""
    found, expected = (np.asarray(torch.as_tensor(values).detach()) for values in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))
    assert float(np.abs(expected).max()) > 0


def refused(name: str, **options: str) -> str:
    with pytest.raises(WrongUse) as caught:
        embedder(name, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence

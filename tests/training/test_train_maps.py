"""Maps of where a classifier sees a class: they are where the class is, in every kind of network, or there are none."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cvjobs.html import overlays
from cvjobs.networks import registry
from cvjobs.training.report import grad_cam

Where = tuple[int, int]


class Colours(nn.Module):
    """A network that says how much red and how much blue there is; its last map lies as asked for."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.detector = nn.Conv2d(3, 2, 4, stride=4, bias=False)
        self.last = nn.LayerNorm(2, elementwise_affine=False) if layout == "tokens" else nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.after = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.detector.weight.zero_()
            self.detector.weight[0, 0] = self.detector.weight[1, 2] = 1.0
            self.after.weight.copy_(torch.eye(2).view(2, 2, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        features = self.detector(images)
        if self.layout == "planes":
            return self.after(self.pool(self.last(features))).flatten(1)  # type: ignore[no-any-return]
        features = features.permute(0, 2, 3, 1)
        if self.layout == "pixels":
            return self.last(features).mean((1, 2))  # type: ignore[no-any-return]
        tokens = torch.cat([features.new_zeros(len(features), 1, 2), features.flatten(1, 2)], 1)
        return self.last(tokens).mean(1)  # type: ignore[no-any-return]


@pytest.fixture
def images() -> Tensor:
    """Two images of 4 x 4 places: red in the upper left and blue in the lower right, and the other way round."""
    found = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    for number, (red, blue) in enumerate([(0, 12), (12, 0)]):
        found[number, 0, red : red + 4, red : red + 4] += 1
        found[number, 2, blue : blue + 4, blue : blue + 4] += 1
    return found


def hottest(heat: Any) -> Where:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return int(row), int(column)


@pytest.mark.parametrize("layout", ["planes", "pixels", "tokens"])
def test_a_map_is_hottest_where_its_class_is(images: Tensor, layout: str) -> None:
    network = Colours(layout).eval()
    with torch.inference_mode():
        before = network(images)
    red, blue = (grad_cam.heat(network, images, np.array([number, number])) for number in (0, 1))
    for found in (red, blue):
        assert all(heat is not None and heat.shape == (4, 4) and heat.max() == 1 and heat.min() >= 0 for heat in found)
    assert [hottest(heat) for heat in red] == [(0, 0), (3, 3)]
    assert [hottest(heat) for heat in blue] == [(3, 3), (0, 0)]
    again = grad_cam.heat(network, images, np.array([0, 0]))
    assert all(np.array_equal(one, other) for one, other in zip(red, again, strict=True))  # type: ignore[arg-type]
    with torch.inference_mode():
        assert torch.equal(network(images), before)  # no hook is left


def test_a_class_that_nothing_speaks_for_has_no_heat(images: Tensor) -> None:
    network = Colours("planes").eval()
    with torch.no_grad():
        network.after.weight[1].neg_()
    (heat,) = grad_cam.heat(network, images[:1], np.array([1]))
    assert heat is not None
    assert not heat.any()


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("small/cnn", 28, (7, 7)),
        ("torchvision/squeezenet1_1", 64, (3, 3)),
        ("timm/test_vit", 64, (4, 4)),
        ("timm/test_resnet", 64, (2, 2)),
        pytest.param("torchvision/vit_b_32", None, (7, 7), marks=pytest.mark.faults),
        pytest.param("torchvision/swin_t", 64, (2, 2), marks=pytest.mark.faults),
        pytest.param("timm/swin_tiny_patch4_window7_224", None, (7, 7), marks=pytest.mark.faults),
        pytest.param("timm/levit_128s", None, (4, 4), marks=pytest.mark.faults),
    ],
)
def test_the_last_map_of_models_by_name(name: str, side: int | None, shape: Where) -> None:
    trainable = registry.trainable(name, weights="random", classes=3, side=side)
    height, width = trainable.transform.size or (0, 0)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = grad_cam.heat(trainable.module.eval(), images, np.array([0, 2]))
    assert [heat.shape for heat in found if heat is not None] == [shape, shape]


def test_a_network_without_places_has_no_map(images: Tensor) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(ValueError, match="no map of features"):
        grad_cam.heat(network, images, np.array([0, 1]))


def test_images_after_the_time_is_up_have_none(images: Tensor) -> None:
    assert grad_cam.heat(Colours("planes").eval(), images, np.array([0, 0]), budget=-1) == [None, None]


def test_heat_lies_over_the_part_that_the_model_sees() -> None:
    heat = np.zeros((2, 2), np.float32)
    heat[0, 1] = 1
    over = overlays.heat_map(heat, (1.0, 0.5), (30, 60))
    assert (over.height, over.width) == (80, 160)
    with Image.open(io.BytesIO(base64.b64decode(over.mask.partition(",")[2]))) as opened:
        pixels = np.asarray(opened.convert("RGBA")).astype(int)
    outside = pixels[:, :40]
    assert (outside == pixels[0, 0]).all()
    assert pixels[0, 0].tolist() == [0, 0, 0, overlays.DARK]
    assert (pixels[:, 120:] == pixels[0, 0]).all()
    inside = pixels[:, 40:120, 3]
    assert inside[:8, -8:].min() > 0.9 * overlays.DENSEST
    assert inside[-8:].max() < 10

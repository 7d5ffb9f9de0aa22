"""Torch models as networks: batch norms folded, layers tapped, threads, memory and number formats."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from reference import SMALL, TINY, pixels, same
from torch import Tensor, nn

from cvjobs.common.errors import WrongUse
from cvjobs.images.ipc import Buffer
from cvjobs.images.transform import Transform
from cvjobs.networks.precision import resolve_precision
from cvjobs.networks.registry import embedder
from cvjobs.networks.torch_network import FeatureExtractor, Normalizer, TorchEmbedder, folded, vector_length

pytestmark = pytest.mark.slow

SIZE = (32, 32)


class Block(nn.Module):
    """A convolution with a batch norm whose statistics are not the trivial ones, and a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        nn.init.normal_(self.norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        nn.init.normal_(self.norm.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images)).relu().mean((2, 3))  # type: ignore[no-any-return]


class Branching(Block):
    """Looks at the values on its way, which tracing cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.sum() > 0 else super().forward(-images)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, *SIZE)


def norms(module: nn.Module) -> int:
    """Return how many batch norms run in a forward pass."""
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        count += 1

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.inference_mode():
        module(torch.rand(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    return count


def test_a_batch_norm_is_folded_into_its_convolution(images: Tensor) -> None:
    block = Block().eval()
    fast = folded(block, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), block(images), rtol=1e-4, atol=1e-6)
    assert (norms(block), norms(fast)) == (1, 0)


def test_the_model_itself_is_left_alone() -> None:
    block = Block().eval()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    folded(block, SIZE)
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())


def test_what_cannot_be_traced_is_copied_as_it_is(images: Tensor) -> None:
    block = Branching().eval()
    copy = folded(block, SIZE)
    with torch.inference_mode():
        assert torch.equal(copy(images), block(images))
    assert copy is not block
    assert norms(copy) == 1


class Toy(nn.Module):
    """A model with layers of every kind, of which only some can be a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.split = nn.AdaptiveAvgPool2d(4)
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.flat = nn.Flatten(0, 1)
        self.unused = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.split(images).flatten(2).transpose(1, 2)
        mixed: Tensor = self.flat(self.attention(tokens, tokens, tokens)[0])
        return mixed


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [("attention", "gives no tensor"), ("flat", "not one vector an image"), ("unused", "is not called")],
)
def test_layers_that_are_no_vector_are_refused(layer: str, sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence):
        vector_length(FeatureExtractor(Toy(), "toy", layer, (8, 8)), "toy", (8, 8))


class Tied(nn.Module):
    """A model with one module in two places and one parameter in two modules, that remembers its last input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Conv2d(3, 3, 1)
        self.twin = nn.Conv2d(3, 3, 1)
        self.twin.weight = self.first.weight
        self.seen: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        mixed: Tensor = self.twin(self.again(self.first(images)))
        return mixed.mean((2, 3))


def test_looking_for_the_length_leaves_the_model_alone() -> None:
    model = Tied()
    assert vector_length(model, "toy", (8, 8)) == 3
    assert model.seen is None
    assert model.first is model.again
    assert model.twin.weight is model.first.weight
    assert not any(tensor.is_meta for tensor in model.parameters())


class Hungry(nn.Module):
    """A model that needs more memory than there is, or fails for another reason."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(self.shape) + images.mean()


@pytest.mark.parametrize(("shape", "error"), [((1 << 50,), MemoryError), ((-1,), RuntimeError)])
def test_only_missing_memory_is_a_memory_error(shape: tuple[int, ...], error: type[Exception]) -> None:
    model = TorchEmbedder(name="toy", dim=1, transform=Transform(size=(2, 2)), facts={}, module=Hungry(shape))
    network = model.load("cpu", "fp32")
    with pytest.raises(error):
        network(np.zeros((1, 2, 2, 3), np.uint8))


@pytest.mark.parametrize("layer", ["", "features.3"])
def test_threads_share_one_network(layer: str) -> None:
    model = embedder(SMALL, weights="random", layer=layer)
    network = model.load("cpu", "fp32")
    batches = [pixels(2, model.transform, seed) for seed in range(6)]
    alone = [network(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for found, expected in zip(pool.map(network, batches), alone, strict=True):
            same(found, expected)
    with pytest.raises(AssertionError):
        same(alone[0], alone[1])


def test_bf16_is_near_fp32() -> None:
    model = embedder(TINY, weights="random")
    batch = pixels(4, model.transform)
    full, half = (torch.from_numpy(model.load("cpu", precision)(batch)) for precision in ("fp32", "bf16"))
    assert torch.cosine_similarity(full, half).min() > 0.99
    assert not torch.equal(full, half)


def test_precision() -> None:
    assert [resolve_precision(choice, "cpu") for choice in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    assert resolve_precision("fp16", "cuda:0") == "fp16"
    with pytest.raises(WrongUse, match="needs a CUDA GPU"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(WrongUse, match="nearest: bf16"):
        resolve_precision("bf61", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_gives_the_same_vectors_from_pinned_buffers_in_several_threads() -> None:
    model = embedder("torchvision/resnet18", weights="random")
    on_gpu: Any
    on_cpu, on_gpu = model.load("cpu", "fp32"), model.load("cuda", "fp32")
    batches = [pixels(4, model.transform, seed) for seed in range(6)]
    buffers = [Buffer(4, batch.shape[1:3]).images for batch in batches]
    for buffer, batch in zip(buffers, batches, strict=True):
        on_gpu.pin(buffer)
        buffer[:] = batch
        assert torch.from_numpy(buffer).is_pinned()
    with ThreadPoolExecutor(3) as pool:
        for found, batch in zip(pool.map(on_gpu, buffers), batches, strict=True):
            expected = torch.from_numpy(on_cpu(batch))
            assert torch.cosine_similarity(torch.from_numpy(found), expected).min() > 0.999
    with pytest.raises(MemoryError):
        on_gpu(np.broadcast_to(batches[0][:1], (1 << 22, *batches[0].shape[1:])))
    for buffer in buffers:
        on_gpu.unpin(buffer)
        assert not torch.from_numpy(buffer).is_pinned()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pixels_are_normalised_in_one_step_of_float32(dtype: torch.dtype) -> None:
    """Bit for bit: what a model is given is part of what its results are."""
    transform = Transform(size=SIZE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    scale = torch.tensor([1 / (255 * std) for std in transform.std], dtype=torch.float64)
    pairs = zip(transform.mean, transform.std, strict=True)
    shift = torch.tensor([-mean / std for mean, std in pairs], dtype=torch.float64)
    scale, shift = (values.float().view(1, 3, 1, 1) for values in (scale, shift))
    expected = torch.addcmul(shift, grey.float(), scale)
    normalizer = Normalizer(transform, torch.device("cpu"), dtype)
    found = normalizer(grey)
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))
    here = grey.float()
    normalizer.in_place(here)
    assert torch.equal(here, expected)

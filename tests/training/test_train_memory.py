"""What a training needs in memory, told before it begins: estimates against what is kept, refusals, what fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from group_files import limited
from torch import Tensor, nn
from training import SIDE, folder, loop, plan

import cvjobs
from cvjobs.clusters.link import Link
from cvjobs.common import devices, rules
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.networks import registry
from cvjobs.networks.trainable import Trainable
from cvjobs.training.checks import batch_size, memory
from cvjobs.training.checks.batch_size import Room
from cvjobs.training.checks.memory import Estimate
from cvjobs.training.loop import resources
from cvjobs.training.loop.evaluate import autocast
from cvjobs.training.plan import kind
from cvjobs.training.recipe import optimizers
from cvjobs.training.recipe import recipe as recipe_recipe

pytestmark = pytest.mark.slow

MODEL: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "epochs": 1, "img_size": str(SIDE)}


def trainable(name: str = "small/cnn", side: int = 16) -> Trainable:
    return registry.trainable(name, weights="random", classes=3, side=side)


def estimate(trained: Trainable, precision: str = "fp32", together: bool = False, **recipe: Any) -> Estimate | None:
    return memory.estimate(trained, recipe_recipe.named("quick", **recipe), precision, together=together, on_cpu=False)


def kept(trained: Trainable, images: int, precision: str) -> int:
    """The bytes that a real forward pass keeps for backward, each storage once, without weights and inputs."""
    module, (side, _) = trained.module.train(), trained.transform.size or (0, 0)
    inputs = torch.rand(images, 3, side, side).contiguous(memory_format=torch.channels_last)
    own = {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers(), inputs)}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, autocast(torch.device("cpu"), kind(precision)):
        outputs = module(inputs)
    assert outputs.grad_fn is not None
    return sum(tensor.untyped_storage().nbytes() for at, tensor in found.items() if at not in own)


@pytest.mark.parametrize("name", ["small/cnn", "timm/test_resnet", "timm/test_vit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_estimate_is_what_a_forward_pass_keeps(name: str, precision: str) -> None:
    trained = trainable(name, 64)
    before = {name: tensor.clone() for name, tensor in trained.module.state_dict().items()}
    found = estimate(trained, precision)
    assert found is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.module.state_dict().items())
    image = (kept(trained, 8, precision) - kept(trained, 4, precision)) / 4
    floats = 2 * 4 * 3 * 64**2
    assert image <= found.computed - floats <= 1.5 * image  # and the widest gradient of backward
    assert found.parameters == sum(parameter.numel() for parameter in trained.module.parameters())


@pytest.mark.parametrize("opt", get_args(recipe_recipe.Optimizer))
def test_the_state_of_every_optimizer(opt: str) -> None:
    module = trainable().module
    recipe = recipe_recipe.named("quick", opt=opt)
    optimizer = optimizers.build(module, recipe, 64)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor) and t.ndim]
    weights = sum(parameter.numel() for parameter in module.parameters())
    assert sum(tensor.numel() for tensor in tensors) == memory.states(recipe) * weights


def test_what_freezes_averages_and_exchanges_counts() -> None:
    trained = trainable()
    plain, frozen, averaged, together = (
        estimate(trained),
        estimate(trained, freeze_until="head"),
        estimate(trained, ema=0.9),
        estimate(trained, together=True),
    )
    assert plain
    assert frozen
    assert averaged
    assert together
    assert frozen.computed < plain.computed / 2
    assert frozen.fixed < plain.fixed / 3
    assert averaged.fixed - plain.fixed == pytest.approx(4 * plain.parameters, rel=0.01)
    assert together.fixed - plain.fixed == 4 * plain.parameters


def test_an_unknown_module_is_not_judged() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) * self.weight * float(images.mean())  # needs the number

    odd = replace(trainable(), module=Odd())
    assert estimate(odd) is None
    case = batch_size.Case(
        trainable=odd,
        recipe=recipe_recipe.named("quick"),
        precision="fp32",
        resources=resources.resources_for(None),
        images=10**9,
    )
    case.check(10**9)
    assert case.words(64) == ""
    with pytest.raises(WrongUse, match="cannot tell what small/cnn needs: give a number"):
        case.batch(batch_size.AUTO, {})


class TestRoom:
    """100 bytes of weights, 10 for each image in parts of which 20 more are needed."""

    needed = Estimate(parameters=1, fixed=100, held=10, computed=20)

    def test_parts_and_workers(self) -> None:
        assert self.needed.need(12, 1, 1) == 100 + 120 + 240
        assert self.needed.need(12, 2, 3) == 100 + 60 + 40

    @pytest.mark.parametrize(
        ("bytes_", "workers", "ways"),
        [
            (400, 1, "use --batch-size 10 or --accumulate 2"),
            (400, 2, None),
            (300, 1, "use --batch-size 6 or --accumulate 3"),
            (200, 1, "use --batch-size 3"),  # pixels are held whatever the parts
            (120, 1, "use a smaller model or --img-size"),
        ],
    )
    def test_a_step_that_does_not_fit(self, bytes_: int, workers: int, ways: str | None) -> None:
        room = Room(workers=workers, bytes=bytes_, parts=1)
        if ways is None:
            batch_size.check(self.needed, 12, room, "a model")
            return
        with pytest.raises(WrongUse) as caught:
            batch_size.check(self.needed, 12, room, "a model")
        assert str(caught.value) == (
            f"A step of 12 images with a model needs about 460 bytes of memory and there is {bytes_} bytes: {ways}."
        )

    def test_the_largest_power_of_two_in_four_fifths(self) -> None:
        for bytes_, images, batch in ((10**9, 10**6, 256), (1325, 10**6, 32), (10**9, 170, 16), (10, 10**6, 2)):
            assert batch_size.fitting(self.needed, Room(workers=1, bytes=bytes_, parts=1), images) == batch


def test_a_trial_that_runs_out_of_memory_is_no_error() -> None:
    class Hungry(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return self.head(images.mean((2, 3)))  # type: ignore[no-any-return]

    hungry = replace(trainable(), module=Hungry())
    recipe = recipe_recipe.named("quick", ema=0.9)
    assert batch_size.runs(hungry, recipe, "fp32", 8, "cpu")
    assert not batch_size.runs(hungry, recipe, "fp32", 9, "cpu")


def test_no_memory_in_the_middle_is_a_sentence(tmp_path: Path) -> None:
    def watch(_: object) -> bool:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    with pytest.raises(JobFailed, match=r"with --batch-size 8 or --accumulate 2\.$"):
        loop(plan(tmp_path, "run"), watch).run()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("images"), 40)


@pytest.fixture
def decoded(tmp_path: Path) -> Iterator[Path]:
    """A cache in which nothing must be."""
    yield tmp_path / "cache"
    assert not (tmp_path / "cache").exists()


def test_a_batch_that_cannot_fit_is_refused_before_anything_is_decoded(
    images: Path, tmp_path: Path, decoded: Path
) -> None:
    side = 40_000  # three floats of each pixel of a few images are more than this machine has
    with pytest.raises(WrongUse, match=r"^A step of \d+ images with small/cnn needs about .* of memory and there is "):
        cvjobs.train(images, tmp_path / "run", **MODEL | {"img_size": str(side)}, cache=decoded)
    assert not (tmp_path / "run" / "config.json").exists()


def test_auto_is_found_once_and_kept(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = cvjobs.train(images, out, **MODEL, batch_size="auto")
    identity = json.loads((out / "config.json").read_text())["identity"]
    assert identity["batch_size"] == 8  # ten steps of fewer than a hundred images
    assert first.parameters == 278_563
    assert first.memory
    assert first.memory > 0
    assert "0.3 M parameters, about" in str(first)
    assert "0.3 M" in (out / "report.html").read_text()
    assert cvjobs.train(images, out, **MODEL, batch_size="auto").up_to_date
    assert cvjobs.train(images, out, **MODEL, batch_size=8).up_to_date
    # Nothing is to be done, so no cluster is asked: none is there.
    assert cvjobs.train(images, out, **MODEL, batch_size=8, address="127.0.0.1:9").up_to_date
    with pytest.raises(WrongUse, match="begun with batch-size 8, not 64"):
        cvjobs.train(images, out, **MODEL)
    with pytest.raises(WrongUse, match="at least 2, or auto, not 'all'"):
        cvjobs.train(images, out, **MODEL, batch_size="all")
    assert set(pd.read_parquet(out / "history.parquet")["workers"]) == {1}


def test_a_control_group_bounds_a_step(tmp_path: Path) -> None:
    needed = Estimate(parameters=1, fixed=0, held=0, computed=10_000_000)
    room = Room(workers=1, bytes=100_000_000, parts=1, limit=300_000_000)
    batch_size.check(needed, 10, room, "m")
    with pytest.raises(WrongUse) as refused:
        batch_size.check(needed, 20, room, "m")
    assert str(refused.value) == (
        "A step of 20 images with m needs about 200 MB of memory and there is 100 MB within the limit of 300 MB of "
        "this process's control group: use --batch-size 10 or --accumulate 2 or a higher limit."
    )
    root = limited(tmp_path, 400 << 20, 100 << 20)
    assert memory.available("cpu", 1, root) == 190 << 20
    assert memory.limit("cpu", root) == 400 << 20
    assert memory.limit("cuda", root) == 0


def test_the_memory_of_a_cluster_is_asked_there(images: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"Ray does not answer at 127\.0\.0\.1:9"):
        cvjobs.train(images, tmp_path / "run", **MODEL, batch_size="auto", address="127.0.0.1:9")


class TestStaff:
    """Who trains."""

    def test_numbers_and_ranges(self) -> None:
        cores = devices.cpus()
        one = resources.resources_for(None)
        assert (one.least, one.most, one.alone) == (1, 1, True)
        many = resources.resources_for("1:4096")
        assert (many.least, many.most) == (1, cores)
        there = resources.resources_for("2:4096", Link("127.0.0.1:9"))
        assert (there.least, there.most, there.alone) == (2, 4096, False)

    def test_a_run_of_before_trains_as_it_did(self, monkeypatch: pytest.MonkeyPatch) -> None:
        there = resources.resources_for(None, Link("127.0.0.1:9"))
        assert there.ruled(rules.TEAM) is there
        before = there.ruled(rules.FIRST)  # and asks no cluster
        assert (before.least, before.most, before.cpus, before.device) == (1, 1, 1, "cpu")
        assert before.first is None
        monkeypatch.setenv(devices.SIMULATED, "1")
        assert there.ruled(rules.FIRST).device == "cuda"

    def test_a_gpu_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(WrongUse, match="--device cuda needs a CUDA GPU and this machine has none"):
            resources.resources_for(None, device="cuda")
        monkeypatch.setenv(devices.SIMULATED, "2")
        assert resources.resources_for("1:8").most == 2
        assert resources.resources_for(None, device="cpu").device == "cpu"

    @pytest.mark.parametrize("text", ["2:1", "0:2", "1:", "x", "1:2:3", "-1:2"])
    def test_what_is_no_range(self, text: str) -> None:
        with pytest.raises(WrongUse, match="MIN:MAX as in 2:8, not"):
            resources.resources_for(text)

    def test_fewer_than_the_least(self) -> None:
        with pytest.raises(WrongUse, match="--workers 4000 needs 4000"):
            resources.resources_for("4000:4096")


@pytest.mark.parametrize(
    ("name", "side", "multiply_adds"), [("torchvision/resnet18", 224, 1.814e9), ("timm/test_vit", 64, None)]
)
def test_the_operations_of_an_image(name: str, side: int, multiply_adds: float | None) -> None:
    found = estimate(trainable(name, side))
    assert found is not None
    if multiply_adds is None:  # tokens of 16 pixels, and one for the class: the products of attention are counted, too
        vit: Any = trainable(name, side).module
        tokens, width, layers = (side // 16) ** 2 + 1, vit.embed_dim, len(vit.blocks)
        linear = sum(
            part.weight.numel() for part in vit.modules() if isinstance(part, nn.Linear) and part is not vit.head
        )
        multiply_adds = tokens * linear + (tokens - 1) * vit.patch_embed.proj.weight.numel()
        multiply_adds += layers * 2 * tokens**2 * width + 3 * width
    assert found.flops == pytest.approx(2 * multiply_adds, rel=0.001)
    assert found.flops == estimate(trainable(name, side), "bf16").flops  # type: ignore[union-attr]

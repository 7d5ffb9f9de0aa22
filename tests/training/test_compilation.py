"""Whether a training is compiled: what is asked for, what pays, what the machine has, and what the run remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training import SIDE, folder

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import artifacts, identity
from cvjobs.training.checks import compilation
from cvjobs.training.checks.batch_size import Case
from cvjobs.training.loop.resources import DecidedResources
from cvjobs.training.recipe import recipe as recipe_recipe

pytestmark = pytest.mark.slow

# With fewer images than a step takes no batch is whole, and nothing is compiled.
MODEL: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "epochs": 1, "img_size": str(SIDE)}
LONG: dict[str, Any] = {**MODEL, "sched": "constant", "warmup_epochs": 0}
HOUR = 3600 * 0.3 * 989e12 / 3  # operations of forward passes that take an H200 an hour to train with


def case(images: float, device: str = "cuda", address: str | None = None, **recipe: Any) -> Case:
    """Return a training of so many images, each of a size that small/cnn takes 15 MFLOP for."""
    made = recipe_recipe.named("quick", epochs=1, **recipe)
    who = DecidedResources(least=1, most=1, cpus=1, device=device, address=address)
    trained = registry.trainable("small/cnn", weights="random", classes=3, side=16)
    return Case(trainable=trained, recipe=made, precision="bf16", resources=who, images=round(images))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(compilation, "lacking", lambda _: "")


def images(hours: float) -> float:
    """Return how many images an H200 trains on for so long."""
    needed = case(1).needed
    assert needed is not None
    return HOUR * hours / needed.flops


@pytest.mark.usefixtures("card")
def test_auto_compiles_where_a_gpu_trains_long_enough() -> None:
    assert compilation.decided("auto", None, case(images(0.1)), pytest.fail)
    assert not compilation.decided("auto", None, case(images(0.05)), pytest.fail)
    assert not compilation.decided("auto", None, case(images(0.1), device="cpu"), pytest.fail)
    assert not compilation.decided("auto", None, case(images(0.1), address="auto"), pytest.fail)


@pytest.mark.usefixtures("card")
def test_auto_knows_nothing_of_other_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA of tomorrow")
    assert not compilation.decided("auto", None, case(images(1)), pytest.fail)


@pytest.mark.usefixtures("card")
def test_auto_says_what_is_missing_where_it_would_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(compilation, "lacking", lambda _: "a C compiler (gcc)")
    assert not compilation.decided("auto", None, case(images(0.05)), said.append)
    assert not compilation.decided("auto", None, case(images(1)), said.append)
    assert said == ["compiling the model would pay, and needs a C compiler (gcc): it trains as it is"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.usefixtures("card")
def test_auto_is_what_the_run_was_begun_with(before: bool) -> None:
    assert compilation.decided("auto", before, case(images(1)), pytest.fail) is before
    assert compilation.decided("on", before, case(2), pytest.fail)
    assert not compilation.decided("off", before, case(images(1)), pytest.fail)


def test_each_size_is_compiled() -> None:
    made = recipe_recipe.named("quick", epochs=5, img_size=(128, 160))
    assert compilation.sizes(made, 160) == 3
    assert compilation.sizes(recipe_recipe.named("quick", epochs=5), 160) == 1
    assert compilation.worth(seconds=901, sizes=3)
    assert not compilation.worth(seconds=899, sizes=3)


def test_on_is_refused_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(WrongUse, match=r"^--compile on needs a C\+\+ compiler \(g\+\+\): install it, or leave"):
        compilation.decided("on", None, case(2, device="cpu"), pytest.fail)
    assert compilation.decided("on", None, case(2, device="cpu", address="auto"), pytest.fail)
    with pytest.raises(WrongUse, match="C\\+\\+ compiler"):
        cvjobs.train(folder(tmp_path / "images", 6), tmp_path / "run", compile="on", **MODEL)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.faults(minutes=1)
def test_a_run_remembers_whether_it_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation, "lacking", lambda _: "")
    pictures, run = folder(tmp_path / "images", 6), tmp_path / "run"
    store = LocalStore(str(run))

    def trained(epochs: int, **way: Any) -> bool:
        cvjobs.train(pictures, run, **{**LONG, "epochs": epochs, **way})
        return identity.compiled(store)

    assert trained(1, compile="on")
    digest = json.loads((run / "config.json").read_text())["identity"]
    assert trained(2)  # as it was begun
    assert not trained(3, compile="off")
    assert not trained(4)
    assert digest | {"epochs": 4, "begun_epochs": 1} == json.loads((run / "config.json").read_text())["identity"]


def test_a_run_of_before_goes_on_as_it_is(tmp_path: Path) -> None:
    pictures, run = folder(tmp_path / "images", 6), tmp_path / "run"
    cvjobs.train(pictures, run, **LONG)
    record = json.loads((run / "config.json").read_text())
    artifacts.record(
        LocalStore(run), "config.json", {name: record[name] for name in ("identity", "command", "libraries")}
    )
    assert not identity.compiled(LocalStore(str(run)))
    summary = cvjobs.train(pictures, run, **{**LONG, "epochs": 2})
    assert summary.to_pandas(["epoch"])["epoch"].tolist() == [1, 2]
    assert not identity.compiled(LocalStore(str(run)))

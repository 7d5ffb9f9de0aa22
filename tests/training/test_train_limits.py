"""Limits of time and money of a training: it stops at rest before, and the same command ends as if it had not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import here, sentence
from safetensors.torch import load_file
from training import SIDE, TIMED, folder

import cvjobs
from cvjobs.common.errors import Stopped
from cvjobs.config.spending import Spending, parse_prices
from cvjobs.images.decode_children import DecoderServer
from cvjobs.training import run as training_run
from cvjobs.training.loop.stop_costs import StopCosts
from cvjobs.training.recipe import recipe as recipe_recipe
from cvjobs.training.request import TrainRequest
from cvjobs.training.training_summary import TrainingSummary

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {"model": "small/cnn", "recipe": "quick", "epochs": 3, "img_size": str(SIDE), "batch_size": 4}
ALLOWED = 1000.0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    folder(root / "train", 12)
    folder(root / "val", 3, seed=1)
    folder(root / "test", 3, seed=2)
    return root


def limited(images: Path, out: Path, clock: Callable[[], float], workers: int | None = None) -> str:
    """Train with a limit by a clock, and return what the command said when it stopped."""
    request = TrainRequest(
        data=str(images),
        out=str(out),
        task="classify",
        model="small/cnn",
        dim=128,
        weights="pretrained",
        init_head_from_labels=False,
        recipe=recipe_recipe.named("quick", classes=True, epochs=3, img_size=(SIDE,)),
        warmup_asked=False,
        batch_size=4,
        seed=0,
        precision="auto",
        compile="auto",
        val=0.2,
        workers=workers,
        cache=None,
        max_pixels=80_000_000,
        bits=None,
        truncated="fail",
        overwrite=False,
        find_lr=False,
        tensorboard=False,
        overfit_check=False,
        storage={},
        address=None,
        spending=Spending(prices=parse_prices(("2.5",)), max_time=ALLOWED),
    )
    with closing(DecoderServer()) as server:
        server.start()
        with pytest.raises(Stopped) as stopped:
            training_run.train(request, server, clock=clock)
    assert stopped.value.exit_code == 130
    return str(stopped.value)


def once(found: Callable[[], object]) -> Callable[[], float]:
    """A clock that stands still until there is something, and is far beyond every limit from then on."""
    return lambda: 1e9 if found() else 0.0


def history(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "history.parquet").to_pylist()
    return [{name: value for name, value in row.items() if name not in TIMED} for row in rows]


def epochs(run: Path) -> int:
    return len(history(run)) if (run / "history.parquet").exists() else 0


def same(one: Path, other: Path) -> None:
    assert history(one) == history(other)
    tensors = load_file(other / "model.safetensors")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(one / "model.safetensors").items())


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    cvjobs.train(images, out, **OPTIONS)
    return out


def test_stopped_within_an_epoch_at_its_end_and_before_the_test(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # The first checkpoint, which measures what one takes, is made at the first look.
    said = limited(images, out, once(lambda: list(out.glob("checkpoints/0*"))))
    assert said == "--max-time 16 min 40 s is reached: the same command continues."
    steps = sorted(int(place.name) for place in out.glob("checkpoints/0*"))
    assert 1 <= steps[-1] <= 9
    assert not (out / "summary.json").exists()
    page = (out / "report.html").read_text()
    assert "stopped" in page
    assert "--max-time 16 min 40 s is reached" in page
    assert "this command" in page  # what it cost
    began = epochs(out)
    said = limited(images, out, once(lambda: epochs(out) > began))
    assert said.startswith("--max-time 16 min 40 s is reached")
    assert began < epochs(out)
    if epochs(out) < 3:
        said = limited(images, out, once(lambda: epochs(out) == 3))
    assert said == "--max-time 16 min 40 s is reached before the test and the page: the same command continues."
    assert epochs(out) == 3
    summary: TrainingSummary = cvjobs.train(images, out, price=["3.6"], **OPTIONS)
    assert summary.epochs == 3
    assert summary.cost["usd"] == pytest.approx(summary.seconds / 1000, abs=1e-5)
    assert f"cost {summary.cost['usd']:.2g} USD, " in str(summary)
    same(out, undisturbed)


def test_a_limit_that_is_over_before_anything_says_so(images: Path, tmp_path: Path) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    said = sentence(here("train", images, "-o", tmp_path / "run", *words, "--price", "1e6", "--max-cost", "0.01"), 130)
    assert said.startswith("--max-cost 0.01 USD is over before the first step: getting ready took ")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "is no price" in sentence(here("train", images, "-o", tmp_path / "run", "--price", "dear"), 2)


@pytest.mark.faults(minutes=2)
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own
def test_two_workers_stop_at_rest_and_one_goes_on(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = limited(images, out, once(lambda: list(out.glob("checkpoints/0*"))), workers=2)
    assert said.startswith("--max-time 16 min 40 s is reached")
    assert list(out.glob("checkpoints/0*"))
    assert not (out / "summary.json").exists()
    summary: TrainingSummary = cvjobs.train(images, out, **OPTIONS)
    assert summary.epochs == epochs(out) == 3


def test_what_a_stop_takes_is_measured() -> None:
    costs = StopCosts(look=8, share=2.0)
    assert costs.needed(100, saving=3.0) == 3.0  # nothing is known of steps yet
    costs.stepped(1, 10.0)
    costs.stepped(5, 12.0)  # half a second each
    assert costs.needed(100, saving=3.0) == 8 * 0.5 + 3
    assert costs.needed(8, saving=3.0) == 8 * 0.5 + 3 + 2 * 0.5  # a validation as long as two steps
    costs.validated(7.0)
    assert costs.needed(8, saving=3.0) == 8 * 0.5 + 3 + 7
    costs.stepped(6, 30.0)  # the time of the validation was no step's
    assert costs.needed(100, saving=0.0) == 4.0

"""What the tests of training share: small images of three colours, and plans of the loop that need no decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cvjobs.dataset import sealed_table
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.data.chunk_pixels import ROWS, SQUARES, WHOLE, WholePixels
from cvjobs.training.data.decode_request import WHOLE_SCHEMA, DecodedImages
from cvjobs.training.data.decoded import Pictures
from cvjobs.training.loop.loop import Loop, State
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.plan import SplitPart, Subject, TrainPlan
from cvjobs.training.recipe import recipe as recipe_recipe
from cvjobs.training.training_summary import TrainingSummary

CLASSES = ("blue", "green", "red")
SIDE = 8
TIMED = ("seconds", "images_per_second", "data_wait", "step_share", "gpu_busy", "gpu_memory")  # of a history


def pixels(label: int, random: np.random.Generator, side: int = SIDE) -> Any:
    """An image of noise in which one channel is brighter."""
    image = random.integers(0, 120, (side, side, 3))
    image[..., 2 - label] += random.integers(10, 80)
    return image.astype(np.uint8)


def folder(root: Path, count: int, *, seed: int = 0) -> Path:
    """Return a folder of class folders with that many PNGs each."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.fromarray(pixels(label, random)).save(root / name / f"{number:03}.png")
    return root


def plan(
    place: Path,
    run: str,
    *,
    images: int = 60,
    batch: int = 16,
    multilabel: bool = False,
    side: int = SIDE,
    tensorboard: bool = False,
    whole: bool = False,
    **recipe: Any,
) -> TrainPlan:
    """Return a plan whose pictures are already there; its run's folder is ``place/run``.

    With ``whole`` those to train with have sizes of their own.
    """
    random = np.random.default_rng(1)

    def part(name: str, count: int) -> SplitPart:
        labels = np.arange(count) % len(CLASSES)
        chunk = place / (name if side == SIDE else f"{name}-{side}")
        if not chunk.exists():
            chunk.mkdir()
            np.save(chunk / SQUARES, np.stack([pixels(int(label), random, side) for label in labels]))
        decoded = DecodedImages(folders=(str(chunk),), length=count, rows=np.arange(count))
        shown = np.eye(len(CLASSES), dtype=np.uint8)[labels] if multilabel else labels
        return SplitPart(decoded=decoded, paths=[f"{name}/{i}.png" for i in range(count)], labels=shown)

    train, val = part(f"train{images}", images), part("val", 31)
    if whole:
        train = replace(train, decoded=whole_pictures(place / f"whole{images}", train))
    subject = Subject(
        task="classify",
        model="small/cnn",
        weights="random",
        classes=CLASSES,
        dim=0,
        side=side,
        seed=0,
        init_head=False,
    )
    trainable = subject.trainable()
    (place / run).mkdir(exist_ok=True)
    return TrainPlan(
        run=str(place / run),
        subject=subject,
        weights_sha256=trainable.weights.sha256,
        multilabel=multilabel,
        tensorboard=tensorboard,
        recipe=recipe_recipe.named("quick", classes=not recipe.keys() & {"denoise"}, **{"epochs": 2, **recipe}),
        batch=batch,
        precision="fp32",
        transform=trainable.transform,
        train=train,
        val=val,
    )


def whole_pictures(chunk: Path, part: SplitPart) -> DecodedImages:
    """Return the images of a part as pictures of different sizes."""
    chunk.mkdir(exist_ok=True)
    (chunk / WHOLE).unlink(missing_ok=True)
    file, rows = WholePixels(chunk), []
    for at, square in enumerate(Pictures(part.decoded).gather(np.arange(len(part)))):
        rows.append(file.put(at, np.tile(square, (1, 2, 1))[:, : SIDE + at % 5] if at % 2 else square))
    sealed_table.write(LocalStore(chunk), ROWS, pa.Table.from_pylist(rows, WHOLE_SCHEMA))
    return replace(part.decoded, folders=(str(chunk),), whole=True)


def loop(plan: TrainPlan, watch: Any = None, warn: Any = None) -> Loop:
    """Return the loop of a plan, alone on the CPU."""
    import torch

    def nothing(_: State) -> bool:
        return False

    return Loop(plan, Alone(torch.device("cpu")), watch or nothing, warn or (lambda _: None))


def reconstructing(plan: TrainPlan, dim: int = 4) -> TrainPlan:
    """Return the plan of an autoencoder on the same pictures."""
    side = min(plan.transform.size or (0,))
    subject = Subject(
        task="autoencoder",
        model="small/autoencoder",
        weights="random",
        classes=(),
        dim=dim,
        side=side,
        seed=0,
        init_head=False,
    )
    trainable = subject.trainable()
    return replace(plan, subject=subject, weights_sha256=trainable.weights.sha256, transform=trainable.transform)


def copied(plan: TrainPlan, run: str) -> TrainPlan:
    """Return the same plan with a run's folder of its own."""
    place = Path(plan.run).parent / run
    place.mkdir(exist_ok=True)
    return replace(plan, run=str(place))


def summary(**values: Any) -> TrainingSummary:
    """Return the summary of a training of one epoch on one image, with values of a test's own."""
    some: dict[str, Any] = dict.fromkeys(("failed", "unlabelled", "leaks", "classes"), 0)
    some |= dict.fromkeys(("metric", "train_loss", "val_loss", "final_loss"), 0.5)
    some |= {"task": "classify", "model": "m", "weights": "random", "images": {"train": 1}, "metric_name": "accuracy"}
    some |= {"epochs": 1, "best_epoch": 1, "test_metric": None, "seconds": 1.0, "stopped_early": False, "out": "run"}
    return TrainingSummary(**{"images_per_second": 0.0, **some, **values})

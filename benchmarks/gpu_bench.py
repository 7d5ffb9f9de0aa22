"""What the steps of the GPU's benchmark share: how much of each, commands that end in time, and what they answer."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_images
import pyarrow.parquet as pq
from nvml_meter import NvmlMeter, Use
from processes import BENCHMARKS, CVJOBS, ENVIRONMENT, Finished, run

# Ray's alone: commands are to see the GPU and use all cores.
OWN = {name: value for name, value in ENVIRONMENT.items() if name.startswith("RAY_")}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much there is to do: numbers of images (``different`` ones are linked to), sides in pixels, epochs, steps.

    ``compared`` images are embedded in each precision, ``embedded`` and ``found`` (detect, segment) timed; ``batch`` is
    that of embed, ``trained`` photos and ``small`` images are trained on.
    """

    different: int
    compared: int
    embedded: int
    batch: int
    found: int
    found_batch: int
    found_side: int | None
    trained: int
    side: int
    train_batch: int
    epochs: int
    steps: int
    small: int
    small_different: int
    small_epochs: int
    small_steps: int
    ten: int


GPU = Sizes(
    different=128,
    compared=100,
    embedded=16_000,
    batch=256,
    found=400,
    found_batch=8,
    found_side=None,
    trained=4096,
    side=224,
    train_batch=256,
    epochs=4,
    steps=30,
    small=10_000,
    small_different=1000,
    small_epochs=8,
    small_steps=300,
    ten=10,
)
# Enough to see that everything runs.
CPU = Sizes(
    different=12,
    compared=4,
    embedded=8,
    batch=4,
    found=2,
    found_batch=1,
    found_side=64,
    trained=8,
    side=64,
    train_batch=8,
    epochs=2,
    steps=2,
    small=128,
    small_different=64,
    small_epochs=2,
    small_steps=3,
    ten=2,
)


@dataclass
class Training:
    """What a training of ours came to: its answer, its history, and what the GPU did meanwhile."""

    answer: dict[str, Any]
    history: dict[str, list[Any]]
    use: Use

    @property
    def rate(self) -> float:
        """Images a second from the second epoch on."""
        seconds = self.history["seconds"][1:]
        return float(self.answer["images"]["train"] * len(seconds) / sum(seconds))

    @property
    def waits(self) -> list[float]:
        """The share of each epoch's time in which there were no images to step with; empty where none is recorded."""
        return [share for share in self.history.get("data_wait", []) if share is not None]


@dataclass
class Bench:
    """Where the steps run, on what, and until when (s of the monotonic clock) the present one may."""

    folder: Path
    cache: Path
    on_gpu: bool
    meter: NvmlMeter
    until: float = 0.0

    @property
    def sizes(self) -> Sizes:
        """How much there is to do on this device."""
        return GPU if self.on_gpu else CPU

    @property
    def left(self) -> float:
        """The seconds that the present step still has."""
        return max(self.until - time.monotonic(), 0.1)

    def photos(self, count: int) -> Path:
        """Return a folder of so many photos."""
        to = self.folder / f"photos-{count}"
        return to if to.exists() else gpu_images.folder(self._large, count, to)

    @property
    def classes(self) -> Path:
        """Photos to train on."""
        to = self.folder / "photo-classes"
        return to if to.exists() else gpu_images.classes(self._large, self.sizes.trained, to)

    @property
    def small(self) -> Path:
        """Images of 32x32 pixels to train on."""
        to = self.folder / "small-classes"
        images = gpu_images.small(self.sizes.small_different, self.cache)
        return to if to.exists() else gpu_images.classes(images, self.sizes.small, to)

    @property
    def _large(self) -> list[Path]:
        return gpu_images.large(self.sizes.different, self.cache)

    def prepare(self) -> None:
        """Make all images, so that steps may run beside each other."""
        for count in {self.sizes.compared, self.sizes.embedded, self.sizes.found}:
            self.photos(count)
        assert self.classes
        assert self.small

    def run(self, *command: str | Path, environment: dict[str, str] | None = None) -> tuple[Finished, Use]:
        """Run a command that answers with JSON in what is left of the step; errors are those of ``processes.run``."""
        own = OWN if self.on_gpu else {**OWN, "OMP_NUM_THREADS": "1"}
        with self.meter.measured() as use:
            finished = run(*command, environment={**own, **(environment or {})}, seconds=self.left)
        return finished, use

    def job(self, command: str, source: Path, out: str, *options: str | Path, **environment: str) -> tuple[Any, Use]:
        """Run a command of cvjobs with ``--json`` into a folder of that name; return its answer and the GPU's use."""
        words = (*CVJOBS, command, source, "-o", self.folder / out, "--json", *options)
        finished, use = self.run(*words, environment=environment)
        return {**finished.answer, "whole_seconds": round(finished.seconds, 2)}, use

    def train(self, source: Path, out: str, *options: str) -> Training:
        """Run ``cvjobs train``; decoded images are shared by all trainings."""
        shared = ("--weights", "random", "--recipe", "finetune", "--cache", self.folder / "decoded")
        answer, use = self.job("train", source, out, *shared, *options)
        return Training(answer, pq.read_table(self.folder / out / "history.parquet").to_pydict(), use)

    def script(self, name: str, *options: str | Path | int) -> Any:
        """Run a program of this folder that prints JSON, and return its answer."""
        return self.timed(name, *options)[0]

    def timed(self, name: str, *options: str | Path | int) -> tuple[Any, float]:
        """Run a program of this folder that prints JSON; return its answer and the seconds of all of it."""
        finished, _ = self.run(sys.executable, BENCHMARKS / name, *map(str, options))
        return finished.answer, finished.seconds

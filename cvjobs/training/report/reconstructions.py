"""What the page of a trained autoencoder shows: images beside what it makes of them, and those that it is worst at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cvjobs.html import charts
from cvjobs.html.thumbnails import Thumbnail, encoded
from cvjobs.training.loop.evaluate import levels_of, normalised
from cvjobs.training.loop.tasks.autoencoder import AutoencoderTask
from cvjobs.training.report.training_page import EndedRun

SHOWN = 18
WORST = 9
BINS = 24
SIDE = 112  # pixels that small pictures are enlarged to


@dataclass(frozen=True)
class ReconstructionRow:
    """An image, what the network was given if that was not the image itself, and what it made of it."""

    path: str
    psnr: float
    pictures: tuple[tuple[str, Thumbnail], ...]


def values(ended: EndedRun) -> dict[str, Any]:
    """Return what the page of a trained autoencoder needs; see ``training_page.Section``."""
    psnr = np.asarray(ended.found["psnr"], np.float32)
    some = np.unique(np.linspace(0, len(psnr) - 1, min(SHOWN, len(psnr))).astype(np.int64))
    worst = np.argsort(psnr, kind="stable")[:WORST]
    rows = _rows(ended, np.concatenate([some, worst]), psnr)
    return {
        "shown": rows[: len(some)],
        "worst": rows[len(some) :],
        "spread": _spread(psnr),
    }


def _spread(psnr: NDArray[np.float32]) -> charts.Histogram | None:
    counts, edges = np.histogram(psnr, bins=BINS)
    names = [f"{edge:.1f}" for edge in edges.tolist()]
    return charts.histogram(counts.tolist(), names, "How many are reconstructed how well", "PSNR in dB", "images")


def _rows(ended: EndedRun, which: NDArray[np.int64], psnr: NDArray[np.float32]) -> list[ReconstructionRow]:
    plan = ended.plan
    pixels = torch.from_numpy(ended.pixels(which)).permute(0, 3, 1, 2)
    images = normalised(pixels, *levels_of(plan.transform, pixels.device))
    given = AutoencoderTask(plan).shown(images, which)
    with torch.inference_mode():
        made = plan.trained()(given)
    columns = [("original", images), *([("noisy", given)] if plan.recipe.denoise else []), ("reconstruction", made)]
    return [
        ReconstructionRow(
            path=ended.part.paths[number],
            psnr=float(psnr[number]),
            pictures=tuple((name, _encoded(tensor[at])) for name, tensor in columns),
        )
        for at, number in enumerate(which.tolist())
    ]


def _encoded(image: Tensor) -> Thumbnail:
    pixels = (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
    times = max(SIDE // picture.width, 1)
    return encoded(picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST))

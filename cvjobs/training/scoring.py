"""How good a network is on images whose labels are known: every image once, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cvjobs.records import Transform
from cvjobs.training.cache import Pictures
from cvjobs.training.team import Team

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a network says of n images of a split: the probabilities of the classes, float32 (n, classes), and more.

    ``loss`` is the mean cross-entropy, of independent classes the binary one; ``metric`` is top-1, of independent
    classes the mean over them of the average precision.
    """

    probabilities: NDArray[np.float32]
    loss: float
    metric: float


def score(
    network: nn.Module,
    pictures: Pictures,
    labels: NDArray[np.integer],
    transform: Transform,
    team: Team,
    kind: torch.dtype,
) -> Scores:
    """Return the scores of a network in evaluation mode; ``labels`` are those of ``data.Split``, ``kind`` autocast's.

    Each worker takes the images of its rank; all of them return the same.
    """
    mine = np.arange(team.rank, len(pictures), team.size)
    several = labels.ndim == 2
    own: list[NDArray[np.float32]] = []
    network.eval()
    with torch.inference_mode(), autocast(team.device, kind):
        for start in range(0, len(mine), BATCH):
            pixels = torch.from_numpy(pictures.gather(mine[start : start + BATCH])).to(team.device)
            logits = network(normalised(pixels.permute(0, 3, 1, 2), transform.mean, transform.std)).float()
            own.append(logits.cpu().numpy())
    everybody = team.gathered(np.concatenate(own) if own else None)
    classes = next(part.shape[1] for part in everybody if part is not None)
    logits = np.empty((len(pictures), classes), np.float32)
    for rank, part in enumerate(everybody):
        if part is not None:
            logits[rank :: team.size] = part
    return scores(logits, labels, several=several)


def normalised(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (n, 3, h, w) floats of uint8 pixels."""
    centre = torch.tensor(mean, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() / 255 - centre) / torch.tensor(std, device=pixels.device).view(1, 3, 1, 1)


def scores(logits: NDArray[np.float32], labels: NDArray[np.integer], *, several: bool) -> Scores:
    """Return the scores of logits (n, classes) against labels."""
    found = torch.from_numpy(logits).double()
    truth = torch.from_numpy(labels)
    if several:
        loss = functional.binary_cross_entropy_with_logits(found, truth.double())
        probabilities = found.sigmoid()
        metric = mean_average_precision(probabilities.numpy(), labels)
    else:
        loss = functional.cross_entropy(found, truth)
        probabilities = found.softmax(1)
        metric = float((found.argmax(1) == truth).double().mean())
    return Scores(probabilities=probabilities.float().numpy(), loss=float(loss), metric=metric)


def mean_average_precision(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Return the mean over the classes that are there of the average precision (area under precision over recall).

    Images of equal score are taken together, as in scikit-learn's ``average_precision_score``.
    """
    precisions = []
    for column in np.flatnonzero(labels.any(axis=0)).tolist():
        order = np.argsort(-scores[:, column], kind="stable")
        found = scores[order, column]
        ends = np.append(np.flatnonzero(np.diff(found)), len(found) - 1)
        hits = labels[order, column].cumsum()[ends]
        recall = np.diff(hits, prepend=0) / hits[-1]
        precisions.append(float((recall * hits / (ends + 1)).sum()))
    return float(np.mean(precisions)) if precisions else 0.0


def autocast(device: torch.device, kind: torch.dtype) -> torch.autocast:
    """Return the context in which a network computes in bfloat16, or, for float32, in what it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=kind == torch.bfloat16)

"""Giving every pixel a class, by what masks say of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from cvjobs.evaluation.metrics.confusion import UNDEFINED, Confusion, mean
from cvjobs.html import palette
from cvjobs.images.picture import Picture
from cvjobs.networks import torch_network
from cvjobs.networks.families import training_run
from cvjobs.networks.segmentation.segmenter import SAMPLE, SegmenterNetwork
from cvjobs.training.data.mask_store import StoredMasks
from cvjobs.training.data.whole_pictures import AnyPictures, WholePictures
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.training_task import TaskScores
from cvjobs.training.plan import SplitPart, Subject, TrainPlan
from cvjobs.training.recipe import padded_crops, pixel_losses
from cvjobs.training.recipe.augment import Changes
from cvjobs.training.recipe.padded_crops import VOID
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.recipe.whole_crops import PictureBoxes

LEARNT = 0.9  # of the pixels of an image that is learnt by heart
FIGURES = ("right", "truth", "predicted")  # pixels of each class, in a row of an image
PAINT = 0.55  # how opaque a class lies over a picture


def build(plan: TrainPlan) -> SegmentTask:
    """See ``training_task.TaskModule``."""
    return SegmentTask(plan)


def check(recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:  # noqa: ARG001
    """See ``training_task.TaskModule``."""
    pixel_losses.check(recipe)


class SegmentTask:
    """See ``training_task.TrainTask``; ``TaskScores.each`` are, of each image, its loss and ``FIGURES`` of each class.

    The metric is the mean over the classes that are there or predicted of intersection over union, of all pixels of the
    split that are not void; images are seen as `cvjobs segment` sees them, and compared at their own size.
    """

    metric = "mIoU"
    file = "segmentation.parquet"

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan
        self.masks = StoredMasks(plan.store())
        self._weighted: dict[torch.device, Tensor] = {}

    def drawn(self, which: NDArray[np.int64], side: int, random: torch.Generator, changes: Changes) -> Tensor:  # noqa: ARG002
        """See ``training_task.TrainTask``: the masks, cropped as their images are, int16 (n, side, side)."""
        assert isinstance(changes.crop, PictureBoxes)
        load, paths = self.masks.to_train, self._plan.train.paths
        return padded_crops.crop_masks([load(paths[number]) for number in which.tolist()], changes.crop, side)

    def prepared(self, images: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """See ``training_task.TrainTask``; targets are (N, H, W) classes, ``VOID`` for what does not count."""
        return images, drawn.long()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See ``training_task.TrainTask``; outputs are (N, heads, classes, H, W)."""
        return pixel_losses.of_heads(self._plan.recipe, outputs, targets, self._weights(outputs.device))

    def _weights(self, device: torch.device) -> Tensor | None:
        """Return the weights of the classes on a device, None for none."""
        kind = self._plan.recipe.class_weights
        if kind == "none":
            return None
        if device not in self._weighted:
            pixels = self.masks.pixels(len(self._plan.classes))
            weights = pixel_losses.class_weights(kind, pixels, len(self._plan.train))
            assert weights is not None
            self._weighted[device] = weights.to(device)
        return self._weighted[device]

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """See ``training_task.TrainTask``: images of which nearly all pixels are right."""
        fine = (outputs[:, 0].argmax(1) == targets) | (targets == VOID)
        return fine.flatten(1).float().mean(1) >= LEARNT

    def goal(self, first: float, targets: Tensor) -> float:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return max(first / 5, 0.1)

    def scores(self, network: nn.Module, pictures: AnyPictures, part: SplitPart, team: ProcessGroup) -> TaskScores:
        """See ``training_task.TrainTask``."""
        assert isinstance(pictures, WholePictures)
        seen = SegmentView(self._plan, network, team.device)
        own = [
            self._figures(seen, pictures.some(part.decoded.rows[at : at + 1])[0], self.masks.whole(part.paths[at]))
            for at in range(team.rank, len(part), team.size)
        ]
        width = 1 + len(FIGURES) * len(self._plan.classes)
        each = np.empty((len(part), width))
        for rank, found in enumerate(team.gathered(np.array(own).reshape(-1, width))):
            each[rank :: team.size] = found
        judged = each[:, 0][np.isfinite(each[:, 0])]
        loss = float(judged.mean()) if len(judged) else 0.0
        return TaskScores(loss=loss, metric=mean_iou(self.counts(each).sum(0)), each=each)

    def _figures(self, seen: SegmentView, picture: Tensor, truth: NDArray[np.int16]) -> NDArray[np.float64]:
        """Return the loss of an image, and of each class ``FIGURES``, in a row."""
        classes = len(self._plan.classes)
        found, logits = seen(picture, truth.shape[:2])
        rows, columns = (padded_crops.nearest(0, of, to) for of, to in zip(truth.shape, picture.shape[:2], strict=True))
        target = torch.from_numpy(truth[rows[:, None], columns].astype(np.int64))[None].to(logits.device)
        full = F.interpolate(logits, size=picture.shape[:2], mode="bilinear", align_corners=False)
        weights = self._weights(full.device)
        loss = float(pixel_losses.of_pixels(self._plan.recipe, full, target, weights))
        judged = truth >= 0
        said = np.full(truth.shape, classes) if found is None else found.astype(np.int64)
        matrix = Confusion.of(truth[judged].astype(np.int64), said[judged], (classes, classes + 1))
        return np.concatenate([[loss], matrix.right, matrix.truths, matrix.predictions]).astype(np.float64)

    def counts(self, each: NDArray[Any]) -> NDArray[np.int64]:
        """Return ``FIGURES`` of each class in each image, int64 (n, 3, classes)."""
        return each[:, 1:].reshape(len(each), len(FIGURES), len(self._plan.classes)).astype(np.int64)

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """See ``training_task.TrainTask``: what there is of each image, and ``FIGURES`` of its classes."""
        counts = self.counts(found.each)
        whole = counts[:, 1].sum(1)
        accuracy = np.divide(counts[:, 0].sum(1), whole, out=np.full(len(counts), UNDEFINED), where=whole > 0)
        return pa.table(
            {
                "path": pa.array(part.paths, pa.string()),
                "split": [split] * len(part.paths),
                "loss": pa.array(found.each[:, 0], pa.float64()),
                "miou": pa.array([mean_iou(own) for own in counts], pa.float64()),
                "accuracy": pa.array(accuracy, pa.float64()),
                **{
                    name: pa.array(list(counts[:, number]), pa.list_(pa.int64())) for number, name in enumerate(FIGURES)
                },
            }
        )

    def captions(self, targets: Tensor) -> list[str]:
        """See ``training_task.TrainTask``: the classes that cover most of each crop."""
        names = self._plan.classes
        found = []
        for target in targets:
            counts = torch.bincount(target[target != VOID].flatten(), minlength=len(names))
            order = counts.argsort(descending=True, stable=True).tolist()
            found.append(", ".join(names[number] for number in order[:3] if counts[number]) or "void")
        return found

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:  # noqa: ARG002
        """See ``training_task.TrainTask``: the masks over the pictures."""
        return np.stack([paint(*one) for one in zip(pictures, targets.numpy(), strict=True)])


class SegmentView:
    """A network that is being trained, as `cvjobs segment` runs it."""

    def __init__(self, plan: TrainPlan, network: nn.Module, device: torch.device) -> None:
        module = network.eval()
        module = torch_network.folded(module, SAMPLE) if device.type == "cpu" else copy.deepcopy(module)
        transform = training_run.whole_pictures(plan.transform)
        self._network = SegmenterNetwork(module, transform, device, plan.precision)

    def __call__(self, picture: Tensor, size: tuple[int, int]) -> tuple[NDArray[Any] | None, Tensor]:
        """Return the class of each pixel of a picture's source, of a size, and the logits (1, classes, h, w)."""
        return self._network.with_logits(Picture(picture.numpy(), *size))


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Return the mean IoU of the classes that are there or predicted, given ``FIGURES`` of each, (3, classes)."""
    return max(mean(iou(counts)), 0.0)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU of each class, UNDEFINED where it is neither there nor predicted."""
    union = counts[1] + counts[2] - counts[0]
    shares: NDArray[np.float64] = np.divide(counts[0], union, out=np.full(len(union), UNDEFINED), where=union > 0)
    return shares


def paint(picture: NDArray[np.uint8], classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) with the colour of each class over its pixels; void is as it was."""
    inks = np.array([palette.rgb(number) for number in range(int(classes.max(initial=0)) + 1)], np.float32)
    over = inks[np.maximum(classes, 0)]
    mixed = picture + PAINT * (over - picture)
    return np.where((classes >= 0)[..., None], mixed, picture).round().astype(np.uint8)

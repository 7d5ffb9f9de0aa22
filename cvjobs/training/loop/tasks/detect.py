"""Finding objects in images by boxes with a class: torchvision's detectors and their losses, COCO's AP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.evaluation.metrics import coco_ap
from cvjobs.evaluation.metrics.coco_ap import DetectionScores
from cvjobs.evaluation.metrics.objects import Detections
from cvjobs.html import drawn_boxes
from cvjobs.networks.detection.detector_network import PictureDetections
from cvjobs.networks.detection.trainee import DetectionTrainee
from cvjobs.networks.torchvision import trained_detectors
from cvjobs.networks.trainable import Trainable
from cvjobs.networks.weights import RANDOM
from cvjobs.training.data.image_objects import ImageObjects
from cvjobs.training.data.whole_pictures import WholePictures
from cvjobs.training.loop.evaluate import autocast
from cvjobs.training.loop.process_group import ProcessGroup
from cvjobs.training.loop.training_task import TaskScores
from cvjobs.training.loop.transfer import Block
from cvjobs.training.plan import SplitPart, Subject, TrainPlan, kind
from cvjobs.training.recipe.augment import generator
from cvjobs.training.recipe.canvases import CanvasAugment, Canvases
from cvjobs.training.recipe.detection_recipe import losses_of
from cvjobs.training.recipe.recipe import Recipe

LOSS = "val_loss_"  # what comes before the name of a part of the validation loss in ``history.parquet``
BATCH = 8  # pictures that are looked at together


def build(plan: TrainPlan) -> DetectTask:
    """See ``training_task.TaskModule``."""
    return DetectTask(plan)


def check(recipe: Recipe, subject: Subject, side: int, multilabel: bool) -> None:  # noqa: ARG001
    """See ``training_task.TaskModule``."""
    trained_detectors.check_losses(subject.model, losses_of(recipe, [1] * len(subject.classes)))
    if subject.init_head:
        raise WrongUse("--init-head-from-labels is for --task classify: leave it out.")


@dataclass(frozen=True, kw_only=True)
class DrawnBoxes:
    """The boxes of images in shares of them, (N, M, 4), and their classes, (N, M), -1 for none."""

    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class DetectionInputs:
    """What a ``DetectionTrainee`` is given, in its order."""

    images: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class FoundScores(TaskScores):
    """Scores with what was found in each image, whose height and width in pixels are (n,) each."""

    found: Sequence[PictureDetections]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]


class DetectTask:
    """See ``training_task.TrainTask``; ``TaskScores.each`` is the number of boxes found, (n, 1).

    The metric is COCO's AP, of what ``cvjobs detect --model RUN`` says of the images as they are.
    """

    metric = "AP"
    file = "predictions.parquet"
    masked = False  # whether masks are found, too

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan

    def drawn(self, which: NDArray[np.int64], side: int, random: torch.Generator, changes: Any) -> Any:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return self._objects(self._plan.train, which, side, changes)

    def _objects(self, part: SplitPart, which: NDArray[np.int64], side: int, changes: Any) -> Any:  # noqa: ARG002
        """Return what ``prepared`` needs of some images of a split, on the CPU."""
        boxes, labels = objects_of(part).padded(which)
        return DrawnBoxes(boxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels))

    def prepared(self, images: Any, drawn: Any) -> tuple[Any, Tensor]:
        """See ``training_task.TrainTask``; images are ``Canvases``, the inputs ``DetectionInputs``, targets labels."""
        canvases: Canvases = images
        boxes, labels = canvases.moved(drawn.boxes, drawn.labels)
        return DetectionInputs(images=canvases.images, boxes=boxes, labels=labels), labels

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """See ``training_task.TrainTask``: the sum of the detector's own."""
        return outputs.sum()

    def right(self, outputs: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """See ``training_task.TrainTask``."""
        return torch.ones(len(targets), dtype=torch.bool)

    def goal(self, first: float, targets: Tensor) -> float:  # noqa: ARG002
        """See ``training_task.TrainTask``: a third of it."""
        return max(first / 3, 0.1)

    def scores(self, network: nn.Module, pictures: Any, part: SplitPart, team: ProcessGroup) -> FoundScores:
        """See ``training_task.TrainTask``."""
        mine = np.arange(team.rank, len(part), team.size)
        found = self._found(network, pictures, part.decoded.rows[mine], team.device)
        loss = self._losses(network, pictures, part, mine, team.device)
        gathered = team.gathered((found, loss))
        every: list[Any] = [None] * len(part)
        for rank, (own, _) in enumerate(gathered):
            every[rank :: team.size] = own
        heights, widths = (sides.numpy() for sides in pictures.sizes(part.decoded.rows))
        figures = self._figures(part, every, heights, widths)
        names = network.parts if isinstance(network, DetectionTrainee) else ()
        losses = {f"{LOSS}{name}": sum(own[at] for _, own in gathered) / len(part) for at, name in enumerate(names)}
        return FoundScores(
            loss=sum(sum(own) for _, own in gathered) / len(part),
            metric=figures.pop(self.metric),
            more={**figures, **losses},
            each=np.array([[len(one.scores)] for one in every], np.float32),
            found=every,
            heights=heights,
            widths=widths,
        )

    def _figures(
        self, part: SplitPart, found: Sequence[PictureDetections], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> dict[str, float]:
        """Return the metric and what else is told of an epoch, by name."""
        scored = coco_ap.evaluate(objects_of(part).truths(heights, widths), detections(found), len(self._plan.classes))
        return averages(scored)

    def _found(
        self, network: nn.Module, pictures: WholePictures, rows: NDArray[np.int64], device: torch.device
    ) -> list[PictureDetections]:
        """Return what is found in some pictures; raises JobFailed where that is no number."""
        assert isinstance(network, DetectionTrainee)
        plan = self._plan
        network.eval()
        trained = Trainable(
            name=plan.subject.model, transform=plan.transform, weights=RANDOM, module=network, pooled=_as_it_is
        )
        detector = trained_detectors.detector(trained, plan.classes, RANDOM, masks=self.masked)
        looking = detector.load(str(device), plan.precision)
        found: list[PictureDetections] = []
        for start in range(0, len(rows), BATCH):
            seen = [picture.numpy() for picture in pictures.some(rows[start : start + BATCH])]
            some = looking(seen)
            found += [self._kept(one, picture) for one, picture in zip(some, seen, strict=True) if one is not None]
            if any(one is None for one in some):
                raise JobFailed("The boxes that the model finds are no numbers any more: lower --lr.")
        return found

    def _kept(self, found: PictureDetections, picture: NDArray[np.uint8]) -> PictureDetections:  # noqa: ARG002
        """Return what is kept of what was found in a picture."""
        return found

    def _losses(
        self,
        network: nn.Module,
        pictures: WholePictures,
        part: SplitPart,
        mine: NDArray[np.int64],
        device: torch.device,
    ) -> list[float]:
        """Return the sums of the losses over some images as they are, with the same random choices every time."""
        assert isinstance(network, DetectionTrainee)
        plan = self._plan
        augment = plain(plan, min(plan.transform.size or (0,)), device)
        total = torch.zeros(len(network.parts))
        with (
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
            torch.inference_mode(),
            autocast(device, kind(plan.precision)),
        ):
            for start in range(0, len(mine), BATCH):
                which = mine[start : start + BATCH]
                torch.manual_seed(int(which[0]))
                rows = part.decoded.rows[which]
                drawn = augment.drawn(len(which), generator(plan.seed))
                changes = augment.settled(drawn, *pictures.sizes(rows)).changes(slice(None))
                canvases = augment([picture.to(device) for picture in pictures.some(rows)], changes)
                given = Block(self._objects(part, which, augment.size, changes), device).sent()
                inputs, _ = self.prepared(canvases, given)
                total += network(*vars(inputs).values()).cpu() * len(which)
        sums: list[float] = total.tolist()
        return sums

    def table(self, split: str, part: SplitPart, found: TaskScores) -> pa.Table:
        """See ``training_task.TrainTask``: the boxes found, x, y, width and height in pixels, the best first."""
        assert isinstance(found, FoundScores)
        each = [corner_and_size(one.boxes.astype(np.float64)) for one in found.found]
        names = np.array(self._plan.classes, object)
        return pa.table(
            {
                "path": pa.array(part.paths, pa.string()),
                "split": [split] * len(part.paths),
                "boxes": pa.array([own.tolist() for own in each], pa.list_(pa.list_(pa.float64()))),
                "labels": pa.array([names[one.classes - 1].tolist() for one in found.found], pa.list_(pa.string())),
                "scores": pa.array([one.scores.tolist() for one in found.found], pa.list_(pa.float32())),
            }
        )

    def painted(self, pictures: NDArray[np.uint8], inputs: Any, targets: Tensor) -> NDArray[np.uint8]:
        """See ``training_task.TrainTask``: the boxes drawn into the pictures."""
        drawn = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pictures]
        for picture, boxes, labels in zip(drawn, inputs.boxes.tolist(), targets.tolist(), strict=True):
            drawn_boxes.draw(picture, boxes, labels)
        return np.stack([np.asarray(picture) for picture in drawn])

    def captions(self, targets: Tensor) -> list[str]:
        """See ``training_task.TrainTask``: how many objects of each class."""
        return [self._caption(labels[labels >= 0].tolist()) for labels in targets]

    def _caption(self, labels: list[int]) -> str:
        counts = {self._plan.classes[label]: labels.count(label) for label in sorted(set(labels))}
        return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"


def plain(plan: TrainPlan, side: int, device: torch.device) -> CanvasAugment:
    """Return the augmentation that does nothing but place pictures on canvases, as validation sees them."""
    recipe = Recipe(epochs=plan.recipe.epochs, hflip=0.0)
    return CanvasAugment(recipe, side, plan.transform.mean, plan.transform.std, device, plan.canvas_step)


def averages(scored: DetectionScores, before: str = "") -> dict[str, float]:
    """Return COCO's AP and AP50 by name, 0 where there is nothing to find; ``before`` comes before the names."""
    return {f"{before}{name}": max(scored.average(name), 0.0) for name in ("AP", "AP50")}


def objects_of(part: SplitPart) -> ImageObjects:
    """Return the objects in the images of a split."""
    assert part.objects is not None
    return part.objects


def detections(found: Sequence[PictureDetections]) -> Detections:
    """Return what was found in images as an evaluation of boxes takes it."""
    boxes = corner_and_size(np.concatenate([one.boxes for one in found]).astype(np.float64))
    return Detections(
        image=np.repeat(np.arange(len(found)), [len(one.scores) for one in found]),
        category=np.concatenate([one.classes for one in found]).astype(np.int64) - 1,
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        score=np.concatenate([one.scores for one in found]).astype(np.float64),
    )


def corner_and_size(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x, y, width and height of corners, (n, 4)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _as_it_is(module: nn.Module) -> nn.Module:
    return module

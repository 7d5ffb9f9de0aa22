"""ONNX files that segment: a class for every pixel, from logits on a grid or a map of classes, or masks of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvjobs.common import categories as common_categories
from cvjobs.common.categories import BACKGROUND, Category
from cvjobs.common.errors import WrongUse
from cvjobs.images.picture import Picture
from cvjobs.images.transform import Transform
from cvjobs.networks import class_names
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.onnx import box_models, onnx_model
from cvjobs.networks.onnx.box_models import OnnxDetector
from cvjobs.networks.onnx.card import KINDS
from cvjobs.networks.onnx.onnx_model import GREYS, IMAGENET, PLAIN, OnnxModel, listed
from cvjobs.networks.onnx.session import ImageInput, Session
from cvjobs.networks.segmentation.class_maps import class_map
from cvjobs.networks.segmentation.segmenter import MOST_CLASSES, without_objects
from cvjobs.networks.torch_network import Normalizer

SHORT = 520  # pixels of the shorter side, where neither the file nor the card says a size
_KEYS = ("size", "resize", "interpolation", "channels", "scale", "mean", "std")
_VOC = 21  # classes of torchvision's segmenters


@dataclass(frozen=True, kw_only=True)
class OnnxSegmenter:
    """An ONNX file that gives every pixel a class."""

    model: OnnxModel = field(repr=False)
    output: str
    resolved: Mapping[str, Any]
    transform: Transform
    categories: list[Category]

    @property
    def name(self) -> str:
        """See ``Model``."""
        return self.model.name

    @property
    def file(self) -> str:
        """See ``Model``."""
        return str(self.model.file.path)

    @property
    def beside(self) -> tuple[str, ...]:
        """See ``OnnxModel``."""
        return self.model.beside

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``Model``."""
        return {**self.model.facts(self.resolved), **common_categories.facts("semantic", self.categories)}

    def ruled(self, settings: Settings) -> OnnxSegmenter:
        """Return the segmenter as a user wants it; raises WrongUse for choices that only instances have."""
        without_objects(settings, self.name, "choose a model of objects")
        if settings.imgsz and self.transform.fit not in ("short", "whole"):
            raise WrongUse(f"{self.name} takes pictures of one size only, or in their own: leave out --imgsz.")
        return replace(self, transform=replace(self.transform, resize=settings.imgsz or self.transform.resize))

    def load(self, device: str, precision: str) -> OnnxClassMaps:
        """Return the model on a device; the file says in what it computes."""
        del precision
        return OnnxClassMaps(self.model.on(device), self.model.taken, self.transform, self.resolved, self.output)


class OnnxClassMaps:
    """One segmenter on one device; several threads may call it at once."""

    def __init__(
        self, session: Session, taken: ImageInput, transform: Transform, resolved: Mapping[str, Any], output: str
    ) -> None:
        self._session, self._taken, self._output = session, taken, output
        self._normalizer = Normalizer(transform, torch.device("cpu"), torch.float32)
        self._bgr = resolved["channels"] == "BGR"
        self._kind, self._half = resolved["output"], resolved["one_channel"]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model sees decoded pixels: that they have, for it takes them as they are."""
        return height, width

    def __call__(self, pictures: Sequence[Picture]) -> list[NDArray[np.uint8] | NDArray[np.uint16] | None]:
        """Return the class of each pixel of each picture's source, (height, width); None where logits aren't finite.

        Raises:
            MemoryError: they are too many for the device.
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2)
            images = self._normalizer(pixels.flip(1) if self._bgr else pixels)
            found: list[NDArray[np.uint8] | NDArray[np.uint16] | None] = []
            each = [self._output] if len(self._taken.layout) > 3 else []
            for count, outputs in self._session.pieces(images, self._taken, each):
                maps = outputs[self._output][:count] if len(self._taken.layout) > 3 else outputs[self._output][None]
                sizes = [(one.height, one.width) for one in pictures[len(found) :]]
                found += [self._classes(one, images.shape[2:], size) for one, size in zip(maps, sizes, strict=False)]
            return found

    def _classes(self, said: Tensor, seen: Sequence[int], size: tuple[int, int]) -> Any:
        if said.ndim == 3 and self._taken.layout.endswith("C"):
            said = said.permute(2, 0, 1)
        if self._kind == "class-map":
            return _enlarged(said.reshape(said.shape[-2:]), size)
        logits = said.float()
        if not bool(logits.isfinite().all()):
            return None
        if self._half:  # of what there is to see, against nothing
            logits = torch.cat([torch.zeros_like(logits), logits - (0.5 if self._half == "Sigmoid" else 0.0)])
        return class_map(logits.contiguous(), (seen[0], seen[1]), size).numpy()


def _enlarged(classes: Tensor, size: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return a map of classes in another size: the class of the nearest pixel."""
    rows, columns = (
        ((np.arange(side) + 0.5) * given / side).astype(np.int64)
        for side, given in zip(size, classes.shape, strict=True)
    )
    found: NDArray[Any] = classes.numpy()[rows[:, None], columns]
    if found.min(initial=0) < 0 or found.max(initial=0) >= MOST_CLASSES:
        raise RuntimeError("the map of classes holds numbers that are none")
    return found.astype(np.uint8) if found.max(initial=0) < 256 else found.astype(np.uint16)


def segmenter(name: str, weights: str, labels: Sequence[str]) -> OnnxDetector | OnnxSegmenter:
    """Return a file as a segmenter, or as a detector with masks where it finds objects.

    Raises:
        WrongUse: see ``onnx_model.opened``; its outputs are neither, or its classes have no names.
    """
    model = onnx_model.opened(name, weights, "instance", "semantic")
    if _of_objects(model):
        return box_models.of_model(model, labels, masks=True)
    shapes = model.shapes("semantic")
    said = model.card.get("output", "")
    output = (said and model.named(said)) or _chosen(model, shapes)
    kinds = {value.name: value.kind for value in model.file.outputs}
    shape = shapes[output][len(shapes[output]) - 3 :] if len(shapes[output]) == 4 else ()
    last = model.taken.layout.endswith("C")
    count = (shape[2] if last else shape[0]) if shape else 0
    kind = said or ("class-map" if not shape or (count == 1 and "int" in kinds[output]) else "pixel-logits")
    classes = None if kind == "class-map" else max(count, 2)
    values, transform = _framed(model)
    half = (model.file.ends[output] or "logits") if kind == "pixel-logits" and count == 1 else ""
    return OnnxSegmenter(
        model=model,
        output=output,
        resolved={**values, "output": kind, "outputs": (output,), "one_channel": half},
        transform=transform,
        categories=_categories(model, classes, labels),
    )


def _of_objects(model: OnnxModel) -> bool:
    task, said = model.card.get("task", ""), model.card.get("output", "")
    if task or said:
        return task == "instance" or said in KINDS["detect"]
    ranks = sorted(len(value.shape) for value in model.file.outputs)
    return len(ranks) > 1 and 4 in ranks and bool({1, 2, 3} & set(ranks))


def _chosen(model: OnnxModel, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the output that is a grid: the only one, or torchvision's ``out`` beside ``aux``."""
    last = model.taken.layout.endswith("C")
    sides = {name: shape[1:3] if last and len(shape) == 4 else shape[-2:] for name, shape in shapes.items()}
    grids = [name for name, shape in shapes.items() if len(shape) in (3, 4) and min(sides[name]) > 1]
    grids = [name for name in grids if not name.startswith("aux")] or grids
    if not grids:
        raise WrongUse(
            f"No output of {model.file.path} is a grid of classes, or boxes with masks: it has "
            f"{listed(model.file.outputs)}; {model.elsewhere}."
        )
    if len(grids) > 1:
        choices = f"{{pixel-logits: {grids[0]}}}, and `output: pixel-logits`"
        raise model.card.ask(model.file.path, "which output has the classes of the pixels", "outputs", choices)
    return grids[0]


def _framed(model: OnnxModel) -> tuple[dict[str, Any], Transform]:
    default = {
        "resize": "squash",
        "interpolation": "bilinear",
        "channels": "RGB",
        **(GREYS if model.taken.kind == "uint8" else PLAIN if "names" in model.file.metadata else IMAGENET),
    }
    values = onnx_model.resolved(model.card, _KEYS, default)
    if values["resize"] not in ("squash", "keep", "shrink"):
        raise WrongUse(
            f"{model.card.file} says resize: {values['resize']}, which models of a class for every pixel do not have "
            "here: write squash, shrink or keep."
        )
    how: dict[str, Any] = {"size": model.size, "fit": "exact"} if model.size else {"resize": model.side or SHORT}
    if values["resize"] == "shrink":
        if model.size:
            raise WrongUse(
                f"{model.file.path} takes pictures of one size only: write resize: squash into {model.card.file}."
            )
        how["fit"] = "whole"
    if values["resize"] == "keep" and not model.size:
        how = {"fit": "native"}
    values["size"] = model.size
    return values, model.transform(values, interpolation=values["interpolation"], **how)


def _categories(model: OnnxModel, classes: int | None, given: Sequence[str]) -> list[Category]:
    """Return the classes; of one name less than there are classes, the first one is the background."""
    said = model.card.get("labels", ())
    if isinstance(said, Mapping) and not given:
        if classes is not None and sorted(said) != list(range(classes)):
            raise WrongUse(f"{model.card.file} has labels of other numbers than 0 to {classes - 1}: name each class.")
        return [Category(number, name) for number, name in said.items()]
    names = list(given or said)
    if classes is None:
        if not names:
            raise model.card.ask(model.file.path, "the names of its classes", "labels", "a list of names from class 0")
        return [Category(number, name) for number, name in enumerate([BACKGROUND, *names] if given else names)]
    if not names and classes == _VOC:
        names = class_names.voc()
    if len(names) == classes - 1:
        names = [BACKGROUND, *names]
    by = "--labels" if given else str(model.card.file)
    named = class_names.for_head(classes, names, (), str(model.file.path), by)
    return [Category(number, name) for number, name in enumerate(named)]

"""Models by name: `family/model`, where the family is a file in `families/`, or a bare name looked up across them.

A family may be another package's module, too, which `plugin_families` finds. It offers ``names(task)``, and for each
task that it has models for a function that makes one; nothing here imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.plugins import BrokenPlugin
from cvjobs.images.transform import Transform
from cvjobs.networks import known_models, licences
from cvjobs.networks.licences import Licence
from cvjobs.storage.object_store import address

# Families that compute on the CPU whatever the machine has.
WITHOUT_GPU = ("thumbnail",)
# Families whose models may be named by a file or folder.
OF_FILES = ("hf", "onnx")
# Families whose files say in which precision they compute.
OWN_PRECISION = ("onnx",)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cvjobs.common.categories import Category
    from cvjobs.networks.detection.settings import Settings
    from cvjobs.networks.trainable import Trainable
    from cvjobs.networks.weights import Activation


class Network(Protocol):
    """One loaded model on one device; several threads may call it at once."""

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the (B, dim) vectors of (B, height, width, 3) RGB pixels; ``MemoryError`` where they don't fit."""


class Model(Protocol):
    """A model of any task: what it wants and what identifies it. Not sent between processes."""

    @property
    def name(self) -> str:
        """The full name, such as ``torchvision/mobilenet_v2``."""

    @property
    def transform(self) -> Transform:
        """How pixels reach the model, from its weights' metadata."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What identifies its results, as JSON: ``model``, ``weights`` (in words), ``weights_sha256`` and more."""

    @property
    def file(self) -> str:
        """The file of its weights, empty where there is none."""


class Embedder(Model, Protocol):
    """A model as a maker of vectors; its facts hold the ``layer``."""

    @property
    def dim(self) -> int:
        """The length of a vector."""

    def load(self, device: str, precision: str) -> Network:
        """Return the model on a device (``cpu``, ``cuda``, ``cuda:1``) in ``fp32``, ``bf16`` or ``fp16``."""


class Classifier(Model, Protocol):
    """A model that names what an image shows; its facts hold the ``activation``, the task and the categories."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its classes."""

    @property
    def activation(self) -> Activation:
        """``softmax`` where an image has one class, ``sigmoid`` where it may have several or none."""

    def load(self, device: str, precision: str) -> Network:
        """Return the model on a device; its vectors are the logits of the classes."""


class PictureModel(Model, Protocol):
    """A detector or segmenter: its classes, and what it is with the choices of a user."""

    @property
    def categories(self) -> list[Category]:
        """The classes of its results."""

    def ruled(self, settings: Settings) -> Self:
        """Return the model as a user wants it; raise ``WrongUse`` for what it cannot do."""

    def load(self, device: str, precision: str) -> Any:
        """Return the model on a device.

        It has ``shape(height, width)`` as a ``PictureStep``. A detector takes a list of pixels and returns of each
        ``PictureDetections`` or None; a segmenter takes pictures and returns of each a class map or None.
        """


class Family(Protocol):
    """What a module in `families/` offers; it may also have the two functions of ``Described``."""

    def names(self, task: str) -> list[str]:
        """Return the names of the models for a task, without the family; empty where it has none."""

    def embedder(self, name: str, weights: str, layer: str) -> Embedder:
        """Return one of them; raise ``WrongUse`` for an unknown name or layer, or weights that don't fit."""

    def classifier(self, name: str, weights: str, labels: Sequence[str]) -> Classifier:
        """Return one of them; raise ``WrongUse`` as ``embedder``, and for classes without names."""

    def detector(self, name: str, weights: str, labels: Sequence[str]) -> PictureModel:
        """Return one of them; raise ``WrongUse`` as ``classifier``."""

    def segmenter(self, name: str, weights: str, labels: Sequence[str]) -> PictureModel:
        """Return one of them, a detector where it finds masks of objects; raise ``WrongUse`` as ``classifier``."""

    def trainable(
        self, name: str, weights: str, classes: int, side: int | None, seed: int, labels: Sequence[str]
    ) -> Trainable:
        """Return one of them with a new head; raise ``WrongUse`` as ``embedder``, and for a side it cannot have.

        Where there are ``labels``, the names of the classes, the head begins as ``head_transfer.inherit`` says.
        """

    def autoencoder(self, name: str, weights: str, dim: int, side: int | None, seed: int) -> Trainable:
        """Return one of them that makes ``dim`` numbers of an image and the image of those; raise as ``trainable``."""


class Described(Protocol):
    """What a family may also offer, beside the catalogue or in its place."""

    def licence(self, name: str) -> Licence:
        """Return the licences of a model's code and published weights; raise ``WrongUse`` for an unknown name."""

    def described(self, name: str) -> list[tuple[str, str]]:
        """Return what `cvjobs models NAME` says more of a model, as pairs; raise ``WrongUse`` for an unknown name."""


def embedder(name: str, *, weights: str = "pretrained", layer: str = "") -> Embedder:
    """Return the model of that name as a maker of vectors.

    Args:
        name: ``family/model``, or a model's bare name, looked up in torchvision and then in the other families.
        weights: ``pretrained``, ``random`` (always the same ones) or the path of a file.
        layer: the module whose pooled output is the vector; empty for the features before the classifier.

    Raises:
        WrongUse: unknown name, layer or file; no weights here or on the network; weights that don't fit the model.
    """
    family, model = find(name, "embed")
    return family.embedder(model, weights, layer)


def classifier(name: str, *, weights: str = "pretrained", labels: Sequence[str] = ()) -> Classifier:
    """Return the model of that name as a classifier.

    Args:
        name: ``family/model``, or a model's bare name.
        weights: ``pretrained``, ``random`` (always the same ones) or the path of a file.
        labels: the names of its classes; empty for those that the file or the model's publisher gives.

    Raises:
        WrongUse: as ``embedder``, and for a number of names that is not the number of classes.
    """
    family, model = find(name, "classify")
    return family.classifier(model, weights, labels)


def detector(name: str, *, weights: str = "pretrained", labels: Sequence[str] = ()) -> PictureModel:
    """Return the model of that name as a detector; arguments and errors as for ``classifier``."""
    family, model = find(name, "detect")
    return family.detector(model, weights, labels)


def segmenter(name: str, *, weights: str = "pretrained", labels: Sequence[str] = ()) -> PictureModel:
    """Return the model of that name: a segmenter, or a detector of objects with masks.

    Arguments and errors are as for ``classifier``. ``labels`` are without the background.
    """
    family, model = find(name, "segment")
    return family.segmenter(model, weights, labels)


def trainable(
    name: str,
    *,
    weights: str = "pretrained",
    classes: int,
    side: int | None = None,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> Trainable:
    """Return the model of that name with a new head, to be trained.

    Args:
        name: ``family/model``, or a model's bare name.
        weights: what all but the head begins with: ``pretrained``, ``random`` or the path of a file.
        classes: how many the new head has.
        side: of the square images that it is to take, in pixels; None for what its weights want.
        seed: of the weights that are random.
        labels: the names of the classes, where the head is to begin with the rows that the weights have for classes
            of the same names; empty for a head that is all random.

    Raises:
        WrongUse: as ``embedder``, for a model that takes no images of that side, and for labels none of which is one
            of the weights' own.
    """
    family, model = find(name, "train")
    return family.trainable(model, weights, classes, side, seed, labels)


def autoencoder(
    name: str, *, weights: str = "pretrained", dim: int, side: int | None = None, seed: int = 0
) -> Trainable:
    """Return the autoencoder of that name, to be trained; ``dim`` is the length of its vectors.

    The other arguments and what is raised are as for ``trainable``.
    """
    family, model = find(name, "autoencoder")
    return family.autoencoder(model, weights, dim, side, seed)


def settled(name: str) -> str:
    """Return a name that means the same model in every working directory: of a run or file the absolute path."""
    family, slash, model = name.partition("/")
    if slash and family in OF_FILES and os.path.exists(os.path.expanduser(model)):
        return f"{family}/{os.path.abspath(os.path.expanduser(model))}"
    return str(address(name) or (os.path.abspath(name) if _is_run(name) else name))


def _is_run(name: str) -> bool:
    if address(name):
        return True
    family, slash, _ = name.partition("/")
    if slash and family in families():
        return False
    return any(os.path.exists(os.path.join(name, entry)) for entry in ("model.safetensors", "checkpoints"))


def find(name: str, task: str) -> tuple[Family, str]:
    """Return the family of a model by its full or bare name, and its name there; the family checks that it has it.

    The folder of a training run is a name, too, also one in a bucket; one below a folder that is named like a family
    begins with ``./``.

    Raises:
        WrongUse: there is no such family, it has no models for the task, or no family has a model of this bare name.
    """
    family, model = located(name, task)
    found = known_models.module(family)
    if not known_models.offered(family, task):
        raise WrongUse(f"The family {family} has no models for that: `cvjobs models --task {task}` lists those.")
    return found, model


def licence(name: str, task: str, weights: str = "pretrained") -> Licence:
    """Return the licences of a model by its full or bare name, and of the weights that it is asked with.

    Raises:
        WrongUse: there is no such model.
    """
    family, model = located(name, task)
    if weights == "pretrained":
        return known_models.licence(family, model)
    known = known_models.entry(family, model)
    code = known.licence.code if known else licences.UNKNOWN
    return Licence(code=code, weights=licences.NONE if weights == "random" else licences.YOURS)


def accepted(name: str, task: str, weights: str, names: Sequence[str], *, begun: bool) -> Licence:
    """Return what ``licence`` does, where it forbids nothing or is one of the accepted ``names``.

    Of a model with which results are ``begun`` it is only said that it is not; what is not known of it then, as of a
    family that is gone, is no reason to stop.

    Raises:
        WrongUse: there is no such model, or its licence is to be accepted first.
    """
    try:
        found = licence(name, task, weights)
    except (WrongUse, BrokenPlugin):
        if not begun:
            raise
        return licences.UNSAID
    licences.check(found, name, names, begun=begun)
    return found


def located(name: str, task: str) -> tuple[str, str]:
    """Return the family of a name, and the name there; raises WrongUse where there is no such family or bare name."""
    family, slash, model = name.partition("/")
    if _is_run(name):
        if _is_of_transformers(name):
            raise WrongUse(_taken_for_run(name))
        return "training_run", name
    if not slash:
        return _home(name, task), name
    if family not in families():
        raise WrongUse(_no_model(name, task))
    return family, model


def names(task: str, warn: Callable[[str], None] | None = None) -> dict[str, list[str]]:
    """Return the names of the models for a task by family.

    ``warn`` is told of each family that cannot be used, which is left out.
    """
    return known_models.names(task, warn)


def families() -> list[str]:
    """Return the model families in the order in which a bare name is looked up."""
    return known_models.families()


def _home(model: str, task: str) -> str:
    """Return the family that has a model of this bare name; imports families only where it must, until it is found."""
    known: set[str] = set()
    broken: list[str] = []
    for name in families():
        try:
            offered = [entry.model for entry in known_models.entries(name, task)]
        except BrokenPlugin:
            broken.append(name)
            continue
        if model in offered:
            return name
        known.update(offered)
    without = f", and {', '.join(broken)} cannot be used" if broken else ""
    raise WrongUse(
        _taken_for_run(model)
        or f"There is no model {model!r}{nearest(model, known)}{without}: `cvjobs models --task {task}` lists them, "
        "and no folder of a training is called so."
    )


def _no_model(name: str, task: str) -> str:
    """Return what to do about a name with a / that is neither a family's nor a run's."""
    if said := _taken_for_run(name):
        return said
    if name.startswith((".", "/", "~")):
        place = os.path.abspath(os.path.expanduser(name))
        return (
            f"There is no run {place}: name the -o folder of `cvjobs train`, or a model, of which "
            f"`cvjobs models --task {task}` lists those that there are."
        )
    family = name.partition("/")[0]
    return (
        f"There is no model family {family!r}{nearest(family, families())}, and no folder {os.path.normpath(name)} of "
        f"a training: choose from {', '.join(families())}."
    )


def _is_of_transformers(name: str) -> bool:
    """Return whether a folder is one that transformers' ``save_pretrained`` made: a run's settings have other keys."""
    try:
        with open(os.path.join(name, "config.json"), "rb") as file:
            return b'"model_type"' in file.read(1 << 20)
    except OSError:
        return False


def _taken_for_run(name: str) -> str:
    """Return what to do about a file or folder that is named as a model and is no run; empty where there is none."""
    place = os.path.relpath(name)
    place = os.path.normpath(name) if place.startswith("..") else place
    if _is_of_transformers(name):
        return f"The folder {place} holds a model of transformers: name it as --model hf/{place}."
    if os.path.isdir(name):
        return f"The folder {place} holds no training run: name the -o folder of `cvjobs train`, or a model."
    if os.path.isfile(name):
        if name.endswith(".onnx"):
            return f"{place} is an ONNX file: name it as --model onnx/{place}."
        return f"{place} is a file: name it with --weights, and with --model the model that it was saved from."
    return ""

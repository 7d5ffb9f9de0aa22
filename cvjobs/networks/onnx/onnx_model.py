"""An opened ONNX file: what it says of itself, its card, its session, its input of images, its outputs' shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.images.transform import ALL_BITS, Transform
from cvjobs.networks.onnx import card as cards
from cvjobs.networks.onnx import onnx_file
from cvjobs.networks.onnx.card import Card
from cvjobs.networks.onnx.onnx_file import OnnxFile, Value
from cvjobs.networks.onnx.session import SIZES, ImageInput, Outputs, Session

CHANNELS = 3
KINDS = ("float32", "float16", "uint8")
# The sides in pixels that a model of a task is tried with where neither the file nor the card says any.
TRIED = {"embed": 224, "classify": 224, "detect": 320, "semantic": 256}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1.0}
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1.0}
GREYS = {**PLAIN, "scale": 255.0}  # values of 0 to 255 as they are


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file, ready to run on the CPU."""

    file: OnnxFile
    card: Card
    taken: ImageInput
    session: Session = field(repr=False)

    @property
    def name(self) -> str:
        """The name in outputs: that of the file, wherever it is."""
        return f"onnx/{self.file.path.name}"

    @property
    def beside(self) -> tuple[str, ...]:
        """The files that change its results beside the ONNX file, also a YAML that is not there yet."""
        return tuple(str(path) for path in (self.card.file, *self.card.also, *self.file.also))

    @property
    def size(self) -> tuple[int, int] | None:
        """The (height, width) of its input by the file, else by a card with both; None where it may be any."""
        said = self.card.get("size", None)
        return self.taken.size or (said if isinstance(said, tuple) else None)

    @property
    def side(self) -> int | None:
        """A side in pixels, where the card says one number for any image."""
        said = self.card.get("size", None)
        return said if isinstance(said, int) else None

    @property
    def elsewhere(self) -> str:
        """What to do with a file that another command takes, as the end of a sentence."""
        return f"give it to the command that `cvjobs models onnx/{self.file.path}` names"

    def facts(self, resolved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what identifies its results, with what its card comes to for a task."""
        values = {key: _plain(value) for key, value in sorted(resolved.items()) if value is not None}
        weights = {"weights": self.file.path.name, "weights_sha256": self.file.sha256}
        return {"model": self.name, **weights, "card": values}

    def tried_size(self, task: str) -> tuple[int, int]:
        """Return the (height, width) in pixels that ``tried`` takes."""
        side = self.side or TRIED[task]
        return self.size or (side, side)

    def tried(self, task: str) -> Outputs:
        """Return the outputs for one image of noise, or as many as the file takes.

        Raises:
            WrongUse: the model fails on it.
        """
        height, width = self.tried_size(task)
        noise = torch.rand(self.taken.batch or 1, CHANNELS, height, width, generator=torch.Generator().manual_seed(0))
        if self.card.get("scale", 1.0) > 1 or self.taken.kind == "uint8":
            noise *= 255
        try:
            return self.session.run(noise, self.taken)
        except (RuntimeError, MemoryError) as error:
            said = "" if self.size else f" of {height} × {width} pixels"
            raise WrongUse(
                f"{self.file.path} fails on an image{said} ({error}): write the `size:` that it takes into "
                f"{self.card.file}, or export it anew."
            ) from None

    def shapes(self, task: str) -> dict[str, tuple[int, ...]]:
        """Return the shapes of its outputs by name, with a batch of one or the file's own; raises as ``tried``."""
        declared = {}
        for value in self.file.outputs:
            if not value.shape or not all(value.shape[1:]):
                return {name: tuple(found.shape) for name, found in self.tried(task).items()}
            declared[value.name] = tuple(side or self.taken.batch or 1 for side in value.shape)
        return declared

    def named(self, role: str) -> str:
        """Return the output that the card names for a role, empty where it names none.

        Raises:
            WrongUse: there is no such output.
        """
        name = str(self.card.get("outputs", {}).get(role, ""))
        if name and name not in [value.name for value in self.file.outputs]:
            raise WrongUse(
                f"{self.file.path} has no output {shortened(name)!r}, as {self.card.file} says: it has "
                f"{listed(self.file.outputs)}."
            )
        return name

    def transform(self, resolved: Mapping[str, Any], **more: Any) -> Transform:
        """Return how pixels reach the model, with mean and deviation of values of 0 to 1.

        Files become pixels as they did for the training run that a file is of.
        """
        scale = resolved["scale"]
        pixel_rules, bits = _pixels(self.file.metadata.get("cvjobs", ""))
        return Transform(
            pixel_rules=pixel_rules,
            bits=bits,
            mean=tuple(mean / scale for mean in resolved["mean"]),
            std=tuple(std / scale for std in resolved["std"]),
            **more,
        )

    def on(self, device: str) -> Session:
        """Return its session on a device."""
        return self.session if device == "cpu" else Session(self.file, device)


def opened(name: str, weights: str, *tasks: str) -> OnnxModel:
    """Return the model in a file.

    Args:
        name: the path of the file.
        weights: what ``--weights`` says, which must be ``pretrained``.
        tasks: what it is wanted for, of which the card may name one: ``embed``, ``classify``, ``detect``, ``instance``,
            ``semantic``.

    Raises:
        WrongUse: see ``onnx_file.read`` and ``card.read``; other weights are asked for, its input takes no images, or
            its card says that it is for something else.
    """
    if weights != "pretrained":
        raise WrongUse(
            f"An ONNX file holds its own weights: leave out --weights, and give the file as --model onnx/{name}."
        )
    file = onnx_file.read(Path(name).expanduser())
    card = cards.read(file)
    task = card.get("task", "")
    if task and task not in tasks and "embed" not in tasks:
        raise WrongUse(
            f"{file.path} is a model for {COMMANDS[task]} by its card: give it to `cvjobs {COMMANDS[task]}`."
        )
    taken = _image_input(file, card)
    said = card.get("size", None)
    wanted = (said, said) if isinstance(said, int) else said
    if taken.size and said and taken.size != wanted:
        raise WrongUse(
            f"{file.path} takes images of {taken.size[0]} × {taken.size[1]} pixels, and {card.file} says another size: "
            "leave that out."
        )
    return OnnxModel(file, card, taken, Session(file))


COMMANDS = {"instance": "segment", "semantic": "segment", "embed": "embed", "classify": "classify", "detect": "detect"}


def _image_input(file: OnnxFile, card: Card) -> ImageInput:
    sizes = {value.name: value.kind for value in file.inputs if value.name in SIZES and len(value.shape) == 2}
    images = [value for value in file.inputs if value.name not in sizes]
    if len(images) != 1 or len(images[0].shape) not in (3, 4):
        raise WrongUse(
            f"{file.path} has {'the inputs' if len(file.inputs) > 1 else 'the input'} {listed(file.inputs)}: cvjobs "
            "runs models with one input of images."
        )
    (value,) = images
    if 0 in value.shape:
        raise WrongUse(f"{file.path} takes no images at all, for a side of its input {value} is 0: export it anew.")
    if value.kind not in KINDS:
        raise WrongUse(f"{file.path} takes images of the type {value.kind}: export it with one of {', '.join(KINDS)}.")
    layout = _layout(value, file, card)
    sides = dict(zip(layout, value.shape, strict=True))
    if sides["C"] not in (CHANNELS, None):
        raise WrongUse(
            f"{file.path} takes images of {sides['C']} channels: cvjobs has images of three, red, green and blue."
        )
    height, width = sides["H"] or sides["W"], sides["W"] or sides["H"]
    return ImageInput(
        name=value.name,
        kind=value.kind,
        layout=layout,
        batch=sides.get("N", 1),
        size=(height, width) if height and width else None,
        sizes=sizes,
    )


def _layout(value: Value, file: OnnxFile, card: Card) -> str:
    rank = len(value.shape)
    if layout := str(card.get("layout", "")):
        if len(layout) != rank:
            raise WrongUse(
                f"The input {value} of {file.path} has no layout {layout}, as {card.file} says: correct it there."
            )
        return layout
    first, last = value.shape[rank - 3], value.shape[-1]
    batch = "N" * (rank - 3)
    if first == CHANNELS or (first is not None and last != CHANNELS):
        return f"{batch}CHW"
    if last == CHANNELS:
        return f"{batch}HWC"
    raise card.ask(file.path, "where its input has the channels", "layout", f"{batch}CHW or {batch}HWC")


def listed(values: Sequence[Value]) -> str:
    """Return inputs or outputs as people read them."""
    shown = [shortened(str(value)) for value in values[:12]]
    return ", ".join(shown) + (f" and {len(values) - 12} more" if len(values) > 12 else "")


def _pixels(text: str) -> tuple[int, int]:
    """Return the rules by which a run's images became pixels, and their bits, given what it says of its model."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        record = json.loads(text)["transform"]
        made, bits = record.get("pixel_rules", rules.FIRST), record.get("bits", 0)
        if made in range(rules.FIRST, rules.PIXELS + 1) and bits in range(ALL_BITS):
            return int(made), int(bits)
    return rules.PIXELS, 0


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def resolved(card: Card, keys: Sequence[str], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of keys: those of the card, else the defaults."""
    return {key: card.get(key, default.get(key)) for key in keys}

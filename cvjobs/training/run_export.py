"""The best model of a run as a file for other programs: written beside, checked against torch, then published."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from cvjobs.common.errors import WrongUse, storage_failure
from cvjobs.common.formatting import counted, size
from cvjobs.common.plugins import BrokenPlugin
from cvjobs.common.tabular import Readable
from cvjobs.dataset import contents
from cvjobs.networks import licences, local_copies, registry
from cvjobs.networks.licences import Licence
from cvjobs.networks.weights import RANDOM
from cvjobs.storage.hashing import Written
from cvjobs.storage.object_store import address
from cvjobs.storage.storage_options import Options
from cvjobs.storage.store import Store, file_at, named, open_store
from cvjobs.training import identity, run_formats
from cvjobs.training.portable import onnx_format, portable_tasks, pt2_format, safetensors_format
from cvjobs.training.training_summary import TrainingSummary

# By task: the commands that take its file, and what it says of its images where they have sizes of their own.
_COMMANDS = {
    "classify": ("classify", "embed"),
    "autoencoder": ("embed",),
    "detect": ("detect",),
    "segment": ("segment",),
}
_IMAGES = {
    "detect": "pictures whose longer side has {width} pixels",
    "segment": "pictures whose shorter side has at most {width} pixels",
}
_FORMATS: dict[str, ModuleType] = {"onnx": onnx_format, "pt2": pt2_format, "safetensors": safetensors_format}


@dataclass(frozen=True, kw_only=True)
class ExportedModel(Readable):
    """What was written of a run: its model of ``epoch``, the best one, or the best so far where it has not ``ended``.

    ``size`` is the (height, width) in pixels of its images, or of the squares that a detector or a segmenter learnt
    from; ``classes`` are those of its task, 0 of an autoencoder; ``outputs`` are those of the network, none of weights
    alone; ``difference`` is the largest between them and torch's, as a share of the largest value, of a detector that
    of scores. ``card`` is a YAML beside an ONNX file, whose keys count more than the file's own; empty where there is
    none.
    """

    format: str
    to: str
    run: str
    task: str
    model: str
    classes: int
    size: tuple[int, int]
    outputs: tuple[str, ...]
    epoch: int
    ended: bool
    difference: float
    bytes: int
    sha256: str
    licence: dict[str, str]
    card: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {**vars(self), "size": list(self.size), "outputs": list(self.outputs)}

    def __str__(self) -> str:
        height, width = self.size
        classes = [counted(self.classes, "classes")] if self.classes else []
        far = "" if self.ended else ", the best so far, for the run has not ended"
        images = _IMAGES.get(self.task, "images of {width} × {height} pixels").format(width=width, height=height)
        about = ", ".join([self.model, *classes, images, f"epoch {self.epoch}{far}"])
        checked = "  the run's weights to the last bit, with metadata"
        if self.outputs:
            equal = f"equal to torch on random images (largest difference {self.difference:.1e})"
            checked = f"  gives {', '.join(self.outputs)}; {equal}"
        commands = " and ".join(f"`cvjobs {one}`" for one in _COMMANDS[self.task])
        use = f", for {commands} with --model onnx/{self.to}" if self.format == "onnx" else ""
        lines = [about, checked, f"{self.to}, {size(self.bytes)}{use}"]
        if self.card:
            lines.append(f"  {self.card} lies beside it, and what it says counts more than what the file says")
        return "\n".join(lines)


def write(run: str, wanted: str, to: str, options: Options, *, overwrite: bool) -> ExportedModel:
    """Write the best model that a run has so far as a file, whole or not at all.

    Args:
        run: the folder of the run, or its prefix in a bucket.
        wanted: one of ``run_formats.RUN_FORMATS``.
        to: the file, which may be in a bucket.
        options: what buckets are reached with.
        overwrite: whether a file that is there is replaced.

    Raises:
        WrongUse: there is no run, or no model in it yet, or it is damaged; the file is there already, or is a part of
            some command's output; what the format needs is not installed.
        JobFailed: the model cannot be exported, or the file does not give what torch does; or writing failed.
    """
    store = open_store(run, options=options)
    run_formats.check_run(store, wanted)
    place, name = _place(to, options, overwrite)
    with local_copies.reached_with(options):
        model = portable_tasks.of_run(store.place, _licence(store))
    format_ = _FORMATS[wanted]
    with tempfile.TemporaryDirectory(prefix="cvjobs-export-") as folder:
        file = Path(folder) / f"model.{wanted}"
        try:
            format_.write(model, file)
        except OSError as error:
            raise storage_failure(error, folder, "TMPDIR") from error
        difference = format_.check(model, file)
        written = _publish(file, place, name, overwrite)
    beside = Path(to).expanduser().with_suffix(".yaml")
    return ExportedModel(
        format=wanted,
        to=to,
        run=store.place,
        task=model.task,
        model=model.name,
        classes=len(model.labels),
        size=model.size,
        outputs=model.outputs if wanted != "safetensors" else (),
        epoch=int(model.about.get("epoch", 0)),
        ended=TrainingSummary.read(store) is not None,
        difference=difference,
        bytes=written.bytes,
        sha256=written.sha256,
        licence=model.licence.record(),
        card=str(beside) if wanted == "onnx" and not address(to) and beside.exists() else "",
    )


def _place(to: str, options: Options, overwrite: bool) -> tuple[Store, str]:
    """Return the store of the file and its name there; raises WrongUse where it cannot or may not be written."""
    contents.check_part(named(to, options))
    place, name = file_at(to, options)
    if not overwrite and place.size(name) is not None:
        raise _there(to)
    return place, name


def _there(to: str) -> WrongUse:
    return WrongUse(f"{to} is there already: choose another -o, or give --overwrite to replace it.")


def _licence(store: Store) -> Licence:
    """Return the licences of what a run began with; of one that has not ended, those of random weights are known."""
    ended = TrainingSummary.read(store)
    if ended is not None and ended.licence:
        return Licence(code=ended.licence["code"], weights=ended.licence["weights"])
    with suppress(WrongUse, BrokenPlugin, KeyError):  # a record that is damaged, or a family that is gone
        begun = identity.earlier(store)
        task = "autoencoder" if begun["task"] == "autoencoder" else "train"
        code = registry.licence(begun["model"], task, "random").code
        return Licence(code=code, weights=licences.NONE if begun["weights"] == RANDOM.sha256 else licences.UNKNOWN)
    return licences.UNSAID


def _publish(file: Path, place: Store, name: str, overwrite: bool) -> Written:
    """Give a file its place and name; what came there meanwhile is replaced where that is wanted."""
    if not overwrite:
        content = file.read_bytes()
        if not place.create(name, content):
            raise _there(f"{place.place}/{name}")
        return Written(len(content), hashlib.sha256(content).hexdigest())

    def fill(out: BinaryIO) -> None:
        with file.open("rb") as held:
            shutil.copyfileobj(held, out)

    return place.write(name, fill)

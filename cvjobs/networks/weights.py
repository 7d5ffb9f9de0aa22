"""Weight files: found in torch.hub's cache or fetched into it, hashed, and loaded as data, never as a pickle."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import pickle
import re
import struct
import urllib.request
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.formatting import counted
from cvjobs.common.progress import tell
from cvjobs.networks import checkpoint, local_copies, sealed_model
from cvjobs.networks.checkpoint import ModelState
from cvjobs.networks.local_copies import RUN_MODEL

TIMEOUT = 10  # seconds without a byte before a server counts as unreachable
_HASH = re.compile(r"-([0-9a-f]{8,64})\.")  # torch.hub's convention: resnet50-11ad3fa6.pth
Loaded = TypeVar("Loaded")
Activation = Literal["softmax", "sigmoid"]
# What a strict load raises, and timm's adapters of names where the names are others.
_UNFIT = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    NameError,
    ArithmeticError,
    StopIteration,
)
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
# What is sometimes found under a name of weights, by how it begins (in lower case).
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    b"<!doctype": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
}
_DAMAGED = (MemoryError, struct.error)  # of torch's unpickler


@dataclass(frozen=True)
class Weights:
    """The weights chosen for a model: a label to show, the file (None: random), and what identifies them."""

    label: str
    file: Path | None
    sha256: str

    @property
    def facts(self) -> dict[str, str]:
        """The two facts that a model records of its weights."""
        return {"weights": self.label, "weights_sha256": self.sha256}


RANDOM = Weights("random", None, "seed 0")


def given(path: str) -> Weights:
    """Return the weights in a file that the user named, or those of the run whose folder it is."""
    path = local_copies.run_folder(path)
    if os.path.isdir(path):
        return _of_run(Path(path))
    if not os.path.isfile(path):
        raise WrongUse(
            f"There is no weights file {path}: --weights takes pretrained, random, the path of a file, or "
            "the folder of a training run."
        )
    return from_file(Path(path))


def is_run(weights: str) -> bool:
    """Return whether ``--weights`` names the folder of a run."""
    return weights not in ("pretrained", "random") and os.path.isdir(local_copies.run_folder(weights))


def _of_run(folder: Path) -> Weights:
    """Return what a training left in its folder."""
    file = folder / RUN_MODEL
    if file.is_file():
        return from_file(file, folder.absolute().name)
    if (folder / "checkpoints").is_dir():
        raise WrongUse(f"The run {folder} has no {RUN_MODEL} yet: train until its first epoch is done.")
    raise WrongUse(f"The folder {folder} is no training run's: --weights takes a file, or the folder of a run.")


def from_file(file: Path, label: str = "") -> Weights:
    """Return the weights in a file, hashed, under its name or a label.

    Raises:
        WrongUse: it cannot be read, or has a digest of its own and is not what was written.
    """
    try:
        sha256, whole = sealed_model.hashed(file)
    except OSError as error:
        raise WrongUse(f"Cannot read the weights file {file} ({error.strerror}): fix its permissions.") from None
    if not whole:
        raise WrongUse(
            f"The weights file {file} is damaged (its digest differs): bring it back from a backup, or {again(file)}."
        )
    return Weights(label or file.name, file, sha256)


def again(file: Path) -> str:
    """Return how to make a trained model again that is damaged or gone."""
    return remade((file.parent / "checkpoints").is_dir())


def remade(begun: bool) -> str:
    """Return how to make the model of a run again, which has checkpoints where it is ``begun``."""
    if begun:
        return "run the same `cvjobs train` again, which makes it from a checkpoint where one has it"
    return "train again with --overwrite"


def named_hash(file_name: str) -> str:
    """Return the beginning of the sha256 that a file's name promises, or ``""``."""
    found = _HASH.search(file_name)
    return found[1] if found else ""


def cached(file_name: str, label: str = "") -> Weights | None:
    """Return a file of torch.hub's cache, checked against the hash in its name; None where it is not there."""
    file = _cache() / file_name
    if not file.is_file():
        return None
    weights = from_file(file, label)
    if not weights.sha256.startswith(named_hash(file_name)):
        raise WrongUse(f"The weights file {file} is damaged (its sha256 starts {weights.sha256[:8]}): delete it.")
    return weights


def fetched(url: str, model: str, label: str = "") -> Weights:
    """Return the file behind a URL, cached or downloaded now into torch.hub's cache.

    Raises:
        WrongUse: the network does not give it, or it is not the file that its name promises.
    """
    name = url.rpartition("/")[2]
    weights = cached(name, label)
    if weights is None:
        try:
            _download(url, _cache() / name)
        except (OSError, http.client.HTTPException) as error:
            promise = f" (sha256 starts {named_hash(name)})" if named_hash(name) else ""
            absent = f"{name}{promise} is not in {_cache()}"
            raise missing(model, absent, url, error, "put it there, or name it with --weights FILE") from None
        weights = cached(name, label)
    assert weights is not None
    return weights


def missing(model: str, absent: str, url: str, error: Exception, remedy: str) -> WrongUse:
    """Return the error that says which weights are neither here nor to be had, and how to supply them."""
    reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())[:200]
    return WrongUse(f"No weights for {model}: {absent}, and {url} did not give it ({reason}): {remedy}.")


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(url: str, file: Path) -> None:
    """Fetch a file beside its place and move it there whole, so that a kill leaves no half of it under its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, temporary.open("xb") as out:  # noqa: S310
            while block := answer.read(1 << 20):
                digest.update(block)
                out.write(block)
        if not digest.hexdigest().startswith(named_hash(file.name)):
            raise OSError("what came is not the file: its sha256 differs")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def state(weights: Weights) -> dict[str, Any]:
    """Return the dict in a file: safetensors, or torch's format restricted to tensors; no code in it runs.

    Beside tensors, a checkpoint may hold numbers, texts, and the ``argparse.Namespace`` of a training.

    Raises:
        WrongUse: the file is damaged, holds anything but tensors and such values, or is no dict.
    """
    file = weights.file
    assert file is not None
    need = file.stat().st_size if file.exists() else 0
    devices.check_memory(need, f"The weights file {file}", "use a smaller model, or raise the limit")
    try:
        if _is_safetensors(file):
            loaded: Any = load_file(file, device="cpu")
        elif _is_program(file):
            raise _refused(file, "a TorchScript program")
        else:
            loaded = _tensors(file)
    except pickle.UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        raise _refused(file, named[1] if named else "") from None
    except (OSError, EOFError, SafetensorError, *_UNFIT, *_DAMAGED) as error:
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise _other(file) or WrongUse(
            f"The weights file {file} cannot be read ({reason}): copy or download it again."
        ) from None
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise WrongUse(f"The weights file {file} holds no state dict: save the model's state_dict() as safetensors.")
    return loaded


def _tensors(file: Path) -> Any:
    """Return what a file of torch's holds; torch warns of formats that it then reads or refuses."""
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        with file.open("rb") as stream:  # by a path, torch looks at the name first
            return torch.load(stream, map_location="cpu", weights_only=True)


def _is_safetensors(file: Path) -> bool:
    """Return whether a file begins as safetensors do, or as no file of torch, and is named like one."""
    with file.open("rb") as stream:
        begin = stream.read(9)
    if begin[8:] == b"{":
        return True
    return file.suffix == ".safetensors" and not begin.startswith((b"PK", b"\x80"))


def _is_program(file: Path) -> bool:
    """Return whether a file is one of TorchScript, which is code."""
    try:
        if not zipfile.is_zipfile(file):
            return False
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError):
        return False


def _refused(file: Path, what: str) -> WrongUse:
    return _other(file) or WrongUse(
        f"The weights file {file} was refused, for it holds more than tensors{f' ({what})' if what else ''} and "
        "loading it could run code: save the model's state_dict() as safetensors."
    )


def _other(file: Path) -> WrongUse | None:
    """Return what is said of a file that is nothing of torch's, where its beginning tells what it is."""
    try:
        with file.open("rb") as stream:
            begin = stream.read(64).lstrip().lower()
    except OSError:
        return None
    if file.suffix == ".onnx":
        return WrongUse(f"{file} is an ONNX file: name it as --model onnx/{file}, and leave out --weights.")
    found = next((what for mark, what in _OTHERS.items() if begin.startswith(mark)), "")
    return WrongUse(f"The weights file {file} is {found}.") if found else None


def of_model(weights: Weights, own: Callable[[], Iterable[str]]) -> tuple[dict[str, Any], Weights]:
    """Return the tensors in a file for a model whose names are ``own()``, out of a checkpoint's wrapper, which is said.

    The weights are returned with what was taken in their label. Raises WrongUse as ``state`` and
    ``checkpoint.model_state``.
    """
    return taken(weights, checkpoint.model_state(state(weights), frozenset(own()), weights.file))


def taken(weights: Weights, found: ModelState) -> tuple[dict[str, Any], Weights]:
    """Say what was taken of a checkpoint, where it is not all of it; return the tensors, and weights of that label."""
    if found.how:
        _say(f"{weights.file} is a checkpoint: {found.how}")
    named = replace(weights, label=f"{weights.label} ({found.part})") if found.part else weights
    return found.tensors, named


def say_head(weights: Weights, classes: int, usual: int) -> None:
    """Say that a head has another number of classes than the published weights."""
    if classes != usual:
        _say(f"{weights.file} has a head of {counted(classes, 'classes')}, not {usual:,}")


@cache
def _say(what: str) -> None:
    tell(f"{what}.")


@dataclass(frozen=True)
class Head:
    """What a safetensors file says of its classes: their names, and whether they exclude each other (softmax)."""

    labels: tuple[str, ...] = ()
    activation: Activation = "softmax"


def head(weights: Weights) -> Head:
    """Return what the file's metadata say: ``labels``, a JSON list, and ``activation``; both may be missing.

    Raises:
        WrongUse: they are there and make no sense.
    """
    if weights.file is None or not _is_safetensors(weights.file):
        return Head()
    with safe_open(weights.file, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    where = f"in the metadata of the weights file {weights.file}"
    activation: Any = metadata.get("activation", "softmax")
    if activation not in get_args(Activation):
        near = nearest(activation, get_args(Activation))
        raise WrongUse(f"There is no activation {activation!r}{near}, as named {where}: write softmax or sigmoid.")
    try:
        labels: Any = json.loads(metadata.get("labels", "[]"))
    except ValueError:
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
        raise WrongUse(f"The labels {where} are no JSON list of names: write them as one, or leave them out.")
    return Head(tuple(labels), activation)


def fitted(
    load: Callable[[], Loaded], model: str, weights: Weights, tensors: Mapping[str, Any] = MappingProxyType({})
) -> Loaded:
    """Return what a strict load returns; raise ``WrongUse`` with the first keys at fault where the file doesn't fit.

    ``tensors`` are what the file holds.
    """
    try:
        return load()
    except _UNFIT as error:
        # torch's message has one line for each kind of misfit and one for each tensor of a wrong size.
        lines = [line.strip() for line in str(error).splitlines()]
        faults = "; ".join(_shortened(line) for line in (lines[1:] or lines)[:3])
        if tensors and not any(name in faults for name in tensors):
            faults = f"it holds {checkpoint.listed(tensors)}; {faults}"
        known = _described(weights, tensors, model)
        said = f": {known}" if known else f" ({faults}): choose the model that it was saved from, or another file"
        raise WrongUse(f"The weights file {weights.file} does not fit {model}{said}.") from None


def _described(weights: Weights, tensors: Mapping[str, Any], model: str) -> str:
    """Return what a file holds that was given with another model; empty where that is not known."""
    from cvjobs.networks import lookalike  # builds models: only where there is something to say

    assert weights.file is not None
    if trained := _trained(weights.file):
        return f"it is the model of a training ({trained}), so give its folder, --model {weights.file.parent}, alone"
    names = list(head(weights).labels) or lookalike.class_names(state(weights))
    return lookalike.described(tensors, names, model)


def _trained(file: Path) -> str:
    """Return the model of a `cvjobs train` run that a file is, and its classes; empty where it is none."""
    if not _is_safetensors(file):
        return ""
    with safe_open(file, "pt") as opened:
        metadata: dict[str, str] = opened.metadata() or {}
    try:
        known = json.loads(metadata["cvjobs"])
        return f"{known['model']}, {counted(known['classes'], 'classes')}"
    except (KeyError, TypeError, ValueError):
        return ""


def _shortened(line: str, length: int = 160) -> str:
    return line.rstrip(" .") if len(line) <= length else line[:length].rpartition(",")[0] + ", …"


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Make the random weights of models built inside the same every time, and leave the generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

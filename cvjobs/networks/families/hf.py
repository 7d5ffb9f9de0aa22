"""`hf/OWNER/NAME[@REVISION]`, `hf/FOLDER` or a short name: models of transformers, from the Hugging Face hub.

Nothing of the library is imported before a model is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvjobs.common import extras
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.networks import licences
from cvjobs.networks.hf import short_names
from cvjobs.networks.licences import Licence

if TYPE_CHECKING:
    from cvjobs.networks.hf.repository import Repository
    from cvjobs.networks.registry import PictureModel
    from cvjobs.networks.torch_network import TorchClassifier, TorchEmbedder


def names(task: str) -> list[str]:
    """Return the short names of well-known models for a task; any other model has the name of its repository."""
    return short_names.of_task(task)


def embedder(name: str, weights: str, layer: str) -> TorchEmbedder:
    """Return a model whose vector is what its publishers use as one, or a named layer's pooled output."""
    repository = _opened(name, "embed")
    from cvjobs.networks.hf import backbones

    return backbones.embedder(repository, weights, layer)


def classifier(name: str, weights: str, labels: Sequence[str]) -> TorchClassifier:
    """Return a classifier; without other names its classes have those of its settings."""
    repository = _opened(name, "classify")
    from cvjobs.networks.hf import backbones

    return backbones.classifier(repository, weights, labels)


def detector(name: str, weights: str, labels: Sequence[str]) -> PictureModel:
    """Return a detector; without other names its classes have those of its settings."""
    repository = _opened(name, "detect")
    from cvjobs.networks.hf import detectors

    return detectors.detector(repository, weights, labels)


def segmenter(name: str, weights: str, labels: Sequence[str]) -> PictureModel:
    """Return a segmenter, or a detector of objects with masks; its classes are named as a detector's."""
    repository = _opened(name, "segment")
    from cvjobs.networks.hf import segmenters

    return segmenters.segmenter(repository, weights, labels)


def licence(name: str) -> Licence:
    """Return the licence of a repository's card, fetched where it is not in the cache, as ``unknown`` out of reach.

    Raises:
        WrongUse: the repository itself is out of reach, or there is none.
    """
    known = short_names.entry(name)
    if known:
        return known.licence
    repository = _opened(name, "embed")
    from cvjobs.networks.hf import front_matter

    if repository.folder:
        return Licence(code="Apache-2.0", weights=licences.YOURS)
    _ = repository.config  # where that is not to be had there is nothing whose licence could be accepted
    return Licence(code="Apache-2.0", weights=front_matter.licence(repository))


def described(name: str) -> list[tuple[str, str]]:
    """Return where a model is and what its settings say it is."""
    repository = _opened(name, "embed")
    classes = repository.config.get("id2label")
    pairs = [
        ("repository", repository.hub),
        ("revision", repository.revision),
        ("folder", str(repository.folder or "")),
        ("kind", repository.kind),
        ("classes", f"{len(classes):,}" if isinstance(classes, dict) else ""),
        ("for", ", ".join(_commands(repository)) or "no command, as this kind is not among those that cvjobs knows"),
    ]
    return [(what, value) for what, value in pairs if value]


def _commands(repository: Repository) -> list[str]:
    """Return the commands that take a model of this kind, and with the head that its settings name."""
    from cvjobs.networks.hf import backbones, detectors, segmenters

    kind, heads = repository.kind, str(repository.config.get("architectures"))
    takes = {
        "embed": kind in backbones.BACKBONES,
        "classify": kind in backbones.CLASSIFIERS and "Classification" in heads,
        "detect": kind in detectors.KINDS,
        "segment": kind in {**segmenters.PIXELS, **segmenters.QUERIES}
        or (kind in detectors.WITH_MASKS and "Segmentation" in heads),
    }
    return [command for command, taken in takes.items() if taken]


def _opened(name: str, task: str) -> Repository:
    """Return where a model is; raises WrongUse where there is no such name, or the library is not installed."""
    extras.load("hf", f"--model hf/{name}")
    from cvjobs.networks.hf import repository

    hub = short_names.hub(name)
    if not hub and "/" not in name and not os.path.isdir(os.path.expanduser(name)):
        known = short_names.of_task(task)
        raise WrongUse(
            f"There is no model hf/{name}{nearest(name, known)}: write hf/OWNER/NAME as on the Hugging Face hub, "
            "hf/FOLDER, or a name that `cvjobs models` lists."
        )
    return repository.opened(name, hub)

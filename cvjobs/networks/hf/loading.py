"""A model of transformers on the CPU: built from its settings, with the tensors of safetensors or random ones."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from cvjobs.common import devices, extras
from cvjobs.common.categories import Category
from cvjobs.common.errors import WrongUse
from cvjobs.networks import weights as files
from cvjobs.networks.hf.repository import Repository
from cvjobs.networks.weights import Weights

# Settings that do not make the model: they name code of the repository, or change the type of what it returns.
_LEFT_OUT = ("auto_map", "return_dict", "torchscript", "output_hidden_states", "output_attentions")
_DEEPEST = 1000  # layers of any kind: building of more takes minutes, whatever the weights are
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def transformers(name: str) -> ModuleType:
    """Return the library; raises WrongUse with what to install where it is missing. ``name`` is the model's."""
    return extras.load("hf", f"--model {name}")


def loaded(
    repository: Repository,
    classes: Mapping[str, str],
    chosen: str,
    *,
    part: str = "",
    options: Mapping[str, Any] = _NO_OPTIONS,
) -> tuple[Any, Weights]:
    """Return the model in float32 for inference, and its weights.

    Args:
        repository: where it is.
        classes: the name of transformers' class for each kind of model that will do.
        chosen: ``pretrained``, ``random`` (always the same ones) or the path of a file.
        part: what of the settings the class takes, such as ``vision_config``, where they have it; empty for all.
        options: what else the class is made with.

    Raises:
        WrongUse: it is of another kind, its settings make no sense, or the weights are missing or don't fit.
    """
    library = transformers(repository.name)
    if repository.kind not in classes:
        kind = repository.kind or "unknown"
        raise WrongUse(
            f"{repository.said} is of the kind {kind!r}, which is not for this command: "
            f"choose one of {', '.join(sorted(classes))}."
        )
    weights = repository.weights(chosen)
    made = getattr(library, classes[repository.kind])
    with quiet():
        config = _config(library, repository)
        if inner := getattr(config, part, None) if part else None:
            # Of a model of two towers the size of the space that they share is a setting of the whole.
            inner.projection_dim = getattr(config, "projection_dim", None)
            config = inner
        if chosen == "pretrained":
            return _published(made, config, repository, weights, options), weights
        devices.check_memory(0, f"The model {repository.name}", "use a smaller model, or raise the limit")
        with files.seeded():
            model: nn.Module = _built(made, config, repository, options).float().eval()
        if weights.file is not None:
            tensors, weights = files.of_model(weights, model.state_dict)
            files.fitted(lambda: model.load_state_dict(tensors), repository.name, weights, tensors)
        return model, weights


def categories(model: Any) -> list[Category]:
    """Return the classes that a model's settings name, by the numbers of its outputs."""
    named: dict[int, str] = model.config.id2label
    return [Category(number, str(named[number])) for number in sorted(named)]


def distinct(found: Sequence[Category]) -> list[Category]:
    """Return classes with their number behind their name where several have one."""
    often = Counter(one.name for one in found)
    return [one if often[one.name] == 1 else Category(one.id, f"{one.name} ({one.id})") for one in found]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the library's warnings and reports from the terminal: what matters is raised by us."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _config(library: Any, repository: Repository) -> Any:
    """Return the settings as the library's own record; what names code of the repository is left out."""
    values = {key: value for key, value in repository.config.items() if key not in _LEFT_OUT}
    if (deepest := max(_depths(values), default=0)) > _DEEPEST:
        raise senseless(repository, ValueError(f"{deepest:,} layers"))
    if "use_pretrained_backbone" in values:
        values["use_pretrained_backbone"] = False  # or building would fetch weights that are then replaced
    try:
        return library.AutoConfig.for_model(**values)
    except Exception as error:  # whatever the library trips over in a file that anyone wrote
        raise senseless(repository, error) from error


def _depths(values: Any) -> Iterator[float]:
    """Yield the numbers of layers that settings name, at any depth."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _depths(value)
        elif "layers" in key or key == "depths":
            yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int | float))


def _built(made: Any, config: Any, repository: Repository, options: Mapping[str, Any]) -> Any:
    try:
        return made(config, **options)
    except Exception as error:
        raise senseless(repository, error) from error


def senseless(repository: Repository, error: Exception) -> WrongUse:
    """Return the error about settings that the library cannot make a working model of."""
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return WrongUse(f"The settings of {repository.said} make no model ({why}): choose another model or revision.")


def _published(
    made: Any, config: Any, repository: Repository, weights: Weights, options: Mapping[str, Any]
) -> nn.Module:
    """Return the model with the repository's own tensors, all of which it must have."""
    shards = repository.shards(weights)
    held = sum(shard.stat().st_size for shard in shards)
    devices.check_memory(held, f"The model {repository.name}", "use a smaller model, or raise the limit")
    for shard in shards:
        _check_whole(shard)
    try:
        model, found = made.from_pretrained(
            str(shards[0].parent),
            config=config,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            **options,
        )
    except Exception as error:
        raise senseless(repository, error) from error
    missing = [*found["missing_keys"], *(str(key[0]) for key in found["mismatched_keys"])]
    if missing:
        raise WrongUse(
            f"The weights of {repository.said} lack or have another size of {', '.join(sorted(missing)[:3])}: choose a "
            "model that is trained for this command, or another revision."
        )
    placed: nn.Module = model.eval()
    return placed


def _check_whole(shard: Path) -> None:
    try:
        with safe_open(shard, "pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise WrongUse(
            f"The file {shard} is no safetensors, or only the beginning of one ({error}): copy or download it again."
        ) from None

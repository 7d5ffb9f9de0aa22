"""A model's own tensors in a checkpoint: out of the dicts around them, under the names that the model has for them.

Where a checkpoint holds averaged weights (EMA) beside the trained ones, those are taken, as the references of
torchvision and timm do. Nothing is loaded here; a file that is a plain state dict stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened

# The names in their order of preference: timm's order, then what others write.
_EMA = ("state_dict_ema", "model_ema")
_PLAIN = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "module", "params", "weights")
# What torch's own wrappers of modules put into names, at any depth.
_TORCH = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel
_DEEP = 4
_WORDS = re.compile(r"[._]")


@dataclass(frozen=True)
class ModelState:
    """The tensors of a model by their names in it; ``part`` names where they were, ``how`` says what was done.

    Both are empty where the file is a state dict as it is.
    """

    tensors: dict[str, Tensor]
    part: str = ""
    how: str = ""


@dataclass(frozen=True)
class _Candidate:
    path: tuple[str, ...]
    tensors: dict[str, Tensor]
    left: tuple[str, ...]  # entries beside the tensors


def model_state(found: Mapping[str, Any], own: Collection[str], file: object) -> ModelState:
    """Return the tensors for a model whose names are ``own``, as far as a checkpoint has them.

    Raises:
        WrongUse: there is no tensor in it, or it has the model several times and no rule chooses.
    """
    choices = list(candidates(found))
    if not choices:
        raise WrongUse(
            f"The weights file {file} holds no tensor of a model, but {listed(found)}: save the model's state_dict() "
            "as safetensors."
        )
    fitting = [(choice, state) for choice in choices if (state := _fitting(choice, own, file)) is not None]
    if not fitting:
        choice = max(choices, key=lambda choice: len(_plain(choice.tensors, own)[0].keys() & set(own)))
        return _told(choice, *_stripped(*_plain(choice.tensors, own), own), ())
    choice, (tensors, how) = fitting[0]
    others = [other.path for other, _ in fitting[1:]]
    if choice.path and _rank(choice.path[-1]) == _LAST:
        rivals = [path for path in others if path[:-1] == choice.path[:-1] and _rank(path[-1]) == _LAST]
        if rivals:
            raise _several(file, [choice.path[-1], *(path[-1] for path in rivals)])
    return _told(choice, tensors, how, others)


def used(found: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ModelState:
    """Return which part of a checkpoint a model was filled with by others: that of which it has the largest tensor."""
    choices = list(candidates(found))
    for choice in choices:
        largest = max(choice.tensors.values(), key=Tensor.numel)
        if any(largest.shape == tensor.shape and torch.equal(largest, tensor) for tensor in tensors.values()):
            others = [other.path for other in choices if other.path[:-1] == choice.path[:-1] and other is not choice]
            return _told(choice, choice.tensors, [], others if choice.path else ())
    return ModelState({})


def candidates(found: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[_Candidate]:
    """Yield the dicts of tensors in a checkpoint, those that are to be preferred first."""
    inner = sorted((key for key, value in found.items() if _holds(value)), key=_rank)
    own = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if len(path) < _DEEP:
        for key in inner:
            yield from candidates(found[key], (*path, key))
    if own:
        yield _Candidate(path, own, tuple(key for key in found if key not in own and key not in inner))


def listed(found: Mapping[str, Any], most: int = 3) -> str:
    """Return the first keys of a checkpoint for a sentence."""
    names = [shortened(str(key)) for key in list(found)[:most]]
    more = len(found) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


_LAST = (2, 0)


def _rank(key: str) -> tuple[int, int]:
    """Return how soon a dict of this name is looked at: averages, the usual names, any other one."""
    if key in _EMA:
        return 0, _EMA.index(key)
    if _averaged(key):
        return 0, len(_EMA)
    return (1, _PLAIN.index(key)) if key in _PLAIN else _LAST


def _averaged(name: str) -> bool:
    return "ema" in _WORDS.split(name.lower())


def _holds(value: object, depth: int = 0) -> bool:
    """Return whether a value is a dict with a tensor in it, or in a dict in it; an optimizer's states have numbers."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value) or depth == _DEEP:
        return False
    return any(isinstance(each, Tensor) or _holds(each, depth + 1) for each in value.values())


def _fitting(choice: _Candidate, own: Collection[str], file: object) -> tuple[dict[str, Tensor], list[str]] | None:
    """Return the tensors under the model's names, and what was done to the names; None where some are missing."""
    if own and all(name in choice.tensors for name in own) and (_COUNTER in own or _COUNTER not in choice.tensors):
        return choice.tensors, []
    tensors, how = _plain(choice.tensors, own)
    if all(name in tensors for name in own):
        return tensors, how
    prefix = _prefix(tensors, own, file)
    if not prefix:
        return None
    inside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    how.append(f"names without {prefix!r}")
    if outside:
        how.append(f"without {listed(outside)}")
    return inside, how


def _plain(tensors: dict[str, Tensor], own: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors under names without what torch's wrappers put into them, and what that was."""
    words = [word for word in _TORCH if not any(word in name.split(".") for name in own)]
    kept = {name: tensor for name, tensor in tensors.items() if name != _COUNTER or name in own}
    removed = [word for word in words if any(word in name.split(".") for name in kept)]
    plain = {".".join(part for part in name.split(".") if part not in removed): tensor for name, tensor in kept.items()}
    if not removed or len(plain) < len(kept):
        return kept, [f"without {_COUNTER}"] * (len(kept) < len(tensors))
    return plain, ["names without " + " and ".join(f"'{word}.'" for word in removed)]


def _stripped(tensors: dict[str, Tensor], how: list[str], own: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Return tensors without a ``model.`` that all of them have, though the model's names are others."""
    while (
        tensors and all(name.startswith("model.") for name in tensors) and not any(n.startswith("model.") for n in own)
    ):
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        how = [*how, "names without 'model.'"]
    return tensors, how


def _prefix(tensors: Mapping[str, Tensor], own: Collection[str], file: object) -> str:
    """Return the only prefix under which all of the model's names are; ``""`` where there is none.

    Of several, an average's; else one that is nothing but ``model.`` or the like.
    """
    longest = max(own, key=len, default="")
    ends = [name.removesuffix(longest) for name in tensors if name.endswith(f".{longest}")]
    found = [prefix for prefix in ends if all(prefix + name in tensors for name in own)]
    if len(found) > 1:
        averages = [prefix for prefix in found if _averaged(prefix)]
        usual = [prefix for prefix in found if set(prefix.rstrip(".").split(".")) <= set(_PLAIN)]
        chosen = averages or usual
        if len(chosen) != 1:
            raise _several(file, [prefix.rstrip(".") for prefix in chosen or found])
        found = chosen
    return found[0] if found else ""


def _several(file: object, names: Collection[str]) -> WrongUse:
    return WrongUse(
        f"The weights file {file} holds the model several times ({', '.join(map(shortened, names))}): save the "
        "state_dict() of the one that is meant as safetensors."
    )


def _told(
    choice: _Candidate, tensors: dict[str, Tensor], how: list[str], others: Collection[tuple[str, ...]]
) -> ModelState:
    """Return what was chosen, and say how."""
    part = ".".join(map(shortened, choice.path))
    if choice.left and not part:
        how = [f"without {listed(dict.fromkeys(choice.left))}", *how]
    rest = "".join(f", not its {'.'.join(map(shortened, path))}" for path in others)
    taken = [f"its {part} is taken{rest}"] if part else ["its tensors are taken"] * bool(how)
    return ModelState(tensors, part, "; ".join([*taken, *how]))

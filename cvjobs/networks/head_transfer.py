"""A new head that begins with rows of the old one: which classes the two have in common, and what is copied."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted
from cvjobs.networks import weights as files
from cvjobs.networks.weights import Weights

OPTION = "--init-head-from-labels"
ASKED = 5  # classes for which near names are looked for: of 21,000 names that takes a second each
_ALIKE = re.compile(r"[\s_-]+")


def inherit(new: nn.Module, old: nn.Module, labels: Sequence[str], known: Sequence[Sequence[str]], model: str) -> int:
    """Let a head begin with the rows (weights and biases) of another one's classes of the same names.

    Args:
        new: the head that is to be trained, for the classes ``labels``; its other rows stay as they are.
        old: the head of the weights; linear layers or convolutions with an output for each class of ``known``, and
            norms before them, which are copied whole.
        labels: the names of the new classes.
        known: the names of each old class.
        model: the model's full name, for what is said of it.

    Returns:
        How many classes have begun so.

    Raises:
        WrongUse: no class has the name of an old one, or the head has no row for each class.
    """
    rows = matches(labels, known)
    if not rows:
        raise WrongUse(
            f"No class of the training data has the name of one of the {len(known):,} that {model} has weights for"
            f"{_near(labels, known)}: name classes as those are, or leave out {OPTION}."
        )
    if not _copy(new, old, rows, (len(labels), len(known))):
        raise WrongUse(f"The head of {model} has no weights of each class: leave out {OPTION}.")
    return len(rows)


def names(weights: Weights, published: Sequence[Sequence[str]], classes: int, model: str) -> Sequence[Sequence[str]]:
    """Return the names of each of the classes that weights were trained with: the file's own, or the published ones.

    Raises:
        WrongUse: the weights are random, or neither has as many as there are classes.
    """
    if weights.file is None:
        raise WrongUse(f"Random weights know no classes: leave out {OPTION}, or --weights random.")
    said = files.head(weights).labels
    known = [(label,) for label in said] or published
    if len(known) != classes:
        has = f"has {counted(len(said), 'names')} in its metadata" if said else "does not name them"
        raise WrongUse(
            f"The weights of {model} have {counted(classes, 'classes')} and {weights.file} {has}: "
            f"write `labels`, a JSON list, into the metadata of a safetensors file, or leave out {OPTION}."
        )
    return known


def matches(labels: Sequence[str], known: Sequence[Sequence[str]]) -> dict[int, int]:
    """Return which old class a new one has the name of, both by number.

    Case, spaces, ``_`` and ``-`` make no difference, and of ``tabby, tabby cat`` each part is a name. Where a name is
    that of several old classes, or several new classes are one old one, nothing is said of them.
    """
    owners: defaultdict[str, set[int]] = defaultdict(set)
    for number, own in enumerate(known):
        for name in _parts(own):
            owners[_plain(name)].add(number)
    found = {new: owners.get(_plain(label), set()) for new, label in enumerate(labels)}
    single = {new: next(iter(old)) for new, old in found.items() if len(old) == 1}
    often = Counter(single.values())
    return {new: old for new, old in single.items() if often[old] == 1}


def _parts(own: Sequence[str]) -> list[str]:
    return [part.strip() for name in own for part in (name, *name.split(",")) if part.strip()]


def _plain(name: str) -> str:
    return _ALIKE.sub("", name).casefold()


def _near(labels: Sequence[str], known: Sequence[Sequence[str]]) -> str:
    """Return names of old classes that are like those of the new ones, in brackets; without any, the first ones."""
    choices = {f" {part.casefold()} ": part for own in known for part in _parts(own)}
    near = []
    for label in labels[:ASKED]:
        name = f" {_ALIKE.sub(' ', label).casefold()} "
        having = [choice for choice in choices if name in choice]
        near += [choices[found] for found in (having or difflib.get_close_matches(name, choices, 1))[:2]]
    if near:
        return f" (nearest: {', '.join(dict.fromkeys(near))})"
    return f" (such as {', '.join(own[0] for own in known[:3])})"


def _copy(new: nn.Module, old: nn.Module, rows: Mapping[int, int], classes: tuple[int, int]) -> bool:
    """Copy rows, and norms as a whole; return whether there were layers that have rows."""
    before = dict(old.named_modules())
    to, of = torch.tensor(list(rows)), torch.tensor(list(rows.values()))
    found = False
    for path, module in new.named_modules():
        source = before.get(path)
        if source is None or type(source) is not type(module):
            continue
        own, theirs = module.state_dict(), source.state_dict()
        linear = isinstance(module, nn.Linear | nn.Conv2d)
        if linear and (len(own["weight"]), len(theirs["weight"])) == classes:
            found = True
            for name, tensor in own.items():
                tensor[to] = theirs[name][of]
        elif not linear and not list(module.children()):
            module.load_state_dict(theirs)
    return found

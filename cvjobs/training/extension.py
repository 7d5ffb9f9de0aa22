"""A run that is asked for more epochs: what it keeps of its first command, and the sentence where it cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cvjobs.common import fingerprint
from cvjobs.common.errors import WrongUse
from cvjobs.storage.store import Store
from cvjobs.training.loop import checkpoints
from cvjobs.training.recipe import lr_schedule, recipe
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.training_summary import TrainingSummary

BEGUN = "begun_epochs"  # in ``config.json`` and in checkpoints: the epochs of the first command, where there are more


def begun_epochs(store: Store, earlier: Mapping[str, Any], asked: int) -> int:
    """Return the epochs that the first command of a run asked for; ``asked`` of one that begins.

    A record that is gone leaves the checkpoints, which know.
    """
    if earlier:
        return int(earlier.get(BEGUN, earlier.get("epochs", asked)))
    newest = next(checkpoints.whole(store), None)
    return int(newest.meta.get(BEGUN, asked)) if newest is not None else asked


def kept(asked: Recipe, begun: int, *, warmup_asked: bool) -> Recipe:
    """Return a recipe with the warm-up of the first command, where it follows from the epochs and nobody asked."""
    if warmup_asked or begun >= asked.epochs:
        return asked
    return replace(asked, warmup_epochs=recipe.shortened(asked.warmup_epochs, begun))


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs between the records of a run and of a command.

    A setting that came later is in a record only where it is used.
    """
    unused = fingerprint.facts(Recipe(epochs=1))
    dropped = [name for name in unused if name in earlier and name not in now and earlier[name] != unused[name]]
    return [name for name in (*now, *dropped) if name != BEGUN and earlier.get(name) != now.get(name)]


def wanted(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the number of epochs is all that differs between the records of a run and of a command.

    Of fewer epochs the warm-up may, too, which follows from them.
    """
    different = set(differing(earlier, now))
    if different == {"epochs", "warmup_epochs"}:
        return bool(earlier) and now["epochs"] < earlier.get("epochs", 0)
    return bool(earlier) and different == {"epochs"}


def check(store: Store, earlier: Mapping[str, Any], asked: Recipe) -> None:
    """Raise WrongUse where a run cannot go on to the state that it would have, had all epochs been asked at first."""
    before = earlier.get("epochs", 0)
    if asked.epochs < before:
        raise WrongUse(
            f"{store.place} has --epochs {before}, which do not become fewer: give --epochs {before} to go on with it, "
            "choose another -o, or give --overwrite to begin anew."
        )
    if bound := lr_schedule.bound(asked):
        raise WrongUse(
            f"{store.place} was begun with --epochs {before}, and {bound} the number of epochs: "
            f"train on from what it learnt with --weights {store.place} -o NEW."
        )
    done = TrainingSummary.read(store)
    if done is not None and done.stopped_early:
        raise WrongUse(
            f"{store.place} ended after {done.epochs} epochs for --patience {asked.patience}, and more --epochs change "
            f"nothing: train on from what it learnt with --weights {store.place} -o NEW."
        )

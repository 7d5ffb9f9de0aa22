"""What makes two trainings the same one, noted in the run's folder: what is continued, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cvjobs.common import fingerprint, rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.fingerprint import digest, facts
from cvjobs.dataset import contents, sealed
from cvjobs.images.transform import Transform
from cvjobs.storage.store import Store
from cvjobs.training import artifacts, extension
from cvjobs.training.loop import checkpoints
from cvjobs.training.plan import HISTORY, OF_OBJECTS, SplitPart, Subject, TrainPlan
from cvjobs.training.recipe.recipe import Recipe
from cvjobs.training.training_summary import FILE as SUMMARY

CONFIG = contents.RUN_CONFIG
# Settings that records of before say nothing of.
LATER: dict[str, Any] = {
    "scale_jitter": [],
    "anchors": "default",
    "box_loss": "auto",
    "mosaic": 0.0,
    "copy_paste": 0.0,
}
ANCHORS = "anchors_given"  # in a record
_LATER = ("team", "pictures", "splits", "canvases")  # rules that a record of before says nothing of


@dataclass(frozen=True, kw_only=True)
class TrainRules:
    """The versions of the rules by which a training's images are listed, named, split, kept and seen, and its team."""

    listing: int = rules.LISTING
    labels: int = rules.LABELS
    team: int = rules.TEAM
    pictures: int = rules.PICTURES
    splits: int = rules.SPLITS
    canvases: int = rules.CANVASES

    @property
    def whole(self) -> bool:
        """Whether random crops are taken from whole pictures, not from the squares in their middle."""
        return self.pictures > rules.FIRST

    @property
    def record(self) -> dict[str, int]:
        """What a run's record says of them; nothing of what it was not known that there could be another."""
        said: dict[str, int] = facts(self)
        for name in _LATER:
            if said[name] == rules.FIRST:
                del said[name]
        return said if set(said.values()) != {rules.FIRST} else {}


@dataclass(frozen=True, kw_only=True)
class TrainIdentity:
    """What is trained and how; with its images it is what makes two trainings the same one.

    A run's record has the listed images, which are known before any is decoded; a checkpoint's digest has those that
    could be decoded, in their order, which a position means nothing without. ``begun_epochs`` are those of the run's
    first command, by which all checkpoints are known: a longer run goes on from them.
    """

    subject: Subject
    weights_sha256: str
    recipe: Recipe
    batch: int
    precision: str
    begun_epochs: int

    @classmethod
    def of(cls, plan: TrainPlan) -> TrainIdentity:
        """Return that of a plan."""
        return cls(
            subject=plan.subject,
            weights_sha256=plan.weights_sha256,
            recipe=plan.recipe,
            batch=plan.batch,
            precision=plan.precision,
            begun_epochs=plan.begun_epochs or plan.recipe.epochs,
        )

    def record(
        self, data: str, max_pixels: int, transform: Transform, by: TrainRules, cache_side: int = 0
    ) -> dict[str, Any]:
        """Return what ``config.json`` says of a run, as JSON.

        Args:
            data: The identity of the listed images, as ``LabelledImages.identity``.
            max_pixels: What fails to be decoded.
            transform: How the model sees images in evaluation.
            by: How images are listed, labelled and kept.
            cache_side: The shorter side of whole pictures in pixels, by rules that have them.
        """
        subject = self.subject
        own: dict[str, Any] = {"dim": subject.dim}
        if subject.classes:
            own = {"classes": list(subject.classes), "init_head_from_labels": subject.init_head}
        if subject.task in OF_OBJECTS:
            own = {"classes": list(subject.classes), "backbone": subject.backbone, **_anchors(subject)}
        values = {
            "task": subject.task,
            **own,
            "seed": subject.seed,
            "model": subject.model,
            "weights": self.weights_sha256,
            "data": data,
            "batch_size": self.batch,
            "precision": self.precision,
            "max_pixels": max_pixels,
            "transform": transform.record(),
            **recipe_facts(self.recipe),
        }
        if self.begun_epochs != self.recipe.epochs:
            values[extension.BEGUN] = self.begun_epochs
        if by.record:
            values["rules"] = by.record
        if by.whole:
            values["cache_side"] = cache_side
        record: dict[str, Any] = json.loads(json.dumps(values))
        return record

    def checkpoint_digest(self, train: SplitPart) -> str:
        """Return what a checkpoint can be continued with: the same images in the same order, and the same settings."""
        own: dict[str, Any] = {}
        if train.objects is not None:
            own = {"objects": train.objects.digest, "backbone": self.subject.backbone, **_anchors(self.subject)}
        return digest(
            {
                **own,
                "paths": digest({"paths": list(train.paths)}),
                "labels": train.labels.tolist(),
                "recipe": recipe_facts(self.recipe) | {"epochs": self.begun_epochs},
                "batch": self.batch,
                "seed": self.subject.seed,
                "weights": self.weights_sha256,
                "init_head": self.subject.init_head,
                "precision": self.precision,
            }
        )


def _anchors(subject: Subject) -> dict[str, Any]:
    """Return the anchors that a detector was given, nothing of one with its own."""
    return {ANCHORS: subject.anchors.record()} if subject.anchors is not None else {}


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe as JSON, but for those that came later and are not used."""
    return {name: value for name, value in facts(recipe).items() if name not in LATER or value != LATER[name]}


def earlier(store: Store) -> dict[str, Any]:
    """Return what a run was begun with, empty where there is none.

    Raises:
        WrongUse: its file is damaged, or of something else.
    """
    try:
        identity: dict[str, Any] = dict((sealed.unpack(store.read(CONFIG)) or {})["identity"])
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        if checkpoints.shelf(store).begun():
            raise WrongUse(
                f"{store.place}/{CONFIG} is damaged: delete it, and a command of the same settings continues from the "
                "checkpoints; or give --overwrite to begin anew."
            ) from None
        raise WrongUse(f"{store.place}/{CONFIG} is no run's: choose another -o, or give --overwrite.") from None
    return identity


def rules_of(earlier: dict[str, Any]) -> TrainRules:
    """Return the rules that a run was begun by, given its record; the newest for one that begins."""
    if not earlier:
        return TrainRules()
    then = earlier.get("rules") or {}
    return TrainRules(**{name: then.get(name, rules.FIRST) for name in facts(TrainRules())})


def check(store: Store, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise WrongUse with the difference where a run was begun with other settings or images."""
    different = extension.differing(earlier, now)
    if not different:
        return
    words = {"data": "other images or labels", "classes": "other classes", "weights": "other weights"}
    shown = [
        words.get(name) or f"{name.replace('_', '-')} {_short(_of(earlier, name))}, not {_short(_of(now, name))}"
        for name in different[:3]
    ]
    # What a person does with more images, or classes, is a run of its own that begins with what this one learnt.
    more = f" (with --weights {store.place} -o NEW it begins with what this one learnt)" if "data" in different else ""
    raise WrongUse(
        f"{store.place} was begun with {'; '.join(shown)}: choose another -o{more}, or give --overwrite to begin anew."
    )


def compiled(store: Store) -> bool:
    """Return whether the network of a run is compiled, which is no part of its identity; older records do not say."""
    try:
        return (sealed.unpack(store.read(CONFIG)) or {}).get("compiled") is True
    except (FileNotFoundError, ValueError):
        return False


def own_caches(store: Store) -> bool:
    """Return whether the machines of a cluster may decode a run into caches of their own; older records do not say.

    Of a run that does not say it the command's machine decodes for all workers, into the run's folder.
    """
    try:
        return (sealed.unpack(store.read(CONFIG)) or {}).get("own_caches") is True
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def note(
    store: Store, identity: dict[str, Any], *, compiled: bool, anew: bool, check: Callable[[], None] = lambda: None
) -> None:
    """Note what a run is begun or continued with; ``anew`` deletes what an earlier one left.

    The summary goes first: a run of which more epochs are asked has not ended any more. ``check`` may refuse all of it
    by raising.

    Raises:
        WrongUse: the run has a history and no checkpoints.
    """
    check()
    own = anew or own_caches(store)
    store.delete(SUMMARY)
    if anew:
        checkpoints.shelf(store).forget(check)
        store.delete("tensorboard", HISTORY, CONFIG)
    libraries = fingerprint.libraries()
    record = {"identity": identity, "command": "train", "libraries": libraries, "compiled": compiled, "own_caches": own}
    artifacts.record(store, CONFIG, record)
    if store.size(HISTORY) and not checkpoints.shelf(store).begun():
        raise WrongUse(
            f"{store.place} has a {HISTORY} and no checkpoints, and training does not silently start over: "
            "bring them back, or give --overwrite."
        )


def _of(record: dict[str, Any], name: str) -> Any:
    """Return what a record says of a setting, also where it says nothing of one that came later."""
    return record.get(name, LATER.get(name))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text.strip('"') if len(text) <= 60 else f"{text[:57]}..."

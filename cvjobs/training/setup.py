"""What a training works with, looked up and checked before it holds its folder: images, model, precision, batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.common.progress import Progress
from cvjobs.common.rules import FIRST
from cvjobs.dataset import contents
from cvjobs.dataset.lock import Lock
from cvjobs.networks import detector_training, registry, torch_network
from cvjobs.networks.detection.detector_anchors import DetectorAnchors
from cvjobs.networks.licences import Licence
from cvjobs.networks.trainable import Trainable
from cvjobs.sources.listing import list_source
from cvjobs.sources.rows import Listing
from cvjobs.storage.object_store import address
from cvjobs.storage.store import Store, begun_store
from cvjobs.training import extension, identity
from cvjobs.training import plan as plans
from cvjobs.training.checks import compilation
from cvjobs.training.checks.batch_size import AUTO, Case
from cvjobs.training.data import (
    box_labels,
    fitted_anchors,
    instance_store,
    labels,
    mask_labels,
    mask_store,
    omissions,
)
from cvjobs.training.data.labels import LabelledImages
from cvjobs.training.identity import TrainIdentity, TrainRules
from cvjobs.training.loop import task_registry
from cvjobs.training.loop.resources import Resources
from cvjobs.training.plan import OF_OBJECTS, SplitPart, Subject, TrainPlan
from cvjobs.training.predecessor import predecessor
from cvjobs.training.request import TrainRequest

ENOUGH = 1.5  # times the side that a network sees: what random crops need of a picture's shorter side


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A request whose batch size is a number, with what it names.

    ``cache_side`` is the shorter side of the pictures that crops are taken from, 0 where they are squares.
    ``earlier`` is the record of the run that is continued, empty where one begins; ``begun_epochs`` are those of the
    run's first command. ``compiled`` is whether the network is. ``licence`` is that of what training begins with.
    """

    request: TrainRequest
    labelled: LabelledImages
    subject: Subject
    case: Case
    earlier: dict[str, Any]
    rules: TrainRules
    begun_epochs: int
    compiled: bool
    licence: Licence
    cache_side: int

    @property
    def longer(self) -> bool:
        """Whether more epochs are asked of the run than the last command did, or fewer, and nothing else."""
        return extension.wanted(self.earlier, self.record)

    @property
    def most_failed(self) -> float:
        """The share of images that may fail; any, where a run is continued that was begun before there was one."""
        return self.request.max_error_rate if self.rules.labels > FIRST else 1.0

    @property
    def trainable(self) -> Trainable:
        """The model that training begins with."""
        return self.case.trainable

    @property
    def record(self) -> dict[str, Any]:
        """What makes two trainings the same one, as JSON."""
        identified = TrainIdentity(
            subject=self.subject,
            weights_sha256=self.trainable.weights.sha256,
            recipe=self.request.recipe,
            batch=self.request.batch_size,
            precision=self.case.precision,
            begun_epochs=self.begun_epochs,
        )
        data, transform = self.labelled.identity, self.trainable.transform
        return identified.record(data, self.request.max_pixels, transform, self.rules, self.cache_side)

    def leave(self, held: Lock) -> None:
        """Write what is known of the images beside their classes into the run that is held, for its workers."""
        run = begun_store(held.store.place, self.request.storage, held.check)
        mask_store.leave(run, self.labelled, self.cache_side)
        instance_store.leave(run, self.labelled, self.cache_side)

    @property
    def _trimmed(self) -> bool:
        """Whether the canvases of a detector end where its pictures do."""
        return self.rules.canvases > FIRST and getattr(self.trainable.module, "any_size", False)

    def plan(self, run: str, parts: Mapping[str, SplitPart]) -> TrainPlan:
        """Return what every worker is told of a run in a folder, with its decoded images."""
        request = self.request
        return TrainPlan(
            run=run,
            subject=self.subject,
            weights_sha256=self.trainable.weights.sha256,
            multilabel=self.labelled.multilabel,
            tensorboard=request.tensorboard,
            recipe=request.recipe,
            batch=request.batch_size,
            precision=self.case.precision,
            transform=self.trainable.transform,
            train=parts["train"],
            val=parts["val"],
            memory=self.case.need(request.batch_size) or 0,
            flops=self.case.needed.flops if self.case.needed is not None else 0.0,
            compiled=self.compiled,
            begun_epochs=self.begun_epochs,
            canvas_step=detector_training.CANVAS_STEP if self._trimmed else 0,
            limited=request.spending.limited,
            storage=request.storage,
            licence=self.licence,
        )


def setup(request: TrainRequest, store: Store, resources: Resources, progress: Progress) -> Setup:
    """Look up what a request names; nothing is written.

    Raises:
        WrongUse: there are no such images or labels, no such model, or settings that these cannot have; or the folder
            holds the output of another command.
    """
    contents.check(store, contents.RUN)
    _check_cache(request)
    progress.phase("listing", f"listing {request.data}")
    earlier = {} if request.overwrite else identity.earlier(store)
    then = identity.rules_of(earlier)
    resources = resources.ruled(then.team)
    asked_epochs = request.recipe.epochs
    begun = asked_epochs if request.overwrite else extension.begun_epochs(store, earlier, asked_epochs)
    request = replace(request, recipe=extension.kept(request.recipe, begun, warmup_asked=request.warmup_asked))
    listing = list_source(
        box_labels.images_of(request.data) if request.task in OF_OBJECTS else request.data,
        dict(request.storage),
        confine=request.confine,
        exclude=request.exclude,
        links=True,
        columns=("label", "labels", "split"),
        rules=then.listing,
    )
    labelled = _labelled(request, listing, then, progress)
    progress.phase("looking up the model")
    subject = _subject(request, labelled)
    named = {"classify": "train", "instance": "segment"}.get(request.task, request.task)
    licensed, named = (request.backbone, "train") if request.backbone else (request.model, named)
    licence = registry.accepted(licensed, named, request.weights, request.accept_licence, begun=bool(earlier))
    trainable = subject.trainable()
    if subject.task == "detect" and (anchors := _anchors(request, labelled, earlier, trainable, progress)):
        subject = replace(subject, anchors=anchors)
        trainable = subject.trainable()
    transform = replace(trainable.transform, bits=request.bits or trainable.transform.bits)
    if earlier:
        transform = trainable.transform.like(earlier.get("transform"), request.bits)
    trainable = replace(trainable, transform=replace(transform, truncated=request.truncated))
    subject = replace(subject, model=trainable.name)  # in full
    _check_sizes(request, trainable)
    side = min(trainable.transform.size or (0,))
    task_registry.named(request.task).check(request.recipe, subject, side, labelled.multilabel)
    asked = earlier.get("precision", "auto") if request.precision == "auto" else request.precision
    case = Case(
        trainable=trainable,
        recipe=request.recipe,
        precision=_precision(asked, resources),
        resources=resources,
        images=len(labelled.splits["train"]),
    )
    progress.phase("estimating", "measuring the batch size" if request.batch_size == AUTO else "estimating a step")
    batch = case.batch(request.batch_size, earlier)
    before = identity.compiled(store) if earlier else None
    compiled = request.task not in OF_OBJECTS and compilation.decided(request.compile, before, case, progress.note)
    # The curves of a longer run are whole, also where the command that adds to it does not ask for them again.
    curves = request.tensorboard or (begun != asked_epochs and bool(store.names("tensorboard")))
    return Setup(
        request=replace(request, batch_size=batch, tensorboard=curves),
        labelled=labelled,
        subject=subject,
        case=case,
        earlier=earlier,
        rules=then,
        begun_epochs=begun,
        compiled=compiled,
        licence=licence,
        cache_side=_cache_side(request, side, earlier, then),
    )


def _labelled(request: TrainRequest, listing: Listing, then: TrainRules, progress: Progress) -> LabelledImages:
    """Return the images of a listing with what the task learns of them."""
    if request.task in (*OF_OBJECTS, "segment"):
        if request.task == "segment":
            void, names = request.void, request.mask_names
            found = mask_labels.masked(listing, request.val, void=void, names=names, splits=then.splits)
        else:
            masks = request.task == "instance"
            found = box_labels.label(request.data, listing, request.val, then.splits, masks=masks)
        for line in omissions.lines(found.beside):
            progress.note(line.strip())
        return found
    if request.task == "classify":
        return labels.label(listing, request.val, then.labels, then.splits)
    return labels.unlabelled(listing, request.val, then.labels)


def _anchors(
    request: TrainRequest,
    labelled: LabelledImages,
    earlier: Mapping[str, Any],
    trainable: Trainable,
    progress: Progress,
) -> DetectorAnchors | None:
    """Return the anchors that a detector is given: fitted ones, those of the run that it begins with, None for its own.

    A run that is continued has those that it was begun with.
    """
    if request.recipe.anchors != "auto":
        before = predecessor(request.weights)
        return before.anchors if before is not None else None
    found = DetectorAnchors.of(earlier.get(identity.ANCHORS))
    if found is None:
        side = min(trainable.transform.size or (0,))
        found = fitted_anchors.fitted(labelled, request.model, request.backbone, side)
    progress.note(f"anchors fitted to the boxes: {found.reached}")
    return found


def _precision(asked: str, resources: Resources) -> str:
    """Return what a precision comes to; a cluster is asked only where it decides."""
    if asked != "auto":
        return plans.resolved(asked, "cpu")
    return resources.first.precision if resources.first else plans.resolved(asked, resources.device)


def _check_cache(request: TrainRequest) -> None:
    """Raise WrongUse where images are to pass that are taken in another order than they come."""
    for wanted, option in (
        (request.recipe.sampling == "balanced", "--sampling balanced"),
        (request.find_lr, "--find-lr"),
    ):
        if request.cache_size and wanted:
            raise WrongUse(f"{option} needs all images decoded: leave out --cache-size.")


def _cache_side(request: TrainRequest, side: int, earlier: Mapping[str, Any], by: TrainRules) -> int:
    """Return the shorter side of whole pictures: what is asked for, what the run began with, or half more than it sees.

    Raises:
        WrongUse: it is asked of a run that was begun before there were any.
    """
    if by.whole:
        return request.cache_side or int(earlier.get("cache_side") or round(ENOUGH * side))
    if request.cache_side:
        raise WrongUse(
            f"{request.out} was begun with the squares in the middle of images, which have no --cache-side: "
            "leave it out, choose another -o, or give --overwrite to begin anew."
        )
    return 0


def _subject(request: TrainRequest, labelled: LabelledImages) -> Subject:
    sizes = request.recipe.img_size
    named = request.weights in ("pretrained", "random") or address(request.weights)
    before = predecessor(request.weights)
    return Subject(
        task=request.task,
        model=request.model,
        weights=request.weights if named else os.path.abspath(request.weights),  # workers have folders of their own
        classes=labelled.classes,
        dim=request.dim,
        side=sizes[-1] if sizes else None,
        seed=request.seed,
        backbone=request.backbone,
        init_head=request.init_head_from_labels
        or (request.task not in OF_OBJECTS and bool(before and before.inherited(labelled.classes))),
    )


def _check_sizes(request: TrainRequest, trainable: Trainable) -> None:
    """Raise WrongUse where images are to grow and the model cannot take the small ones."""
    sizes = request.recipe.img_size
    if len(sizes) < 2 or request.task in (*OF_OBJECTS, "segment"):  # these take images of any size
        return
    try:
        torch_network.vector_length(trainable.module, trainable.name, (sizes[0], sizes[0]))
    except (RuntimeError, AssertionError, ValueError, WrongUse):
        raise WrongUse(f"{trainable.name} takes images of one size: give --img-size one number.") from None

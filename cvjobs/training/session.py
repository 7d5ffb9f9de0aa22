"""One `cvjobs train` from its data to its summary."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from cvjobs import devices, extras, heap, networks
from cvjobs.dataset import lease
from cvjobs.decoding.lanes import Nursery
from cvjobs.errors import WrongUse
from cvjobs.listing import list_source
from cvjobs.progress import Progress
from cvjobs.recipes.settings import Recipe
from cvjobs.records import facts
from cvjobs.stopping import Stop, stoppable
from cvjobs.storage import LocalStore, open_store
from cvjobs.trainees import Trainee
from cvjobs.training import cache, data, identity, leaving, overfit, page, rates, staffing, tasks
from cvjobs.training import plan as plans
from cvjobs.training.data import Labelled, Leak
from cvjobs.training.intake import Intake
from cvjobs.training.live import Live
from cvjobs.training.loop import Loop, State
from cvjobs.training.plan import HISTORY, Part, Plan, Subject
from cvjobs.training.sizing import Case
from cvjobs.training.staffing import Staff
from cvjobs.training.summary import FILE, Summary
from cvjobs.training.survey import survey
from cvjobs.training.tasks.classify import balanced_accuracy
from cvjobs.training.team import Alone

CACHE = "cache"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for; see the options of ``jobs/train.py``."""

    data: str
    out: str
    task: plans.Task
    model: str
    dim: int
    weights: str
    init_head_from_labels: bool
    recipe: Recipe
    batch_size: int  # ``sizing.AUTO``: as many as fit
    seed: int
    precision: str
    val: float
    workers: int | str | None
    cache: str | None
    max_pixels: int
    overwrite: bool
    find_lr: bool
    tensorboard: bool
    overfit_check: bool
    storage: Mapping[str, str] = field(repr=False)
    address: str | None


def train(order: Order, nursery: Nursery) -> Summary | rates.Found:
    """Train, or continue, or say that there is nothing to do; or only find a learning rate.

    Raises a CvjobsError with one sentence for everything a user can cause; bad images are rows of ``errors.parquet``.
    """
    began = time.monotonic()
    if order.tensorboard:
        extras.load("tensorboard", "--tensorboard")
    store = open_store(order.out)
    if not isinstance(store, LocalStore):
        raise WrongUse("A training run is a folder that its workers map into memory: choose an -o on a file system.")
    # A search for a rate is made in this process.
    staff = staffing.staff(*((1, None) if order.find_lr else (order.workers, order.address)))
    with Progress("train") as progress, stoppable() as stop, heap.kept():
        progress.say(f"listing {order.data}")
        listing = list_source(order.data, dict(order.storage))
        labelled = data.label(listing, order.val) if order.task == "classify" else data.unlabelled(listing, order.val)
        earlier = identity.earlier(store)
        progress.say("looking up the model")
        subject = _subject(order, labelled)
        trainee = subject.trainee()
        subject = replace(subject, model=trainee.name)  # in full
        _check_sizes(order, trainee)
        side = min(trainee.transform.size or (0,))
        tasks.named(order.task).check(order.recipe, subject, side, labelled.several)
        precision = plans.resolved(
            earlier.get("precision", "auto") if order.precision == "auto" else order.precision, staff.device
        )
        images = len(labelled.splits["train"])
        case = Case(trainee=trainee, recipe=order.recipe, precision=precision, staff=staff, images=images)
        order = replace(order, batch_size=case.batch(order.batch_size, {} if order.overwrite else earlier))
        now = _identity(order, labelled, subject, trainee, precision)
        if earlier and not order.overwrite and not order.find_lr:
            identity.check(store, earlier, now)
            if (done := Summary.read(store)) is not None:
                if order.tensorboard:
                    _complete(done, now)
                return done
        case.check(order.batch_size)
        held = lease.acquire(store)
        try:
            stop.guarded = True
            found = _Found(order=order, store=store, labelled=labelled, subject=subject, case=case)
            session = _Session(found, nursery, progress, stop)
            if order.find_lr:
                return session.find_rate(staff)
            identity.note(store, now, anew=order.overwrite)
            return session.run(staff, began)
        finally:
            held.release()


def _complete(done: Summary, identity: dict[str, Any]) -> None:
    """Write TensorBoard's files of a run that ended without them."""
    from cvjobs.training import events

    history = pq.read_table(Path(done.out) / HISTORY).to_pylist()
    settings = {name: value for name, value in identity.items() if name not in ("data", "classes", "transform")}
    events.complete(done.out, done.metric_name, settings, history)


def _subject(order: Order, labelled: Labelled) -> Subject:
    sizes = order.recipe.img_size
    named = order.weights in ("pretrained", "random")
    return Subject(
        task=order.task,
        model=order.model,
        weights=order.weights if named else os.path.abspath(order.weights),  # workers have folders of their own
        classes=labelled.classes,
        dim=order.dim,
        side=sizes[-1] if sizes else None,
        seed=order.seed,
        init_head=order.init_head_from_labels,
    )


def _check_sizes(order: Order, trainee: Trainee) -> None:
    """Raise WrongUse where images are to grow and the model cannot take the small ones."""
    sizes = order.recipe.img_size
    if len(sizes) < 2:
        return
    try:
        networks.vector_length(trainee.module, trainee.name, (sizes[0], sizes[0]))
    except (RuntimeError, AssertionError, ValueError, WrongUse):
        raise WrongUse(f"{trainee.name} takes images of one size: give --img-size one number.") from None


def _identity(order: Order, labelled: Labelled, subject: Subject, trainee: Trainee, precision: str) -> dict[str, Any]:
    """Return what makes two trainings the same one, as JSON."""
    record: dict[str, Any] = json.loads(
        json.dumps(
            {
                **plans.identified(subject),
                "model": subject.model,
                "weights": trainee.weights.sha256,
                "data": labelled.identity,
                "batch_size": order.batch_size,
                "precision": precision,
                "max_pixels": order.max_pixels,
                "transform": facts(trainee.transform),
                **facts(order.recipe),
            }
        )
    )
    return record


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a run works with, and on."""

    order: Order
    store: LocalStore
    labelled: Labelled
    subject: Subject
    case: Case


class _Session:
    """A run that holds its folder."""

    def __init__(self, found: _Found, nursery: Nursery, progress: Progress, stop: Stop) -> None:
        self._order, self._store, self._labelled = found.order, found.store, found.labelled
        self._subject, self._case, self._trainee = found.subject, found.case, found.case.trainee
        self._nursery, self._progress, self._stop = nursery, progress, stop
        self._live: Live | None = None
        self._intake = Intake(
            labelled=found.labelled,
            transform=self._trainee.transform,
            folder=found.order.cache or f"{found.store.place}/{CACHE}",
            max_pixels=found.order.max_pixels,
            storage=found.order.storage,
            nursery=nursery,
            progress=progress,
            stop=stop,
        )

    def run(self, staff: Staff, began: float) -> Summary:
        """Decode, train, score the test split, and leave the page and the summary."""
        parts = self._intake.parts()
        leaks = self._intake.note(self._store.place)
        plan = self._plan(parts)
        task = tasks.of(plan)
        seen = survey(self._labelled, parts, leaks, self._intake.doubles())
        self._progress.note(str(seen))
        begun = page.Begun(
            store=self._store,
            labelled=self._labelled,
            plan=plan,
            trainee=self._trainee,
            survey=seen,
            samples=(),
        )
        # The last bits of a sum depend on the threads, of which another job in this process may have left others.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or devices.cpus())
        with Live(begun) as self._live:
            if self._order.overfit_check and not self._store.names("checkpoints"):
                self._check(plan, staff)
            self._progress.say(f"starting {plan.subject.model}{self._case.words(plan.batch)}")
            (self._alone if staff.alone else self._together)(plan, staff)
        self._progress.say("writing the report")
        test = _tested(plan, task, parts["test"], torch.device(staff.device)) if "test" in parts else None
        summary = self._summary(plan, parts, leaks, test, time.monotonic() - began)
        split = "val" if test is None else "test"
        page.leave(
            page.Ended(
                **vars(self._live.begun),
                summary=summary,
                split=split,
                part=parts[split],
                file=task.file,
                storage=self._order.storage,
                nursery=self._nursery,
            )
        )
        leaving.record(self._store.place, FILE, summary.as_dict())
        if self._order.cache is None:
            cache.clear(self._intake.folder)
        return summary

    def find_rate(self, staff: Staff) -> rates.Found:
        """Decode, and find a learning rate in this process; the folder keeps what it says and the decoded images."""
        plan = self._plan(self._intake.parts(("train", "val")))
        self._progress.say(f"starting {plan.subject.model}")
        return rates.find(plan, torch.device(staff.device), self._watch)

    def _plan(self, parts: dict[str, Part]) -> Plan:
        order, trainee = self._order, self._trainee
        return Plan(
            run=self._store.place,
            subject=self._subject,
            weights_sha256=trainee.weights.sha256,
            several=self._labelled.several,
            tensorboard=order.tensorboard,
            recipe=order.recipe,
            batch=order.batch_size,
            precision=self._case.precision,
            transform=trainee.transform,
            train=parts["train"],
            val=parts["val"],
            memory=self._case.need(order.batch_size) or 0,
        )

    def _check(self, plan: Plan, staff: Staff) -> None:
        """Let a copy of the model learn the first batch, in this process; raises JobFailed where it cannot."""

        def tell(done: int, total: int, loss: float) -> bool:
            self._progress.show(done, total, "steps", f"the first batch by heart, loss {loss:.4f}", None)
            return self._stop.asked

        parts = plan.recipe.accumulate * staff.least  # as many images at once as a worker of the smallest team has
        self._progress.note(str(overfit.check(plan, torch.device(staff.device), parts, tell)))

    def _alone(self, plan: Plan, staff: Staff) -> None:
        Loop(plan, Alone(torch.device(staff.device)), self._watch, _warn).run()

    def _together(self, plan: Plan, staff: Staff) -> None:
        from cvjobs.training import distributing

        distributing.train(plan, staff, self._watch, _warn)

    def _watch(self, state: State) -> bool:
        done, total = (state.epoch - 1) * state.total + state.done, state.epochs * state.total
        best = f", best {state.metric:.4f}" if state.metric is not None else ""
        text = f"epoch {state.epoch}/{state.epochs}, loss {state.loss:.4f}{best}, {state.rate:,.0f} img/s"
        left = (total - done) * self._order.batch_size / state.rate if state.rate else None
        self._progress.show(done, total, "steps", text, left)
        if self._live is not None:
            self._live.look(state)
        return self._stop.asked

    def _summary(
        self, plan: Plan, parts: dict[str, Part], leaks: list[Leak], test: float | None, seconds: float
    ) -> Summary:
        history = pq.read_table(Path(plan.run) / HISTORY).to_pylist()
        metrics = [row["metric"] for row in history]
        best = metrics.index(max(metrics))
        return Summary(
            task=plan.subject.task,
            model=self._trainee.name,
            weights=self._trainee.weights.label,
            classes=len(plan.classes),
            inherited=self._trainee.inherited,
            images={name: len(part) for name, part in parts.items()},
            failed=sum(len(self._labelled.splits[name]) - len(part) for name, part in parts.items()),
            unlabelled=self._labelled.unlabelled,
            leaks=len(leaks),
            metric_name=tasks.of(plan).metric,
            epochs=len(history),
            best_epoch=best + 1,
            metric=metrics[best],
            test_metric=test,
            train_loss=history[best]["train_loss"],
            val_loss=history[best]["val_loss"],
            final_loss=history[-1]["train_loss"],
            images_per_second=round(history[-1]["images_per_second"], 1),
            seconds=round(seconds, 2),
            balanced_accuracy=_balanced(plan),
            stopped_early=len(history) < plan.recipe.epochs,
            parameters=self._trainee.parameters,
            memory=self._case.need(plan.batch),
            out=plan.run,
        )


def _tested(plan: Plan, task: tasks.Task, part: Part, device: torch.device) -> float:
    """Return the best model's metric on the test split, and add its scores to those of the val split."""
    network: Any = plan.trained()
    network = network.to(device, memory_format=torch.channels_last)
    found = task.scores(network, cache.Pictures(part.decoded), part, Alone(device))
    before = pq.read_table(Path(plan.run) / task.file)
    kept = before.filter(pa.array(np.asarray(before["split"]) == "val"))
    rows = task.table("test", part, found)
    leaving.table(plan.run, task.file, pa.concat_tables([kept, rows.cast(kept.schema)]))
    return found.metric


def _balanced(plan: Plan) -> float | None:
    """Return the best model's balanced accuracy on the val split, None where images have not one class each."""
    if not plan.classes or plan.several:
        return None
    rows = pq.read_table(Path(plan.run) / tasks.of(plan).file)
    rows = rows.filter(pc.equal(rows["split"], "val"))
    labels, said = (np.array(rows[name].to_pylist(), object) for name in ("label", "predicted"))
    return balanced_accuracy(labels, said)


def _warn(text: str) -> None:
    print(f"cvjobs: {text}.", file=sys.stderr, flush=True)

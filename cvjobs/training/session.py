"""One `cvjobs train` from its data to its summary: what it continues, what it refuses, and what it leaves behind."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cvjobs import context, devices, models, networks
from cvjobs import weights as files
from cvjobs.dataset import lease
from cvjobs.decoding.lanes import Nursery
from cvjobs.errors import WrongUse
from cvjobs.listing import list_source
from cvjobs.progress import Progress
from cvjobs.recipes.settings import Recipe
from cvjobs.records import Transform, facts
from cvjobs.source import open_source
from cvjobs.stopping import Stop, stoppable
from cvjobs.storage import LocalStore, open_store
from cvjobs.trainees import Trainee
from cvjobs.training import cache, data, leaving, page, rates
from cvjobs.training.data import Labelled, Split
from cvjobs.training.loop import Loop, State
from cvjobs.training.plan import ERRORS, HISTORY, LEAKS, MODEL, PREDICTIONS, Part, Plan, kind
from cvjobs.training.scoring import score
from cvjobs.training.summary import Summary
from cvjobs.training.team import Alone

CONFIG, SUMMARY = "config.json", "summary.json"
CACHE = "cache"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a user asks for; see the options of ``jobs/train.py``."""

    data: str
    out: str
    model: str
    weights: str
    recipe: Recipe
    batch_size: int
    seed: int
    precision: str
    val: float
    workers: int | None
    cache: str | None
    max_pixels: int
    overwrite: bool
    find_lr: bool
    storage: Mapping[str, str] = field(repr=False)
    address: str | None


def train(order: Order) -> Summary | rates.Found:
    """Train, or continue, or say that there is nothing to do; or only find a learning rate.

    Raises a CvjobsError with one sentence for everything a user can cause; bad images are rows of ``errors.parquet``.
    """
    began = time.monotonic()
    store = open_store(order.out)
    if not isinstance(store, LocalStore):
        raise WrongUse("A training run is a folder that its workers map into memory: choose an -o on a file system.")
    staff = _staff(order)
    with Progress("train") as progress, stoppable() as stop, closing(Nursery()) as nursery:
        progress.say(f"listing {order.data}")
        labelled = data.label(list_source(order.data, dict(order.storage)), order.val)
        earlier = _earlier(store)
        progress.say("looking up the model")
        trainee = _trainee(order, len(labelled.classes))
        precision = models.resolve_precision(
            earlier.get("precision", "auto") if order.precision == "auto" else order.precision, staff.device
        )
        identity = _identity(order, labelled, trainee, precision)
        if earlier and not order.overwrite and not order.find_lr:
            _check(store, earlier, identity)
            if (done := Summary.read(store)) is not None:
                return done
        held = lease.acquire(store)
        try:
            stop.guarded = True
            found = _Found(order=order, store=store, labelled=labelled, trainee=trainee, precision=precision)
            session = _Session(found, nursery, progress, stop)
            if order.find_lr:
                return session.find_rate(staff)
            _begin(order, store, identity)
            return session.run(staff, began)
        finally:
            held.release()


def _begin(order: Order, store: LocalStore, identity: dict[str, Any]) -> None:
    if order.overwrite:
        store.delete("checkpoints", SUMMARY, HISTORY, CONFIG)
    _write(store, CONFIG, {"identity": identity, "command": "train", "libraries": context.libraries()})
    if store.size(HISTORY) and not store.names("checkpoints"):
        raise WrongUse(
            f"{store.place} has a {HISTORY} and no checkpoints, and training does not silently start over: "
            "bring them back, or give --overwrite."
        )


@dataclass(frozen=True)
class _Staff:
    workers: int
    distributed: bool
    device: str


def _staff(order: Order) -> _Staff:
    gpus = devices.gpus()
    workers = order.workers or 1
    cores = gpus or devices.cpus()
    if not order.address and workers > cores:
        what = "GPU" if gpus else "core"
        raise WrongUse(
            f"--workers {workers} needs {workers} {what}s and this machine has {cores}: "
            f"use at most --workers {cores}, or --address of a cluster."
        )
    return _Staff(workers, workers > 1 or bool(order.address), "cuda" if gpus else "cpu")


def _trainee(order: Order, classes: int) -> Trainee:
    sizes = order.recipe.img_size
    side = sizes[-1] if sizes else None
    trainee = models.trainee(order.model, weights=order.weights, classes=classes, side=side, seed=order.seed)
    if len(sizes) == 2:
        try:
            networks.vector_length(trainee.module, trainee.name, (sizes[0], sizes[0]))
        except (RuntimeError, AssertionError, ValueError):
            raise WrongUse(f"{trainee.name} takes images of one size: give --img-size one number.") from None
    return trainee


def _identity(order: Order, labelled: Labelled, trainee: Trainee, precision: str) -> dict[str, Any]:
    """Return what makes two trainings the same one, as JSON."""
    record: dict[str, Any] = json.loads(
        json.dumps(
            {
                "model": trainee.name,
                "weights": trainee.weights.sha256,
                "data": labelled.identity,
                "classes": list(labelled.classes),
                "batch_size": order.batch_size,
                "seed": order.seed,
                "precision": precision,
                "max_pixels": order.max_pixels,
                "transform": facts(trainee.transform),
                **facts(order.recipe),
            }
        )
    )
    return record


def _earlier(store: LocalStore) -> dict[str, Any]:
    try:
        identity: dict[str, Any] = json.loads(store.read(CONFIG))["identity"]
        return identity
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise WrongUse(f"{store.place}/{CONFIG} is no run's: choose another -o, or give --overwrite.") from None


def _check(store: LocalStore, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise WrongUse with the difference where a run was begun with other settings or images."""
    different = [name for name in now if earlier.get(name) != now[name]]
    if not different:
        return
    words = {"data": "other images or labels", "classes": "other classes", "weights": "other weights"}
    shown = [
        words.get(name) or f"{name.replace('_', '-')} {_short(earlier.get(name))}, not {_short(now[name])}"
        for name in different[:3]
    ]
    raise WrongUse(
        f"{store.place} was begun with {'; '.join(shown)}: choose another -o, or give --overwrite to begin anew."
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text.strip('"') if len(text) <= 60 else f"{text[:57]}..."


def _write(store: LocalStore, name: str, record: dict[str, Any]) -> None:
    leaving.content(store.place, name, (json.dumps(record, indent=1) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a run works with, and on."""

    order: Order
    store: LocalStore
    labelled: Labelled
    trainee: Trainee
    precision: str


class _Session:
    """A run that holds its folder."""

    def __init__(self, found: _Found, nursery: Nursery, progress: Progress, stop: Stop) -> None:
        self._order, self._store, self._labelled = found.order, found.store, found.labelled
        self._trainee, self._precision = found.trainee, found.precision
        self._nursery, self._progress, self._stop = nursery, progress, stop
        self._tables: dict[str, pa.Table] = {}

    def run(self, staff: _Staff, began: float) -> Summary:
        """Decode, train, score the test split, and leave the page and the summary."""
        parts = self._parts(self._labelled.splits)
        leaks = self._note()
        plan = self._plan(parts)
        self._progress.say(f"starting {plan.model}")
        if staff.distributed:
            self._together(plan, staff)
        else:
            device = torch.device(staff.device)
            # The last bits of a sum depend on the threads, of which another job in this process may have left others.
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or devices.cpus())
            Loop(plan, Alone(device), self._watch, _warn).run()
        self._progress.say("writing the report")
        test = self._test(plan, parts["test"], torch.device(staff.device)) if "test" in parts else None
        summary = self._summary(plan, parts, leaks, test, time.monotonic() - began)
        page.leave(self._store, self._labelled, plan, summary, self._order.storage, self._nursery)
        _write(self._store, SUMMARY, summary.as_dict())
        if self._order.cache is None:
            cache.clear(self._cache)
        return summary

    def find_rate(self, staff: _Staff) -> rates.Found:
        """Decode, and find a learning rate in this process; the folder keeps what it says and the decoded images."""
        splits = self._labelled.splits
        plan = self._plan(self._parts({name: splits[name] for name in ("train", "val")}))
        self._progress.say(f"starting {plan.model}")
        return rates.find(plan, torch.device(staff.device), self._watch)

    def _parts(self, splits: Mapping[str, Split]) -> dict[str, Part]:
        parts = {name: self._part(name, split) for name, split in splits.items()}
        for name, part in parts.items():
            cache.checked(part.decoded, f"{name} with", 1)
        return parts

    @property
    def _cache(self) -> str:
        return self._order.cache or f"{self._store.place}/{CACHE}"

    def _part(self, name: str, split: Split) -> Part:
        """Decode a split; the training images keep the borders that random crops reach for."""
        transform = self._trainee.transform
        assert transform.size is not None
        if name == "train" and transform.fit == "short":
            side = max(transform.resize, *transform.size)
            transform = Transform(size=(side, side), resize=side, fit="short", interpolation=transform.interpolation)
        else:
            transform = Transform(
                size=transform.size, resize=transform.resize, fit=transform.fit, interpolation=transform.interpolation
            )
        listing = self._labelled.listing
        order = cache.Order(
            rows=split.rows,
            root=listing.root or listing.base,
            transform=transform,
            max_pixels=self._order.max_pixels,
            folder=self._cache,
        )
        source = open_source(listing.root, listing.base, dict(self._order.storage))
        self._progress.say(f"decoding {len(split):,} images to {name} with")
        tell = self._progress.counting(len(split))
        self._stop.guarded = False  # what is decoded is safe, and Ctrl-C may come at any time
        decoded, table = cache.decode(order, source, self._nursery, tell)
        self._stop.guarded = True
        self._tables[name] = table
        paths = table["path"].take(pa.array(decoded.rows)).to_pylist()
        return Part(decoded=decoded, paths=paths, labels=split.labels[decoded.rows])

    def _note(self) -> list[tuple[str, str, str, str]]:
        """Write the images that failed, and those that are in two splits; return the latter."""
        place = self._store.place
        failed = [
            table.filter(table["code"].is_valid())
            .drop_columns(["content_hash"])
            .add_column(1, "split", pa.array([name] * (table.num_rows - table["code"].null_count), pa.string()))
            for name, table in self._tables.items()
        ]
        leaving.table(place, ERRORS, pa.concat_tables(failed))
        good = {name: table.filter(table["code"].is_null()) for name, table in self._tables.items()}
        leaks = data.leaks({name: (t["path"].to_pylist(), t["content_hash"].to_pylist()) for name, t in good.items()})
        columns = ["split", "path", "train_path", "content_hash"]
        rows = [dict(zip(columns, leak, strict=True)) for leak in leaks]
        leaving.table(place, LEAKS, pa.Table.from_pylist(rows, pa.schema([(name, pa.string()) for name in columns])))
        return leaks

    def _plan(self, parts: dict[str, Part]) -> Plan:
        order, trainee = self._order, self._trainee
        sizes = order.recipe.img_size
        return Plan(
            run=self._store.place,
            model=trainee.name,
            weights=order.weights,
            weights_sha256=trainee.weights.sha256,
            classes=self._labelled.classes,
            several=self._labelled.several,
            side=sizes[-1] if sizes else None,
            seed=order.seed,
            recipe=order.recipe,
            batch=order.batch_size,
            precision=self._precision,
            transform=trainee.transform,
            train=parts["train"],
            val=parts["val"],
        )

    def _together(self, plan: Plan, staff: _Staff) -> None:
        from cvjobs.training import distributing

        gpu = staff.device != "cpu"
        each = max(devices.cpus() // staff.workers, 1) if not self._order.address else 1
        people = distributing.Staff(workers=staff.workers, cpus=each, gpu=gpu, address=self._order.address)
        distributing.train(plan, people, self._watch, _warn)

    def _watch(self, state: State) -> bool:
        done, total = (state.epoch - 1) * state.total + state.done, state.epochs * state.total
        best = f", best {state.metric:.4f}" if state.metric is not None else ""
        text = f"epoch {state.epoch}/{state.epochs}, loss {state.loss:.4f}{best}, {state.rate:,.0f} img/s"
        left = (total - done) * self._order.batch_size / state.rate if state.rate else None
        self._progress.show(done, total, "steps", text, left)
        return self._stop.asked

    def _test(self, plan: Plan, part: Part, device: torch.device) -> float:
        """Return the best model's metric on the test split, and add its predictions to those of the val split."""
        trainee = plan.trainee()
        trainee.module.load_state_dict(files.state(files.given(f"{plan.run}/{MODEL}")))
        network = trainee.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = score(
            network, cache.Pictures(part.decoded), part.labels, plan.transform, Alone(device), kind(plan.precision)
        )
        rows = leaving.predictions(plan, "test", part.paths, part.labels, found)
        before = pq.read_table(Path(plan.run) / PREDICTIONS)
        kept = before.filter(pa.array(np.asarray(before["split"]) == "val"))
        leaving.table(plan.run, PREDICTIONS, pa.concat_tables([kept, rows.cast(kept.schema)]))
        return found.metric

    def _summary(
        self,
        plan: Plan,
        parts: dict[str, Part],
        leaks: list[tuple[str, str, str, str]],
        test: float | None,
        seconds: float,
    ) -> Summary:
        history = pq.read_table(Path(plan.run) / HISTORY).to_pylist()
        metrics = [row["metric"] for row in history]
        best = metrics.index(max(metrics))
        return Summary(
            model=plan.model,
            weights=self._trainee.weights.label,
            classes=len(plan.classes),
            images={name: len(part) for name, part in parts.items()},
            failed=sum(len(self._labelled.splits[name]) - len(part) for name, part in parts.items()),
            unlabelled=self._labelled.unlabelled,
            leaks=len(leaks),
            metric_name="mAP" if plan.several else "top-1",
            epochs=len(history),
            best_epoch=best + 1,
            metric=metrics[best],
            test_metric=test,
            train_loss=history[best]["train_loss"],
            val_loss=history[best]["val_loss"],
            final_loss=history[-1]["train_loss"],
            images_per_second=round(history[-1]["images_per_second"], 1),
            seconds=round(seconds, 2),
            stopped_early=len(history) < plan.recipe.epochs,
            out=plan.run,
        )


def _warn(text: str) -> None:
    print(f"cvjobs: {text}.", file=sys.stderr, flush=True)

"""One `cvjobs train` from its data to its summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from cvjobs.clusters.allowance import Allowance
from cvjobs.clusters.link import Link
from cvjobs.common import devices, extras, malloc
from cvjobs.common.errors import TooManyFailed
from cvjobs.common.formatting import counted
from cvjobs.common.progress import Progress, tell
from cvjobs.common.signals import stoppable
from cvjobs.dataset import lock
from cvjobs.dataset.schema import REPORT
from cvjobs.images.decode_children import DecoderServer
from cvjobs.storage.object_store import address
from cvjobs.storage.store import Store, begun_store, open_store
from cvjobs.training import artifacts, conclusion, extension, identity, model_recovery, state_lines
from cvjobs.training.checks import batch_size, lr_range, overfit
from cvjobs.training.data import omissions, outcomes, own_cache
from cvjobs.training.data.class_statistics import Survey, survey
from cvjobs.training.data.prepare import Intake
from cvjobs.training.identity import TrainIdentity
from cvjobs.training.limits import TrainingLimits
from cvjobs.training.loop import checkpoints, task_registry
from cvjobs.training.loop.loop import Loop, State
from cvjobs.training.loop.process_group import Alone
from cvjobs.training.loop.resources import Resources, resources_for, torch_device, words
from cvjobs.training.plan import HISTORY, MODEL, SplitPart, TrainPlan
from cvjobs.training.predecessor import predecessor
from cvjobs.training.report import training_page
from cvjobs.training.report.live import Live
from cvjobs.training.report.page_sections import SECTIONS
from cvjobs.training.report.samples import COUNT, TrainingSample, samples
from cvjobs.training.request import TrainRequest
from cvjobs.training.setup import Setup, setup
from cvjobs.training.training_summary import FILE, TrainingSummary

_BEGUN = ("tensorboard", HISTORY, MODEL, REPORT)  # what a run has in its first epoch, beside checkpoints


def train(
    request: TrainRequest, decoder_server: DecoderServer, clock: Callable[[], float] | None = None
) -> TrainingSummary | lr_range.LearningRate:
    """Train, or continue, or say that there is nothing to do; or only find a learning rate.

    ``clock`` tells, for the limits of time and money, the seconds since the command began. Raises a CvjobsError with
    one sentence for everything a user can cause; bad images are rows of ``errors.parquet``.
    """
    if request.tensorboard:
        extras.load("tensorboard", "--tensorboard")
    store = open_store(request.out, options=request.storage)
    cache = own_cache.folder(store.place, request.cache)
    with Progress("train") as progress, stoppable() as stop, malloc.kept(), ExitStack() as stack:
        allowance = Allowance(request.spending, clock or (lambda: progress.phases.seconds))
        limits = TrainingLimits(allowance, progress.phases, stop)
        link = None
        if request.address and not request.find_lr:  # a search for a rate is made in this process
            link = stack.enter_context(closing(Link(request.address)))
        resources = _resources(request, limits, link)
        if not resources.address:
            allowance.machines.alone()
        made = setup(request, store, resources, progress)
        now = made.record
        if made.longer and not request.find_lr:
            extension.check(store, made.earlier, made.request.recipe)
        elif made.earlier and not request.find_lr:
            identity.check(store, made.earlier, now)
            if (done := _done(made, store)) is not None:
                if request.tensorboard:
                    _complete(done, store, now)
                return done
        omissions.check(made.labelled, omissions.listed(made.labelled), made.most_failed)
        progress.phase("estimating", "estimating the memory of a step")
        if not (made.earlier and request.address):  # a run of a cluster that was begun goes on
            made.case.check(made.request.batch_size)
        resources = made.case.resources
        with lock.held(store) as held:
            stop.guarded = True
            with closing(_Session(made, cache, held, decoder_server, progress, limits, link=link)) as session:
                made.leave(held)
                if request.find_lr:
                    return session.find_rate(resources)
                if not made.longer:
                    session.note()
                try:
                    return session.run(resources)
                except TooManyFailed:
                    session.note_failures()
                    if not made.earlier:  # nothing was begun that other data could not be used for
                        checkpoints.shelf(store).forget(held.check)
                        store.delete(identity.CONFIG, *_BEGUN)
                    raise


def _resources(request: TrainRequest, limits: TrainingLimits, link: Link | None) -> Resources:
    """Return who trains, in this process where a rate is searched for."""
    if link is None:
        return resources_for(1 if request.find_lr else request.workers, device=request.device)
    useful = (request.batch_size or batch_size.LARGEST) // 2  # batch norms need two images
    return resources_for(request.workers, link, request.device, useful, limits.check_start)


def _done(made: Setup, store: Store) -> TrainingSummary | None:
    """Return the summary of a run that has ended and has its model, which is made again where that is possible."""
    done = TrainingSummary.read(store, made.request.storage)
    if done is None or not artifacts.model_fault(store):
        return done
    with lock.held(store) as held:
        if not checkpoints.shelf(store).begun():
            model_recovery.check(store)
        if model_recovery.recover(begun_store(store.place, made.request.storage, held.check), made):
            return done
        store.delete(FILE)  # training continues
    return None


def _complete(done: TrainingSummary, store: Store, record: dict[str, Any]) -> None:
    """Write TensorBoard's files of a run that ended without them."""
    from cvjobs.training.report import tensorboard

    history = artifacts.rows(store, HISTORY).to_pylist()
    settings = {name: value for name, value in record.items() if name not in ("data", "classes", "transform")}
    tensorboard.complete(store, done.metric_name, settings, history)


class _Session:
    """A run that holds its folder."""

    def __init__(
        self,
        made: Setup,
        cache: str,
        held: lock.Lock,
        decoder_server: DecoderServer,
        progress: Progress,
        limits: TrainingLimits,
        *,
        link: Link | None,
    ) -> None:
        self._limits, stop, self._link = limits, limits.stop, link
        self._setup, self._request, self._held = made, made.request, held
        self._store = begun_store(held.store.place, made.request.storage, held.check)
        self._decoder_server, self._progress, self._stop = decoder_server, progress, stop
        self._live: Live | None = None
        self._news: Survey | None = None
        self._leaks = 0
        self._parts: dict[str, SplitPart] = {}
        self._intake = Intake(
            labelled=made.labelled,
            transform=made.trainable.transform,
            run=self._store.place,
            cache=made.request.cache,
            folder=cache,
            max_pixels=made.request.max_pixels,
            storage=made.request.storage,
            confine=made.request.confine,
            decoder_server=decoder_server,
            progress=progress,
            stop=stop,
            glance=self._glance,
            cache_side=made.cache_side,
            cache_size=made.request.cache_size,
            folder_of_run=own_cache.folder(self._store.place, None),
            seed=made.request.seed,
            most_failed=made.most_failed,
            elsewhere=self._elsewhere(made),
            seen_whole=made.subject.task == "segment",
            first=made.request.overfit_check and not checkpoints.shelf(self._store).begun(),
        )

    def _elsewhere(self, made: Setup) -> bool:
        """Return whether the machines of a cluster decode for their workers; of squares those that share no folder."""
        if not made.request.address or made.request.find_lr:
            return False
        shared = bool(made.cache_side) and (made.request.overwrite or identity.own_caches(self._store))
        return shared or address(self._store.place) is not None

    def _glance(self) -> None:
        """Raise OutputHeld where another run holds the folder now, and Stopped where a limit comes before training."""
        self._held.glance()
        self._limits.check_start()

    def run(self, resources: Resources) -> TrainingSummary:
        """Decode, train, score the test split, and leave the page and the summary."""
        self._limits.check_start()
        parts = self._parts = self._intake.parts()
        if self._request.overfit_check and not self._intake.bounded:
            self._intake.wait()
        self._look_for_news(parts)
        plan = self._setup.plan(self._store.place, parts)
        if self._intake.elsewhere:
            plan = replace(plan, decoding=self._intake.order, test=parts.get("test"))
        model_recovery.recover(self._store, self._setup, TrainIdentity.of(plan).checkpoint_digest(plan.train))
        if self._setup.longer:  # only now: images that cannot be decoded any more leave a run that has ended as it is
            self.note()
        begun = self._begun(plan, parts)
        # The last bits of a sum depend on the threads, of which another job in this process may have left others.
        torch.set_num_threads(devices.threads())
        self._progress.phase("page", "drawing samples of the images")
        with Live(begun, lambda: self._samples(plan)) as self._live:
            if self._request.overfit_check and not checkpoints.shelf(self._store).begun():
                self._check(plan, resources)
            self._intake.leave()
            self._progress.phase("starting", f"starting {plan.subject.model}{self._setup.case.words(plan.batch)}")
            self._limits.begin()
            with self._limits.told():
                tested = (self._alone if resources.alone else self._together)(plan, resources)
                parts = self._intake.known() if self._setup.cache_side else parts
                self._look_for_news(parts)
                tests = 0 if plan.decoding else len(parts.get("test", ()))  # else the workers have tested
                self._limits.rest(tests / len(plan.val))
            plan = replace(plan, val=parts["val"])
            begun = replace(self._live.begun, plan=plan)
        self._held.check()
        model_recovery.check(self._store)
        device = torch.device(torch_device(resources))
        if plan.decoding is None:
            if "test" in parts:
                self._progress.phase("testing", f"testing on {counted(len(parts['test']), 'images')}")
            check = self._held.check
            conclusion.scored(plan, device, check)
            tested = conclusion.tested(plan, parts["test"], device, check) if "test" in parts else None
        left_out = begun.survey.left_out
        summary = conclusion.summary(self._setup, plan, parts, leaks=self._leaks, left_out=left_out, test=tested)
        self._held.check()
        self._progress.phase("page", "writing the report")
        self._leave_page(begun, summary.at(self._progress.phases.spent(), begun.machines), parts)
        summary = summary.at(self._progress.phases.spent(), begun.machines)
        artifacts.record(self._store, FILE, summary.as_dict())
        if self._intake.elsewhere:
            self._store.delete(outcomes.OUTCOMES)
        self._intake.clear(kept=self._request.cache is not None)
        return summary

    def find_rate(self, resources: Resources) -> lr_range.LearningRate:
        """Decode, and find a learning rate in this process; the folder keeps what it says and the decoded images."""
        plan = self._setup.plan(self._store.place, self._intake.parts(("train", "val")))
        self._intake.wait()
        self._progress.phase("starting", f"starting {plan.subject.model}")
        self._limits.begin()
        with self._limits.told():
            return lr_range.find(plan, torch.device(torch_device(resources)), self._watch, self._held.check)

    def note(self) -> None:
        """Note what the run is begun or continued with."""
        made, anew = self._setup, self._request.overwrite and not self._setup.longer
        identity.note(self._store, made.record, compiled=made.compiled, anew=anew, check=self._held.check)

    def note_failures(self) -> None:
        """Leave the images that failed so far, for people to see."""
        self._intake.note(self._store)

    def close(self) -> None:
        """End what is decoded in the background."""
        self._intake.close()

    def _look_for_news(self, parts: dict[str, SplitPart]) -> None:
        """Say what the images are as soon as all of them are decoded, and show it; raises what ended that before.

        Of ``parts`` those that could be decoded are looked for, where that is not known of them.
        """
        if self._news is not None or not self._intake.done:
            return
        self._progress.phase("comparing", "looking for images that are there twice")
        leaks = self._intake.note(self._store)
        omissions.check(self._setup.labelled, self._intake.failures, self._setup.most_failed)
        left_out = omissions.record(self._setup.labelled, self._intake.failures)
        good = self._intake.known() if self._setup.cache_side else parts
        self._leaks = len(leaks)
        self._news = survey(self._setup.labelled, good, leaks, self._intake.doubles(), left_out)
        self._progress.note(str(self._news))
        if self._live is not None:
            self._live.tell(self._news)

    def _samples(self, plan: TrainPlan) -> list[TrainingSample]:
        """Return the images that the page shows."""
        if plan.decoding is None:
            return samples(plan, self._wait_for_samples)
        with self._intake.few("train", np.unique(plan.order(0)[:COUNT])) as few:
            return samples(plan, few=few)

    def _wait_for_samples(self) -> None:
        """Glance, while the images that the page shows are decoded."""
        self._glance()
        self._intake.check()

    def _begun(self, plan: TrainPlan, parts: dict[str, SplitPart]) -> training_page.BegunRun:
        """Return the run as its page shows it before the first step."""
        seen = self._news
        if seen is None:
            left_out = omissions.record(self._setup.labelled, omissions.listed(self._setup.labelled))
            seen = survey(self._setup.labelled, parts, (), (), left_out)
            self._intake.note(self._store)
            more = "what fails, leaks or is there twice is said when all are decoded"
            self._progress.note(f"{seen}; {self._intake.told}: {more}")
        before = predecessor(self._request.weights)
        if before is not None and plan.classes:
            self._progress.note(before.words(plan.classes))
        return training_page.BegunRun(
            store=self._store,
            labelled=self._setup.labelled,
            plan=plan,
            trainable=self._setup.trainable,
            survey=seen,
            samples=(),
            machines=self._limits.allowance.machines,
        )

    def _check(self, plan: TrainPlan, resources: Resources) -> None:
        """Let a copy of the model learn the first batch, in this process; raises JobFailed where it cannot."""

        def tell(done: int, total: int, loss: float) -> bool:
            self._held.glance()
            self._progress.show(done, total, "steps", f"the first batch by heart, loss {loss:.4f}", None)
            self._limits.check_start()
            return self._stop.asked

        parts = plan.recipe.accumulate * resources.least  # as many images at once as a worker of the smallest team has
        self._progress.note(str(overfit.check(plan, torch.device(torch_device(resources)), parts, tell)))

    def _alone(self, plan: TrainPlan, resources: Resources) -> float | None:
        team = Alone(torch.device(torch_device(resources)))
        Loop(plan, team, self._watch, _warn, self._held.check, self._show).run()
        return None

    def _together(self, plan: TrainPlan, resources: Resources) -> float | None:
        from cvjobs.training.loop import ray_train

        if resources.address:
            self._progress.note(words(resources))
        state_lines.start(self._progress, resources, None)

        def waiting(waited: float | None) -> bool:
            state_lines.start(self._progress, resources, waited)
            self._look_for_news(self._parts)
            self._look_at_machines()
            return self._stop.asked or self._limits.over_without_workers()

        return ray_train.train(plan, resources, self._held.epoch, self._begin, _warn, waiting, heard=self._hear)

    def _hear(self, said: dict[str, Any]) -> None:
        """Note how far the workers' images are."""
        self._intake.hear(said, self._store)

    def _begin(self, state: State) -> bool:
        """As ``_tell``, of workers that are to be ended, which takes no longer than starting them did."""
        self._limits.workers_began()
        return self._tell(state)

    def _watch(self, state: State) -> bool:
        """Tell where training is, and whether to stop; raises OutputHeld where another run holds the folder now."""
        self._held.glance()
        return self._tell(state)

    def _show(self, state: State) -> None:
        state_lines.show(self._progress, state, self._intake.told)

    def _tell(self, state: State) -> bool:
        self._show(state)
        self._intake.reach(state.epoch - 1, state.done * self._request.batch_size)
        self._look_for_news(self._parts)
        if self._live is not None:
            self._live.look(state)
        self._look_at_machines(state.machines)
        return self._stop.asked or self._limits.over(state)

    def _look_at_machines(self, working: Iterable[str] = ()) -> None:
        """Note which machines the cluster has; raises JobFailed where it is gone."""
        if self._link is not None:
            self._limits.allowance.machines.look(self._link.seen_nodes(), working)

    def _leave_page(self, begun: training_page.BegunRun, summary: TrainingSummary, parts: dict[str, SplitPart]) -> None:
        """Write the page of the run that has ended, about its test split or, without one, the val split."""
        split = "test" if "test" in parts else "val"
        ended = training_page.EndedRun(
            **vars(begun),
            summary=summary,
            split=split,
            part=parts[split],
            pixels=partial(self._intake.pixels, split, parts[split]),
            file=task_registry.of(begun.plan).file,
            storage=self._request.storage,
            confine=self._request.confine,
            decoder_server=self._decoder_server,
        )
        training_page.leave(ended, SECTIONS[begun.plan.subject.task])


def _warn(text: str) -> None:
    tell(f"{text}.")

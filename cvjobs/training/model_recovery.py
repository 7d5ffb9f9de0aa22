"""A run's model that is gone or damaged: made again from the checkpoint of its best epoch, while there is one."""

from __future__ import annotations

from cvjobs.common.errors import JobFailed
from cvjobs.common.progress import tell
from cvjobs.storage.store import Store
from cvjobs.training import artifacts
from cvjobs.training import plan as plans
from cvjobs.training.loop import checkpoints
from cvjobs.training.plan import MODEL
from cvjobs.training.recipe import lr_schedule
from cvjobs.training.setup import Setup


def recover(run: Store, setup: Setup, identity: str = "") -> bool:
    """Write a run's model anew, to the same bytes, where an epoch has ended and it is gone or damaged.

    Returns whether the newest checkpoint is the end of the training and has its model now. Nothing is done with
    checkpoints of another ``identity``, where that is given.

    Raises:
        JobFailed: training has ended, and no checkpoint has the model.
    """
    why = artifacts.model_fault(run)
    best, metric, ended = 0, 0.0, False
    for found in checkpoints.whole(run) if why else ():
        history = found.meta["history"]
        if not best:  # the newest one tells which epoch it was
            if not history or (identity and found.meta["identity"] != identity):
                return False
            metrics = [row["metric"] for row in history]
            metric = max(metrics)
            best, ended = metrics.index(metric) + 1, lr_schedule.finished(setup.request.recipe, metrics)
        if len(history) == best and not found.meta["loss"][1]:  # and the next epoch has seen no image
            about = plans.metadata(
                setup.subject, setup.trainable.transform, best, metric, multilabel=setup.labelled.multilabel
            )
            artifacts.model(run, found.average or found.model, about)
            tell(f"{run.place}/{MODEL} is {why}: made again from the checkpoint of epoch {best}.")
            return ended
    if ended:
        check(run)
    if best:
        place = f"{run.place}/{MODEL}"
        tell(f"{place} is {why}, and no checkpoint has it: an epoch that is better than epoch {best} makes it.")
    return not why


def check(run: Store) -> None:
    """Raise JobFailed where a run's model is gone or damaged."""
    if why := artifacts.model_fault(run):
        raise JobFailed(
            f"{run.place}/{MODEL} is {why}, and no checkpoint has it: bring it back from a backup, "
            "or train again with --overwrite."
        )

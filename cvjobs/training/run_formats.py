"""The formats in which a run's model leaves the house, and whether a place holds a run; nothing heavy is imported."""

from __future__ import annotations

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.dataset import contents, export
from cvjobs.storage.store import Store

RUN_FORMATS = ("onnx", "pt2", "safetensors")
MODEL = "model.safetensors"


def settled(name: str) -> str:
    """Return the name of a format of results or of runs that a user gave; raises WrongUse where there is none."""
    wanted, known = export.settled(name), (*export.formats(), *RUN_FORMATS)
    if wanted not in known:
        raise WrongUse(f"There is no format {name!r}{nearest(wanted, known)}: choose from {', '.join(known)}.")
    return wanted


def check_run(store: Store, wanted: str) -> None:
    """Raise WrongUse where a place holds no training run, whose model the format ``wanted`` is for."""
    if _is_run(store):
        return
    if contents.RESULTS in contents.of(store):
        raise WrongUse(
            f"{store.place} holds {contents.RESULTS}, and --format {wanted} is for the model of a training run: choose "
            f"{', '.join(export.formats())}, or name the -o folder of `cvjobs train`."
        )
    raise contents.none(store, contents.RUN.partition(" ")[2], "`cvjobs train`")


def check_results(store: Store, wanted: str) -> None:
    """Raise WrongUse where a place holds a training run, and no results, which the format ``wanted`` is for."""
    if _is_run(store) and contents.RESULTS not in contents.of(store):
        raise WrongUse(
            f"{store.place} holds {contents.RUN}, and --format {wanted} is for {contents.RESULTS}: choose "
            f"{', '.join(RUN_FORMATS)}."
        )


def _is_run(store: Store) -> bool:
    return store.size(MODEL) is not None or contents.RUN in contents.of(store)

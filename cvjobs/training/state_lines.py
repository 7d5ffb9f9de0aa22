"""What a terminal shows of where a training is."""

from __future__ import annotations

from cvjobs.common import rates
from cvjobs.common.formatting import counted
from cvjobs.common.progress import Progress
from cvjobs.training.limits import STARTING, WAITING
from cvjobs.training.loop.loop import TESTING, VALIDATING, State
from cvjobs.training.loop.resources import Resources


def start(progress: Progress, resources: Resources, waited: float | None) -> None:
    """Show that workers start, or, where they have had no machines for some seconds, what is waited for."""
    if waited is None:
        progress.phase(STARTING, f"starting {counted(resources.most, 'workers')} of Ray")
    else:
        progress.phase(WAITING, f"waiting for machines of the cluster for {counted(resources.least, 'workers')}")


def show(progress: Progress, state: State, decoded: str) -> None:
    """Show a state, and how much is decoded while that is not all (else empty)."""
    epoch = f"epoch {state.epoch}/{state.epochs}"
    if state.phase:
        name = next((kind for kind in (VALIDATING, TESTING) if state.phase.startswith(kind)), state.phase)
        progress.phase(name, f"{epoch}, {state.phase}")
        return
    progress.phase("training")
    words = [
        f"{epoch}, step {min(state.done + 1, state.total)}/{state.total}",
        f"loss {state.loss:.3f}" if state.loss is not None else "",
        f"best {state.metric:.3f}" if state.metric is not None else "",
        decoded,
        rates.told(state.rate),
    ]
    done, total = (state.epoch - 1) * state.total + state.done, state.epochs * state.total
    progress.show(done, total, "steps", ", ".join(filter(None, words)), state.left)

"""Where the time of a run went, and in words what bounded it."""

from __future__ import annotations

from dataclasses import dataclass

from cvjobs.common.formatting import duration, percent
from cvjobs.prediction.engine.throughput import STEPS, Pace

FULL = 0.8
SHORT = 2.0
CORES = "the cores, together"
NAMES = {"read": "reading", "decode": "decoding", "model": "the model", "write": "writing"}
THREADS = {"read": "reading threads", "decode": "decode processes", "model": "model threads", "write": "writing thread"}
REMEDY = {
    "read": "a faster disk or network, or more workers on other machines, would help",
    "decode": "more cores or workers would help",
    "model": "a faster or a second GPU would help",
    "write": "a faster disk or network for the output would help",
}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The bars (what, share of the time there was, in words), the one that stands out, and what bounded the run."""

    bars: list[tuple[str, float, str]]
    top: str
    words: str


def bound(pace: Pace, device: str) -> Bound | None:
    """Return what the time went into; None for a run in which no engine worked."""
    span = pace.room["write"]
    if not span:
        return None
    if span < SHORT:
        return Bound(bars=[], top="", words="The images took so little time that nothing bounded the run for long.")
    # What was read and decoded before the first answer counts as work, and the time until then does not.
    shares = {step: min(pace.busy[step] / pace.room[step], 1.0) for step in STEPS}
    cores = min(pace.cpu / pace.cores, 1.0)
    bars = [(CORES, cores, f"{percent(cores)} busy")]
    for step in STEPS:
        count = round(pace.room[step] / span)
        waiting = duration(max(pace.room[step] - pace.busy[step], 0.0))
        threads = THREADS[step] if count > 1 else THREADS[step].removesuffix("es" if step == "decode" else "s")
        text = f"{duration(pace.busy[step])} worked, {waiting} waited ({count} {threads} a worker)"
        bars.append((NAMES[step], shares[step], text))
    top, words = _words(pace, shares, cores, device)
    return Bound(bars=bars, top=top, words=words)


def _words(pace: Pace, shares: dict[str, float], cores: float, device: str) -> tuple[str, str]:
    gpu = device != "cpu"
    busiest = max(STEPS, key=lambda step: shares[step])
    if gpu and shares["model"] >= FULL:
        return NAMES["model"], f"The GPU bounded the run: {percent(shares['model'])} busy; {REMEDY['model']}."
    if cores >= FULL:
        decoding = pace.decoding / pace.cpu
        split = f"{percent(decoding)} of their work was decoding, {percent(1 - decoding)} the model and the rest"
        remedy = REMEDY["decode"] if gpu or decoding >= 0.5 else "a GPU, more cores or more workers would help"
        return CORES, f"The processor bounded the run: its cores were {percent(cores)} busy; {split}; {remedy}."
    if shares[busiest] >= FULL:
        name = NAMES[busiest]
        busy = f"busy {percent(shares[busiest])} of its time, with the cores {percent(cores)} busy"
        return name, f"{name.capitalize()} bounded the run: {busy}; {_remedy(busiest, gpu)}."
    return "", (
        f"Nothing bounded the run alone: {NAMES[busiest]} came closest, busy {percent(shares[busiest])} of its time, "
        f"and the cores were {percent(cores)} busy. Other work on the machine looks like this."
    )


def _remedy(step: str, gpu: bool) -> str:
    if step in ("decode", "model") and not gpu:
        return "other work on the machine took cores away, or it waited for them"
    return REMEDY[step]

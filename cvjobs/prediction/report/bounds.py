"""Where the time of a run went, and in words what bounded it."""

from __future__ import annotations

from dataclasses import dataclass

from cvjobs.common.formatting import duration, percent, size
from cvjobs.prediction.engine.throughput import STEPS, Pace

FULL = 0.8
IN_USE = 0.5  # of the looks at the interpreter's lock, from which on it is what bounds a run
SHORT = 2.0
CORES = "the cores, together"
GPU = "the GPU, by its driver"
LOCK = "the interpreter's lock"
NAMES = {"read": "reading", "decode": "decoding", "model": "the model", "write": "writing"}
THREADS = {"read": "reading threads", "decode": "decode processes", "model": "model threads", "write": "writing thread"}
REMEDY = {
    "read": "a faster disk or network, or more workers on other machines, would help",
    "decode": "more cores or workers would help",
    "model": "a faster or a second GPU would help",
    "write": "a faster disk or network for the output would help",
}
LAUNCHING = "a larger --batch-size, or more workers with a GPU each, would help"
INTERPRETING = "more workers on the machine (--workers) would help"


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
    shares = _Shares(pace, device)
    top, words = shares.verdict()
    return Bound(bars=shares.bars(span), top=top, words=words)


class _Shares:
    """What of the time each part of a run worked. On a GPU a thread of the model also waits, which is no work."""

    def __init__(self, pace: Pace, device: str) -> None:
        self._pace, self._on_gpu = pace, device != "cpu"
        # What was read and decoded before the first answer counts as work, and the time until then does not.
        self._steps = {step: min(pace.busy[step] / pace.room[step], 1.0) for step in STEPS}
        self._cores = min(pace.cpu / pace.cores, 1.0)
        self._gpu = pace.gpu.busy if self._on_gpu else None
        self._lock = pace.lock.share

    def bars(self, span: float) -> list[tuple[str, float, str]]:
        """Return what there is to show of an engine, or several, that worked for so many seconds."""
        bars = [(CORES, self._cores, f"{percent(self._cores)} busy")]
        if self._gpu is not None:
            memory = f"at most {size(self._pace.gpu.memory)} of its memory in use"
            bars.insert(0, (GPU, self._gpu, f"{percent(self._gpu)} busy, {memory}"))
        bars += [(NAMES[step], self._steps[step], self._step(step, span)) for step in STEPS]
        if self._lock is not None:
            bars.append((LOCK, self._lock, f"in use at {percent(self._lock)} of {self._pace.lock.looks:,} looks"))
        return bars

    def _step(self, step: str, span: float) -> str:
        pace = self._pace
        count = round(pace.room[step] / span)
        threads = THREADS[step] if count > 1 else THREADS[step].removesuffix("es" if step == "decode" else "s")
        launches = self._on_gpu and step == "model"
        worked, waited = ("launched or waited", "idle") if launches else ("worked", "waited")
        waiting = duration(max(pace.room[step] - pace.busy[step], 0.0))
        return f"{duration(pace.busy[step])} {worked}, {waiting} {waited} ({count} {threads} a worker)"

    def verdict(self) -> tuple[str, str]:
        """Return the bar that bounded the run, empty where none did alone, and a sentence about it."""
        top, words = self._bound_on_gpu() if self._gpu is not None and self._gpu >= FULL else self._bound_elsewhere()
        unknown = self._on_gpu and self._gpu is None
        return top, words + " The GPU's driver (NVML) did not say how busy the GPU was." * unknown

    def _bound_on_gpu(self) -> tuple[str, str]:
        assert self._gpu is not None
        return GPU, f"The GPU bounded the run: by its driver it was {percent(self._gpu)} busy; {REMEDY['model']}."

    def _bound_elsewhere(self) -> tuple[str, str]:
        if self._cores >= FULL:
            return CORES, self._processor()
        if self._lock is not None and self._lock >= IN_USE:
            return LOCK, self._interpreter(self._lock)
        # How long a thread waits for a GPU says nothing about the GPU.
        steps = [step for step in STEPS if step != "model" or not self._on_gpu]
        busiest = max(steps, key=lambda step: self._steps[step])
        name, share = NAMES[busiest], percent(self._steps[busiest])
        if self._steps[busiest] >= FULL:
            busy = f"busy {share} of its time, with the cores {percent(self._cores)} busy{self._beside('and the GPU')}"
            return name, f"{name.capitalize()} bounded the run: {busy}; {self._remedy(busiest)}."
        what = (
            "Many short launches, or other work on the machine, look"
            if self._on_gpu
            else "Other work on the machine looks"
        )
        return "", (
            f"Nothing bounded the run alone: {name} came closest, busy {share} of its time, "
            f"and the cores were {percent(self._cores)} busy{self._beside('the GPU')}. "
            f"{what} like this."
        )

    def _processor(self) -> str:
        decoding = self._pace.decoding / self._pace.cpu
        busy = f"its cores were {percent(self._cores)} busy{self._beside('and the GPU')}"
        split = f"{percent(decoding)} of their work was decoding, {percent(1 - decoding)} the model and the rest"
        gains = self._on_gpu or decoding >= 0.5
        remedy = REMEDY["decode"] if gains else "a GPU, more cores or more workers would help"
        return f"The processor bounded the run: {busy}; {split}; {remedy}."

    def _interpreter(self, held: float) -> str:
        in_use = f"its interpreter was in use {percent(held)} of the time"
        cores = f"the cores {percent(self._cores)} busy"
        if not self._on_gpu:
            return f"The model's process was busy in Python: {in_use}, with {cores}; {INTERPRETING}."
        beside = cores if self._gpu is None else f"the GPU {percent(self._gpu)} busy"
        return f"The model's process was busy launching: {in_use}, with {beside}; {LAUNCHING}."

    def _beside(self, what: str) -> str:
        return "" if self._gpu is None else f", {what} {percent(self._gpu)}"

    def _remedy(self, step: str) -> str:
        if step in ("decode", "model") and not self._on_gpu:
            return "other work on the machine took cores away, or it waited for them"
        return REMEDY[step]

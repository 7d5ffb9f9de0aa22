"""How fast engines are and what their time goes into; an engine measures itself, the driver adds several up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from cvjobs.common import rates
from cvjobs.common.gpu_meter import GpuMeter, GpuUse, torch_reader
from cvjobs.images.blank_images import BlankImages
from cvjobs.images.dark_images import DarkImages
from cvjobs.prediction.engine.lock_meter import LockMeter, LockUse

STEPS = ("read", "decode", "model", "write")
_NO_GPU, _NO_LOCK = GpuUse(), LockUse()


def _zeros() -> dict[str, float]:
    return dict.fromkeys(STEPS, 0.0)


@dataclass
class Pace:
    """Answers so far, when they came (s since 1970), and where the time went.

    ``begun`` is when the model began its first batch; ``first`` is when each of the ``lanes`` (threads that compute at
    once) had answered one, with ``first_count`` images together; ``last`` is when the last of the ``batches`` was.
    ``busy`` are the seconds that the threads (or decode processes) of each step worked, ``room`` those that they
    could have; ``cpu`` are processor seconds, ``decoding`` those of the decode processes, ``cores`` those there were;
    ``commit`` are the seconds that the longest commit of a part took;
    ``gpu`` is what its driver says, ``lock`` how often the interpreter's lock was held,
    ``unpinned`` how many buffers the system let no GPU read directly;
    ``dark`` are images of which nothing says how many of their 16 bits are used, ``blank`` are those that show nothing.
    """

    answered: int = 0
    failed: int = 0
    begun: float = 0.0
    first: float = 0.0
    first_count: int = 0
    last: float = 0.0
    batches: int = 0
    lanes: int = 1
    busy: dict[str, float] = field(default_factory=_zeros)
    room: dict[str, float] = field(default_factory=_zeros)
    cpu: float = 0.0
    decoding: float = 0.0
    cores: float = 0.0
    commit: float = 0.0
    gpu: GpuUse = _NO_GPU
    lock: LockUse = _NO_LOCK
    unpinned: int = 0
    dark: DarkImages = field(default_factory=DarkImages)
    blank: BlankImages = field(default_factory=BlankImages)

    @property
    def rate(self) -> float:
        """Images a second, as ``rates`` defines it: of each lane the first batch is not counted."""
        return rates.rate(self._counted, self.last - self.first, self.batches // self.lanes)

    def left(self, remaining: int) -> float | None:
        """Return the seconds that so many images take by what the model answered, None where nothing tells."""
        waited, batches = time.time() - self.last, self.batches // self.lanes
        return rates.left(remaining, self._counted, self.last - self.first, batches, waited)

    @property
    def _counted(self) -> int:
        return self.answered - self.failed - self.first_count


def overall(paces: list[Pace]) -> Pace:
    """Return the pace of several engines as one: from the earliest first result to the latest last one."""
    dark, blank = DarkImages(), BlankImages()
    for pace in paces:
        blank.merge(pace.blank)
        dark.add(pace.dark.bits, pace.dark.first, pace.dark.count)
    begun = [pace for pace in paces if pace.begun]
    answered = [pace for pace in paces if pace.batches]
    return Pace(
        answered=sum(pace.answered for pace in paces),
        failed=sum(pace.failed for pace in paces),
        begun=min((pace.begun for pace in begun), default=0.0),
        first=min((pace.first for pace in answered), default=0.0),
        first_count=sum(pace.first_count for pace in answered),
        last=max((pace.last for pace in answered), default=0.0),
        batches=sum(pace.batches for pace in answered),
        lanes=sum(pace.lanes for pace in answered) or 1,
        busy={step: sum(pace.busy[step] for pace in paces) for step in STEPS},
        room={step: sum(pace.room[step] for pace in paces) for step in STEPS},
        cpu=sum(pace.cpu for pace in paces),
        decoding=sum(pace.decoding for pace in paces),
        cores=sum(pace.cores for pace in paces),
        commit=max((pace.commit for pace in paces), default=0.0),
        gpu=sum((pace.gpu for pace in paces), _NO_GPU),
        lock=sum((pace.lock for pace in paces), _NO_LOCK),
        unpinned=sum(pace.unpinned for pace in paces),
        dark=dark,
        blank=blank,
    )


class Span:
    """The time in which at least one shard was being run: seconds, and processor seconds of this process.

    Meanwhile the interpreter's lock is looked at, and the GPU where the device is one.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._lock = threading.Lock()
        self._gpu = GpuMeter(None if device == "cpu" else torch_reader(device))
        self._interpreter = LockMeter()
        self._meters = ExitStack()
        self._running = 0
        self._seconds = self._cpu = 0.0
        self._since = self._cpu_since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time that the block takes; of several at once, only once."""
        with self._lock:
            self._running += 1
            if self._running == 1:
                self._since, self._cpu_since = time.monotonic(), time.process_time()
                self._meters.enter_context(self._gpu.looking())
                self._meters.enter_context(self._interpreter.looking())
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._seconds += time.monotonic() - self._since
                    self._cpu += time.process_time() - self._cpu_since
                    self._meters.close()

    def restart(self) -> None:
        """Forget the time so far: it went into getting ready."""
        with self._lock:
            self._seconds = self._cpu = 0.0
            self._since, self._cpu_since = time.monotonic(), time.process_time()
            self._gpu.taken()
            self._interpreter.forget()

    @property
    def gpu(self) -> GpuUse:
        """What the GPU did in the time."""
        return self._gpu.seen

    @property
    def lock(self) -> LockUse:
        """How often the interpreter's lock was held in the time."""
        return self._interpreter.seen

    def now(self) -> tuple[float, float]:
        """Return the seconds and the processor seconds so far."""
        with self._lock:
            if not self._running:
                return self._seconds, self._cpu
            seconds = self._seconds + time.monotonic() - self._since
            return seconds, self._cpu + time.process_time() - self._cpu_since

"""What an engine may have of the memory that a control group allows: batches, model threads, decode processes.

Without such a limit, everything is as the machine's cores want it. What is needed was measured: of models the bytes of
their widest layer for each image, and as many again; see ``tests/prediction/test_memory_limit.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from cvjobs.common import control_groups, devices
from cvjobs.common.formatting import size
from cvjobs.images.loader import CHILD_BYTES
from cvjobs.prediction.engine.task import PictureStep

_REST = 40_000_000  # what reading, writing and the report take beside models and decoders
_THREAD = 30_000_000  # what a model thread takes beside its batch
_WIDEST = 1.8  # times the widest layer's inputs and outputs: what a batch takes of a thread
_PICTURE = 150_000_000, 500_000_000  # one picture of a model for pictures of any size: at least, and usually
_REMEDY = "use a smaller --model, or raise the limit"


@runtime_checkable
class Sized(Protocol):
    """A step that knows how large its widest layer is."""

    @property
    def image_bytes(self) -> int:
        """The bytes of the inputs and outputs of its widest layer for one image, 0 where that is unknown."""


@dataclass(frozen=True, kw_only=True)
class Headroom:
    """How much an engine does at once: ``batches`` are the sizes (images) at which a search begins and ends."""

    decoders: int
    models: int
    batch: int
    batches: tuple[int, int]

    def within(self, step: Any, left: int) -> Headroom:
        """Return what of it fits into so many bytes; the least there is where nothing does."""
        fewer = self
        while not fewer._fits(step, left):
            if fewer.decoders > 2 * fewer.models:
                fewer = replace(fewer, decoders=fewer.decoders - 1)
            elif fewer.largest > 8 and not isinstance(step, PictureStep):
                fewer = fewer._of(fewer.largest // 2)
            elif fewer.models > 1:
                fewer = replace(fewer, models=fewer.models - 1)
            elif fewer.decoders > 1:
                fewer = replace(fewer, decoders=fewer.decoders - 1)
            elif fewer.largest > 1 and not isinstance(step, PictureStep):
                fewer = fewer._of(fewer.largest // 2)
            else:
                break
        return fewer

    @property
    def largest(self) -> int:
        """The images of the largest batch."""
        return self.batch or self.batches[1]

    def _of(self, largest: int) -> Headroom:
        first, last = self.batches
        return replace(self, batch=min(self.batch, largest), batches=(min(first, largest), min(last, largest)))

    def need(self, step: Any) -> int:
        """Return about how many bytes this takes beside what is loaded."""
        if isinstance(step, PictureStep):
            each = _PICTURE[self.models > 1]
        else:
            widest = step.image_bytes if isinstance(step, Sized) else 0
            each = _THREAD + round(_WIDEST * widest * self.largest)
        return _REST + CHILD_BYTES * self.decoders + each * self.models

    def _fits(self, step: Any, left: int) -> bool:
        return self.need(step) <= left

    def __str__(self) -> str:
        models = f"{self.models} model thread{'s' * (self.models > 1)}"
        decoders = f"{self.decoders} decode process{'es' * (self.decoders > 1)}"
        return f"batches of at most {self.largest}, {models} and {decoders}"


def within_limit(wanted: Headroom, step: Any, share: int) -> tuple[Headroom, str]:
    """Return what of it this process may do where ``share`` of them share a control group, and a line on what is less.

    Raises:
        WrongUse: not even the least fits.
    """
    held = control_groups.memory_left()
    if held is None:
        return wanted, ""
    limit, left = held[0], held[1] + control_groups.swap_left()
    share = max(share, 1)
    fitting = wanted.within(step, left // share)
    if fitting.need(step) * share > left:
        devices.check_memory(fitting.need(step) * share, "Computing with this model", _REMEDY)
    if fitting == wanted:
        return wanted, ""
    return fitting, f"of the memory limit of {size(limit)} {size(left)} are left: {fitting}"

"""What it takes until a training that goes on could be at rest, for limits of time and money."""

from __future__ import annotations


class StopCosts:
    """Measures steps, checkpoints and validation; ``look`` is the number of steps between two looks at most.

    ``share`` is how many steps the first validation is taken to be as long as: no longer, for it has no backward pass.
    """

    def __init__(self, look: int, share: float) -> None:
        self._look, self._share = look, share
        self._step = 0.0
        self._at: tuple[int, float] | None = None
        self._validating: float | None = None

    @property
    def validating(self) -> float:
        """What the last validation took in s, 0 before the first."""
        return self._validating or 0.0

    def stepped(self, steps: int, now: float) -> None:
        """Note how many steps were made by ``now`` (s of a clock)."""
        if self._at is not None and steps > self._at[0]:
            self._step = (now - self._at[1]) / (steps - self._at[0])
        self._at = steps, now

    def validated(self, seconds: float) -> None:
        """Note what validating took."""
        self._validating = seconds
        self._at = None  # the time since the last step was no step's

    def needed(self, left: int, saving: float) -> float:
        """Return the seconds until the next look and a checkpoint after it.

        Args:
            left: The steps to the end of the epoch, where the validation comes before the checkpoint.
            saving: What a checkpoint takes, in s.
        """
        validating = self._share * self._step if self._validating is None else self._validating
        return self._look * self._step + saving + validating * (left <= self._look)

"""Images of 16 bits of which nothing says how many are used, and that would be as dark as they are stored."""

from __future__ import annotations

from dataclasses import dataclass

_CAMERAS = (8, 10, 12, 14)


@dataclass
class DarkImages:
    """How many there were, the bits that suffice for all of them, and the name of the first."""

    count: int = 0
    bits: int = 0
    first: str = ""

    def add(self, bits: int, name: str, count: int = 1) -> None:
        """Count images, of which the bits suffice."""
        self.count += count
        self.bits = max(self.bits, bits)
        self.first = self.first or name

    def __str__(self) -> str:
        """Say what they are and what to do."""
        bits = next(bits for bits in _CAMERAS if bits >= self.bits)
        subject = f"{self.count:,} images of 16 bits" if self.count > 1 else "1 image of 16 bits"
        uses = "use" if self.count > 1 else "uses"
        return (
            f"{subject} ({'first ' * (self.count > 1)}{self.first}) {uses} at most {bits} of them and no tag says so: "
            f"dark as they are, and bright with --bits {bits}"
        )

"""How many images of a batch go through a model together on a CPU: few large ones, whose maps stay in its caches."""

from __future__ import annotations

PIXELS = (
    1 << 19
)  # of the images that are together; D-FINE-N takes 1.7 times as long for an image of 640 x 640 in eights


def step(height: int, width: int) -> int:
    """Return how many images of that size in pixels are best together."""
    return max(PIXELS // (height * width), 1)

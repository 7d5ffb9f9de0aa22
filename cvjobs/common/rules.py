"""The versions of the rules for any input: which files count, their pixels, classes, splits, crops, nearness.

What a command makes says by which rules it was begun, and goes on by them until ``--overwrite``; what says nothing was
begun by the first. ``docs/rules.md`` tells what each version changed.
"""

from __future__ import annotations

FIRST = 1
LISTING = 2
PIXELS = 2
LABELS = 2
PICTURES = 2
SPLITS = 3  # of a training whose data say of no image that it validates
OBJECT_SPLITS = 3  # from which on images with boxes or masks validate by what they show
CANVASES = 2  # that a detector learns from
SCORES = 3
TEAM = 2  # of a training on a cluster: how many workers without --workers, on what, with how many cores
MEASURED_SCORES = 3  # from which on a score that nobody gives is measured

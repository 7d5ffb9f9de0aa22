"""Memory that a network used for one batch and that stays for the next one, instead of going back to the system.

glibc hands out blocks of over 32 MB as maps of their own, and gives each back where it is freed: a step of training at
224 pixels then takes as long to have its gigabytes zeroed by the kernel as to compute.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

KEPT = 1 << 30  # bytes of the largest block that stays; the most that glibc takes
ALL = (1 << 31) - 1
# Where it left them, glibc would by itself have moved both to these.
_USUAL_BLOCK, _USUAL_TOP = 32 << 20, 64 << 20
_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
# For a process that is yet to start: one arena, for those of threads are too small for such blocks.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(KEPT),
    "MALLOC_TRIM_THRESHOLD_": str(ALL),
}


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what the main thread frees in this process, until the end; does nothing where there is no glibc."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MAP, KEPT)
    library.mallopt(_TRIM, ALL)
    try:
        yield
    finally:
        library.mallopt(_MAP, _USUAL_BLOCK)
        library.mallopt(_TRIM, _USUAL_TOP)
        library.malloc_trim(0)

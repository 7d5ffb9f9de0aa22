"""Memory of one batch that stays with the process for the next one, instead of going back to the system.

glibc maps each block of over 32 MB anew and gives it back where it is freed, unless a hole of its heap happens to be as
large. A step of training at 224 pixels is then as long in the kernel, which clears gigabytes for it, as in the network:
in the main thread for the first dozen steps, in other threads, whose heaps are small, for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_BLOCK = 1 << 30  # bytes of the largest block that stays
_TOP = (1 << 31) - 1  # that may be free at the end of the heap
_USUAL_BLOCK, _USUAL_TOP = 32 << 20, 64 << 20  # as far as glibc goes by itself
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of malloc.h
# The same for a process to come, in whose threads networks compute: all of them have the heap of the main one.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_BLOCK),
    "MALLOC_TRIM_THRESHOLD_": str(_TOP),
}


def one_heap() -> None:
    """Give all threads that this process will have the heap of the main one; without glibc, do nothing.

    glibc counts heaps only while they are few: this comes before libraries with threads of their own.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_ARENA_MAX, 1)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what the main heap's threads free until the end; without glibc, do nothing."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _BLOCK)
    library.mallopt(_TRIM_THRESHOLD, _TOP)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _USUAL_BLOCK)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TOP)
        library.malloc_trim(0)

"""Memory that stays with a process, and that goes back in the end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cvjobs.common import malloc

pytestmark = pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="of glibc alone"
)

PROBE = """
import contextlib, resource, sys
from concurrent.futures import ThreadPoolExecutor
from cvjobs.common import malloc

if "one heap" in sys.argv:
    malloc.one_heap()
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(64 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

with malloc.kept() if sys.argv[1] == "kept" else contextlib.nullcontext(), ThreadPoolExecutor(1) as other:
    called = (lambda task: other.submit(task).result()) if "in a thread" in sys.argv else (lambda task: task())
    first, second, large = called(faults), called(faults), resident()
print(first, second, large - resident())
"""


def probe(*how: str, **environment: str) -> list[int]:
    """Return the page faults of two equal arrays, one after the other, and the pages given back in the end."""
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *how],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return [int(word) for word in ran.stdout.split()]


def test_memory_stays_for_the_next_batch_and_goes_back_in_the_end() -> None:
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    first, second, back = probe("kept")
    assert first > 0
    assert second < first / 10
    assert back > 0.9 * pages


def test_without_it_every_batch_is_mapped_anew() -> None:
    first, second, _ = probe("usual")
    assert second > first / 2


def test_a_process_may_begin_with_it() -> None:
    first, second, _ = probe("usual", **malloc.ENVIRONMENT)
    assert second < first / 10


def test_the_threads_of_a_process_with_one_heap_keep_their_memory_too() -> None:
    first, second, back = probe("kept", "in a thread", "one heap")
    assert second < first / 10
    assert back > 0.9 * (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    first, second, _ = probe("kept", "in a thread")
    assert second > first / 2

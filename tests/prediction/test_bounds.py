"""What a page says bounded a run, from what its engines measured."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from cvjobs.common.gpu_meter import GpuUse
from cvjobs.prediction.engine.lock_meter import LockUse
from cvjobs.prediction.engine.throughput import Pace, overall
from cvjobs.prediction.report.bounds import CORES, GPU, LOCK, bound


def measured(
    seconds: float, cores: int, cpu: float, decoding: float = 0.0, gpu: float = -1.0, lock: float = 0.0, **busy: float
) -> Pace:
    """The pace of an engine with 8 reading threads, and as many decoders and model threads as cores.

    ``gpu`` is how busy its driver says that it was, and below 0 says nothing; ``lock`` how often the lock was held.
    """
    threads = {"read": 8, "decode": cores, "model": cores, "write": 1}
    return Pace(
        busy={step: busy.get(step, 0.0) for step in threads},
        room={step: seconds * count for step, count in threads.items()},
        cpu=cpu,
        decoding=decoding,
        cores=seconds * cores,
        gpu=GpuUse() if gpu < 0 else GpuUse(looks=200, total=200 * gpu, memory=5_100_000_000),
        lock=LockUse(looks=1000, held=round(1000 * lock)),
    )


@pytest.mark.parametrize(
    ("pace", "device", "top", "words"),
    [
        (measured(100, 2, 190, 20, model=180), "cpu", CORES, "a GPU, more cores"),
        (measured(100, 2, 190, 170, decode=180), "cpu", CORES, "89% of their work was decoding"),
        (measured(100, 8, 50, 30, read=790), "cpu", "reading", "a faster disk or network"),
        (measured(100, 2, 70, 60, decode=190), "cpu", "decoding", "other work on the machine"),
        (measured(100, 2, 70, 60, decode=100), "cpu", "", "Nothing bounded the run alone: decoding came closest"),
        (measured(100, 2, 110, 10, lock=0.7, model=190), "cpu", LOCK, "in use 70% of the time, with the cores 55%"),
        (measured(0.5, 2, 0.9, 0.8, decode=0.9), "cpu", "", "so little time"),
        (measured(100, 8, 780, 700, gpu=0.98, lock=0.9), "cuda", GPU, "by its driver it was 98% busy; a faster"),
        (measured(100, 8, 780, 700, gpu=0.3, decode=780), "cuda", CORES, "98% busy, and the GPU 30%; 90% of their"),
        (measured(100, 8, 780, 700, model=300, decode=780), "cuda", CORES, "more cores or workers would help"),
        # The threads of the model wait for the interpreter and for the GPU: their time is nobody's work.
        (measured(100, 8, 200, 100, gpu=0.15, lock=0.72, model=780), "cuda", LOCK, "72% of the time, with the GPU 15%"),
        (measured(100, 8, 200, 100, gpu=0.15, lock=0.72, model=780), "cuda", LOCK, "larger --batch-size"),
        (measured(100, 8, 200, 100, lock=0.72, model=780), "cuda", LOCK, "72% of the time, with the cores 25% busy"),
        (
            measured(100, 8, 200, 100, gpu=0.15, model=780),
            "cuda",
            "",
            "cores were 25% busy, the GPU 15%. Many short launches, or",
        ),
        (measured(100, 8, 200, 100, model=780), "cuda", "", "NVML) did not say how busy the GPU was."),
        (measured(100, 8, 50, 30, gpu=0.1, write=97), "cuda", "writing", "cores 6% busy, and the GPU 10%; a faster"),
        (measured(100, 8, 50, 30, write=97), "cuda", "writing", "for the output would help. The GPU's driver (NVML)"),
    ],
)
def test_what_bounded_a_run_is_said_in_words(pace: Pace, device: str, top: str, words: str) -> None:
    found = bound(overall([pace, pace]), device)
    assert found is not None
    assert found.top == top
    assert words in found.words
    assert all(0 <= share <= 1 for _, share, _ in found.bars)
    assert not found.top or found.top in [name for name, _, _ in found.bars]


def test_the_bars_of_a_gpu_say_what_its_driver_said_and_those_without_figures_are_left_out() -> None:
    one, other = measured(100, 8, 200, gpu=0.2, lock=0.2, model=700), measured(100, 8, 200, gpu=0.4, lock=0.4)
    found = bound(overall([one, other]), "cuda")
    assert found is not None
    bars = {name: text for name, _, text in found.bars}
    assert bars[GPU] == "30% busy, at most 5.1 GB of its memory in use"
    assert bars[LOCK] == "in use at 30% of 2,000 looks"
    assert " launched or waited, " in bars["the model"]
    silent = bound(replace(one, gpu=GpuUse(), lock=LockUse()), "cuda")
    assert silent is not None
    assert {name for name, _, _ in found.bars} - {name for name, _, _ in silent.bars} == {GPU, LOCK}


def test_paces_of_a_version_that_measured_less_still_load() -> None:
    before = pickle.loads(pickle.dumps(measured(100, 2, 70, 60, decode=100)))
    del before.__dict__["gpu"], before.__dict__["lock"]
    found = bound(overall([pickle.loads(pickle.dumps(before)), measured(100, 2, 70, 60, lock=0.2)]), "cpu")
    assert found is not None
    assert found.words.startswith("Nothing bounded the run alone")


def test_a_run_without_work_was_bounded_by_nothing() -> None:
    assert bound(overall([]), "cpu") is None

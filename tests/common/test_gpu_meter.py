"""What the counters of a GPU's driver are made into."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest

from cvjobs.common.gpu_meter import GpuReading, GpuUse, handle_reader, torch_reader


def test_a_reading_is_a_share_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, memory = SimpleNamespace(gpu=15), SimpleNamespace(used=7)
    counters = {"nvmlDeviceGetUtilizationRates": busy, "nvmlDeviceGetMemoryInfo": memory}
    for name, answer in counters.items():
        monkeypatch.setattr(pynvml, name, lambda handle, answer=answer: answer)  # noqa: ARG005
    assert handle_reader("a handle")() == GpuReading(0.15, 7)


def test_uses_add_up_by_their_looks_and_keep_the_highest_memory() -> None:
    both = GpuUse(looks=1, total=1.0, memory=5) + GpuUse(looks=3, total=0.6, memory=9)
    assert both.busy == pytest.approx(0.4)
    assert both.memory == 9
    assert (GpuUse() + GpuUse()).busy is None


def test_a_cpu_has_no_counters() -> None:
    assert torch_reader("cpu") is None

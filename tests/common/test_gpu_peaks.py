"""How fast GPUs are at most, by the names that torch has for them."""

from __future__ import annotations

import pytest

from cvjobs.common.gpu_peaks import bf16_peak


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 3090 Ti", 71e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GeForce GTX 1080", None),
        ("", None),
    ],
)
def test_a_card_is_known_by_its_name(name: str, peak: float | None) -> None:
    assert bf16_peak(name) == peak

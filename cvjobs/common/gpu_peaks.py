"""How fast GPUs multiply matrices at most, by their names: what the makers' data sheets say."""

from __future__ import annotations

import re

# FLOP/s of dense matrices in bfloat16 with float32 sums, in float16 where a card has no bfloat16. The first pattern
# that a name has is its; boards for PCIe are slower than those of the same name on SXM.
_PEAKS = (
    (r"\bGB200\b", 2500e12),
    (r"\bB200\b", 2250e12),
    (r"\bGH200\b|\bH200\b(?! NVL)|\bH800\b(?! PCIe)", 989e12),
    (r"\bH200 NVL\b|\bH100 NVL\b", 835e12),
    (r"\bH[18]00 PCIe\b", 756e12),
    (r"\bH100\b", 989e12),
    (r"\bH20\b", 148e12),
    (r"\bA[18]00\b", 312e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bA10G\b", 70e12),
    (r"\bA10\b", 125e12),
    (r"\bA30\b", 165e12),
    (r"\bA40\b", 150e12),
    (r"\bRTX A6000\b", 155e12),
    (r"\bV100\b", 125e12),
    (r"\bT4\b", 65e12),
    (r"\bRTX 4090\b", 165e12),
    (r"\bRTX 3090\b", 71e12),
)


def bf16_peak(name: str) -> float | None:
    """Return the floating-point operations a second of a GPU by its name for torch, None of one that is not known."""
    return next((peak for pattern, peak in _PEAKS if re.search(pattern, name)), None)

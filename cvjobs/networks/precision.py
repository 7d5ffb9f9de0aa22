"""The number format that a model computes in: what ``--precision`` comes to on a device."""

from __future__ import annotations

from typing import get_args

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse, nearest
from cvjobs.config.options import Precision

PRECISIONS: tuple[str, ...] = get_args(Precision)


def resolve_precision(precision: str, device: str) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16``: ``auto`` is bf16 on GPUs that compute in it, fp32 elsewhere.

    Raises WrongUse for another word, and for fp16 on a device that is no CUDA GPU.
    """
    if precision not in PRECISIONS:
        raise WrongUse(
            f"There is no precision {precision!r}{nearest(precision, PRECISIONS)}: choose from {', '.join(PRECISIONS)}."
        )
    cuda = device.startswith("cuda")
    if precision == "fp16" and not cuda:
        raise WrongUse("Precision fp16 needs a CUDA GPU: choose auto, fp32 or bf16 on this device.")
    if precision != "auto":
        return precision
    if devices.torch_name(device) == "cpu":
        return "fp32"
    import torch

    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"

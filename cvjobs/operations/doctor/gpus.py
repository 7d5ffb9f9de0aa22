"""Whether torch can compute on the GPUs that are here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cvjobs.operations.doctor.finding import Finding


def check() -> Iterator[Finding]:
    """Compare the driver's devices with what torch was built for, and add two numbers on each."""
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not devices:
        yield Finding.ok("gpus", "there is no NVIDIA GPU here: models run on the CPU")
        return
    import torch

    built = torch.version.cuda
    if built is None:
        fix = "Install the CUDA build: python -m pip install --force-reinstall torch torchvision."
        yield Finding.broken("gpus", f"{len(devices)} GPUs, but this torch is built for CPUs alone", fix)
        return
    if not torch.cuda.is_available():
        fix = f"Bring the NVIDIA driver up to date, or install a torch for an older CUDA than {built}."
        yield Finding.broken("gpus", f"torch, built for CUDA {built}, cannot use the {len(devices)} GPUs", fix)
        return
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            right = float((torch.ones(2, device=f"cuda:{number}") + 1).sum()) == 4.0
        except RuntimeError as error:
            right, why = False, str(error).split("\n", 1)[0]
        else:
            why = "a sum came out wrong"
        if right:
            yield Finding.ok("gpus", f"{name} computes (CUDA {built})")
        else:
            fix = f"Install a torch that is built for {name}, or leave it out with CUDA_VISIBLE_DEVICES."
            yield Finding.broken("gpus", f"{name} does not compute ({why})", fix)

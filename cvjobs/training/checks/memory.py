"""How much memory a training takes, told before it begins, from shapes alone; and how much there is.

What backward needs of the forward pass is nearly all of it. The pass is made on tensors that have shapes and types
but no numbers, under autocast where training will be. The same pass tells how much there is to compute.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from cvjobs.common import control_groups, devices
from cvjobs.common.errors import WrongUse
from cvjobs.networks.trainable import Trainable
from cvjobs.training.fake_tensor_compat import fake_mode, storage_number
from cvjobs.training.loop.evaluate import autocast
from cvjobs.training.plan import kind
from cvjobs.training.recipe import optimizers
from cvjobs.training.recipe.recipe import Recipe

PROCESS = 500 << 20  # what a worker takes beside its tensors: torch's libraries on a CPU, its context on a GPU
_CLOSE = 0.8  # of a control group's memory is for a step
_BESIDE = 50 << 20  # what decoding, evaluation and the page take there
_ASKED = 2  # images; batch norms need two
_STATES = {"rmsprop": 2, "adam": 2, "adamw": 2, "nadamw": 2, "lamb": 2, "lion": 1}  # tensors a weight; see ``states``


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one worker needs, in bytes: ``fixed`` for weights and all that goes with them, the rest for each image.

    Every image of a step is held as pixels (``held``), one of the part that is computed at once costs ``computed``.
    ``flops`` are the floating-point operations of the forward pass of one image of the largest size: its products of
    matrices, two for each multiply-add. Training takes three times that, for backward is two such passes; layers that
    are frozen, which have none, are counted as if they had.
    """

    parameters: int
    fixed: int
    held: int
    computed: int
    flops: float = 0.0

    def need(self, batch: int, workers: int, parts: int) -> int:
        """Return the bytes for a batch over all workers, each of which computes its share in ``parts`` parts."""
        images = -(-batch // workers)
        at_once = -(-images // max(min(parts, images // 2), 1))  # as ``step.parted`` does
        return self.fixed + self.held * images + self.computed * at_once


def estimate(trainable: Trainable, recipe: Recipe, precision: str, *, together: bool, on_cpu: bool) -> Estimate | None:
    """Return what training needs, None for a module that cannot run without numbers; nothing is computed.

    Args:
        trainable: Not changed.
        recipe: What freezes, averages and mixes.
        precision: As ``plan.kind`` takes it.
        together: Whether workers exchange gradients, in buckets beside them.
        on_cpu: Whether a checkpoint's copy shares the memory.
    """
    side = max(recipe.img_size + (trainable.transform.size or (0,)))
    low = kind(precision)
    try:
        module, mode = _without_numbers(trainable.module)
        if recipe.freeze_until:
            optimizers.freeze(module, recipe.freeze_until)
        optimizers.set_training(module, recipe.freeze_until)
        with _counter() as counted:
            few, widest = _kept(module, mode, _ASKED, side, low)
        many, _ = _kept(module, mode, 2 * _ASKED, side, low)
    except WrongUse:
        raise
    except Exception:  # noqa: BLE001 - a module that fails here may still train
        return None
    computed = (many - few) // _ASKED
    decoded = max(trainable.transform.resize, *(trainable.transform.size or (0,)))
    return Estimate(
        parameters=trainable.parameters,
        # Weights in low precision are copied once a pass, for any number of images.
        fixed=_fixed(module, recipe, together=together, on_cpu=on_cpu) + max(few - _ASKED * computed, 0),
        # The step's pixels and those of the next one; the part's as floats twice, and backward's widest gradient.
        held=2 * 3 * decoded**2,
        computed=computed + 2 * 4 * 3 * side**2 + widest // _ASKED,
        flops=counted.get_total_flops() / _ASKED,
    )


def _counter() -> FlopCounterMode:
    """Return a context that counts operations; of attention torch itself knows only the GPUs' kernels."""

    def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={on_cpu: attention})


def _without_numbers(module: nn.Module) -> tuple[nn.Module, Any]:
    """Return a copy whose tensors have shapes and types alone, and the context in which it runs as on a CPU."""
    # As torch_network.vector_length does on the meta device, which knows neither autocast nor a CPU's own attention.
    mode = fake_mode()
    shapes: dict[int, Any] = {id(buffer): mode.from_tensor(buffer) for buffer in module.buffers()}
    for parameter in module.parameters():
        shapes[id(parameter)] = nn.Parameter(mode.from_tensor(parameter.detach()), parameter.requires_grad)
    return copy.deepcopy(module, shapes), mode


def _kept(module: nn.Module, mode: Any, images: int, side: int, low: torch.dtype) -> tuple[int, int]:
    """Return the bytes that a forward pass keeps for backward, weights and inputs left out, and those of the widest."""
    kept: dict[int, Tensor] = {}
    own = {storage_number(tensor) for tensor in (*module.parameters(), *module.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        if storage_number(tensor) not in own:
            kept[storage_number(tensor)] = tensor
        return tensor

    with mode, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = torch.empty(images, 3, side, side).contiguous(memory_format=torch.channels_last)
        own.add(storage_number(inputs))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with autocast(torch.device("cpu"), low):
                outputs = module(inputs)
            outputs.float()
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    return sum(sizes), max(sizes, default=0)


def _fixed(module: nn.Module, recipe: Recipe, *, together: bool, on_cpu: bool) -> int:
    """Return the bytes of weights, gradients, the optimizer's state, the average, the buckets and a checkpoint."""
    weights = _bytes(module.parameters()) + _bytes(module.buffers())
    learning = _bytes(parameter for parameter in module.parameters() if parameter.requires_grad)
    state = learning * states(recipe)
    average = weights * bool(recipe.ema or recipe.swa)
    return weights + learning * (2 if together else 1) + state + average + (weights + state + average if on_cpu else 0)


def states(recipe: Recipe) -> int:
    """Return how many numbers an optimizer remembers for each weight."""
    return _STATES.get(recipe.opt, 1 if recipe.momentum else 0)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def available(device: str, workers: int, root: Path = control_groups.ROOT) -> int:
    """Return the bytes that each worker on this machine may have; on CUDA those of the fullest GPU."""
    if devices.torch_name(device) == "cuda":
        return min(torch.cuda.mem_get_info(number)[0] for number in range(workers))
    left, held = devices.memory(root), control_groups.memory_left(root)
    if held is not None and limit(device, root):  # over it the process is killed, and estimates are not that close
        left = max(round(_CLOSE * (held[1] + control_groups.swap_left(root))) - _BESIDE, 0)
    return left // workers - (PROCESS if workers > 1 else 0)


def limit(device: str, root: Path = control_groups.ROOT) -> int:
    """Return the bytes that a control group allows where it, and not this machine, bounds a training; else 0."""
    held = control_groups.memory_left(root)
    return held[0] if held is not None and device != "cuda" and held[1] <= devices.memory(root) else 0

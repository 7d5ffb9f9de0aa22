"""The optimizer of a recipe by timm, which layers learn and how fast, and the clipping of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay  # type: ignore[attr-defined]
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.training.recipe.recipe import Recipe

_FUSED = ("sgd", "adam", "adamw")  # of torch's own those that a recipe may have
_WAYS = ("fused", "foreach", "capturable")  # of computing the same step


def build(model: nn.Module, recipe: Recipe, global_batch: int) -> torch.optim.Optimizer:
    """Return the optimizer of a model's parameters that learn; biases and norms have no weight decay.

    Args:
        model: Not wrapped for distribution; frozen already where the recipe asks for it.
        recipe: ``opt``, ``lr``, ``momentum``, ``weight_decay`` and ``layer_decay`` of it.
        global_batch: Images of one step, over all workers and accumulated batches.
    """
    lr = recipe.lr * global_batch / recipe.lr_base_size  # Goyal et al. 2017
    # timm's sgd is Nesterov's, which has no meaning without momentum; its momentum is SGD as such.
    opt = "momentum" if recipe.opt == "sgd" and not recipe.momentum else recipe.opt
    given: dict[str, Any] = {"opt": opt, "lr": lr, "momentum": recipe.momentum}
    if recipe.opt in _FUSED and all(parameter.is_cuda for parameter in model.parameters()):
        given["fused"] = True  # one launch for all parameters
    if not recipe.layer_decay:
        return create_optimizer_v2(model, weight_decay=recipe.weight_decay, **given)
    return create_optimizer_v2(_layer_groups(model, recipe), **given)


def restore(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state, made on whichever device; how it computes its steps stays as it is here."""
    groups = [
        {**saved, **{name: own[name] for name in _WAYS if name in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def _layer_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return timm's groups, each with its ``lr_scale``, of the parameters that learn."""
    layered: Any = model
    if not hasattr(model, "group_matcher"):
        # timm then makes layers of neighbouring parameters, and has to know the head: here the last module.
        *_, last = (name for name, _ in model.named_parameters())
        head = last.rpartition(".")[0]
        layered = SimpleNamespace(named_parameters=model.named_parameters, pretrained_cfg={"classifier": head})
    groups = param_groups_layer_decay(
        layered,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        no_weight_decay_list=getattr(model, "no_weight_decay", set)(),
    )
    return cast(list[dict[str, Any]], groups)


def clip(model: nn.Module, recipe: Recipe) -> None:
    """Clip the gradients of a model in place, as the recipe says."""
    if recipe.clip_grad:
        dispatch_clip_grad([p for p in model.parameters() if p.grad is not None], recipe.clip_grad, recipe.clip_mode)


def freeze(model: nn.Module, until: str) -> None:
    """Keep every parameter from learning that comes before the layer ``until``, in the model's own order.

    Raises:
        WrongUse: the model has no such layer, or nothing of it would learn.
    """
    layers = [name for name, _ in model.named_modules() if name]
    if until not in layers:
        top = ", ".join(name for name, _ in model.named_children())
        raise WrongUse(f"The model has no layer {until!r}{nearest(until, layers)}: its outermost are {top}.")
    for module in _before(model, until):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise WrongUse(f"Nothing learns from the layer {until!r} on: name an earlier one with --freeze-until.")


def set_training(model: nn.Module, until: str) -> None:
    """Put a model in training mode, but for the layers before ``until``: their running statistics stay as they are."""
    model.train()
    if until:
        for module in _before(model, until):
            if not any(parameter.requires_grad for parameter in module.parameters()):
                module.eval()


def _before(model: nn.Module, until: str) -> Iterator[nn.Module]:
    for name, module in model.named_modules():
        if name == until:
            return
        yield module

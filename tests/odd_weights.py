"""Checkpoints as people save them: a model's tensors in wrappers, under prefixes, averages and other values beside."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]
Random = np.random.Generator

PREFIXES = ("module.", "_orig_mod.", "model.", "model._orig_mod.", "module.model.", "net.", "backbone.", "encoder.")
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "model_state", "module", "weights", "my_network")
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")


def beside(random: Random) -> dict[str, Any]:
    """What trainings save beside a model."""
    state = {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(7)}}
    everything: dict[str, Any] = {
        "epoch": 3,
        "arch": "resnet",
        "args": argparse.Namespace(lr=0.1, data="/data", nested=argparse.Namespace()),
        "optimizer": {"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "lr_schedulers": [{"last_epoch": 3}],
        "pytorch-lightning_version": "2.5.1",
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": None, "best_model_path": ""}},
        "scaler": {"scale": 65536.0},
        "best_acc1": torch.tensor(71.5),
        "hyper_parameters": OrderedDict(width=1),
    }
    return {name: value for name, value in everything.items() if random.integers(2)}


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def checkpoint(random: Random, tensors: Tensors, averages: Tensors) -> tuple[dict[str, Any], Tensors, bool]:
    """A checkpoint of a model, which of the two is meant, and whether it is tensors alone."""
    prefix = str(random.choice(PREFIXES)) if random.integers(3) else ""
    inner: dict[str, Any] = prefixed(tensors, prefix)
    if not random.integers(3):
        return inner, tensors, True
    whole = {str(random.choice(WRAPPERS)): inner}
    meant = tensors
    if random.integers(2):
        meant = averages
        other: dict[str, Any] = prefixed(averages, str(random.choice(["", "module.", prefix])))
        if random.integers(2):
            other["n_averaged"] = torch.tensor(9)
        whole[str(random.choice(AVERAGES))] = other
    whole |= beside(random)
    names = [str(name) for name in random.permutation(list(whole))]
    whole = {name: whole[name] for name in names}
    if not random.integers(4):
        whole = {str(random.choice(["state_dict", "checkpoint"])): whole}
    return whole, meant, False


def saved(random: Random, content: dict[str, Any], flat: bool, folder: Path) -> Path:
    """A file of it, in one of the formats that can hold it, under a name that need not be the format's."""
    file = folder / f"mine{random.choice(['.pth', '.pt', '.bin', '.ckpt', '.pth.tar', '.safetensors'])}"
    if flat and random.integers(2):
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, file)
    else:
        torch.save(content, file, _use_new_zipfile_serialization=bool(random.integers(2)))
    return file


def damage(random: Random, file: Path) -> None:
    """Cut a file, or change some of its bytes, most often those that say what is where."""
    content = bytearray(file.read_bytes())
    if not random.integers(3):
        del content[int(random.integers(len(content))) :]
    for _ in range(int(random.integers(1, 9))):
        if content:
            near = int(random.choice([20, 1000, len(content)]))
            at = int(random.integers(near)) % len(content)
            content[at if random.integers(2) else -1 - at] = int(random.integers(256))
    file.write_bytes(content)

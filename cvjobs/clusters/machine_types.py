"""Which machines may come: what the file says that the cluster's autoscaler was started with, read where it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from cvjobs.clusters.capacity import MachineRoom

_FLAG = "--autoscaling-config="


@dataclass(frozen=True, kw_only=True)
class MachineType:
    """Machines that the autoscaler may start: what each has, and the most there may be of them at once."""

    name: str
    cpus: int
    gpus: float
    most: int


def read(gcs_address: str) -> list[MachineType]:
    """Return what the autoscaler on this machine, of the cluster at an address, may start; nothing without one."""
    for words in _processes():
        files = [word.removeprefix(_FLAG) for word in words if word.startswith(_FLAG)]
        if files and f"--gcs-address={gcs_address}" in words:
            try:
                return types(yaml.safe_load(Path(files[0]).expanduser().read_text()))
            except (OSError, ValueError, yaml.YAMLError):
                return []
    return []


def types(config: Any) -> list[MachineType]:
    """Return the types of an autoscaler's file, the head's left out; one that makes no sense has none."""
    if not isinstance(config, dict) or not isinstance(config.get("available_node_types"), dict):
        return []
    in_all = config.get("max_workers", 2)  # as Ray has it
    found = []
    for name, kind in config["available_node_types"].items():
        has = kind.get("resources") or {}
        most = min(kind.get("max_workers", in_all), in_all)
        if name != config.get("head_node_type") and most > 0:
            cpus, gpus = int(has.get("CPU", 0)), float(has.get("GPU", 0))
            found.append(MachineType(name=name, cpus=cpus, gpus=gpus, most=most))
    return found


def coming(kinds: Iterable[MachineType], nodes: Iterable[Mapping[str, Any]]) -> list[MachineRoom]:
    """Return the machines that may still come, given ``ray.nodes()``: those that are there are known by what they have.

    Those without a GPU are first.
    """
    there = [(int(n["Resources"].get("CPU", 0)), float(n["Resources"].get("GPU", 0))) for n in nodes if n["Alive"]]
    found = []
    for kind in sorted(kinds, key=lambda one: one.gpus):
        if left := kind.most - there.count((kind.cpus, kind.gpus)):
            has: dict[str, Any] = {"cpus": kind.cpus, "gpus": kind.gpus}
            free: dict[str, Any] = {"free_cpus": float(kind.cpus), "free_gpus": kind.gpus}
            found.append(MachineRoom(id=kind.name, **has, **free, count=max(left, 0)))
    return found


def _processes() -> Iterator[list[str]]:
    for process in psutil.process_iter():
        try:
            yield process.cmdline()
        except psutil.Error:
            continue

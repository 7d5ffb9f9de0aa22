"""How workers of one machine meet: in a file, and from then on over its loopback interface, where no other can join.

Ray Train's own way opens ports on every interface, and those of torch.distributed ask for no token.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from torch import distributed

LOOPBACK = "127.0.0.1"


@dataclass
class OneMachine(TorchConfig):
    """The group of workers that see ``folder``, which must be empty at first."""

    folder: str = ""

    @property
    def backend_cls(self) -> Any:
        """What Ray Train starts and ends the group with."""
        return _Meeting


class _Meeting(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray's own ends the group
    def on_start(self, worker_group: Any, backend_config: OneMachine) -> None:
        """Return when all workers are in the group; the first, and those that stand in for some that died."""
        place = (Path(backend_config.folder) / uuid.uuid4().hex).as_uri()
        size = len(worker_group)
        joining = [
            worker_group.execute_single_async(rank, _join, backend_config, place, rank, size) for rank in range(size)
        ]
        ray.get(joining)


def _join(config: OneMachine, place: str, rank: int, size: int) -> None:
    for name, addresses in psutil.net_if_addrs().items():
        if any(found.address == LOOPBACK for found in addresses):
            os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name
    timeout = timedelta(seconds=config.timeout_s)
    distributed.init_process_group(config.backend, init_method=place, rank=rank, world_size=size, timeout=timeout)

"""What Ray does otherwise than its options say, and has no switch for, or one of another name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HERE = ("127.0.0.1", "::1", "localhost")
VERSIONS = {"ray": ("2.60",)}
# Without these Ray tells its metrics to all who ask; each closes others of the ports.
NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "RAY_DISABLE_METRICS": "1",
    "DASHBOARD_METRIC_PORT": "-1",
    "AUTOSCALER_METRIC_PORT": "-1",
}
# Ray takes an address that other machines reach wherever it is told 127.0.0.1, unless this says that there are none.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def let_print(ray: Any, may: bool) -> None:
    """Let the module ``ray`` print of its workers and machines on stdout, whatever ``log_to_driver`` says, or not."""
    ray._private.worker._worker_logs_enabled = may  # Ray's debugger does the same


@contextmanager
def on_loopback(ray: Any) -> Iterator[None]:
    """Have the module ``ray``, and what it starts, take 127.0.0.1 for this machine, so that they listen there alone."""
    constants = ray._private.ray_constants
    before = {name: os.environ.get(name) for name in ALONE}, constants.ENABLE_RAY_CLUSTER
    os.environ.update(ALONE)
    constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported
    try:
        yield
    finally:
        variables, constants.ENABLE_RAY_CLUSTER = before
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def free_by_node(ray: Any) -> dict[str, dict[str, float]]:
    """Return what of each machine's resources is free, by the machine's id; Ray itself tells the sum alone."""
    if is_client(ray):  # which cannot ask, so all counts
        return {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    found: dict[str, dict[str, float]] = ray._private.state.available_resources_per_node()
    return found


def drained(ray: Any) -> set[str]:
    """Return the ids of machines that are about to be taken away."""
    return set() if is_client(ray) else set(ray._private.state.state.get_draining_nodes() or {})


def is_client(ray: Any) -> bool:
    """Return whether the connection is Ray Client's (``ray://``), which knows less."""
    return bool(ray.util.client.ray.is_connected())

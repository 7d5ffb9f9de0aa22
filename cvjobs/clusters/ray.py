"""Connecting to Ray: the cluster at an address, or a Ray of this machine that ends with the command."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from cvjobs.clusters import auth_token, ray_folder
from cvjobs.clusters.ray_compat import HERE, NO_METRICS, let_print, on_loopback
from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, WrongUse

KNOCK = 10.0  # seconds
OBJECT_STORE = 100 << 20  # bytes


def connect(address: str | None) -> None:
    """Connect to the Ray cluster at an address, or start a Ray on this machine that ends with this process."""
    if address and "://" in address and not address.startswith("ray://"):
        raise WrongUse(
            f"--address {address} is no host:port: give the address that `ray start` printed, or auto; "
            "http://HOST:8265 is for the command line."
        )
    ray = library()
    if not address:
        auth_token.ensure()
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if not address:
        options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "address": "local"}
        options |= {"num_cpus": devices.cpus(), "_temp_dir": ray_folder.chosen()}
        if devices.simulated():
            options["num_gpus"] = devices.gpus()
    else:
        _knock(address)
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # one try, which takes 40 s, instead of 20
        options["address"] = address
    handler = signal.getsignal(signal.SIGTERM)
    let_print(ray, False)
    try:
        with on_loopback(ray) if _here(address) else contextlib.nullcontext():
            ray.init(**options)
    except SystemExit:  # Ray's own answer to SIGTERM, which it puts in place of ours
        raise KeyboardInterrupt from None
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise _no_answer(address or "this machine", str(error).strip().split("\n", 1)[0]) from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no kind of its own for it
            raise
        raise JobFailed(
            "Ray did not start in time, for this machine is too busy: run the same command again when it is less so."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def connection(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected as ``connect`` does; a connection that was there before stays."""
    ray = library()
    ours = not ray.is_initialized()
    if ours:
        connect(address)
    try:
        yield ray
    finally:
        if ours:
            disconnect()


def disconnect() -> None:
    """End a connection that ``connect`` made."""
    ray = library()
    ray.shutdown()
    let_print(ray, True)


def _here(address: str | None) -> bool:
    """Return whether only this machine may reach the Ray at an address; "auto" finds one that runs here."""
    host = (address or "").rpartition(":")[0].strip("[]")
    return not host or host in HERE


def _knock(address: str) -> None:
    """Raise JobFailed where no program listens at a ``host:port``: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
    except OSError as error:
        raise _no_answer(address, error.strerror or str(error)) from error


def refuses(address: str) -> bool:
    """Return whether a machine that answers has no program at a ``host:port``."""
    try:
        _knock(address)
    except JobFailed as error:
        return isinstance(error.__cause__, ConnectionRefusedError)
    return False


def alone() -> bool:
    """Return whether all of the Ray that is connected is on one machine, and no other reaches it."""
    return all(node["NodeManagerAddress"] in HERE for node in library().nodes() if node["Alive"])


def _no_answer(where: str, reason: str) -> JobFailed:
    return JobFailed(f"Ray does not answer at {where} ({reason}): check --address and RAY_ADDRESS.")


def room(nodes: list[dict[str, Any]], gpu: bool, part: float = 1.0) -> int:
    """Return how many workers have room at once, each with a core; see ``share``."""
    cores, _, limits = _limits(nodes, gpu, part)
    return sum(map(min, cores, limits))


def _limits(nodes: list[dict[str, Any]], gpu: bool, part: float) -> tuple[list[int], list[int], list[int]]:
    """Return by machine its cores, its GPUs, and for how many workers these are."""
    there = [node["Resources"] for node in nodes if node["Alive"]]
    cores, gpus = ([int(has.get(name, 0)) for has in there] for name in ("CPU", "GPU"))
    return cores, gpus, [int(count / part) for count in gpus] if gpu else cores


def share(nodes: list[dict[str, Any]], workers: int, gpu: bool, part: float = 1.0) -> int:
    """Return how many cores each worker gets, so that all have room at once; with ``gpu`` each also takes a GPU.

    Of a GPU it may be a ``part``.

    ``nodes`` are those of ``ray.nodes()``. Raises WrongUse where the workers have no room.
    """
    cores, gpus, limits = _limits(nodes, gpu, part)
    for each in range(max(cores, default=0), 0, -1):
        if sum(min(count // each, limit) for count, limit in zip(cores, limits, strict=True)) >= workers:
            return each
    most = room(nodes, gpu, part)
    what = "cores" if not gpu else "GPUs" if sum(limits) < workers else "cores beside GPUs"
    needed, has = (f"{workers * part:g}", sum(gpus)) if what == "GPUs" else (f"{workers}", most)
    remedy = f"{has}: use at most --workers {most}" if most else "none: add machines that have some"
    raise WrongUse(f"--workers {workers} needs {needed} {what} and the cluster has {remedy}.")


def library() -> Any:
    """Import Ray, without open metrics ports, usage reports, and errors of answers that are no longer needed."""
    for name, value in NO_METRICS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # An answer that is no longer needed may fail in silence; every other error is raised here.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    import ray

    return ray

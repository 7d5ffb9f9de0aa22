"""What a cluster has room for: seats among its machines, and who of them counts."""

from __future__ import annotations

from typing import Any

from cvjobs.clusters import machine_types
from cvjobs.clusters.capacity import Capacity, Seat, awaited, capacity
from cvjobs.clusters.machine_types import MachineType


def cluster(*machines: tuple[int, int], used: dict[int, dict[str, float]] | None = None, drained: int = -1) -> Capacity:
    """A cluster of machines with (cores, GPUs), of which some is used by number."""
    nodes: list[dict[str, Any]] = []
    free = {}
    for number, (cores, gpus) in enumerate(machines):
        has = {"CPU": float(cores), "GPU": float(gpus)}
        nodes.append({"NodeID": f"n{number}", "Alive": True, "Resources": has})
        taken = (used or {}).get(number, {})
        free[f"n{number}"] = {name: count - taken.get(name, 0.0) for name, count in has.items()}
    return capacity(nodes, free, {f"n{drained}"} if drained >= 0 else ())


def free(has: Capacity, *, gpu: bool, each: float = 1.0, **held: int) -> list[Seat]:
    return has.free(gpu=gpu, each=each, held=held, starting={})


def test_every_free_gpu_is_a_seat_with_its_share_of_the_cores() -> None:
    has = cluster((4, 0), (8, 2), (16, 4), used={2: {"GPU": 1.0, "CPU": 4.0}})
    assert free(has, gpu=True) == [Seat(cpus=4, gpus=1.0, node="n1")] * 2 + [Seat(cpus=4, gpus=1.0, node="n2")] * 3
    assert has.gpus == 6


def test_two_share_a_gpu_that_is_asked_by_a_third() -> None:
    has = cluster((8, 1), used={0: {"GPU": 0.001}})
    assert free(has, gpu=True) == [Seat(cpus=8, gpus=1.0, node="n0")]
    assert free(has, gpu=True, each=0.5) == [Seat(cpus=4, gpus=0.5, node="n0")] * 2


def test_of_a_machine_without_gpus_one_worker_has_what_is_free() -> None:
    has = cluster((4, 0), (8, 0), (2, 0), used={1: {"CPU": 3.0}, 2: {"CPU": 2.0}})
    assert free(has, gpu=False) == [Seat(cpus=4, node="n0"), Seat(cpus=5, node="n1")]
    assert [seat.node for seat in has.taken(gpu=False)] == ["n0", "n1", "n2"]


def test_what_is_held_is_no_seat_and_what_came_is() -> None:
    has = cluster((2, 2), (2, 2), used={0: {"GPU": 2.0, "CPU": 2.0}})
    assert [seat.node for seat in free(has, gpu=True, n0=2)] == ["n1", "n1"]
    assert free(has, gpu=True, n0=2, n1=2) == []
    starting = has.free(gpu=True, each=1.0, held={"n1": 1}, starting={"n1": 1})
    assert [seat.node for seat in starting] == ["n1"]


def test_a_machine_that_is_drained_has_no_seat() -> None:
    has = cluster((2, 2), (2, 2), drained=1)
    assert {seat.node for seat in free(has, gpu=True)} == {"n0"}
    assert has.drained == {"n1"}


CONFIG = {
    "max_workers": 3,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 8, "GPU": 8}},
        "gpus": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 9},
        "cpus": {"resources": {"CPU": 4}, "max_workers": 2},
        "none": {"resources": {"CPU": 4}, "max_workers": 0},
    },
}


def test_what_may_come_is_in_the_autoscalers_file() -> None:
    gpus, cpus = machine_types.types(CONFIG)
    assert gpus == MachineType(name="gpus", cpus=8, gpus=2.0, most=3)
    assert cpus == MachineType(name="cpus", cpus=4, gpus=0.0, most=2)
    nothing: list[Any] = [None, [], {}, {"available_node_types": []}]
    assert [machine_types.types(odd) for odd in nothing] == [[]] * 4
    assert machine_types.read("127.0.0.1:9") == []


def test_what_is_there_does_not_come_again() -> None:
    node = {"NodeID": "n0", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    kinds = machine_types.types(CONFIG)
    for there, gpus in (([], 6), ([node], 4), ([node, {**node, "Alive": False}], 4), ([node] * 4, 0)):
        has = capacity(there, {}, coming=machine_types.coming(kinds, there))
        seats = has.to_come(gpu=True, each=1.0)
        assert seats == [Seat(cpus=4, gpus=1.0)] * gpus
        assert has.to_come(gpu=False, each=1.0) == [Seat(cpus=4)] * 2  # and no machine with a GPU for a CPU's work
    assert awaited(seats) == []
    assert awaited([Seat(cpus=4, gpus=0.5)] * 3) == ["the cluster is asked for machines with 1.5 GPUs, for 3 workers"]
    assert awaited([Seat(cpus=4)]) == ["the cluster is asked for machines with 4 cores, for 1 worker"]

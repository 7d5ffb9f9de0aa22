"""A connection to the cluster at an address: made when the cluster is first asked something, and asked without end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from cvjobs.clusters import machine_types, ray_compat
from cvjobs.clusters.capacity import Capacity, capacity
from cvjobs.clusters.machine_hours import HEAD
from cvjobs.clusters.machine_types import MachineType
from cvjobs.clusters.ray import connect, disconnect, library, refuses
from cvjobs.common.errors import CvjobsError, JobFailed
from cvjobs.common.progress import during

LOOK = 2.0  # s between two looks at what the cluster has
ANSWER = 60.0  # s that Ray may take to say what it has
GONE = 45.0  # s after which a head where nothing listens is lost: after 60 Ray ends this process without a word
SILENT = 120.0  # s after which any head that says nothing is
LAST = 10.0  # s that it may take in the end
POLL = 0.5  # s
QUESTION = 0.001  # of a GPU or a core, for what only asks about it

Answer = TypeVar("Answer")


class Link:
    """Ray at an address; ``close`` ends a connection that this made."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._ours = False
        self._seen: Capacity | None = None
        self._nodes: list[Mapping[str, Any]] = []
        self._answered = 0.0
        self._ended = threading.Event()
        self._looking: threading.Thread | None = None

    @cached_property
    def ray(self) -> Any:
        """Ray, connected; raises JobFailed where it does not answer."""
        ray = library()
        if not ray.is_initialized():
            with during("connecting to Ray"):
                connect(self.address)
            self._ours = True
        return ray

    def close(self) -> None:
        """End the connection, when the last answer is there that is waited for."""
        self._ended.set()
        if self._looking is not None:  # who asks Ray after it was shut down ends the whole process
            self._looking.join(LAST)
        if self._ours:
            with during("leaving Ray"):
                disconnect()

    def capacity(self) -> Capacity:
        """Return what the cluster has now; raises JobFailed where it does not say so in time."""
        return self._within(self._look, ANSWER)

    def nodes(self) -> list[dict[str, Any]]:
        """Return what ``ray.nodes()`` does; raises JobFailed where it does not in time."""
        return self._within(self.ray.nodes, ANSWER)

    def seen(self) -> Capacity | None:
        """Return what the cluster had at the last look, at once; one is made every few seconds from now on.

        Raises JobFailed where the cluster has not answered for so long that it will not any more.
        """
        if self._looking is None:
            self._answered = time.monotonic()
            self._looking = threading.Thread(target=self._repeat, name="cluster", daemon=True)
            self._looking.start()
        silent = time.monotonic() - self._answered
        if silent > SILENT or (silent > GONE and refuses(self.address)):
            raise JobFailed(
                f"Ray at {self.address} has not answered for {silent:.0f} s: see whether its head runs, then run the "
                "same command, which continues."
            )
        return self._seen

    def seen_nodes(self) -> list[Mapping[str, Any]]:
        """As ``seen``, what ``ray.nodes()`` returned then; nothing before the first look."""
        self.seen()
        return self._nodes

    def ask(self, what: Callable[..., Answer], *arguments: Any, gpu: bool, watch: Callable[[], None]) -> Answer:
        """Return what a function says on the first machine that can run it: with ``gpu`` one that has a GPU.

        ``watch`` is called while that is waited for, and may raise.
        """
        ray = self.ray
        needs = {"num_cpus": 0 if gpu else QUESTION, "num_gpus": QUESTION if gpu else 0}
        handle = ray.remote(max_retries=3, **needs)(what).remote(*arguments)
        try:
            with during(f"waiting for a {'GPU' if gpu else 'core'} of the cluster"):
                while not ray.wait([handle], timeout=POLL)[0]:
                    watch()
        except BaseException:
            ray.cancel(handle, force=True)
            raise
        try:
            answer: Answer = ray.get(handle)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, CvjobsError):
                raise error.cause from error
            raise
        except ray.exceptions.RayError as error:
            reason = str(error).split("\n", 1)[0]
            raise JobFailed(f"A worker of {self.address} does not answer ({reason}): see the Ray logs.") from error
        return answer

    @cached_property
    def kinds(self) -> list[MachineType]:
        """The machines that an autoscaler may start; none where there is no autoscaler, or its head does not say."""
        ray = self.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        head = next((node["NodeID"] for node in self.nodes() if HEAD in node["Resources"]), None)
        if head is None or ray_compat.is_client(ray):
            return []
        there = NodeAffinitySchedulingStrategy(head, soft=False)
        context = ray.get_runtime_context()
        handle = ray.remote(num_cpus=0, scheduling_strategy=there)(machine_types.read).remote(context.gcs_address)
        try:
            found: list[MachineType] = ray.get(handle, timeout=ANSWER)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return []
        return found

    def _look(self) -> Capacity:
        ray, nodes = self.ray, self.ray.nodes()
        self._nodes = nodes
        coming = machine_types.coming(self.kinds, nodes)
        return capacity(nodes, ray_compat.free_by_node(ray), ray_compat.drained(ray), coming)

    def _repeat(self) -> None:
        while not self._ended.is_set():
            try:
                self._seen = self._look()
                self._answered = time.monotonic()
            except Exception:  # noqa: BLE001 - what it had at the last look counts until it answers again
                self._ended.wait(LOOK)
            self._ended.wait(LOOK)

    def _within(self, call: Callable[[], Answer], seconds: float) -> Answer:
        """Return what a call returns; Ray's own wait without end for a head that is gone."""
        _ = self.ray  # connected in this thread
        answers: list[Answer] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                answers.append(call())
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)

        thread = threading.Thread(target=run, name="cluster", daemon=True)
        thread.start()
        thread.join(seconds)
        if answers:
            return answers[0]
        reason = str(errors[0]).split("\n", 1)[0] if errors else f"for {seconds:.0f} s"
        raise JobFailed(f"Ray at {self.address} does not say what machines it has ({reason}): see whether it runs.")

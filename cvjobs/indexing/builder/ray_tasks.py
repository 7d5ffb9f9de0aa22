"""Additions to an index spread over Ray workers: files go in and come out, a lost worker's range is done again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cvjobs.clusters import ray as clusters_ray
from cvjobs.common.errors import JobFailed
from cvjobs.indexing.builder import ivf
from cvjobs.indexing.builder.ivf import Addition

TRIES = 3


def spread(workers: int, address: str | None) -> Callable[[list[Addition]], None]:
    """Return what does additions on Ray workers, on the cluster at an address or on this machine."""

    def add(tasks: list[Addition]) -> None:
        with clusters_ray.connection(address) as ray:
            _work(ray, workers, tasks)

    return add


def _work(ray: Any, workers: int, tasks: list[Addition]) -> None:
    # Ray gives a task as many threads as cores; what a task raises is not tried again, a lost worker's task is here.
    remote = ray.remote(ivf.add).options(num_cpus=1, max_retries=0, retry_exceptions=False)
    todo = [(task, TRIES) for task in reversed(tasks)]
    busy: dict[Any, tuple[Addition, int]] = {}
    errors = ray.exceptions
    while todo or busy:
        while todo and len(busy) < workers:
            task, tries = todo.pop()
            busy[remote.remote(task)] = (task, tries - 1)
        (done, *_), _ = ray.wait(list(busy), num_returns=1)
        task, tries = busy.pop(done)
        try:
            ray.get(done)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            raise (cause if isinstance(cause, BaseException) else error) from error
        except errors.RayError as error:
            if not tries:
                died = f"Workers die while they add vectors ({str(error).splitlines()[0]})"
                raise JobFailed(f"{died}: allow less --max-memory, or fewer --workers.") from error
            todo.append((task, tries))

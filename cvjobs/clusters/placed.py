"""Whether the workers that Ray Train starts for this process have machines, and for how long they have had none."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

LOOK = 2.0  # s between two looks
ANSWER = 10.0  # s that an answer is waited for in the end: who asks Ray after it was shut down ends the whole process
SOON = 10.0  # s in which Ray finds machines that are free: no time to speak of


class Placed:
    """Asks Ray every few seconds, in a thread of its own: one that does not answer makes nobody wait."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._job = ray, ray.get_runtime_context().get_job_id()
        self._none_since: float | None = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="placed", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more; returns when the last answer is there."""
        self._ended.set()
        self._thread.join(ANSWER)

    @property
    def waited(self) -> float | None:
        """For how many seconds the workers have had no machines; None while they have, or may have them soon."""
        since = self._none_since
        seconds = 0.0 if since is None else time.monotonic() - since
        return seconds if seconds > SOON else None

    def _repeat(self) -> None:
        while not self._ended.is_set():
            with suppress(Exception):  # what was so at the last look counts until it answers again
                if self._look():
                    self._none_since = None
                elif self._none_since is None:
                    self._none_since = time.monotonic()
            self._ended.wait(LOOK)

    def _look(self) -> bool:
        """Return whether Ray has found a place for a team of this job: the id of a group ends with that of its job."""
        groups = self._ray.util.placement_group_table().values()
        return any(one["placement_group_id"].endswith(self._job) and one["state"] == "CREATED" for one in groups)

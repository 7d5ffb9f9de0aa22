"""Ray's Jobs API over HTTP: jobs by id, their logs, packages of code; its failures as sentences."""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

import urllib3

from cvjobs.clusters import auth_token
from cvjobs.common.errors import JobFailed, WrongUse

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
ASKING, DOING = urllib3.Timeout(connect=5.0, read=20.0), urllib3.Timeout(connect=5.0, read=60.0)
_ERRNO = re.compile(r"\[Errno -?\d+\] ")
_BAD, _UNAUTHORIZED, _FORBIDDEN, _MISSING = 400, 401, 403, 404


class Unreachable(JobFailed):
    """The cluster gives no answer, or none that makes sense; it may do so later."""


@dataclass(frozen=True, kw_only=True)
class ClusterJob:
    """A job as the cluster knows it; times in seconds since 1970, None where not known (yet)."""

    id: str
    status: str
    entrypoint: str
    message: str = ""
    started: float | None = None
    ended: float | None = None
    returned: int | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED

    @property
    def command(self) -> str:
        """The command line that runs, as one would type it."""
        return self.entrypoint.removeprefix("exec python -m ")

    @property
    def exit_code(self) -> int | None:
        """The job's own exit code: 130 where it was stopped, 1 where it has none, None while it is not over."""
        if not self.over:
            return None
        if self.status == "STOPPED":
            return 130
        if self.status == "SUCCEEDED":
            return 0
        return self.returned if self.returned and 0 < self.returned < 256 else 1

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        kept = {name: value for name, value in vars(self).items() if name != "returned"}
        return {**kept, "exit_code": self.exit_code}


class Server:
    """The Jobs API at ``http://HOST:PORT``; every call raises Unreachable where nothing answers."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._pool = urllib3.PoolManager(retries=False)
        self._token = ""

    def greet(self) -> str:
        """Return the cluster's version of Ray; raises WrongUse where what answers is no Ray cluster."""
        status, body = self._ask("GET", "/api/version")
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            self._checked(status, body)
        try:
            return str(json.loads(body)["ray_version"])
        except (ValueError, KeyError, TypeError):
            raise WrongUse(f"What answers at {self.address} is no Ray cluster: check --address.") from None

    def job(self, name: str) -> ClusterJob | None:
        """Return a job, None where the cluster knows none of that id."""
        status, body = self._ask("GET", _place(name))
        return None if status == _MISSING else _job(self._read(self._checked(status, body)))

    def jobs(self) -> list[ClusterJob]:
        """Return the jobs that were submitted, the oldest first."""
        entries = self._read(self._good("GET", "/api/jobs/"))
        found = [_job(entry) for entry in entries if entry.get("submission_id")]
        return sorted(found, key=lambda job: job.started or 0.0)

    def log(self, name: str) -> str:
        """Return everything that a job has written so far."""
        return str(self._read(self._good("GET", f"{_place(name)}/logs"))["logs"])

    def submit(self, name: str, entrypoint: str, runtime_env: dict[str, Any]) -> bool:
        """Start a job; False where the cluster has one of that id already."""
        request = {"submission_id": name, "entrypoint": entrypoint, "runtime_env": runtime_env}
        status, body = self._ask("POST", "/api/jobs/", json.dumps(request).encode())
        if status >= _BAD and b"already exists" in body:
            return False
        self._checked(status, body)
        return True

    def stop(self, name: str) -> None:
        """Ask a job to end; nothing happens where it has."""
        self._good("POST", f"{_place(name)}/stop")

    def labels(self) -> list[dict[str, str]]:
        """Return the labels of each machine of the cluster."""
        answer = self._read(self._good("GET", "/api/v0/nodes?detail=true"))
        return [node["labels"] or {} for node in answer["data"]["result"]["result"] if node["state"] == "ALIVE"]

    def offer(self, package: str, content: bytes) -> None:
        """Give the cluster a package of code, unless it has it; it keeps one that no job uses for ten minutes."""
        place = f"/api/packages/{package.replace('://', '/')}"
        status, body = self._ask("GET", place)
        if status == _MISSING:
            self._good("PUT", place, content)
        else:
            self._checked(status, body)

    def _good(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return self._checked(*self._ask(method, path, body))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of an answer; the token is sent only where it is asked for."""
        status, content = self._send(method, path, body)
        if status == _UNAUTHORIZED and not self._token:
            self._token = auth_token.read()
            if self._token:
                status, content = self._send(method, path, body)
        return status, content

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        place, timeout = self.address + path, ASKING if method == "GET" else DOING
        try:
            answer = self._pool.request(method, place, body=body, headers=headers, redirect=False, timeout=timeout)
        except urllib3.exceptions.LocationValueError:
            raise WrongUse(f"--address {self.address} is no address: give http://HOST:8265.") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = _ERRNO.sub("", str(error).rpartition(": ")[2]) or type(error).__name__
            raise Unreachable(
                f"No Ray cluster answers at {self.address} ({reason}): check --address, or start one "
                "('cvjobs cluster up local')."
            ) from error
        return answer.status, answer.data

    def _read(self, body: bytes) -> Any:
        """Return what an answer says in JSON."""
        try:
            return json.loads(body)
        except ValueError:
            raise Unreachable(f"What answers at {self.address} is no Ray cluster: check --address.") from None

    def _checked(self, status: int, body: bytes) -> bytes:
        if status < _BAD:
            return body
        if status == _UNAUTHORIZED:
            raise WrongUse(f"The cluster at {self.address} asks for its token: put it into {auth_token.WHERE}.")
        if status == _FORBIDDEN:
            raise WrongUse(f"The cluster at {self.address} has another token: put its own into {auth_token.WHERE}.")
        words = body.decode(errors="replace").strip().splitlines() or [""]
        raise Unreachable(f"The cluster at {self.address} failed ({status}, {words[-1][:200]}): see Ray's logs there.")


def _place(name: str) -> str:
    return f"/api/jobs/{urllib.parse.quote(name, safe='')}"


def _job(entry: dict[str, Any]) -> ClusterJob:
    began, ended = entry.get("start_time"), entry.get("end_time")
    return ClusterJob(
        id=entry.get("submission_id") or entry.get("job_id") or "",
        status=entry["status"],
        entrypoint=entry.get("entrypoint") or "",
        message=entry.get("message") or "",
        started=began / 1000 if began else None,
        ended=ended / 1000 if ended else None,
        returned=entry.get("driver_exit_code"),
    )

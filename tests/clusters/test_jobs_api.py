"""A Jobs API that refuses, is silent or is none; and the marker of a job's OUT, which stays while it may begin."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import cvjobs
from cvjobs.clusters.jobs_api import follow, submit
from cvjobs.clusters.jobs_api.server import Server, Unreachable
from cvjobs.common.errors import CvjobsError, JobFailed, Stopped, WrongUse
from cvjobs.config import commands, fields
from cvjobs.config.options import SubmitOptions

pytestmark = pytest.mark.slow


@dataclass
class Cluster:
    """A Jobs API on loopback with at most one job."""

    address: str = ""
    refuses: bool = False
    silent: bool = False
    words: bytes = b""
    paths: list[str] = field(default_factory=list)
    status: str = "PENDING"
    entrypoint: str = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/api/version":
            return 200, {"ray_version": "2.60.0"}
        if path.startswith("/api/v0/nodes"):
            node = {"labels": {"cvjobs": cvjobs.__version__}, "state": "ALIVE"}
            return 200, {"data": {"result": {"result": [node]}}}
        if method == "POST":
            self.entrypoint = "" if self.refuses else json.loads(body)["entrypoint"]
            return (500 if self.refuses else 200), {}
        if path.endswith("/logs"):
            return (500 if self.silent else 200), {"logs": ""}
        job = {"submission_id": "one", "status": self.status, "entrypoint": self.entrypoint, "driver_exit_code": 1}
        return (200, job) if self.entrypoint else (404, {})


@contextlib.contextmanager
def serving(cluster: Cluster) -> Iterator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            cluster.paths.append(self.path)
            status, content = cluster.answer(self.command, self.path, self.rfile.read(length))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(cluster.words or json.dumps(content).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        cluster.address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def sent(cluster: Cluster, folder: Path) -> int:
    out = folder / "out"
    config = fields.build(commands.load("embed").Config, "/photos", str(out), address=cluster.address)
    return submit.send("embed", config, SubmitOptions(id="one"))


def test_a_job_that_never_came_to_be_leaves_no_marker(tmp_path: Path) -> None:
    cluster = Cluster(refuses=True)
    with serving(cluster), pytest.raises(CvjobsError, match="failed \\(500"):
        sent(cluster, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_died_before_it_began_leaves_no_marker(tmp_path: Path) -> None:
    cluster = Cluster(status="FAILED")
    with serving(cluster):
        assert sent(cluster, tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_the_marker_to_a_job_that_is_about_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    cluster = Cluster()
    with serving(cluster), pytest.raises(Stopped, match="Job one goes on"):
        sent(cluster, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".cvjobs-one"]


def test_a_cluster_that_falls_silent_may_still_begin_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "PATIENCE", 0.0)
    cluster = Cluster(silent=True)
    with serving(cluster), pytest.raises(JobFailed, match="has not answered for"):
        sent(cluster, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".cvjobs-one"]


def test_what_is_no_jobs_api_is_a_sentence() -> None:
    cluster = Cluster(words=b"<html>", entrypoint="sleep")
    with serving(cluster):
        server = Server(cluster.address)
        for ask in (server.jobs, server.labels, lambda: server.job("one"), lambda: server.log("one")):
            with pytest.raises(Unreachable, match="is no Ray cluster: check --address"):
                ask()
        with pytest.raises(WrongUse, match="is no Ray cluster: check --address"):
            server.greet()


def test_an_id_is_one_part_of_a_path() -> None:
    cluster = Cluster()
    with serving(cluster):
        assert Server(cluster.address).job("../a b?c") is None
        with pytest.raises(WrongUse, match="ID is missing"):
            cvjobs.jobs("status", "", address=cluster.address)
    assert cluster.paths == ["/api/jobs/..%2Fa%20b%3Fc", "/api/version"]


def test_a_job_is_followed_in_any_thread() -> None:
    cluster = Cluster(status="SUCCEEDED", entrypoint="sleep")
    with serving(cluster), ThreadPoolExecutor(1) as threads:
        assert threads.submit(follow.follow, Server(cluster.address), "one").result() == 0

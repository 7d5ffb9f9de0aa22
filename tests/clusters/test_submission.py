"""Commands as jobs on a cluster: log lines, exit codes, ids, kills, stops; and the cluster on this machine itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import CLI, Ended, embed, exact, parts, rows, run, sentence, started, until
from heads import TOYS, ray_head, said

from cvjobs.clusters import files, local
from cvjobs.clusters import host as clusters_host
from cvjobs.common.errors import CvjobsError

pytestmark = pytest.mark.ray


def toil(head: dict[str, str], *words: object, cwd: Path | None = None) -> Ended:
    return run("toil", *words, program=TOYS, cwd=cwd, **head)


def jobs(head: dict[str, str], *words: object) -> Ended:
    return run("jobs", *words, program=CLI, cwd=None, **head)


def state(head: dict[str, str], name: str) -> dict[str, Any]:
    ended = jobs(head, "status", name, "--json")
    assert ended.code == 0, ended
    found: dict[str, Any] = json.loads(ended.out)
    return found


def body(err: str) -> str:
    """A client's stderr without its own lines."""
    return "".join(line for line in err.splitlines(keepends=True) if not line.startswith("cvjobs: "))


def test_the_same_id_twice_at_once_is_one_job_with_its_lines_and_its_exit_code(head: dict[str, str]) -> None:
    words = [*TOYS, "toil", "/twice", "--lines", "30", "--pause", "0.1", "--end", "3", "--id", "twice"]
    with started(words, **head) as one, started(words, **head) as two:
        answers = [process.communicate(timeout=120) for process in (one, two)]
    for process, (out, err) in zip((one, two), answers, strict=True):
        assert (out, body(err)) == said("/twice", 30), err
        assert process.returncode == 3
    found = json.loads(jobs(head, "list", "--json").out)
    assert [job["exit_code"] for job in found if job["id"] == "twice"] == [3]
    # The same again, when it is over: the same answer.
    ended = toil(head, "/twice", "--lines", 30, "--pause", 0.1, "--end", 3, "--id", "twice")
    assert (ended.code, ended.out) == (3, said("/twice", 30)[0])
    other = toil(head, "/other", "--id", "twice")
    assert "The id twice belongs to another command" in sentence(other, 2)


def test_a_killed_client_and_ctrl_c_leave_the_job_alone_and_a_stop_is_graceful(head: dict[str, str]) -> None:
    words = [*TOYS, "toil", "/long", "--lines", "4000", "--pause", "0.1", "--id", "long"]
    with started(words, **head) as process:
        until(lambda: process.stdout is not None and process.stdout.readline() == "/long 0\n", 60)
        process.kill()
    with started(words, **head) as process:
        until(lambda: process.stdout is not None and process.stdout.readline() == "/long 0\n", 60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "cvjobs: Job long goes on: follow it with 'cvjobs jobs wait long', stop it with" in err
    assert "Traceback" not in err
    assert state(head, "long")["status"] == "RUNNING"
    stopped = jobs(head, "stop", "long")
    assert stopped.code == 0, stopped
    assert re.search(r"^long +stopped +130 ", stopped.out, re.MULTILINE)
    ended = jobs(head, "wait", "long")
    assert ended.code == 130
    out, err = said("/long", len(ended.out.splitlines()) + len(body(ended.err).splitlines()) - 1)
    assert (ended.out, body(ended.err)) == (out, f"{err}published\n")


def test_detached(head: dict[str, str]) -> None:
    ended = toil(head, "/word", "--end", -9, "--detach", "--id", "killed")
    assert (ended.code, ended.out) == (0, "")
    assert "'cvjobs jobs wait killed'" in ended.err
    ended = jobs(head, "wait", "killed")
    assert ended.code == 1
    assert ended.out == "/word 0\n"
    assert "Job killed was killed by SIGKILL" in ended.err.splitlines()[-1]
    assert jobs(head, "logs", "killed").out == "/word 0\n"


def test_a_path_is_the_clients_and_so_is_the_configuration(head: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "cvjobs.yaml").write_text("embed: {limit: 7}\ntoil: {lines: 5, out: sub/out}\n")
    (tmp_path / "sub").mkdir()
    ended = toil(head, "word", "--id", "paths", cwd=tmp_path)
    assert ended.code == 0, ended
    assert ended.out == f"{tmp_path}/word 0\n{tmp_path}/word 2\n{tmp_path}/word 4\n"
    assert f"--out={tmp_path}/sub/out --lines=5 -- {tmp_path}/word" in state(head, "paths")["entrypoint"]
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.faults(minutes=0.5)
def test_a_stopped_night_stops_its_job_and_the_same_command_ends_exact(
    head: dict[str, str], slow_photos: Path, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "p.yaml"
    step = {"source": str(slow_photos), "out": "out", "model": "thumbnail/4", "address": head["RAY_ADDRESS"]}
    file.write_text(json.dumps({"state": "state", "steps": [{"embed": step}]}))

    def ended(status: str) -> bool:
        found = json.loads(jobs(head, "list", "--json").out)
        return status in [job["status"] for job in found if job["id"].startswith("embed-")]

    with started([*CLI, "run", str(file)], **head) as process:
        until(lambda: parts(out) or process.poll() is not None)
        process.terminate()
        said, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "night 1 of p: stopped, 0 of 1 steps done" in said
    assert ended("STOPPED")
    assert 0 < rows(out).num_rows < 200
    again = run("run", file, program=CLI, cwd=None, **head)
    assert again.code == 0, again
    assert ended("SUCCEEDED")
    exact(out, slow_photos, 200)


@pytest.mark.faults
def test_a_stopped_embed_is_consistent_and_the_same_command_ends_exact(
    head: dict[str, str], slow_photos: Path, tmp_path: Path
) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    words = [*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]
    with started([*words, "--id", "stopped"], **head) as process:
        until(lambda: list(out.glob("_cvjobs/runs/*")) or process.poll() is not None, 120)
        began = time.monotonic()
        assert jobs(head, "stop", "stopped").code == 0
        assert time.monotonic() - began < 30
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert rows(out).num_rows < 200
    again = embed(slow_photos, out, "--workers", 2, "--json", **head)
    assert again.code == 0, again
    assert json.loads(again.out)["ok"] == 200
    exact(out, slow_photos, 200)
    assert embed(slow_photos, alone).code == 0
    assert rows(out).equals(rows(alone))


def test_what_is_wrong_is_said_in_a_sentence(head: dict[str, str], tmp_path: Path) -> None:
    assert "knows no job nobody" in sentence(jobs(head, "status", "nobody"), 2)
    assert "ID is missing" in sentence(jobs(head, "wait"), 2)
    secret = toil(head, "/word", "--storage-option", "secret_access_key=hunter2")
    assert "secret_access_key is not sent" in sentence(secret, 2)
    assert "hunter2" not in secret.err
    other = tmp_path / "token"
    other.write_text("b" * 64)
    token = {**head, "RAY_AUTH_TOKEN_PATH": str(other)}
    assert "has another token" in sentence(jobs(token, "list"), 2)
    assert "asks for its token" in sentence(jobs({**head, "HOME": str(tmp_path)}, "list"), 2)


def listening(name: str) -> set[tuple[str, int]]:
    found = set()
    for process in clusters_host.processes(name):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker of Ray's may just have ended
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found


def test_nothing_of_the_cluster_answers_without_the_token(head: dict[str, str]) -> None:
    name, port = head["CLUSTER"], int(head["RAY_ADDRESS"].rpartition(":")[2])
    assert port in {number for _, number in listening(name)}
    assert {ip.removeprefix("::ffff:") for ip, _ in listening(name)} == {"127.0.0.1"}
    token = Path(head["HOME"], ".ray", "auth_token")
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (Path(f"/tmp/cvjobs-{os.getuid()}-{name}").stat().st_mode & 0o777) == 0o700
    for ip, number in listening(name):
        for path in ("/metrics", "/api/jobs/"):
            host = f"[{ip}]" if ":" in ip else ip.replace("0.0.0.0", "127.0.0.1")
            try:
                with urllib.request.urlopen(f"http://{host}:{number}{path}", timeout=5) as answer:
                    pytest.fail(f"{ip}:{number}{path} answers {answer.status} without a token")
            except (OSError, ValueError, http.client.HTTPException):
                continue  # refused, not HTTP, or 401


def test_a_port_that_is_taken(head: dict[str, str]) -> None:
    file = {**files.described("local"), "port": int(head["RAY_ADDRESS"].rpartition(":")[2])}
    with pytest.raises(CvjobsError, match="is in use by something else"):
        local.up(f"other{os.getpid()}", file, print)


@pytest.mark.faults
def test_a_job_that_does_not_end_is_killed_after_20_s(head: dict[str, str]) -> None:
    assert toil(head, "/word", "--lines", 4000, "--pause", 0.1, "--stubborn", "--id", "stubborn", "--detach").code == 0
    until(lambda: "/word 0" in jobs(head, "logs", "stubborn").out, 60)
    began = time.monotonic()
    assert jobs(head, "stop", "stubborn").code == 0
    assert 18 < time.monotonic() - began < 45
    assert jobs(head, "wait", "stubborn").code == 130


@pytest.mark.faults
def test_a_dashboard_that_restarts_costs_no_line(head: dict[str, str]) -> None:
    words = [*TOYS, "toil", "/through", "--lines", "300", "--pause", "0.1", "--id", "through"]
    with started(words, **head) as process:
        until(lambda: process.stdout is not None and process.stdout.readline() == "/through 0\n", 60)
        (dashboard,) = [
            p for p in clusters_host.processes(head["CLUSTER"]) if "dashboard/dashboard.py" in " ".join(p.cmdline())
        ]
        line, variables = dashboard.cmdline(), dashboard.environ()
        dashboard.terminate()
        dashboard.wait(30)
        time.sleep(5)
        new = subprocess.Popen(line, env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # What readline has read ahead is in the file's own buffer, of which communicate knows nothing.
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
        assert process.wait(60) == 0, err
    assert ("/through 0\n" + out, body(err)) == said("/through", 300)
    new.returncode = 0  # it stays for the other tests and goes with the cluster


@pytest.mark.faults
def test_a_cluster_that_dies_is_said_and_leaves_no_driver(tmp_path: Path) -> None:
    with ray_head(tmp_path, f"dies{os.getpid()}") as head:
        killed(head)


def killed(head: dict[str, str]) -> None:
    words = [*TOYS, "toil", "/dies", "--lines", "4000", "--pause", "0.1", "--id", "dies"]
    with started(words, **head) as process:
        until(lambda: process.stdout is not None and process.stdout.readline() == "/dies 0\n", 60)
        (gcs,) = [p for p in clusters_host.processes(head["CLUSTER"]) if p.name() == "gcs_server"]
        gcs.kill()
        began = time.monotonic()
        _, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 90
    assert process.returncode == 1
    assert "has not answered for 60 s: when it does, follow it with 'cvjobs jobs wait dies'" in err
    until(lambda: not clusters_host.processes(head["CLUSTER"]), 120 - (time.monotonic() - began))

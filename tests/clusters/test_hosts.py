"""Three hosts: the same rows as on one, whatever becomes of a host meanwhile, and nothing for who is not of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import hosts
import numpy as np
import psutil
import pyarrow as pa
import pytest
from buckets import KEYS, made, server
from commands import CLI, LONGEST, TESTS, Ended, aged, embed, exact, kill, parts, rows, run, started, until
from hosts import API, Cluster, Host
from PIL import Image
from training import SIDE, folder

from cvjobs.clusters import files, local
from cvjobs.clusters import host as machine
from cvjobs.common.paths import shipped

pytestmark = pytest.mark.faults
TOYS = [sys.executable, str(TESTS / "with_toys.py")]
THREE = ("--workers", "3")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts.cluster(tmp_path_factory.mktemp("hosts"), **KEYS) as made:
        yield made


@pytest.fixture
def cluster(machines: Cluster) -> Cluster:
    """The three hosts, all of them there."""
    machines.up()
    return machines


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 different JPEGs of 64x48 in three folders, and one file that is none."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(6)
    for number in range(3000):
        image = root / f"night{number % 3}" / f"photo{number:04}.jpg"
        image.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(image)
    (root / "night0" / "none.jpg").write_text("no image")
    return aged(root)


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The rows of the pictures, made by one process without Ray."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert embed(pictures, out).code == 0
    exact(out, pictures, 3001)
    return rows(out)


def same(found: pa.Table, wanted: pa.Table) -> None:
    """The same rows, and the same vectors but for what rounding may do."""
    for name in ("path", "image_id", "bytes", "content_hash", "width", "height", "frames"):
        assert found[name].equals(wanted[name]), name
    vectors, others = (
        table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False) for table in (found, wanted)
    )
    assert vectors.size == others.size
    assert np.abs(vectors - others).max() < 1e-5


def sent(cluster: Cluster, source: object, out: object, *words: object) -> Ended:
    """Embed on three hosts, as a job that is sent from the head."""
    line = ("embed", source, "-o", out, "--model", "thumbnail/4", *THREE, *words)
    return run(*line, program=cluster.head.words(*CLI), cwd=None, **cluster.client)


def drowse(cluster: Cluster, source: Path, out: Path) -> list[str]:
    """The command line of a job on three hosts that takes a while."""
    words = ["drowse", str(source), "-o", str(out), "--model", "thumbnail/4", *THREE]
    return cluster.head.words(*TOYS, *words)


def ours(cluster: Cluster) -> list[psutil.Process]:
    """The processes of cvjobs on the hosts: commands and workers."""
    return [process for host in cluster.hosts for process in host.processes("cvjobs", "ray::Actor")]


@contextmanager
def drowsing(cluster: Cluster, source: Path, out: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A job that all three hosts are at."""
    with started([*drowse(cluster, source, out), "--id", name], **cluster.client) as process:

        def busy() -> bool:
            return parts(out) > 0 and all(host.processes("ray::Actor") for host in cluster.hosts)

        until(lambda: busy() or process.poll() is not None, 180, must=False)
        if not busy():
            kill(process, signal.SIGINT)
            pytest.fail(f"{process.communicate()} {parts(out)} {ours(cluster)} {cluster.alive()}")
        yield process


def exits(process: subprocess.Popen[str], seconds: float = LONGEST) -> tuple[int, str]:
    """The exit code of a job and what its client said on stderr."""
    _, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, err


def test_three_hosts_give_the_same_rows(cluster: Cluster, pictures: Path, alone: pa.Table, tmp_path: Path) -> None:
    ended = sent(cluster, pictures, tmp_path / "out")
    assert ended.code == 0, ended
    assert ended.left == []
    assert ended.out.startswith("3,001 listed = 3,000 ok + 1 failed + 0 skipped, missing 0\n")
    same(rows(tmp_path / "out"), alone)
    exact(tmp_path / "out", pictures, 3001)


def test_three_hosts_and_a_bucket_give_the_same_rows(cluster: Cluster, pictures: Path, alone: pa.Table) -> None:
    with pytest.MonkeyPatch.context() as patch, server(cluster.here) as endpoint:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        bucket = made(endpoint, "hosts")
        bucket.upload(pictures, "pictures")
        ended = sent(cluster, bucket.url("pictures"), bucket.url("out"), *bucket.options)
        assert ended.code == 0, ended
        assert ended.out.startswith("3,001 listed = 3,000 ok + 1 failed + 0 skipped, missing 0\n")
        same(bucket.table("out/data"), alone)
        checked = run("verify", bucket.url("out"), "--source", bucket.url("pictures"), *bucket.options)
        assert checked.code == 0, checked


def test_the_cluster_of_this_machine_gives_the_same_rows(
    pictures: Path, alone: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"alone{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        file = {**files.described("local"), "port": free.getsockname()[1]}
    monkeypatch.setenv("HOME", str(tmp_path))
    try:
        up = local.up(name, file, print)
        ended = embed(pictures, tmp_path / "out", "--workers", 2, "--address", up.address)
    finally:
        local.down(name, file, print)
        shutil.rmtree(machine.folder(name))
    assert ended.code == 0, ended
    same(rows(tmp_path / "out"), alone)
    exact(tmp_path / "out", pictures, 3001)


def test_who_is_not_of_the_cluster(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    outsider, head = cluster.outsider, cluster.head
    # Without a firewall: no dashboard, no Jobs API, no metrics; everything that listens asks for the token.
    assert 8265 not in head.listening()
    assert outsider.fetch(f"http://{head.address}:8265/api/jobs/")[0] == 0
    assert head.fetch(f"{API}/api/jobs/")[0] == 401
    assert head.fetch(f"{API}/api/jobs/", "b" * 64)[0] == 403
    assert head.fetch(f"{API}/api/jobs/", cluster.token)[0] == 200
    for host in cluster.hosts:
        asked = outsider.asks(*host.open())
        assert len(asked) >= 5
        assert set(asked.values()) == {"token"}, (host.name, asked)
    # The rules that the documentation gives close everything to others, and nothing to the cluster.
    if not shutil.which("nft"):
        pytest.skip("this machine has no nft")
    rules = (shipped("cluster") / "firewall.nft").read_text()
    closed = tmp_path / "firewall.nft"
    closed.write_text(rules.replace("{ 127.0.0.1 }", f"{{ {', '.join(host.address for host in cluster.hosts)} }}"))
    assert closed.read_text() != rules
    for host in cluster.hosts:
        host.do("nft", "-f", closed)
        host.do("nft", "-f", closed)  # twice is as good as once
        for port in host.listening():
            assert "refused" in outsider.fetch(f"http://{host.address}:{port}/")[1]
    out = tmp_path / "out"
    ended = sent(cluster, photos, out)
    assert ended.code == 0, ended
    exact(out, photos, 400)


@pytest.mark.faults(minutes=2)
def test_what_listens_while_three_hosts_train(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["train", folder(tmp_path / "images", 100), "-o", out, "--model", "small/cnn", "--img-size", str(SIDE)]
    words += ["--recipe", "quick", "--batch-size", "12", "--epochs", "9999", *THREE, "--id", "trains"]
    for host in cluster.hosts:
        host.do("sh", "-c", "nft delete table inet cvjobs 2>/dev/null || true")  # of another test
    with started(cluster.head.words(*CLI, *words), **cluster.client) as process:
        until(lambda: any((out / "_cvjobs" / "team").glob("*/state.json")) or process.poll() is not None)
        found = []
        for host in cluster.hosts:
            places = host.open()
            asked = cluster.outsider.asks(*places)
            found += [places[place] for place, told in asked.items() if told != "token"]
        assert process.poll() is None, process.communicate()
        # Ctrl-C would leave the job on the hosts, which the next tests need.
        stopped = run("jobs", "stop", "trains", program=cluster.head.words(*CLI), cwd=None, **cluster.client)
        assert stopped.code == 0, stopped
        process.communicate(timeout=60)
    # What docs/security.md lists: torch.distributed has a port on each machine, and one more on the first.
    assert found == ["ray::RayTrainWo"] * 4


def doctor(cluster: Cluster, host: Host, **more: str) -> list[tuple[str, str]]:
    """The subjects and the words of what a doctor finds broken on a host."""
    ended = run("doctor", "--json", program=host.words(*CLI), cwd=None, **{**cluster.variables, **more})
    found = [finding for finding in json.loads(ended.out)["findings"] if finding["level"] == "broken"]
    assert ended.code == (1 if found else 0), ended
    return [(finding["subject"], finding["what"]) for finding in found]


def test_doctor_finds_nothing_broken_on_a_host_and_everything_that_is_made_so(cluster: Cluster, tmp_path: Path) -> None:
    assert doctor(cluster, cluster.head) == []
    host, home = cluster.outsider, tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").touch(0o644)
    open_ = {"PATH": cluster.variables["PATH"], "HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    words = [hosts.RAY, "start", "--head", "--block", "--num-cpus=1", "--object-store-memory=80000000"]
    own = [f"--node-ip-address={host.address}", "--temp-dir=/mnt/ray", "--disable-usage-stats"]
    host.start([*words, *own, "--dashboard-host=0.0.0.0", "--metrics-export-port=9090"], open_, tmp_path / "log")
    until(lambda: host.fetch(f"http://{host.address}:9090/metrics")[0] == 200, 120)
    until(lambda: host.fetch(f"{API}/api/jobs/")[0] == 200, 120)
    found = doctor(cluster, host, **open_, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    for process in host.processes():
        with suppress(psutil.NoSuchProcess):  # it has ended with another
            process.kill()
    told = "\n".join(f"{subject}: {what}" for subject, what in found)
    assert "token: RAY_AUTH_MODE is disabled" in told
    assert "auth_token has mode 0644" in told
    assert "switches: TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set" in told
    assert "ports: other machines can reach the dashboard and the Jobs API of Ray (ports 8265" in told
    assert "ports: other machines can reach the agent's metrics of Ray (port 9090)" in told
    assert "ports: other machines can reach the autoscaler's metrics of Ray (port 44217)" in told
    assert "44227" in next(what for subject, what in found if "the dashboard and the Jobs API" in what)


def test_a_host_that_dies(cluster: Cluster, pictures: Path, alone: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with drowsing(cluster, pictures, out, "dies") as process:
        cluster.hosts[1].end()
        code, err = exits(process)
    assert code == 0, err
    same(rows(out), alone)
    exact(out, pictures, 3001)


def test_a_host_that_is_cut_off_for_a_minute(cluster: Cluster, pictures: Path, alone: pa.Table, tmp_path: Path) -> None:
    out, host = tmp_path / "out", cluster.hosts[1]
    with drowsing(cluster, pictures, out, "cut") as process:
        host.cut()
        time.sleep(60)
        assert process.poll() is None, "the job ended before the host came back"
        host.heal()
        code, err = exits(process)
    assert code == 0, err
    same(rows(out), alone)
    exact(out, pictures, 3001)


def test_a_host_that_is_drained(cluster: Cluster, pictures: Path, alone: pa.Table, tmp_path: Path) -> None:
    out, host = tmp_path / "out", cluster.hosts[1]
    with drowsing(cluster, pictures, out, "drained") as process:
        cluster.drain(host, 20)
        time.sleep(20)
        host.end()
        code, err = exits(process)
    assert code == 0, err
    same(rows(out), alone)
    exact(out, pictures, 3001)


def test_a_head_whose_gcs_dies(cluster: Cluster, pictures: Path, alone: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with drowsing(cluster, pictures, out, "gcs") as process:
        (gcs,) = cluster.head.processes("gcs_server")
        gcs.kill()
        began = time.monotonic()
        code, err = exits(process, 120)
    assert time.monotonic() - began < 90
    assert code == 1
    assert "has not answered for 60 s" in err
    until(lambda: not ours(cluster), 120 - (time.monotonic() - began), must=False)
    assert [" ".join(process.cmdline()) for process in ours(cluster)] == []
    cluster.up()
    with started(drowse(cluster, pictures, out), **cluster.client) as process:
        code, err = exits(process)
    assert code == 0, err
    same(rows(out), alone)
    exact(out, pictures, 3001)

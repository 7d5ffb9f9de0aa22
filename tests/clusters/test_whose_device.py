"""The device is the worker's: a head without a GPU, and two machines that pretend to have two each."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hosts
import pandas as pd
import psutil
import pytest
from commands import CLI, TESTS, exact, parts, run, some, started, until
from hosts import Cluster, Host
from training import SIDE, folder

pytestmark = pytest.mark.faults
TOYS = [sys.executable, str(TESTS / "with_toys.py")]
MODEL = ("--model", "torchvision/mobilenet_v2", "--weights", "random")


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without a GPU, and two machines with two each."""
    with hosts.cluster(tmp_path_factory.mktemp("gpus"), (0, 2, 2)) as made:
        yield made


@pytest.fixture(scope="module")
def cpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three machines without a GPU, of which the head has fewer cores."""
    with hosts.cluster(tmp_path_factory.mktemp("cpus"), (0, 0, 0), (2, 4, 4)) as made:
        yield made


@pytest.fixture(scope="module")
def one_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three machines, of which one has a GPU and two cores."""
    with hosts.cluster(tmp_path_factory.mktemp("one"), (0, 1, 0), (1, 2, 1)) as made:
        yield made


def workers(cluster: Cluster, name: str) -> Counter[str]:
    """How many workers there are now, by host."""
    found: Counter[str] = Counter()
    for host in filter(Host.on, cluster.hosts):
        for process in host.processes(name):
            above = process.parent()
            forked = above is not None and _called(above, name)  # and about to become another program
            found[host.name] += _called(process, name) and not forked
    return +found


def _called(process: psutil.Process, name: str) -> bool:
    words = process.cmdline()
    return bool(words) and words[0].startswith(name)


def most(cluster: Cluster, process: subprocess.Popen[str], name: str) -> tuple[Counter[str], str]:
    """The most workers that there were at once, by host, until a command ends well, and what it said on stderr."""
    seen: Counter[str] = Counter()

    def ended() -> bool:
        with suppress(psutil.Error):
            seen.update(workers(cluster, name) - seen)
        return process.poll() is not None

    until(ended, 600)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    return seen, err


def direct(cluster: Cluster, *words: object, toys: bool = False) -> list[str]:
    """A command line on the head that uses the cluster's workers."""
    return cluster.head.words(
        *(TOYS if toys else CLI), *map(str, words), "--address", f"{cluster.head.address}:{hosts.PORT}"
    )


def test_embed_uses_the_workers_gpus(gpus: Cluster, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = direct(gpus, "drowse", photos, "-o", out, *MODEL, toys=True)
    with started(line, **gpus.variables) as process:
        assert most(gpus, process, "ray::Actor")[0] == {"host1": 2, "host2": 2}
    exact(out, photos, 400)
    again = run(program=direct(gpus, "embed", photos, "-o", out, *MODEL), cwd=None, **gpus.variables)
    assert again.code == 0, again
    assert "nothing to compute" in again.err


def test_embed_uses_every_machine_where_none_has_a_gpu(cpus: Cluster, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = direct(cpus, "drowse", photos, "-o", out, *MODEL, toys=True)
    with started(line, **cpus.variables) as process:
        assert most(cpus, process, "ray::Actor")[0] == {"host0": 1, "host1": 1, "host2": 1}
    exact(out, photos, 400)


def test_two_workers_share_a_gpu_where_each_takes_half(one_gpu: Cluster, photos: Path, tmp_path: Path) -> None:
    source, out, half = some(photos, tmp_path / "photos", 200), tmp_path / "out", ("--gpus-per-worker", 0.5)
    with started(
        direct(one_gpu, "drowse", source, "-o", out, *MODEL, *half, toys=True), **one_gpu.variables
    ) as process:
        until(lambda: one_gpu.actors("Actor").total() == 2 or process.poll() is not None, 300)
        assert one_gpu.actors("Actor") == {("host1", 1.0, 0.5): 2}
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "embed: 2 workers, one for each 0.5 of a free GPU of the cluster\n" in err
    exact(out, source, 200)
    words = ("embed", source, "-o", tmp_path / "three", *MODEL, *half, "--workers", 3)
    ended = run(program=direct(one_gpu, *words), cwd=None, **one_gpu.variables)
    told = "--workers 3 needs 1.5 GPUs and the cluster has 1: use at most --workers 2."
    assert (ended.code, ended.err.splitlines()[-1]) == (2, f"cvjobs: {told}")


Seats = dict[str, list[dict[str, float]]]
ONE = {"CPU": 1.0, "GPU": 1.0}


def trains(cluster: Cluster, place: Path, submitted: bool = False) -> tuple[Seats, str]:
    """Train with as many workers as there are; by host what each had of it, and what the command said of them."""
    images, out, seats = folder(place / "images", 40), place / "run", Seats()
    words = ["train", images, "-o", out, "--model", "small/cnn", "--img-size", SIDE, "--recipe", "quick"]
    words += ["--batch-size", 16, "--epochs", 2]
    line = cluster.head.words(*CLI, *words) if submitted else direct(cluster, *words)
    with started(line, **(cluster.client if submitted else cluster.variables)) as process:

        def placed() -> bool:
            seats.update(cluster.seats())
            return bool(seats) or process.poll() is not None

        until(placed, 300)
        seen, err = most(cluster, process, "ray::RayTrainWorker")
    assert seen == {name: len(each) for name, each in seats.items()}
    assert set(pd.read_parquet(out / "history.parquet")["workers"]) == {seen.total()}
    (told,) = re.findall("train: ([0-9]+ workers.*)", err)
    return seats, told


@pytest.mark.parametrize("submitted", [False, True], ids=["directly", "submitted"])
def test_train_uses_the_workers_gpus(gpus: Cluster, tmp_path: Path, submitted: bool) -> None:
    seats, told = trains(gpus, tmp_path, submitted)
    assert seats == {"host1": [ONE] * 2, "host2": [ONE] * 2}
    assert told == "4 workers, one for each free GPU of the cluster"


def test_train_uses_every_machine_where_none_has_a_gpu(cpus: Cluster, tmp_path: Path) -> None:
    seats, told = trains(cpus, tmp_path)
    assert seats == {name: [{"CPU": 2.0}] for name in ("host0", "host1", "host2")}
    assert told == "3 workers on CPUs, one for each machine of the cluster, with 2 cores each"


def detects(cluster: Cluster, photos: Path, place: Path) -> Counter[str]:
    """Detect on 64 photos, and return where the workers were."""
    source, out = some(photos, place / "photos", 64), place / "out"
    model = ("--model", "torchvision/ssdlite320_mobilenet_v3_large", "--weights", "random")
    with started(direct(cluster, "detect", source, "-o", out, *model), **cluster.variables) as process:
        seen, _ = most(cluster, process, "ray::Actor")
    exact(out, source, 64)
    return seen


def test_detect_uses_the_workers_gpus(gpus: Cluster, photos: Path, tmp_path: Path) -> None:
    assert detects(gpus, photos, tmp_path) == {"host1": 2, "host2": 2}


def test_detect_uses_every_machine_where_none_has_a_gpu(cpus: Cluster, photos: Path, tmp_path: Path) -> None:
    assert detects(cpus, photos, tmp_path) == {"host0": 1, "host1": 1, "host2": 1}


def test_a_job_uses_the_workers_gpus(gpus: Cluster, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = gpus.head.words(*TOYS, "drowse", photos, "-o", out, *MODEL)
    with started(line, **gpus.client) as process:
        assert most(gpus, process, "ray::Actor")[0] == {"host1": 2, "host2": 2}
    exact(out, photos, 400)


def many(photos: Path, root: Path, times: int) -> Path:
    """So many times the photos, as links."""
    for number in range(times):
        for photo in photos.rglob("*.jpg"):
            link = root / str(number) / photo.relative_to(photos)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(photo)
    return root


def reads(host: Host) -> int:
    """How often the decode processes of a host have read anything so far."""
    found = 0
    for process in host.processes("decoder_server"):
        with suppress(psutil.Error):
            found += process.io_counters().read_count
    return found


@pytest.mark.faults(minutes=8)
def test_a_machine_that_comes_is_used_and_one_that_is_drained_gets_nothing_new(
    gpus: Cluster, photos: Path, tmp_path: Path
) -> None:
    source, out = many(photos, tmp_path / "photos", 16), tmp_path / "out"
    gpus.hosts[2].end()
    until(lambda: len(gpus.alive()) == 2, 120)
    with started(direct(gpus, "drowse", source, "-o", out, *MODEL, toys=True), **gpus.variables) as process:
        until(lambda: workers(gpus, "ray::Actor") == {"host1": 2} or process.poll() is not None, 300)
        gpus.up()
        until(lambda: workers(gpus, "ray::Actor") == {"host1": 2, "host2": 2} or process.poll() is not None, 300)
        gpus.drain(gpus.hosts[1], 900)
        time.sleep(40)  # what it has may take 20 s
        before, done = reads(gpus.hosts[1]), parts(out)
        until(lambda: parts(out) > done + 1 or process.poll() is not None, 300)  # of the other one
        assert process.poll() is None, process.communicate()
        assert reads(gpus.hosts[1]) == before > 0
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
    exact(out, source, 16 * 400)
    gpus.hosts[1].end()

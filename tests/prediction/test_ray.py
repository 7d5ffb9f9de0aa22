"""Workers on Ray: the same rows as one worker, lost workers, poisoned images, and sentences instead of hangs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from commands import (
    CLI,
    WITH_DECODER,
    Ended,
    aged,
    codes,
    embed,
    environment,
    errors,
    exact,
    kill,
    opened,
    parts,
    rows,
    run,
    said,
    sentence,
    some,
    started,
    until,
)
from decoders_e2e import HANG, HOG, POISON
from PIL import Image

from cvjobs.clusters import ray as clusters_ray
from cvjobs.common import devices
from cvjobs.common.errors import JobFailed

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(devices.cpus() < 2, reason="two workers need two cores"),
]


def poisoned(photos: Path, folder: Path, count: int) -> Path:
    """A folder of photos of which one in the middle is poisoned."""
    source = some(photos, folder, count)
    image = sorted(source.rglob("*.jpg"))[count // 2]
    stamp = image.stat().st_mtime_ns
    image.write_bytes(image.read_bytes() + POISON)
    os.utime(image, ns=(stamp, stamp))
    return source


def with_decoder(decoder: str, source: Path, out: Path, workers: int, **more: Any) -> Ended:
    return run(decoder, source, out, workers, program=WITH_DECODER, **more)


def test_a_ray_of_our_own_gives_the_same_rows_and_is_gone_afterwards(photos: Path, tmp_path: Path) -> None:
    source = some(photos, tmp_path / "source", 100)
    (source / "text.jpg").write_text("no image")
    one, two = tmp_path / "one", tmp_path / "two"
    assert embed(source, one).code == 0
    ended = embed(source, two, "--workers", 2, "--json")
    assert ended.code == 0, ended
    assert ended.out.count("\n") == 1
    assert said(ended.err) == []
    assert ended.left == []
    assert rows(one).equals(rows(two))
    assert errors(one).equals(errors(two))
    exact(two, source, 101)


def test_a_cluster_gives_the_same_rows(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert embed(photos, one).code == 0
    ended = embed(photos, two, "--workers", 2, **cluster)
    assert ended.code == 0, ended
    assert ended.left == []
    assert rows(one).equals(rows(two))
    exact(two, photos, 400)


def actors() -> list[psutil.Process]:
    """The processes in which a Stage of ours runs."""
    return [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith("ray::Actor")]


def test_a_killed_worker_costs_nothing(slow_photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    out = tmp_path / "out"
    command = [*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4", "--workers", "2"]
    with started(command, **cluster) as process:
        until(lambda: parts(out) or process.poll() is not None)
        actors()[0].kill()
        _, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert said(err) == []
    assert codes(out) == {}
    exact(out, slow_photos, 200)
    until(lambda: not actors(), 20)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_an_image_that_kills_its_decoder_is_one_row(
    photos: Path, tmp_path: Path, cluster: dict[str, str], workers: int
) -> None:
    source, out = poisoned(photos, tmp_path / "source", 60), tmp_path / "out"
    ended = with_decoder("die", source, out, workers, **(cluster if workers > 1 else {}))
    assert ended.code == 0, ended
    assert codes(out) == {"decode_crash": 1}
    exact(out, source, 60)


@pytest.mark.faults(minutes=3)
@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_aborts_twenty_hangs_and_five_without_memory_among_5000_images(
    tmp_path: Path, cluster: dict[str, str], workers: int
) -> None:
    """Image N is as many pixels of 0 and 255 as N has bits, which is also its vector."""
    source, out, count = tmp_path / "source", tmp_path / "out", 5000
    source.mkdir()
    words = [POISON] * 20 + [HANG] * 20 + [HOG] * 5
    chosen = dict(zip(random.Random(workers).sample(range(count), len(words)), words, strict=True))
    bits = 255 * (np.arange(count)[:, None] >> np.arange(16) & 1).astype(np.uint8)
    for number in range(count):
        place = source / f"{number}.png"
        Image.fromarray(np.repeat(bits[number].reshape(4, 4, 1), 3, 2)).save(place, compress_level=0)
        with place.open("ab") as file:
            file.write(chosen.get(number, b""))
    ended = with_decoder("harm", aged(source), out, workers, **(cluster if workers > 1 else {}))
    assert (ended.code, ended.left) == (0, []), ended
    assert codes(out) == {"decode_crash": 20, "decode_timeout": 20, "decode_memory": 5}
    exact(out, source, count)
    assert {int(Path(path).stem) for path in errors(out)["path"].to_pylist()} == chosen.keys()
    table = rows(out)
    numbers = [int(Path(path).stem) for path in table["path"].to_pylist()]
    vectors = np.stack(table["embedding"].to_numpy()).reshape(-1, 16, 3)
    assert np.array_equal(vectors, np.repeat(bits[numbers, :, None] / 255, 3, 2))


@pytest.mark.faults(minutes=0.5)
def test_an_image_that_kills_its_worker_is_one_row(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    source, out = poisoned(photos, tmp_path / "source", 20), tmp_path / "out"
    ended = with_decoder("kill_worker", source, out, 2, **cluster)
    assert ended.code == 0, ended
    assert codes(out) == {"worker_crash": 1}
    exact(out, source, 20)


@pytest.mark.faults
def test_a_worker_that_cannot_start(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    source = some(photos, tmp_path / "source", 20)
    ended = with_decoder("there_is_none", source, tmp_path / "out", 2, **cluster)
    assert "The decode processes cannot run" in sentence(ended, 1)
    assert embed(source, tmp_path / "out").code == 0
    exact(tmp_path / "out", source, 20)


def test_more_workers_than_the_cluster_has_cores(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    text = (
        "import sys, ray, cvjobs.cli; code = cvjobs.cli.main(sys.argv[1:]); "
        "assert not ray.is_initialized(), 'the next run of this process would be on this cluster'; sys.exit(code)"
    )
    words = ("embed", photos, "-o", tmp_path / "out", "--model", "thumbnail/4", "--workers", 3)
    program = [sys.executable, "-c", text]
    ended = run(*words, program=program, cwd=tmp_path, **cluster)
    assert "--workers 3 needs 3 cores and the cluster has 2" in sentence(ended, 2)


def test_a_cluster_that_does_not_answer(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    dead = {**cluster, "RAY_ADDRESS": "127.0.0.1:9"}
    assert "Ray does not answer at 127.0.0.1:9" in sentence(embed(photos, tmp_path / "out", **dead), 1)


@pytest.mark.faults(minutes=0.5)
def test_a_stop_in_the_middle(slow_photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    out = tmp_path / "out"
    command = [*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4", "--workers", "2"]
    with started(command, **cluster) as process:
        until(lambda: parts(out) or process.poll() is not None)
        kill(process, signal.SIGTERM)  # Ray puts a handler of its own in place of ours
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(said(err)) == 1, err
    assert 0 < rows(out).num_rows < 200
    assert embed(slow_photos, out, "--workers", 2, **cluster).code == 0
    exact(out, slow_photos, 200)


@pytest.mark.faults(minutes=0.5)
def test_an_output_is_a_ray_dataset(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    out = tmp_path / "out"
    assert embed(photos, out).code == 0
    text = "import sys, cvjobs; print(sorted(row['path'] for row in cvjobs.open(sys.argv[1]).to_ray().take_all())[:3])"
    ended = subprocess.run(
        [sys.executable, "-c", text, str(out)],
        capture_output=True,
        text=True,
        env=environment(**cluster),
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.strip().endswith(str(rows(out)["path"].to_pylist()[:3]))
    assert len(opened(out)) == 400


def test_a_machine_too_busy_to_start_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen because ...")  # as Ray does

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(JobFailed, match="too busy: run the same command again"):
        clusters_ray.connect(None)

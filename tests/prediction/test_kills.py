"""What is left when a command is killed after some parts, or a process of it: always an exact output in the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import CLI, WITH_DECODER, aged, embed, end, exact, gone, killed_often, parts, said, some, started, until
from decoders_e2e import HANG
from PIL import Image

pytestmark = pytest.mark.slow


def test_four_kills(photos: Path, tmp_path: Path) -> None:
    killed_often(photos, tmp_path / "outs", 400, 4, 3)


@pytest.mark.faults(minutes=2)
def test_twenty_kills_of_3000_images(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    numbers = np.random.default_rng(3)
    for number in range(3000):
        pixels = numbers.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 240)).save(source / f"{number:04}.jpg")
    killed_often(aged(source), tmp_path / "outs", 3000, 20, 8)


def decoders(process: int) -> list[psutil.Process]:
    """The decode children of a command, without the process that forks them."""
    found = []
    for server in psutil.Process(process).children():
        with suppress(psutil.NoSuchProcess):
            found += server.children()
    return found


@pytest.mark.faults(minutes=0.2)
def test_decode_children_killed_from_outside(slow_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started([*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4", "--json"]) as process:
        committed = 0
        for _ in range(2):
            # Of an image that two children died at the row says so; with one part more, the first ones are done.
            until(lambda: (parts(out) > committed and decoders(process.pid)) or process.poll() is not None)  # noqa: B023
            committed = parts(out)
            end(decoders(process.pid))
        printed, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert '"ok": 200, "failed": 0' in printed
    exact(out, slow_photos, 200)


@pytest.mark.faults(minutes=0.2)
def test_the_process_that_forks_decoders_killed_from_outside(slow_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with started([*CLI, "embed", str(slow_photos), "-o", str(out), "--model", "thumbnail/4"]) as process:
        until(lambda: parts(out) or process.poll() is not None)
        end(psutil.Process(process.pid).children())
        _, err = process.communicate(timeout=120)
    assert (process.returncode, said(err)) == (0, [])
    exact(out, slow_photos, 200)


@pytest.mark.parametrize("word", [b"", pytest.param(HANG, marks=pytest.mark.faults(minutes=0.2))])
def test_a_command_that_is_killed_alone_takes_its_decoders_with_it(
    slow_photos: Path, tmp_path: Path, word: bytes
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for image in slow_photos.iterdir():
        (source / image.name).write_bytes(image.read_bytes() + word)
    with started([*WITH_DECODER, "harm", str(aged(source)), str(tmp_path / "out"), "1"]) as process:
        until(lambda: len(decoders(process.pid)) > 1 or process.poll() is not None)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) > 2
        process.kill()
        process.wait()
        until(lambda: all(gone(child) for child in children), 20)


@pytest.mark.faults(minutes=0.2)
def test_the_source_changes_while_it_is_read(photos: Path, slow_photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "source", 8), tmp_path / "out"
    for image in slow_photos.iterdir():
        (source / image.name).hardlink_to(image)
    last = sorted(source.glob("*.png"))[-1]
    with started([*CLI, "embed", str(source), "-o", str(out), "--model", "thumbnail/4"]) as process:
        until(lambda: parts(out) or process.poll() is not None)
        last.unlink()
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert embed(source, out).code == 0
    exact(out, source, 207)

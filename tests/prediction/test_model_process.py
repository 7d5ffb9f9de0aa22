"""A network in a process of its own: the same rows, and of its deaths an image's own are told from all others."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import aged, end
from networks_apart import EXIT, KILL, LARGE, ODD, SIZE, SLOW, Opener
from PIL import Image

from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.ipc import Buffer
from cvjobs.prediction.engine.engine import Engine, EngineSpec
from cvjobs.prediction.engine.model_process import ModelDied, ModelProcess
from cvjobs.sources.listing import list_source

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decoder_server() -> Iterator[DecoderServer]:
    shared = DecoderServer()
    yield shared
    shared.close()


@pytest.fixture
def nothing_left(decoder_server: DecoderServer) -> Iterator[None]:
    """Afterwards no process of a model and no descriptor is left."""
    decoder_server.start()
    descriptors = psutil.Process().num_fds()
    yield
    assert models() == []

    assert psutil.Process().num_fds() <= descriptors


def models() -> list[psutil.Process]:
    """The processes of models below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(word.endswith("model_server") for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def photos(folder: Path, reds: list[int], free: bool = False) -> Path:
    """A folder with an image of one colour for each red; its green and blue are its number."""
    folder.mkdir()
    for number, red in enumerate(reds):
        size = (3 + number % 5, 4 + number % 3) if free else (8, 8)
        Image.new("RGB", size, (red, number // 256, number % 256)).save(folder / f"{number:04}.png")
    return aged(folder)


@dataclass
class Output:
    """Colours and failures by name, and the processes in which they were computed."""

    colours: dict[str, list[int]]
    failures: dict[str, tuple[str, str]]
    processes: set[int]


def computed(
    decoder_server: DecoderServer,
    source: Path,
    out: Path,
    opener: Opener,
    apart: bool = True,
    *,
    batch_size: int = 16,
    meanwhile: Callable[[], Any] = lambda: None,
) -> Output:
    listing = list_source(str(source))
    spec = EngineSpec(
        out=str(out),
        storage={},
        author=Author(run=schema.new_run(0), epoch=0, fingerprint="", listed=0),
        epoch=0,
        root=listing.root,
        base=listing.base,
        schema=schema.result_schema(pa.schema([]), opener.results),
        opener=opener,
        device="cpu",
        cpus=2,
        batch_size=batch_size,
        apart=apart,
    )
    engine = Engine(spec, decoder_server)
    try:
        with ThreadPoolExecutor(2) as threads:
            run = threads.submit(engine.run, listing.images)
            meanwhile()
            assert run.result().images == listing.images.num_rows
    finally:
        engine.close()
    rows = [row for file in (out / "data").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    errors = [row for file in (out / "errors").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len(rows) + len(errors) == listing.images.num_rows
    return Output(
        {row["path"]: row["colour"] for row in rows},
        {row["path"]: (row["code"], row["detail"]) for row in errors},
        {row["process"] for row in rows},
    )


def expected(reds: list[int], bad: set[int]) -> dict[str, list[int]]:
    return {f"{n:04}.png": [red, n // 256, n % 256] for n, red in enumerate(reds) if n not in bad}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("free", [False, True])
def test_rows_are_those_of_one_process(free: bool, decoder_server: DecoderServer, tmp_path: Path) -> None:
    reds = [number % 200 for number in range(300)]
    reds[7] = reds[120] = ODD
    reds[50] = LARGE
    source = photos(tmp_path / "photos", reds, free)
    apart = computed(decoder_server, source, tmp_path / "apart", Opener(free))
    here = computed(decoder_server, source, tmp_path / "here", Opener(free), apart=False)
    assert apart.colours == here.colours == expected(reds, {7, 120})
    assert (
        apart.failures
        == here.failures
        == dict.fromkeys(("0007.png", "0120.png"), ("infer_error", "ValueError: odd red"))
    )
    assert here.processes == {os.getpid()}
    assert os.getpid() not in apart.processes
    assert len(apart.processes) == 1


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("free", [False, pytest.param(True, marks=pytest.mark.faults(minutes=1))])
def test_images_that_kill_the_process_fail_alone(free: bool, decoder_server: DecoderServer, tmp_path: Path) -> None:
    reds = [number % 200 for number in range(120)]
    reds[0], reds[77] = EXIT, KILL
    source = photos(tmp_path / "photos", reds, free)
    found = computed(decoder_server, source, tmp_path / "out", Opener(free))
    assert found.colours == expected(reds, {0, 77})
    assert found.failures == {
        "0000.png": ("worker_crash", "the model's process died: it ended with exit code 3"),
        "0077.png": (
            "worker_crash",
            "the model's process died: it was killed (signal 9); short of memory is the usual reason",
        ),
    }


@pytest.mark.faults(minutes=0.2)
@pytest.mark.usefixtures("nothing_left")
def test_a_process_that_is_killed_from_outside_costs_no_image(decoder_server: DecoderServer, tmp_path: Path) -> None:
    reds = [SLOW] * 300
    source = photos(tmp_path / "photos", reds)
    killed: set[int] = set()

    def kill() -> None:
        until = time.monotonic() + 60
        while len(killed) < 3 and time.monotonic() < until:
            for process in models():
                if process.pid not in killed:
                    time.sleep(0.3)
                    killed.add(process.pid)
                    end([process])
            time.sleep(0.05)

    found = computed(decoder_server, source, tmp_path / "out", Opener(), batch_size=4, meanwhile=kill)
    assert len(killed) == 3
    assert found.failures == {}
    assert found.colours == expected(reds, set())


@pytest.mark.usefixtures("nothing_left")
def test_a_network_that_is_not_loaded_says_why(decoder_server: DecoderServer, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", [1])
    with pytest.raises(WrongUse, match=r"^This network is never loaded\.$"):
        computed(decoder_server, source, tmp_path / "out", Opener(fails="refuses"))
    with pytest.raises(JobFailed, match=r"died while it loaded the model: it ended with exit code 9; try again"):
        computed(decoder_server, source, tmp_path / "out", Opener(fails="dies"))


def test_a_process_that_always_dies_ends_the_run(decoder_server: DecoderServer, tmp_path: Path) -> None:
    source = photos(tmp_path / "photos", [EXIT] * 40)
    with pytest.raises(JobFailed, match=r"The model's process died 6 times, the last time because it ended with exit"):
        computed(decoder_server, source, tmp_path / "out", Opener())
    assert models() == []


@pytest.fixture
def process() -> Iterator[ModelProcess]:
    made = ModelProcess(Opener())
    made.wait()
    yield made
    made.close()


def batch(reds: list[int]) -> Buffer:
    """A buffer with images of these reds."""
    buffer = Buffer(len(reds), SIZE)
    buffer.images[:] = np.array(reds, np.uint8)[:, None, None, None]
    return buffer


def test_pixels_of_a_buffer_are_not_copied(process: ModelProcess) -> None:
    buffer = batch([1, 2, 3, 4])
    (found, _) = process(buffer.images[1:3])
    assert found == [[2, 2, 2], [3, 3, 3]]
    assert Buffer.holding(buffer.images[1:3].reshape(-1)) == (buffer, 48)
    assert Buffer.holding(np.zeros(48, np.uint8)) is None
    (pid,) = {model.pid for model in models()}
    mapped = [entry for entry in psutil.Process(pid).memory_maps(grouped=False) if "memfd:cvjobs" in entry.path]
    assert len(mapped) == 1
    (found, _) = process(np.full((2, 4, 4, 3), 9, np.uint8))  # of no buffer
    assert found == [[9, 9, 9]] * 2
    buffer.dropped = True
    another = batch([5])
    process(another.images)
    mapped = [entry for entry in psutil.Process(pid).memory_maps(grouped=False) if "memfd:cvjobs" in entry.path]
    assert len(mapped) == 2  # the new buffer, and memory for what is in none


def test_the_lock_there_is_looked_at(process: ModelProcess) -> None:
    buffer = batch([SLOW])
    for _ in range(3):
        process(buffer.images)
    assert process.lock.looks >= 2


def test_buffers_that_are_not_pinned_are_counted(process: ModelProcess) -> None:
    for count, unpinned in [(2, 0), (100, 1), (200, 2)]:
        buffer = batch([1] * count)
        process(buffer.images)
        assert process.unpinned == unpinned


def test_many_threads_ask_at_once(process: ModelProcess) -> None:
    def ask(number: int) -> bool:
        buffer = batch([number, number + 1])
        return bool(process(buffer.images)[0] == [[number] * 3, [number + 1] * 3])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, list(range(200)) * 3))


def test_of_launches_that_a_death_ended_only_the_one_to_blame_raises(process: ModelProcess) -> None:
    good, bad = batch([SLOW, 7]), batch([3, KILL])
    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(process, good.images) for _ in range(3)]
        with pytest.raises(ModelDied, match=r"signal 9"):
            process(bad.images)
        assert all(other.result()[0] == [[SLOW] * 3, [7] * 3] for other in others)


def test_a_process_ends_with_the_one_that_started_it() -> None:
    left, right = os.pipe()
    if (child := os.fork()) == 0:
        try:
            made = ModelProcess(Opener())
            made.wait()
            os.write(right, pickle.dumps([model.pid for model in models()]))
            threading.Event().wait()
        finally:
            os._exit(1)
    (pid,) = pickle.loads(os.read(left, 1000))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for descriptor in (left, right):
        os.close(descriptor)
    process = psutil.Process(pid) if psutil.pid_exists(pid) else None
    assert process is None or psutil.wait_procs([process], 20)[1] == []

"""Control groups with less memory than a run wants: it takes less or is refused, and is not killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from commands import CLI, codes, environment, exact, rows, until
from group_files import limited

from cvjobs.common import control_groups, devices
from cvjobs.common.errors import WrongUse
from cvjobs.prediction.engine import headroom
from cvjobs.prediction.engine.headroom import Headroom

MB = 10**6


class Network:
    """A step whose widest layer has 10 MB for an image."""

    image_bytes = 10 * MB


WANTED = Headroom(decoders=16, models=4, batch=0, batches=(8, 64))


def test_with_room_an_engine_does_what_the_cores_want() -> None:
    assert WANTED.within(Network(), 20_000 * MB) == WANTED
    assert headroom.within_limit(WANTED, Network(), 1)[0].models >= 1  # as this machine is


@pytest.mark.parametrize("left", range(100, 4000, 100))
def test_less_room_means_smaller_batches_and_fewer_processes(left: int) -> None:
    fewer = WANTED.within(Network(), left * MB)
    assert fewer.need(Network()) <= left * MB or fewer == Headroom(decoders=1, models=1, batch=0, batches=(1, 1))
    assert fewer.need(Network()) <= WANTED.need(Network())
    more = WANTED.within(Network(), (left + 100) * MB)
    assert more.models >= fewer.models
    fixed = Headroom(decoders=2, models=2, batch=32, batches=(8, 64)).within(Network(), left * MB)
    assert 1 <= fixed.largest <= 32


def test_the_refusal_has_both_figures_and_says_what_to_do(tmp_path: Path) -> None:
    root = limited(tmp_path, 500 * MB, 100 * MB)
    devices.check_memory(400 * MB, "It", root=root)
    with pytest.raises(WrongUse) as refused:
        devices.check_memory(401 * MB, "Decoding images", root=root)
    assert str(refused.value) == (
        "Decoding images needs about 401 MB of memory, and the limit of 500 MB that is set for this process "
        "(its control group) leaves 400 MB: raise the limit, 2 GB suffice for most models."
    )
    (root / "sys/fs/cgroup/memory.swap.max").write_text("max")
    devices.check_memory(450 * MB, "With swap", root=root)


def inside(folder: Path) -> list[str]:
    """Return the words that run a command in a group."""
    return ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]


@contextmanager
def group(limit: int) -> Iterator[Path]:
    """Make a control group below our own, and end it with all that is in it."""
    own = [folder for version, folder in control_groups._groups("memory", Path("/")) if version == 1]
    if not own or not os.access(own[0], os.W_OK):
        pytest.skip("no control group (version 1, memory) can be made here")
    folder = own[0] / f"cvjobs-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()

    def gone() -> bool:
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        with suppress(OSError):
            folder.rmdir()
        return not folder.exists()

    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        yield folder
    finally:
        until(gone)


@pytest.mark.faults(minutes=1)
def test_a_decode_process_is_killed_for_memory_before_the_command(tmp_path: Path) -> None:
    """An image that wants more than is left is a row that the next run tries again; the images beside it come out."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number:02}.jpg").write_bytes(b"GLUTTON" if number == 7 else b"image %d" % number)
    out = tmp_path / "out"
    program = (
        "import sys; from pathlib import Path; from cvjobs import drivers; from cvjobs.prediction import run; "
        "from cvjobs.drivers.embed import Config, EmbedJob; "
        "config = Config(source=sys.argv[1], out=sys.argv[2], model='thumbnail/4', max_error_rate=1.0); "
        "print(run.run(config, EmbedJob(config), 'decoders:toy'))"
    )
    with group(900 * MB) as folder:
        ended = subprocess.run(
            [*inside(folder), sys.executable, "-c", program, str(source), str(out)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended
    assert sum(codes(out).values()) == 1
    assert set(codes(out)) <= {"oom", "decode_timeout"}  # as long as the system takes to look for memory
    assert len(rows(out)) == 19


@pytest.mark.faults(minutes=1)
def test_a_limit_that_is_lowered_while_a_run_starts_is_named() -> None:
    program = """
import pathlib, sys
from cvjobs.images.decode_children import DecoderServer
from cvjobs.images.ipc import DecodeSettings

server = DecoderServer()
server.start()
group = pathlib.Path(sys.argv[1])
pathlib.Path(f"/proc/{server._server.process.pid}/oom_score_adj").write_text("1000")  # whom the system ends first
used = int((group / "memory.usage_in_bytes").read_text())
(group / "memory.limit_in_bytes").write_text(str(used + (8 << 20)))
try:
    server.fork(DecodeSettings(decoder="cvjobs.images.decode:decode", transform={"size": [8, 8]}, max_pixels=9))
except Exception as error:
    print(type(error).__name__, error)
"""
    with group(4000 * MB) as folder:
        ended = subprocess.run(
            [*inside(folder), sys.executable, "-c", program, str(folder)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.stdout.startswith("LimitReached Out of memory: the system ended the decode processes, for"), ended


@pytest.mark.faults(minutes=4)
@pytest.mark.parametrize("limit", [300, 600, 900, 1100, 1400, 2500])
def test_a_run_in_a_control_group_is_exact_or_refused_and_never_killed(
    limit: int, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with group(limit * MB) as folder:
        ended = subprocess.run(
            [*inside(folder), *CLI, "embed", str(photos), "-o", str(out), "--weights", "random", "--json"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        killed = dict(line.split() for line in (folder / "memory.oom_control").read_text().splitlines())["oom_kill"]
    assert killed == "0", ended
    if ended.returncode == 0:
        assert limit >= 900
        assert json.loads(ended.stdout)["ok"] == 400
        exact(out, photos, 400)
    else:
        assert limit < 1400
        assert ended.returncode == 2
        assert "(its control group) leaves" in ended.stderr
        assert not (out / "data").exists()

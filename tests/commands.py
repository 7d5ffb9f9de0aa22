"""What the end-to-end tests share: running cvjobs as a user does, reading what came out, and moments of a run."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import cvjobs
from cvjobs import cli
from cvjobs.images.server_process import SHELF

TESTS = Path(__file__).parent
ROOT = TESTS.parent
CLI = [sys.executable, "-m", "cvjobs"]
# Runs ``embed`` with a decoder of ``decoders_e2e``: DECODER SOURCE OUT WORKERS.
WITH_DECODER = [sys.executable, str(TESTS / "decoders_e2e.py")]
STAMP = 1_700_000_000_000_000_000
LONGEST = 900.0  # seconds; most tests have less (limits.py)
EMBED = ("embed", "--model", "thumbnail/4")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    left: list[str] = field(default_factory=list)


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: the tests' own, without RAY_ADDRESS."""
    base = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONWARNINGS")}
    return {**base, "PYTHONPATH": str(TESTS), **more}


@contextmanager
def started(words: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, which is killed at the end whatever happened."""
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process, signal.SIGKILL)
        process.communicate()


def kill(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to the whole process group of a command."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def end(processes: Iterable[psutil.Process]) -> None:
    """Kill processes; the ones that ended before are no matter."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def gone(process: psutil.Process) -> bool:
    """Whether a process ended; it may wait for its parent to see it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def words_of(process: psutil.Process) -> list[str]:
    """The words of a process's command line; none of one that ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def run(*words: object, program: list[str] = CLI, cwd: Path | None = None, **more: str) -> Ended:
    """Run a command to its end, for as many seconds at most, and look which of its processes are still there."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    ended = subprocess.run(
        [*program, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(CVJOBS_TEST_MARK=mark, **more),
        cwd=cwd,
        timeout=LONGEST,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr, left(mark))


def here(*words: object) -> Ended:
    """Run a command in this process, which has imported everything already: seconds less than in one of its own."""
    before = set(psutil.Process().children(recursive=True))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([*map(str, words)])

    def more() -> list[str]:
        found = {child.pid: child for child in psutil.Process().children(recursive=True) if child not in before}
        if SHELF.kept is not None:  # the decoder server, which the next command in this process takes
            found.pop(SHELF.kept, None)
        return [str(child) for child in found.values()]

    until(lambda: not more(), 10.0, must=False)
    return Ended(code, out.getvalue(), err.getvalue(), more())


def embed(source: object, out: object, *words: object, model: str = "thumbnail/4", **more: Any) -> Ended:
    """Embed images, in a process of its own where Ray has a part in it or the environment is another one."""
    line = ("embed", source, "-o", out, "--model", model, *words)
    return run(*line, **more) if more or "--workers" in words else here(*line)


def verify(out: Path, source: object) -> Ended:
    return here("verify", out, "--source", source)


def sentence(ended: Ended, code: int) -> str:
    """The one sentence of a command that ended with an error; it is all there is on stderr, and nothing on stdout."""
    assert ended.code == code, ended
    assert ended.out == "", ended
    lines = said(ended.err)
    assert len(lines) == 1, ended
    assert lines[0].startswith("cvjobs: "), ended
    assert lines[0].endswith("."), ended
    assert ended.left == [], ended
    return lines[0].removeprefix("cvjobs: ")


def said(err: str) -> list[str]:
    """The lines of a command's stderr, without those of the progress."""
    progress = re.compile("(check|classify|detect|embed|eval|export|index|masks|query|segment|train): ")
    return [line for line in err.splitlines() if not progress.match(line)]


def left(mark: str) -> list[str]:
    """The processes that a command left behind; those that are just ending get some time to do so."""

    def alive() -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("CVJOBS_TEST_MARK") == mark:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    until(lambda: not alive(), 10.0, must=False)
    return alive()


def until(condition: Callable[[], Any], seconds: float = LONGEST, must: bool = True) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            assert not must, "what the test waits for did not happen"
            return
        time.sleep(0.02)


def parts(out: Path) -> int:
    """How many parts a run has committed and not merged yet."""
    return len(list(out.glob("_cvjobs/parts/*.json")))


def rows(out: Path) -> pa.Table:
    """The results by path, as any reader of Parquet sees them, without cvjobs; ``modified`` in ns."""
    table = _read(out / "data")
    at = table.schema.get_field_index("modified")
    return table if at < 0 else table.set_column(at, "modified", table["modified"].cast(pa.int64()))


def errors(out: Path) -> pa.Table:
    return _read(out / "errors")


def _read(folder: Path) -> pa.Table:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        return pa.table({"path": pa.array([], pa.string())})
    return pa.concat_tables([pq.read_table(file) for file in files]).sort_by("path").combine_chunks()


def codes(out: Path) -> Counter[str]:
    table = errors(out)
    return Counter(table["code"].to_pylist()) if "code" in table.schema.names else Counter()


def exact(out: Path, source: Path, count: int) -> None:
    """Every image once, as plain Parquet and as verify sees it, and no temporary file."""
    checked = verify(out, source)
    assert checked.code == 0, checked
    names = [*rows(out)["path"].to_pylist(), *errors(out)["path"].to_pylist()]
    assert len(names) == len(set(names)) == count
    assert [path for path in out.rglob("*") if path.name.startswith(".tmp-")] == []


def killed_often(
    source: Path, out: Path, images: int, kills: int, most: int, words: tuple[str, ...] = EMBED
) -> list[Path]:
    """Kill a command ``kills`` times and repeat it at once, each time after 0 to ``most`` new parts.

    A run of which no part is awaited is killed when it holds the output; one that ends before its kill is followed by
    one with a new output. Returns the outputs, of which all are exact and have the same rows.
    """
    moments = random.Random(kills)
    name, *options = words
    outs = [out / "0"]
    for _ in range(kills):
        wanted = moments.randint(0, most)
        watched = "parts/*.json" if wanted else "runs/*"
        before = set(outs[-1].glob(f"_cvjobs/{watched}"))
        with started([*CLI, name, str(source), "-o", str(outs[-1]), *options]) as process:
            new: set[Path] = set()
            while len(new) < max(wanted, 1) and process.poll() is None:
                new |= set(outs[-1].glob(f"_cvjobs/{watched}")) - before
                time.sleep(0.01)
            kill(process, signal.SIGKILL)
            process.wait()
        if process.returncode == 0:
            outs.append(out / str(len(outs)))
    ended = run(name, source, "-o", outs[-1], *options)
    assert ended.code == 0, ended
    for one in outs:
        exact(one, source, images)
    assert all(rows(one).equals(rows(outs[0])) for one in outs)
    return outs


def week(photos: Path, source: Path) -> Iterator[tuple[int, int, int]]:
    """Fill a folder with 40 photos, then add, change, delete, rename, touch, break and mend some, a step each night.

    Yields how many images a run must compute, how many rows it must reuse, and how many images fail.
    """
    images = sorted(some(photos, source, 40).rglob("*.jpg"))[:40]
    spare = sorted(photos.rglob("*.jpg"))[40:60]
    yield 40, 0, 0
    for image in spare[:5]:
        shutil.copy2(image, source / image.name)
    for image, other in zip(images[:4], spare[5:], strict=False):
        image.write_bytes(other.read_bytes())
        os.utime(image, ns=(10**18, 10**18))
    yield 9, 36, 0
    for image in images[4:7]:
        image.unlink()
    yield 0, 42, 0
    images[7].rename(source / "renamed.jpg")
    for image in images[8:10]:
        os.utime(image, ns=(10**18 + 1, 10**18 + 1))
    images[10].write_text("no image any more")
    os.utime(images[10], ns=(10**18 + 2, 10**18 + 2))
    yield 4, 38, 1
    shutil.copy2(spare[10], images[10])
    os.utime(images[10], ns=(10**18 + 3, 10**18 + 3))
    yield 1, 41, 0


def aged(root: Path) -> Path:
    """Give everything in a folder an old time stamp."""
    for path in root.rglob("*"):
        os.utime(path, ns=(STAMP, STAMP))
    return root


def some(photos: Path, folder: Path, count: int) -> Path:
    """A folder with the first photos of another."""
    for image in sorted(photos.rglob("*.jpg"))[:count]:
        place = folder / image.relative_to(photos)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(image, place)
    return folder


def opened(out: Path) -> Any:
    return cvjobs.open(str(out))

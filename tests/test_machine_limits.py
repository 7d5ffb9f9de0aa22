"""Commands at the limits of the machine: a sentence and a documented exit code, and with room the same command ends."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from commands import CLI, Ended, environment, here, said, some
from predictions import CATEGORIES, output
from training import folder

import cvjobs
from cvjobs.common.errors import JobFailed, LimitReached, WrongUse
from cvjobs.dataset import lock
from cvjobs.images.server_process import SHELF
from cvjobs.sources import file_reading, reader
from cvjobs.storage.local_store import LocalStore
from cvjobs.training.loop.checkpoints import Checkpoint, Checkpoints

TRAIN = ("--model", "small/cnn", "--recipe", "quick", "--epochs", "2", "--img-size", "16", "--weights", "random")
CODER = ("--task", "autoencoder", "--dim", "8", "--model", "small/autoencoder", "--recipe", "quick", "--epochs", "1")
DETECT = ("--model", "ssdlite320_mobilenet_v3_large", "--weights", "random")
SEGMENT = ("--model", "lraspp_mobilenet_v3_large", "--weights", "random", "--imgsz", "96")
SIZES = 20
ROWS = [{"path": f"{i}.jpg", "width": 9, "height": 9, "label": "cat", "score": 0.5, "top": []} for i in range(9)]
NIGHT = """
state: {state}
notify-command: [sh, -c, 'cat > {told}']
steps:
  - embed: {{source: {photos}, out: {out}, model: thumbnail/8}}
"""


def used(disk: Path) -> int:
    state = os.statvfs(disk)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


@contextmanager
def filled(disk: Path, room: int = 0) -> Iterator[None]:
    """A file system with so many bytes of room."""
    ballast = disk / "ballast"
    state = os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(state.f_bfree * state.f_frsize - room, 1))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def sealed(disk: Path) -> Iterator[None]:
    """A file system that has become read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def checkpoint(numbers: int) -> Checkpoint:
    model = {"a": torch.zeros(numbers), "b": torch.ones(numbers)}
    return Checkpoint(model=model, average=model, optimizer={"state": {0: model}}, meta={"done": 1})


def test_a_checkpoint_on_a_full_disk_or_one_that_becomes_read_only(small_disk: Path) -> None:
    saved = Checkpoints(LocalStore(small_disk / "run"))
    (small_disk / "run").mkdir()
    for room in range(0, 460_000, 30_000):
        with filled(small_disk, room):
            saved.save(checkpoint(20_000))
            with pytest.raises(LimitReached, match=r"No space left in .*/run/checkpoints: make room"):
                saved.wait()
        assert list(small_disk.glob("run/checkpoints/*")) == []
    saved.save(checkpoint(20_000))
    saved.wait()
    with sealed(small_disk):
        saved.save(checkpoint(20))
        with pytest.raises(JobFailed, match=r"can no longer be written to .*: make it writable again"):
            saved.wait()
    found = saved.newest(pytest.fail)
    assert found is not None
    assert torch.equal(found.optimizer["state"][0]["b"], torch.ones(20_000))
    saved.close()


@contextmanager
def no_more_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_few_open_files_are_no_fault_of_an_image_or_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reading, "_PAUSES", ())
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    state = image.stat()
    source = reader.LocalSource(str(tmp_path), "")
    saved = Checkpoints(LocalStore(tmp_path))
    saved.save(checkpoint(2))
    saved.wait()
    with no_more_files(), pytest.raises(LimitReached, match="Too many open files"):
        source.read("a.jpg", 1, state.st_mtime_ns)
    name = next(tmp_path.glob("checkpoints/*")).name
    monkeypatch.setattr(Checkpoints, "_names", lambda _: [name])
    with no_more_files(), pytest.raises(LimitReached, match="Too many open files"):
        saved.newest(pytest.fail)
    saved.close()


def test_an_output_that_becomes_read_only_is_no_wrong_use(small_disk: Path) -> None:
    store = LocalStore(small_disk / "out")
    with sealed(small_disk), pytest.raises(WrongUse, match="choose another -o"):
        store.write_bytes("a", b"")
    assert store.create("a", b"")
    worker = LocalStore(small_disk / "out", "r000001")
    with sealed(small_disk):
        for one in (store, worker):
            with pytest.raises(JobFailed, match=r"can no longer be written to \(Read-only file system\)"):
                one.write_bytes("b", b"")
        with pytest.raises(JobFailed, match="can no longer be written to"):
            worker.delete("a")


def test_a_lock_that_could_not_be_given_free_holds_nobody_up(small_disk: Path) -> None:
    store = LocalStore(small_disk / "out")
    with lock.held(store) as held:
        shutil.rmtree(small_disk / "out" / "_cvjobs" / "lease", ignore_errors=True)
        held.store.create("_cvjobs/lease/epoch-000001.json", json.dumps(held._holder).encode())
        ballast = filled(small_disk)
        ballast.__enter__()
    assert lock.holder(store) is None
    ballast.__exit__(None, None, None)
    with lock.held(store) as held:
        assert held.epoch == 2
        assert lock.holder(store) is not None


def test_a_night_whose_state_finds_no_room_is_told(small_disk: Path, tmp_path: Path) -> None:
    told, state = tmp_path / "told", small_disk / "state"
    file = tmp_path / "night.yaml"
    file.write_text(NIGHT.format(state=state, told=told, photos=tmp_path, out=tmp_path / "out"))
    with filled(small_disk), pytest.raises(LimitReached, match="No space left"):
        cvjobs.run(str(file))
    outcome = json.loads(told.read_text())
    assert (outcome["status"], outcome["exit_code"]) == ("failed", 1)
    assert "No space left" in outcome["reason"]
    with filled(small_disk):
        ended = here("run", file)
    assert (ended.code, len(said(ended.err))) == (1, 1), ended


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return output(tmp_path_factory.mktemp("labels") / "labels", "classify", CATEGORIES, ROWS)


def shell(line: str, *words: object) -> tuple[int, str]:
    """Run a command with streams as a shell line says, and return its exit code and what it said."""
    script = f'"$@" {line}'
    words = ("bash", "-c", script, "bash", *CLI, *map(str, words))
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, env=environment(), check=False)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "why"),
    [
        (">&-", "is closed"),
        (">/dev/full", "failed (No space left on device)"),
        (">&- <&-", "is closed"),
        (">/dev/full 2>&-", None),
        (">/dev/full 2>/dev/full", None),
    ],
)
def test_what_is_published_counts_whatever_becomes_of_standard_output(
    labels: Path, tmp_path: Path, streams: str, why: str | None
) -> None:
    to = tmp_path / "labels.csv"
    told = f"cvjobs: standard output {why}: what was made is in {to}.\n" if why else ""
    assert shell(streams, "export", labels, "--format", "csv", "-o", to) == (0, told)
    assert len(to.read_text().splitlines()) == 10


@pytest.mark.slow
def test_where_standard_output_is_the_product_its_loss_is_said(labels: Path) -> None:
    closed = "cvjobs: Standard output is closed: give one that can be written to, then run the same command again.\n"
    full = "cvjobs: No space left: make room, then run the same command again.\n"
    assert shell(">&-", "verify", labels) == (1, closed)
    assert shell(">/dev/full", "verify", labels) == (1, full)
    assert shell(">&-", "--help") == (1, closed)
    assert shell(">/dev/full", "embed", "--help") == (1, full)
    assert shell("2>&-", "verify", labels / "none") == (2, "")


class World:
    """What the commands work on, and their words for an output of their own."""

    def __init__(self, root: Path, photos: Path) -> None:
        self.root, self.photos = root, some(photos, root / "photos", 24)
        self.classes = folder(root / "classes", 12)
        for words in (
            ("embed", self.photos, "-o", root / "vectors", "--model", "thumbnail/8"),
            ("index", root / "vectors", "-o", root / "index"),
            ("train", self.classes, "-o", root / "run", *TRAIN),
            ("classify", self.classes, "-o", root / "labels", "--model", root / "run"),
            ("detect", self.photos, "-o", root / "boxes", *DETECT),
        ):
            assert here(*words).code == 0, words

    def words(self, name: str, disk: Path, away: Path) -> tuple[object, ...]:
        """The command that writes to a small disk; ``away`` is a folder with room."""
        out, root, photos, classes = disk / "out", self.root, self.photos, self.classes
        (away / "night.yaml").write_text(
            NIGHT.format(state=out, told=away / "told", photos=photos, out=away / "vectors")
        )
        return {
            "embed": ("embed", photos, "-o", out, "--model", "thumbnail/32"),
            "classify": ("classify", classes, "-o", out, "--model", root / "run"),
            "detect": ("detect", photos, "-o", out, *DETECT),
            "segment": ("segment", photos, "-o", out, *SEGMENT),
            "masks": ("segment", photos, "-o", away / "maps", *SEGMENT, "--masks-dir", out),
            "index": ("index", root / "vectors", "-o", out),
            "query": ("query", root / "index", photos, "-o", out),
            "page": ("query", root / "index", photos, "--html", out / "page.html"),
            "duplicates": ("query", root / "index", "--duplicates", "-o", out),
            "csv": ("export", root / "labels", "--format", "csv", "-o", out / "a.csv"),
            "jsonl": ("export", root / "boxes", "--format", "jsonl", "-o", out / "a.jsonl"),
            "coco": ("export", root / "boxes", "--format", "coco", "-o", out / "a.json"),
            "yolo": ("export", root / "boxes", "--format", "yolo", "-o", out / "yolo"),
            "eval": ("eval", root / "labels", classes, "-o", out),
            "train": ("train", classes, "-o", out, *TRAIN, "--tensorboard"),
            "autoencoder": ("train", photos, "-o", out, *CODER, "--img-size", "16"),
            "cache": ("train", classes, "-o", away / "run", *TRAIN, "--cache", out),
            "schedule": ("schedule", away / "night.yaml", "--cron", "0 2 * * *", "--emit", "systemd", "-o", out),
            "night": ("run", away / "night.yaml"),
            "temporary": ("query", root / "index", photos),
        }[name]


@pytest.fixture(scope="module")
def world(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), photos)


COMMANDS = [
    *("embed", "classify", "detect", "segment", "masks", "index", "query", "page", "duplicates", "csv", "jsonl"),
    *("coco", "yolo", "eval", "train", "autoencoder", "cache", "schedule", "night", "temporary"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_full_at_any_point_of_any_command(
    world: World, name: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    if name == "temporary":
        monkeypatch.setattr("tempfile.tempdir", str(disk))

    def fresh() -> tuple[object, ...]:
        for place in disk.iterdir():
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        shutil.rmtree(away, ignore_errors=True)
        away.mkdir()
        return world.words(name, disk, away)

    SHELF.clear()
    whole = here(*fresh())
    assert whole.code == 0, whole
    peak = max(used(disk), 200_000 if name in ("cache", "temporary") else 0) + 8192
    codes = set()
    for size in range(SIZES):
        words = fresh()
        with filled(disk, peak * size // SIZES):
            ended = here(*words)
        codes.add(ended.code)
        assert ended.code in (0, 1), ended
        assert "bug" not in ended.err, ended
        assert "Traceback" not in ended.err, ended
        last = said(ended.err)[-1:]
        assert ended.code == 0 or (last[0].startswith("cvjobs: ") and last[0].endswith(".")), ended
        assert ended.code == 0 or "make room" in last[0], ended
        assert ended.code == 0 or name != "night" or (away / "told").exists()
        again = here(*words)
        assert again.code == 0, again
        assert [left for left in disk.rglob("*") if ".tmp-" in left.name] == []
    assert 1 in codes


def limited(limits: list[str], *words: object) -> Ended:
    """Run a command below limits that ``prlimit`` sets; as another user where it is their number of processes."""
    program = ["prlimit", *limits]
    if any("nproc" in one for one in limits):
        capabilities = "+dac_override,+dac_read_search"
        user = ["setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps={capabilities}"]
        program = [*user, f"--ambient-caps={capabilities}", *program]
    done = subprocess.run(
        [*program, *CLI, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.faults(minutes=4)
@pytest.mark.parametrize(
    ("limits", "said_of"),
    [
        ("--nofile=10", "open files"),
        ("--nofile=14", "open files"),
        ("--nofile=20", "open files"),
        ("--nofile=40", "open files"),
        ("--nofile=64", "open files"),
        ("--as=400000000", "Out of memory"),
        ("--as=1500000000", "Out of memory"),
        ("--as=3000000000", "Out of memory"),
        ("--nproc=1", "threads or processes"),
        ("--nproc=6", "threads or processes"),
        ("--nproc=12", "threads or processes"),
    ],
)
@pytest.mark.parametrize("name", ["embed", "index", "train", "eval"])
def test_few_files_threads_or_little_memory(world: World, name: str, limits: str, said_of: str, tmp_path: Path) -> None:
    if "nproc" in limits and (os.geteuid() or not shutil.which("setpriv")):
        pytest.skip("another user, as whom setpriv runs a command, needs root")
    away = tmp_path / "away"
    away.mkdir(mode=0o777)
    words = world.words(name, tmp_path, away)
    ended = limited([limits], *words)
    assert ended.code in (0, 1), ended
    assert "bug" not in ended.err, ended
    assert "Traceback" not in ended.err, ended
    if ended.code:
        last = said(ended.err)[-1]
        assert last.startswith("cvjobs: "), ended
        assert said_of in last, ended
    again = here(*words)
    assert again.code == 0, again

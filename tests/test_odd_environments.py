"""Commands on odd machines: in containers without a home, beside odd files, with variables that make no sense."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fuzzing
import numpy as np
import odd_environments
import pytest
from commands import Ended, environment, exact, here, left, said, some
from fuzzing import Seeds
from odd_environments import Places

from cvjobs.cli import main

pytestmark = pytest.mark.slow

SCRIPT = [str(Path(sys.executable).parent / "cvjobs")]
NIGHT = "state: {out}/state\nsteps:\n  - embed: {{source: {photos}, out: {out}/nightly, model: thumbnail/4}}\n"


@pytest.fixture(scope="module")
def world(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    some(photos, root / "photos", 9)
    (root / "photos" / "album1").mkdir()
    for image in sorted((root / "photos" / "album0").iterdir())[:4]:
        image.rename(root / "photos" / "album1" / image.name)
    assert here("embed", root / "photos", "-o", root / "vectors", "--model", "thumbnail/8").code == 0
    assert here("index", root / "vectors", "-o", root / "index").code == 0
    return root


@pytest.fixture
def places(small_disk: Path, tmp_path: Path) -> Iterator[Places]:
    """Folders that are odd in one way each, among them one that is full and one that is read-only."""
    with (small_disk / "ballast").open("wb") as file:
        state = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, state.f_bfree * state.f_frsize)
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(sealed)], check=True)
    yield Places(tmp_path, sealed, small_disk)
    subprocess.run(["umount", "-l", str(sealed)], check=True)


def started(words: list[str], variables: dict[str, str], cwd: Path, stand: str = "as it is") -> Ended:
    """Run a program as a shell starts it in a folder."""
    mark, path = f"{os.getpid()}-{cwd}", variables.get("PATH")
    odd = (
        [] if path == os.environ["PATH"] else ["/usr/bin/env", *(["-u", "PATH"] if path is None else [f"PATH={path}"])]
    )
    done = subprocess.run(
        ["bash", "-c", odd_environments.STANDS[stand], "bash", *odd, *words],
        capture_output=True,
        text=True,
        errors="replace",
        env=variables | {"CVJOBS_TEST_MARK": mark, "PATH": os.environ["PATH"]},
        cwd=cwd,
        timeout=240,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, left(mark))


def plain(**more: str) -> dict[str, str]:
    """The variables of a command that is installed: the tests' folder is no place for modules."""
    return {name: value for name, value in environment(**more).items() if name != "PYTHONPATH"}


def documented(ended: Ended) -> None:
    assert ended.code in (0, 1, 2), ended
    assert "this is a bug" not in ended.err, ended
    assert "Traceback" not in ended.err, ended
    assert ended.left == [], ended
    assert ended.code == 0 or said(ended.err)[-1].startswith("cvjobs: "), ended
    assert ended.code == 0 or said(ended.err)[-1].endswith("."), ended


def test_a_page_of_duplicates_where_there_are_none(world: Path, tmp_path: Path) -> None:
    for more in ((), ("--json",), ("-o", tmp_path / "rows")):
        page = tmp_path / "page.html"
        ended = here("query", world / "index", "--duplicates", "--min-score", "1", "--html", page, *more)
        assert ended.code == 0, ended
        assert "No near-duplicates" in page.read_text()
        page.unlink()


def test_odd_variables_in_this_process(
    seeds: Seeds, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = Places(tmp_path)
    for seed in seeds(6):
        random = np.random.default_rng(seed)
        changes = odd_environments.environment(random, places)
        out = tmp_path / f"out{seed}"
        lines: list[tuple[object, ...]] = [
            ("embed", world / "photos", "-o", out, "--model", "thumbnail/4"),
            ("query", world / "index", world / "photos", "--html", tmp_path / "page.html"),
            ("verify", world / "vectors", "--source", world / "photos"),
            ("export", world / "vectors", "--format", "jsonl", "-o", out),
            ("embed", "--help"),
        ]
        words = lines[seed % len(lines)]
        print(changes, words)
        with monkeypatch.context() as patch:
            patch.setattr("tempfile.tempdir", None)
            for name, value in changes.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            ended = here(*words)
        documented(ended)
        assert ended.code == 0, ended
        if words[0] == "embed" and out.exists():
            exact(out, world / "photos", 9)
            shutil.rmtree(out)


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("stand", odd_environments.STANDS)
def test_wherever_a_command_stands(world: Path, tmp_path: Path, stand: str) -> None:
    out = tmp_path / "out"
    words = [*SCRIPT, "embed", str(world / "photos"), "-o", str(out), "--model", "thumbnail/4"]
    ended = started(words, plain(), tmp_path, stand)
    if "cvjobs.yaml" in stand:
        assert ended.code == 2, ended
        assert ended.err.startswith("cvjobs: "), ended
        assert "cvjobs.yaml" in ended.err, ended
        assert ended.err.count("\n") == 1, ended
        return
    assert (ended.code, ended.left) == (0, []), ended
    exact(out, world / "photos", 9)


@pytest.mark.faults(minutes=2)
@pytest.mark.parametrize("name", ["train", "index", "query", "eval", "export", "verify", "doctor", "models", "run"])
def test_every_command_works_where_the_working_folder_was_deleted(world: Path, tmp_path: Path, name: str) -> None:
    out, photos = tmp_path / "out", world / "photos"
    (tmp_path / "night.yaml").write_text(NIGHT.format(out=out, photos=photos))
    lines: dict[str, list[object]] = {
        "train": [photos, "-o", out, "--model", "small/cnn", "--recipe", "quick", "--epochs", "1", "--img-size", "8"],
        "index": [world / "vectors", "-o", out],
        "query": [world / "index", photos, "-o", out],
        "eval": [out, photos],
        "export": [world / "vectors", "--format", "jsonl", "-o", out],
        "verify": [world / "vectors", "--source", photos],
        "run": [tmp_path / "night.yaml"],
    }
    words = lines.get(name, [])
    more = ["--weights", "random"] if name == "train" else []
    stand = "in a folder that was deleted"
    ended = started([*SCRIPT, name, *map(str, words), *more], plain(), tmp_path, stand)
    documented(ended)
    assert (ended.code == 0) is (name != "eval"), ended  # of which nothing was made
    assert name != "doctor" or "the working folder was deleted" in ended.out
    if words:
        line = [*SCRIPT, name, "here", *map(str, words[1:]), *more]
        ended = started(line, plain(), tmp_path, stand)
        assert ended.code == 2, ended
        assert "The working folder was deleted: change into one that exists, or give" in ended.err


@pytest.mark.faults(minutes=1)
@pytest.mark.parametrize("name", ["embed", "train", "query", "doctor", "--help"])
def test_a_user_without_a_name_or_a_home(world: Path, tmp_path: Path, name: str) -> None:
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("another user, as whom setpriv runs a command, needs root")
    out = tmp_path / "out"
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o777)
    lines: dict[str, list[object]] = {
        "embed": [world / "photos", "-o", out, "--model", "thumbnail/4"],
        "train": [world / "photos", "-o", out, "--model", "small/cnn", "--epochs", "1", "--img-size", "8"],
        "query": [world / "index", world / "photos", "-o", out],
    }
    words = lines.get(name, [])
    more = ["--weights", "random"] if name == "train" else []
    variables = {key: value for key, value in plain().items() if key not in ("HOME", "USER", "LOGNAME")}
    ended = started([*odd_environments.UNNAMED, *SCRIPT, name, *map(str, words), *more], variables, tmp_path)
    documented(ended)
    assert ended.code == 0, ended
    if name == "doctor":
        assert "HOME is not set" in ended.out
        assert "user 12345 has no name on this machine" in ended.out


@pytest.mark.faults(minutes=3)
@pytest.mark.ray
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOME", None),
        ("HOME", "everyone's"),
        ("HOME", "sealed"),
        ("HOME", "full"),
        ("HOME", "missing"),
        ("TMPDIR", "long"),
        ("TMPDIR", "accented"),
        ("TMPDIR", "sealed"),
        ("TMPDIR", "full"),
        ("RAY_TMPDIR", "file"),
        ("OMP_NUM_THREADS", None),
    ],
)
@pytest.mark.parametrize("name", ["embed", "train"])
def test_workers_on_an_odd_machine(
    world: Path, tmp_path: Path, places: Places, name: str, variable: str, value: str | None
) -> None:
    out = tmp_path / "out"
    classes = world / "photos"
    words = {
        "embed": ["--model", "thumbnail/4"],
        "train": [
            "--model",
            "small/cnn",
            "--weights",
            "random",
            "--epochs",
            "1",
            "--img-size",
            "8",
            "--batch-size",
            "4",
        ],
    }[name]
    before = set(Path("/tmp").glob("cvjobs-token-*"))
    changes = {variable: None if value is None else str(places.names[value])}
    variables = odd_environments.applied(changes, plain())
    for key in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        variables.pop(key, None)
    line = [*SCRIPT, name, str(classes), "-o", str(out), *words, "--workers", "2"]
    ended = started(line, variables, tmp_path)
    documented(ended)
    assert ended.code == 0, ended
    if name == "embed":
        exact(out, classes, 9)
    assert not os.path.exists("/.ray")
    assert set(Path("/tmp").glob("cvjobs-token-*")) <= before


@pytest.mark.faults(minutes=1)
@pytest.mark.ray
@pytest.mark.parametrize("stand", ["in a folder that was deleted", "as another user"])
def test_workers_without_a_working_folder_or_a_user(world: Path, tmp_path: Path, stand: str) -> None:
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("another user, as whom setpriv runs a command, needs root")
    out = tmp_path / "out"
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o777)
    user = odd_environments.UNNAMED if stand == "as another user" else ()
    variables = {key: value for key, value in plain().items() if key != "HOME"}
    line = [*user, *SCRIPT, "embed", str(world / "photos"), "-o", str(out), "--model", "thumbnail/4", "--workers", "2"]
    ended = started(line, variables, tmp_path, stand if not user else "as it is")
    documented(ended)
    exact(out, world / "photos", 9)


@pytest.mark.faults(minutes=10)
def test_odd_variables_and_places_of_a_process(
    request: pytest.FixtureRequest, world: Path, tmp_path: Path, places: Places
) -> None:
    request.param = "many"
    for seed in fuzzing.seeds_of(request)(1):
        random = np.random.default_rng(seed)
        changes = odd_environments.environment(random, places)
        stands = [name for name in odd_environments.STANDS if "cvjobs.yaml" not in name]
        stand = str(random.choice(stands))
        cwd, out = tmp_path / f"cwd{seed}", tmp_path / f"out{seed}"
        cwd.mkdir()
        lines: list[list[object]] = [
            ["embed", world / "photos", "-o", out, "--model", "thumbnail/4"],
            ["train", world / "photos", "-o", out, "--model", "small/cnn", "--weights", "random", "--epochs", "1"],
            ["query", world / "index", world / "photos", "--html", out],
            ["doctor"],
            ["verify", world / "vectors"],
            ["train", "--help"],
        ]
        words = lines[random.integers(len(lines))]
        print(changes, stand, words)
        variables = odd_environments.applied(changes, plain())
        ended = started([*SCRIPT, *map(str, words)], variables, cwd, stand)
        documented(ended)
        assert ended.code == 0 or words[0] == "doctor", ended
        if words[0] == "embed":
            exact(out, world / "photos", 9)
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(cwd)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (None, "cvjobs.yaml is no file: move it away."),
        ("cvjobs.yaml", "Cannot read cvjobs.yaml (Too many levels of symbolic links): give"),
        ("gone", "Cannot read cvjobs.yaml (No such file or directory): give"),
    ],
)
def test_a_cvjobs_yaml_that_is_no_file_is_never_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str | None,
    why: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cvjobs.yaml"
    if target is None:
        os.mkfifo(file)
    else:
        file.symlink_to(target)
    assert main(["models"]) == 2
    assert capsys.readouterr().err.startswith(f"cvjobs: {why}")

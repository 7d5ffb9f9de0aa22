"""What a command does as a job, and what is sent of it, without a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from commands import environment
from heads import TOYS, said

from cvjobs.clusters.jobs_api import runtime
from cvjobs.common.errors import WrongUse
from cvjobs.config import argv, commands, fields
from cvjobs.dataset import schema
from cvjobs.dataset.parts import Author
from cvjobs.prediction.engine.engine import EngineSpec
from cvjobs.prediction.workers import ray_actors

pytestmark = pytest.mark.slow

EMBED, QUERY = (commands.load(name).Config for name in ("embed", "query"))


def as_job(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a toy as Ray runs a job: both streams into one log."""
    command = [*TOYS, *map(str, words)]
    env = environment(CVJOBS_JOB="job", **more)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=env, text=True, timeout=60, check=False, **streams)  # type: ignore[call-overload, no-any-return]


def test_lines_of_stdout_are_marked_and_stay_in_their_order() -> None:
    ended = as_job("toil", "/word", "--lines", 5)
    assert ended.stdout == "\x1e/word 0\n/word 1\n\x1e/word 2\n/word 3\n\x1e/word 4\n"
    assert said("/word", 5)[1] == "/word 1\n/word 3\n"


def test_an_out_that_the_cluster_sees_loses_its_marker_and_another_is_refused(tmp_path: Path) -> None:
    marker = runtime.mark("job", str(tmp_path / "out"))
    assert marker is not None
    assert marker.exists()
    ended = as_job("toil", "/word", "-o", tmp_path / "out", CVJOBS_MARKER=str(marker))
    assert ended.returncode == 0
    assert list(tmp_path.iterdir()) == []
    ended = as_job("toil", "/word", "-o", tmp_path / "out", CVJOBS_MARKER=str(marker))
    assert ended.returncode == 2
    assert ended.stdout.startswith(f"cvjobs: The cluster does not see the {tmp_path}/out of the machine that sent")
    ended = as_job("toil", "/word", "-o", tmp_path / "a" / "b")
    assert ended.returncode == 2
    assert f"There is no {tmp_path}/a on the cluster" in ended.stdout
    assert runtime.mark("job", str(tmp_path / "a" / "b")) is None
    assert runtime.mark("job", "s3://bucket/out") is None


def test_the_command_line_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = fields.build(
        EMBED,
        "-photos",
        "out",
        weights="random",
        overwrite=True,
        max_error_rate=0.5,
        address="http://x:1",
        storage_option=("endpoint=http://y", "region=z"),
    )
    words = argv.sent("embed", given)
    assert words == [
        "embed", "--config=/dev/null", f"--out={tmp_path}/out", "--overwrite", "--max-error-rate=0.5",
        "--storage-option=endpoint=http://y", "--storage-option=region=z", "--weights=random", "--",
        f"{tmp_path}/-photos",
    ]  # fmt: skip
    assert argv.entrypoint(["embed", "--", "a b;$(c)\n'd"]) == "exec python -m cvjobs embed -- 'a b;$(c)\n'\"'\"'d'"
    (tmp_path / "random").touch()
    assert f"--weights={tmp_path}/random" in argv.sent("embed", given)
    given = fields.build(QUERY, "s3://b/index", source="https://host/a.jpg", html="page.html")
    assert argv.sent("query", given) == [
        "query", "--config=/dev/null", f"--html={tmp_path}/page.html", "--", "s3://b/index", "https://host/a.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["secret_access_key=hunter2", "sas_key=hunter2", "proxy_url=http://me:hunter2@x"])
def test_no_secret_is_sent(option: str) -> None:
    given = fields.build(EMBED, "s3://b/photos", "s3://b/out", storage_option=(option,))
    with pytest.raises(WrongUse, match="is not sent to a cluster") as refused:
        argv.sent("embed", given)
    assert "hunter2" not in str(refused.value)


def test_a_path_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(WrongUse, match="not UTF-8"):
        argv.entrypoint(["embed", os.fsdecode(b"\xff")])


def test_the_order_of_options_makes_no_other_command() -> None:
    line = argv.entrypoint(["query", "--config=/dev/null", "--k=3", "--out=/o", "--", "/index", "/photos"])
    other = argv.entrypoint(["query", "--config=/dev/null", "--out=/o", "--k=3", "--", "/index", "/photos"])
    assert argv.same(line, other)
    assert not argv.same(line, line.replace("--k=3", "--k=4"))
    assert not argv.same(line, line.replace("/index /photos", "/photos /index"))


@pytest.mark.parametrize("missing", ["out", "source"])
def test_a_worker_that_does_not_see_the_folders_says_so(tmp_path: Path, missing: str) -> None:
    for folder in {"out", "source"} - {missing}:
        (tmp_path / folder / "_cvjobs").mkdir(parents=True)
        (tmp_path / folder / schema.FORMAT).touch()
    spec = EngineSpec(
        out=str(tmp_path / "out"),
        storage={},
        author=Author(run="r000001-0", epoch=0, fingerprint="", listed=0),
        epoch=1,
        root=str(tmp_path / "source"),
        base="",
        schema=pa.schema([]),
        opener=None,  # type: ignore[arg-type]
        device="cpu",
        cpus=1,
    )
    with pytest.raises(WrongUse, match=f"does not see {tmp_path}/{missing}: use folders that every machine"):
        ray_actors.Actor().start(spec)


def test_following_and_sending_import_no_ray() -> None:
    program = (
        "import sys, cvjobs.clusters.jobs_api.submit, cvjobs.clusters.jobs_api.stop; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

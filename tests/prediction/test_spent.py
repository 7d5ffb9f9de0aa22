"""Limits of time and money of a batch job: what is done is published before, and the same command does the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import embed, exact, here, opened, parts, rows, sentence

import cvjobs
from cvjobs.common.errors import LimitSpent
from cvjobs.config import commands
from cvjobs.prediction import run as prediction_run
from cvjobs.prediction.scheduler import LEAST, Shards, work
from cvjobs.prediction.summary import Summary

pytestmark = pytest.mark.slow

ALLOWED = 1000.0  # s
VERSION = cvjobs.__version__  # the value of a label of the machine that `cvjobs cluster up` starts


def once_a_part(out: Path) -> Callable[[], float]:
    """A clock that stands still until a part is committed, and is far beyond every limit from then on."""
    return lambda: 1e9 if parts(out) else 0.0


def limited(source: Path, out: Path, **options: Any) -> Summary:
    """Run ``embed`` until its first part is there."""
    driver = commands.load("embed")
    config = driver.Config(source=str(source), out=str(out), model="thumbnail/4", max_time=int(ALLOWED), **options)
    done = prediction_run.run(config, driver.EmbedJob(config), clock=once_a_part(out))
    assert isinstance(done, Summary)
    return done


def test_a_limit_in_the_middle_publishes_what_is_done_and_the_same_command_does_the_rest(
    photos: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    done = limited(photos, out, price=("2.5",))
    kept = rows(out).num_rows
    assert 0 < kept < 400
    assert (done.ok, done.remaining, done.missing, done.computed, done.exit_code) == (kept, 400 - kept, 0, kept, 4)
    assert done.listed == done.ok + done.failed + done.skipped + done.remaining
    assert str(done).splitlines()[-1] == (
        f"exit code 4: --max-time 16 min 40 s is reached, and {400 - kept} images remain: the same command continues"
    )
    assert done.cost["usd"] == pytest.approx(2.5 * done.seconds / 3600, abs=1e-6)
    page = (out / "report.html").read_text()
    assert "--max-time 16 min 40 s is reached. The same command continues." in page
    assert parts(out) == 0
    # As a night, or a person, repeats it.
    found = json.loads(here("embed", photos, "-o", out, "--model", "thumbnail/4", "--json").out)
    assert (found["reused"], found["computed"], found["spent"], found["cost"]) == (kept, 400 - kept, "", {})
    exact(out, photos, 400)
    assert here("embed", photos, "-o", whole, "--model", "thumbnail/4").code == 0
    assert rows(out).equals(rows(whole))


def test_what_replaces_an_output_as_a_whole_stays_unpublished_until_it_is(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert here("embed", photos, "-o", out, "--model", "thumbnail/4").code == 0
    before = opened(out).to_arrow()
    with pytest.raises(LimitSpent, match=r"--max-time 16 min 40 s is reached, and \d+ images remain: the results bef"):
        limited(photos, out, overwrite=True)
    assert opened(out).to_arrow().equals(before)
    assert parts(out)
    found = json.loads(here("embed", photos, "-o", out, "--model", "thumbnail/4", "--overwrite", "--json").out)
    assert 0 < found["computed"] < 400
    exact(out, photos, 400)


def test_a_limit_that_is_over_before_anything_can_be_done_says_so(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("embed", photos, "-o", out, "--model", "thumbnail/4", "--price", "1e6", "--max-cost", "0.01")
    said = sentence(here(*words), 4)
    assert said.startswith("--max-cost 0.01 USD is over before the first image has a result: getting ready took ")
    assert said.endswith("allow more.")
    assert not list(out.rglob("*.parquet"))
    assert "--max-cost 0.01 USD is over before" in sentence(here(*words, "--dry-run"), 4)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--max-time", "soon"], "--max-time 'soon' is no duration"),
        (["--max-time", "0"], "--max-time"),
        (["--max-cost", "5"], "--max-cost needs to know what a machine costs"),
        (["--max-cost", "0", "--price", "1"], "--max-cost must be a number at least 0.01"),
        (["--price", "gpu"], "--price 'gpu' is no price"),
    ],
)
def test_wrong_limits_are_one_sentence(photos: Path, tmp_path: Path, words: list[str], why: str) -> None:
    assert why in sentence(here("embed", photos, "-o", tmp_path / "out", *words), 2)
    assert list(tmp_path.iterdir()) == []


def test_prices_of_the_file_and_what_a_forecast_says(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cvjobs.yaml").write_text("embed: {price: [this=3.6], max-time: 10d, model: thumbnail/4}\n")
    found = json.loads(here("embed", photos, "-o", "out", "--dry-run", "--json").out)
    # 3.6 USD an hour is a thousandth of a USD a second.
    assert found["cost"]["usd"] == pytest.approx(found["seconds"] / 1000, abs=1e-5)
    assert found["machine_hours"] == pytest.approx(found["seconds"] / 3600, abs=1e-4)
    assert (found["limit"], found["within"]) == ("--max-time 240 h", 400)
    told = here("embed", photos, "-o", "out", "--dry-run").out.splitlines()
    assert told[2].startswith("1 machine (this), ")
    assert told[2].endswith(" USD")
    assert told[3] == "--max-time 240 h allows all of it"


class Slow:
    """Workers of which one shard of 16 images takes ten seconds of a clock that stands still."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def ready(self) -> list[Any]:
        return [self]

    def submit(self, worker: Any, table: Any) -> int:
        del worker
        self.given.append(table.num_rows)
        return len(self.given)

    def wait(self, handles: list[Any], seconds: float) -> list[Any]:
        del seconds
        return handles

    def result(self, handle: int) -> Any:
        from cvjobs.prediction.engine.engine import ShardResult

        return ShardResult(images=self.given[handle - 1])

    def replace(self, worker: Any) -> None:
        raise AssertionError(worker)


def test_no_shard_is_given_out_that_does_not_end_in_time() -> None:
    import pyarrow as pa

    shards = Shards(pa.table({"row": range(1000)}), 1)
    assert shards.next(alone=True, room=0.0) is not None  # of nothing is known how long it takes
    shards.learn(100, 50.0)
    task = shards.next(alone=True, room=9.0)
    assert task is not None
    assert task.table.num_rows == 18
    assert shards.next(alone=True, room=LEAST * 0.5 - 0.1) is None
    workers, shards = Slow(), Shards(pa.table({"row": range(1000)}), 1)
    shards.learn(1, 1e6)
    assert work(workers, shards, lambda lost: lost, print, lambda: False, lambda: 1.0) is False
    assert workers.given == []


@pytest.mark.faults(minutes=2)
@pytest.mark.ray
def test_the_machines_of_a_cluster(photos: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    more: dict[str, Any] = dict(cluster)
    out, words = tmp_path / "out", ("--workers", 2, "--json")
    # The only machine is the head, and known by its labels and its host name: none of them is "gpu".
    ended = embed(photos, out, *words, "--price", "gpu=1", **more)
    assert "No --price is that of a machine of the cluster, known as " in sentence(ended, 2)
    found = json.loads(embed(photos, out, *words, "--price", f"{VERSION}=3.6", "--price", "9", **more).out)
    (row,) = found["cost"]["machines"]
    assert (row["name"], row["machines"], row["usd_per_hour"]) == (VERSION, 1, 3.6)
    assert found["cost"]["usd"] == pytest.approx(found["seconds"] / 1000, abs=1e-5)
    assert found["ok"] == 400
    planned = json.loads(embed(photos, out, *words, "--overwrite", "--price", "3.6", "--dry-run", **more).out)
    assert planned["cost"]["usd"] == pytest.approx(planned["seconds"] / 1000, abs=1e-5)


@pytest.mark.faults
@pytest.mark.ray
def test_workers_of_ray_on_this_machine(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = embed(photos, out, "--workers", 2, "--price", "3.6", "--json")
    assert ended.code == 0, ended
    found = json.loads(ended.out)
    assert found["cost"]["usd"] == pytest.approx(found["seconds"] / 1000, abs=1e-5)
    assert [row["machines"] for row in found["cost"]["machines"]] == [1]

"""``cvjobs schedule``: cron's times mean the same everywhere, and odd paths survive every kind of quoting."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import cvjobs
from cvjobs.common.errors import WrongUse
from cvjobs.operations import cron_expression
from cvjobs.operations.cron_expression import Expression
from cvjobs.operations.schedules import kubernetes, systemd

ODD = 'it\'s 100% "odd" $HOME %h;&'
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline in a folder of an odd name, with a variable of an odd value."""
    monkeypatch.setenv("DAY", ODD)
    file = tmp_path / ODD / "night.yaml"
    file.parent.mkdir()
    steps = [{"embed": {"source": "${DAY}", "out": "out"}}]
    file.write_text(json.dumps({"state": "state", "variables": ["DAY"], "steps": steps}, indent=1))
    return file


def starts(when: Expression) -> Iterator[str]:
    """When cron starts something from 2027 on, written from its manual."""
    day = datetime.date(2027, 1, 1)
    while True:
        of_month, of_week = day.day in when.day.values, (day.weekday() + 1) % 7 in when.weekday.values
        if day.month in when.month.values and (of_month or of_week if when.either else of_month and of_week):
            yield from (f"{day} {hour:02}:{minute:02}:00" for hour in when.hour.values for minute in when.minute.values)
        day += datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0 2 * * *", ((0,), (2,), tuple(range(1, 32)), tuple(range(1, 13)), tuple(range(7)))),
        ("*/20 9-17/4 1,15 JAN-mar mon", ((0, 20, 40), (9, 13, 17), (1, 15), (1, 2, 3), (1,))),
        ("5-7 0 * 2,feb 5-7", ((5, 6, 7), (0,), tuple(range(1, 32)), (2,), (0, 5, 6))),
        ("@weekly", ((0,), (0,), tuple(range(1, 32)), tuple(range(1, 13)), (0,))),
        ("0 0 * * */2", ((0,), (0,), tuple(range(1, 32)), tuple(range(1, 13)), (0, 2, 4, 6))),
    ],
)
def test_an_expression_is_read(text: str, values: tuple[tuple[int, ...], ...]) -> None:
    when = cron_expression.parse(text)
    assert (when.minute.values, when.hour.values, when.day.values, when.month.values, when.weekday.values) == values
    assert cron_expression.parse(str(when)) == when


@pytest.mark.parametrize(
    "text",
    [
        "", "0 2 * *", "0 2 * * * *", "60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 * 13 *", "0 2 * * 8",
        "5/10 * * * *",
        "*/0 * * * *", "7-5 * * * *", "-1 * * * *", "a * * * *", "1, * * * *", "@reboot", "@nightly", "0 0 30 2 *",
        "0 0 31 4,6 *", "٣ * * * *", "0 2 * * mon\n* * * * * rm",
    ],
)  # fmt: skip
def test_a_wrong_expression_is_refused(text: str) -> None:
    with pytest.raises(WrongUse, match="--cron"):
        cron_expression.parse(text)


CASES = [
    "0 2 * * *",
    "*/15 6-20 * * 1-5",
    "30 4 1,15 * 5",
    "0 0 */2 * 1",
    "0 12 13 * 5",
    "7 3 31 1,3 *",
    "0 0 1-31 * 1",
]


@needs_systemd
@pytest.mark.parametrize("text", CASES)
def test_systemd_starts_exactly_when_cron_does(text: str) -> None:
    when = cron_expression.parse(text)
    found: set[str] = set()
    for event in systemd.calendar(when):
        words = ["systemd-analyze", "calendar", "--iterations=40", "--base-time=2027-01-01 00:00:00 UTC", event]
        told = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"TZ": "UTC"}).stdout
        lines = [
            line.partition(":")[2].strip() for line in told.splitlines() if line.lstrip().startswith(("Next", "It"))
        ]
        found |= {" ".join(line.split()[1:3]) for line in lines}
    assert sorted(found)[:30] == list(itertools.islice((at for at in starts(when) if at > "2027-01-01 00:00:00"), 30))


@needs_systemd
@pytest.mark.parametrize(
    ("zone", "missing", "twice", "utc"),
    [
        ("Europe/Berlin", "2027-03-28", "2027-10-31", ["2027-10-30 00:30:00", "2027-10-31 00:30:00"]),
        ("America/New_York", "2027-03-14", "", []),
    ],
)
def test_where_an_hour_is_missing_or_comes_twice_systemd_is_as_documented(
    zone: str, missing: str, twice: str, utc: list[str]
) -> None:
    (event,) = systemd.calendar(cron_expression.parse("30 2 * * *"))
    words = ["systemd-analyze", "calendar", "--iterations=366", "--base-time=2027-01-01 00:00:00 UTC", event]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ | {"TZ": zone}).stdout
    times = re.findall(r" (2027-\d\d-\d\d) (\d\d:30:00) (?!UTC)", told)
    days = [day for day, time in times if time == "02:30:00"]
    first = datetime.date(2027, 1, 1)
    year = [str(first + datetime.timedelta(days=number)) for number in range(365)]
    assert days == [day for day in year if day != missing]
    found = re.findall(r"UTC\): \w+ (\S+ \S+) UTC", told)
    assert [at for at in found if twice and twice[:8] in at and at[8:10] in ("30", "31")] == utc


@needs_systemd
def test_systemd_accepts_the_units_and_reads_the_words_back(pipeline: Path, tmp_path: Path) -> None:
    made = cvjobs.schedule(str(pipeline), cron="0 2 * * *", emit="systemd")
    for name, content in made.items():
        (tmp_path / name).write_text(content)
    units = [str(tmp_path / name) for name in made]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert [line for line in checked.stderr.splitlines() if "night." in line] == []
    service = made["night.service"]
    assert "KillMode=mixed\n" in service
    line = next(line for line in service.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    assert shlex.split(line.replace("%%", "%").replace("$$", "$")) == [*command(pipeline)]
    variable = next(line for line in service.splitlines() if line.startswith('Environment="DAY'))
    assert shlex.split(variable.removeprefix("Environment=").replace("%%", "%")) == [f"DAY={ODD}"]


def command(pipeline: Path) -> list[str]:
    return [sys.executable, "-m", "cvjobs", "run", str(pipeline)]


def uncrontabbed(line: str) -> str:
    """What cron gives to the shell of a line's sixth field: up to the first bare %, of the others the % alone."""
    read, escaped = "", False
    for character in line.split(" ", 5)[5]:
        if escaped and character == "%":
            read = read[:-1]
        elif not escaped and character == "%":
            break
        read, escaped = read + character, character == "\\" and not escaped
    return read


def test_the_crontab_line_runs_the_command_in_a_shell(pipeline: Path) -> None:
    (content,) = cvjobs.schedule(str(pipeline), cron="0 2 * * Mon").values()
    comment, line = content.splitlines()
    assert comment.startswith("#")
    assert line.startswith("0 2 * * 1 PATH=")
    given = uncrontabbed(line)
    script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['DAY']]))"
    replaced = given.replace(" -m cvjobs ", f" -c {shlex.quote(script)} -m cvjobs ")
    subprocess.run(["/bin/sh", "-c", replaced], check=True, env={})
    argv, day = json.loads((pipeline.parent / "night.log").read_text())
    assert argv == command(pipeline)[1:]
    assert day == ODD


def test_the_manifest_is_what_kubernetes_needs(pipeline: Path) -> None:
    with pytest.raises(WrongUse, match=r"would go away with the pod: .* --mount CLAIM="):
        cvjobs.schedule(str(pipeline), cron="@daily", emit="kubernetes")
    mount = f"claim={pipeline.parent}"
    (content,) = cvjobs.schedule(str(pipeline), cron="30 2 * * 7", emit="kubernetes", mount=(mount,)).values()
    config, job = yaml.safe_load_all(content)
    assert config["data"] == {"pipeline.yaml": pipeline.read_text()}
    assert (job["kind"], job["apiVersion"], job["metadata"]["name"]) == ("CronJob", "batch/v1", "night")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["schedule"] == "30 2 * * 0"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["image"] == f"cvjobs:{cvjobs.__version__}"
    assert container["command"] == ["cvjobs", "run", str(pipeline)]
    assert container["env"] == [{"name": "DAY", "value": ODD}]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
    }
    assert claims == {"data-0": "claim"}
    assert {"name": "data-0", "mountPath": str(pipeline.parent)} in container["volumeMounts"]


@pytest.mark.parametrize("text", ["0 0 */2 * 1", "0 0 13 * */2"])
def test_times_that_kubernetes_reads_otherwise_are_refused(text: str) -> None:
    with pytest.raises(WrongUse, match="both day fields"):
        kubernetes.times(cron_expression.parse(text))


def test_what_no_schedule_can_hold_is_refused(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "line\nbreak.yaml"
    broken.write_text(pipeline.read_text().replace('"state": "state"', '"name": "n", "state": "state"'))
    for kind in ("cron", "systemd", "kubernetes"):
        with pytest.raises(WrongUse, match="line break"):
            cvjobs.schedule(str(broken), cron="@daily", emit=kind)
    with pytest.raises(WrongUse, match="--emit kubernetes"):
        cvjobs.schedule(str(pipeline), cron="@daily", image="x")
    with pytest.raises(WrongUse, match="CLAIM=PATH"):
        cvjobs.schedule(str(pipeline), cron="@daily", emit="kubernetes", mount=("claim",))
    monkeypatch.setenv("DAY", "x" * 1000)
    with pytest.raises(WrongUse, match="999 characters"):
        cvjobs.schedule(str(pipeline), cron="@daily")
    monkeypatch.setenv("DAY", "a\\%b")
    with pytest.raises(WrongUse, match="backslash"):
        cvjobs.schedule(str(pipeline), cron="@daily")


def test_the_files_are_written_where_asked(pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cvjobs.cli import main

    assert (
        main(["schedule", str(pipeline), "--cron", "@daily", "--emit", "systemd", "-o", str(tmp_path / "units")]) == 0
    )
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "units" / f"night.{kind}") for kind in ("service", "timer")
    ]
    assert main(["schedule", str(pipeline), "--cron", "@daily"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("0 0 * * * ")

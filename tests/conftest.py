"""Images that are made once for all end-to-end tests, a world without model hubs, and the order of the tests."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before torch is imported: the tests run in two processes on two cores, and commands inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import fuzzing
import numpy as np
import pytest
from buckets import KEYS, server
from commands import aged
from limits import Limits
from PIL import Image

from cvjobs.images import server_process

BEGAN = time.monotonic()
RAY = "ray"
server_process.LINGER = 600.0  # seconds, so that the next file of tests finds the decoder server of the last


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, default=float("inf"), help="skip what would begin after these minutes")
    fuzzing.add_options(parser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if told := fuzzing.summary(config):
        terminalreporter.write_line(f"seeds: {told}")


@pytest.fixture(
    params=[pytest.param("few", marks=pytest.mark.slow), pytest.param("many", marks=pytest.mark.faults(minutes=10))]
)
def seeds(request: pytest.FixtureRequest) -> fuzzing.Seeds:
    """What gives a test its seeds of odd inputs."""
    return fuzzing.seeds_of(request)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, and those with Ray, which share its head."""
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return RAY if nodeid.endswith(f"@{RAY}") else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which puts the group of a test behind its name
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name the group of the tests with Ray, and order the files.

    The long tests begin with those that take less than a minute, then with the files that take the fewest minutes.
    Otherwise the heaviest files come first, so that both processes end at about the same time.
    """
    faults = config.getoption("markexpr") == "faults"
    weights: dict[str, float] = defaultdict(float)
    groups = {}
    for item in items:
        ray = item.get_closest_marker("ray") is not None
        groups[item] = RAY if ray and not faults else str(item.path)
        if groups[item] == RAY:
            item.add_marker(pytest.mark.xdist_group(RAY))
        if faults:
            weights[groups[item]] += _minutes(item)
        else:
            weights[groups[item]] -= (1000 if ray else 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: (faults and _minutes(item) >= 1, weights[groups[item]], groups[item]))


def _minutes(item: pytest.Item) -> float:
    """How many minutes a long test says that it takes; 0 of any other."""
    mark = item.get_closest_marker("faults")
    return float(mark.kwargs.get("minutes", 1)) if mark else 0.0


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Limits(strict="CI" in os.environ))


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if time.monotonic() > BEGAN + 60 * minutes:
        pytest.skip(f"the {minutes:g} minutes are over")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 400 different JPEGs of 64x48 in eight folders, old enough for their time stamps to be trusted."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(400):
        image = root / f"album{number % 8}" / f"photo{number:04}.jpg"
        image.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(image)
    return aged(root)


@pytest.fixture(scope="session")
def slow_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 images that take tens of milliseconds each to decode (links to eight PNGs of 640x480)."""
    root = tmp_path_factory.mktemp("slow")
    random = np.random.default_rng(1)
    for number in range(200):
        image = root / f"scan{number:03}.png"
        if number < 8:
            Image.fromarray(random.integers(0, 256, (480, 640, 3), dtype=np.uint8)).save(image, compress_level=1)
        else:
            image.hardlink_to(root / f"scan{number % 8:03}.png")
    return aged(root)


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Ray head on this machine that takes jobs, as the variables that a command needs to reach it."""
    from heads import ray_head

    with ray_head(tmp_path_factory.mktemp("home"), f"test{os.getpid()}") as variables:
        yield variables


@pytest.fixture
def cluster(head: dict[str, str]) -> dict[str, str]:
    """The same Ray head for workers, without its Jobs API."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(Path(head["HOME"], ".ray", "auth_token"))}
    return {**token, "RAY_ADDRESS": head["GCS"], "RAY_enable_metrics_collection": "0", "RAY_DISABLE_METRICS": "1"}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and a network on which every connection is refused at once."""
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with _mounted(tmp_path / "disk", "size=1m") as place:
        yield place


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system to which nothing can be written, not even by root."""
    with _mounted(tmp_path / "read_only", "size=1m,ro") as place:
        yield place


@contextmanager
def _mounted(place: Path, options: str) -> Iterator[Path]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The endpoint of an S3 on this machine; its credentials are in the environment while tests use it."""
    with pytest.MonkeyPatch.context() as patch, server() as endpoint:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield endpoint

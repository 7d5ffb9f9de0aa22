"""A Ray head on this machine, which the tests of workers on Ray and of jobs on a cluster share."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import TESTS, until

from cvjobs.clusters import files, host, local

# Runs a command with the drivers of ``toys``.
TOYS = [sys.executable, str(TESTS / "with_toys.py")]


def said(word: str, count: int) -> tuple[str, str]:
    """What ``toil`` says on stdout and on stderr."""
    lines = [f"{word} {number}\n" for number in range(count)]
    return "".join(lines[::2]), "".join(lines[1::2])


@contextmanager
def ray_head(home: Path, name: str) -> Iterator[dict[str, str]]:
    """The cluster ``local`` with two cores, under another name and port; the variables that a command needs.

    ``RAY_ADDRESS`` takes jobs, ``GCS`` is where workers connect. The token is in ``home``.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        file = {**files.described("local"), "port": free.getsockname()[1]}
    file["options"] = [*file["options"], "--num-cpus=2", "--object-store-memory=100000000"]
    try:
        with _at_home(home):
            up = local.up(name, file, print)
            assert local.up(name, file, print).address == up.address  # it is up already
        place = host.folder(name) / "ray" / "ray_current_cluster"
        until(lambda: place.exists() and place.read_text())  # a little after the head answers
        yield {"RAY_ADDRESS": up.address, "HOME": str(home), "CLUSTER": name, "GCS": place.read_text()}
    finally:
        with _at_home(home):
            assert local.down(name, file, print).processes == 0
        until(lambda: _deleted(host.folder(name)))


def _deleted(folder: Path) -> bool:
    """Delete a folder into which a process that ends may still write, and return whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


@contextmanager
def _at_home(home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
            patch.delenv(variable, raising=False)
        yield

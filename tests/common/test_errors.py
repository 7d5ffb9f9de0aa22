"""Limits of the machine, and what libraries make of them: one sentence each, with its exit code."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cvjobs.common import extras, plugins
from cvjobs.common.errors import JobFailed, LimitReached, OutputHeld, WrongUse, explained, limit, storage_failure


def system(number: int, *more: str) -> OSError:
    return OSError(number, os.strerror(number), *more)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (system(errno.ENOSPC), "No space left: make room"),
        (system(errno.EDQUOT, "/a/b"), "No space left for /a/b: make room"),
        (system(errno.EFBIG, "/a/b"), "/a/b is larger than one may be here: raise `ulimit -f`"),
        (system(errno.EMFILE, "/a/b"), "Too many open files (this process may have "),
        (system(errno.ENFILE), "Too many open files on this machine: end other programs"),
        (system(errno.EAGAIN), "No more threads or processes can be started"),
        (system(errno.ENOMEM), "Out of memory (this process has no limit of its own): raise `ulimit -v`"),
        (MemoryError(), "Out of memory"),
        (pa.ArrowMemoryError("malloc of size 8 failed"), "Out of memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
            "Out of mem",
        ),
        (RuntimeError("std::bad_alloc"), "Out of memory"),
        (RuntimeError("can't start new thread"), "No more threads"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "Out of memory"),
        (ImportError("libtorch.so: cannot open shared object file: Too many open files"), "Too many open files"),
        (JobFailed("The decode processes cannot run (OSError: [Errno 24] Too many open files): x"), "Too many open"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "The GPU is out of memory"),
        (RuntimeError('Os { code: 11, kind: WouldBlock, message: "" }'), "No more threads"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, BaseException) else "",
)
def test_each_limit_has_its_sentence(error: BaseException, said: str) -> None:
    found = limit(error)
    assert found is not None
    assert (str(found).startswith(said), found.exit_code) == (True, 1), found
    assert str(found).endswith(", then run the same command again.")
    assert str(explained(error)) == str(found)


def test_a_sentence_that_names_a_limit_is_told_as_it_is() -> None:
    """Such as that of a job which the system killed."""
    told = JobFailed("Job x was killed by SIGKILL (usually: its machine was out of memory): send it again.")
    assert limit(told) is None
    assert explained(told) is told


def _safetensors(full: Path) -> None:
    save_file({"x": torch.zeros(1 << 20)}, full / "x.safetensors")


def _parquet(full: Path) -> None:
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(1 << 19)}), full / "x.parquet")


def _numpy(full: Path) -> None:
    np.save(full / "x.npy", np.zeros(1 << 21))


def _picture(full: Path) -> None:
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8)).save(full / "x.bmp")


@pytest.mark.parametrize("write", [_safetensors, _parquet, _numpy, _picture])
def test_a_full_disk_is_known_from_what_a_library_says(small_disk: Path, write: Callable[[Path], None]) -> None:
    (small_disk / "ballast").write_bytes(bytes((1 << 20) - 40_960))
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever each library makes of it
        write(small_disk)
    assert "No space left" in str(limit(caught.value))
    assert str(storage_failure(caught.value, "/out")).startswith("No space left in /out: make room")


def test_what_is_behind_an_error_is_what_is_said() -> None:
    handling = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 22592 vs 22484")
    handling.__context__ = system(errno.ENOSPC)
    assert "No space left" in str(explained(handling))
    wrapped = WrongUse("x.safetensors is no file of weights: choose another.")
    wrapped.__cause__ = system(errno.EMFILE)
    assert isinstance(explained(wrapped), LimitReached)


def test_what_is_no_limit_stays_what_it_is() -> None:
    for error in (WrongUse("a: b."), OutputHeld("a: b."), JobFailed("a: b.")):
        assert explained(error) is error
    for bug in (ZeroDivisionError("seven"), system(errno.ENOENT, "/a"), RuntimeError("12 is no errno")):
        assert explained(bug) is None
    assert limit(WrongUse("There is no Too many open files.jpg: name another.")) is None
    assert str(explained(system(errno.EROFS, "/a"))) == (
        "/a cannot be used (Read-only file system): fix its permissions, then run the same command again."
    )


def test_a_place_that_becomes_read_only_is_no_wrong_use() -> None:
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        assert isinstance(storage_failure(system(number), "/out"), WrongUse)
        found = storage_failure(system(number), "/out", begun=True)
        assert found.exit_code == 1
        assert "/out can no longer be written to" in str(found)


def test_a_file_in_the_place_of_a_folder_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file") as caught:
            place.mkdir()
        found = storage_failure(caught.value, str(place), "--cache")
        assert isinstance(found, WrongUse)
        assert str(found) == f"{place} is a file, or below one: choose another --cache."


def test_a_limit_is_no_fault_of_a_plugin_or_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError), plugins.guarded("json", "format json"):
        raise MemoryError
    monkeypatch.setitem(extras.MODULES, "maps", "no.such")

    def no_more(_: str) -> None:
        raise ImportError("libx.so: cannot open shared object file: Too many open files")

    monkeypatch.setattr("importlib.import_module", no_more)
    with pytest.raises(ImportError):
        extras.load("maps", "x")


@pytest.mark.slow
def test_little_address_space_ends_before_a_library_ends_the_process(tmp_path: Path) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))

    words = [sys.executable, "-m", "cvjobs", "embed", str(tmp_path), "-o", str(tmp_path / "out")]
    done = subprocess.run(words, preexec_fn=little, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert done.stderr.startswith("cvjobs: Out of memory (this process may have 315 MB): raise `ulimit -v`")


def test_a_working_folder_that_was_deleted_is_no_bug(tmp_path: Path) -> None:
    program = (
        "import os, sys, cvjobs.drivers\nfrom cvjobs.common.errors import explained\n"
        f"os.chdir({str(tmp_path)!r})\nos.rmdir({str(tmp_path)!r})\n"
        "try:\n    os.path.abspath('x')\nexcept OSError as error:\n    print(explained(error))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "The working folder was deleted: change into one that exists, then run the same command again.\n"
    )


def test_no_folder_for_temporary_files_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError) as error:
        tempfile._get_default_tempdir()  # type: ignore[attr-defined]
    assert str(explained(error.value)).startswith("No folder for temporary files can be written to: make room in /tmp")
    assert explained(FileNotFoundError(errno.ENOENT, "x", "y")) is None
    assert str(explained(FileNotFoundError(errno.ENOENT, "x", "/proc/stat"))).startswith("/proc/stat is missing: mount")


def test_a_limit_of_the_data_segment_is_named() -> None:
    program = (
        "import resource\nfrom cvjobs.common.errors import explained\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (300_000_000, 300_000_000))\nprint(explained(MemoryError()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Out of memory (this process may have 300 MB): raise `ulimit -d` where it is set, ")

"""Checkpoints: folders that are there whole or not at all, each file with its sha256; the newest that verifies wins.

A checkpoint holds tensors and JSON. Nothing of it is ever unpickled beyond tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cvjobs.common.errors import WrongUse, limit, storage_failure
from cvjobs.common.fingerprint import digest

FOLDER = "checkpoints"
MODEL, AVERAGE, OPTIMIZER, META = "model.safetensors", "average.safetensors", "optimizer.pt", "meta.json"
KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training at one position: ``meta`` is JSON, with ``done``, the optimizer's steps so far.

    ``average`` is empty where the recipe averages no weights.
    """

    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    meta: dict[str, Any]


class Checkpoints:
    """Those of one run; one writer, which writes in the background; ``check`` may refuse a write by raising."""

    def __init__(self, run: str, check: Callable[[], None] = lambda: None) -> None:
        self._folder, self._check = Path(run) / FOLDER, check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.took = 0.0  # s that the last one took to be written

    def save(self, checkpoint: Checkpoint, then: Callable[[], None] | None = None) -> None:
        """Write a checkpoint, of copies made now, and ``then`` what it is the ground of, while training goes on.

        Raises what the one before met.
        """
        self.wait()
        copied = Checkpoint(
            model=_copied(checkpoint.model),
            average=_copied(checkpoint.average),
            optimizer=_copied(checkpoint.optimizer),
            meta=json.loads(json.dumps(checkpoint.meta)),
        )
        self._writing = self._thread.submit(self._timed, copied, then)

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raises JobFailed or WrongUse where it cannot be written."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except (OSError, SafetensorError) as error:
                raise storage_failure(error, str(self._folder), begun=True) from error

    def close(self) -> None:
        """Finish what is being written."""
        self._thread.shutdown()

    def _timed(self, checkpoint: Checkpoint, then: Callable[[], None] | None) -> None:
        began = time.monotonic()
        self._write(checkpoint, then)
        self.took = time.monotonic() - began

    def _write(self, checkpoint: Checkpoint, then: Callable[[], None] | None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(self._folder)
        temporary.mkdir()
        try:
            save_file(dict(checkpoint.model), temporary / MODEL)
            if checkpoint.average:
                save_file(dict(checkpoint.average), temporary / AVERAGE)
            _save(checkpoint.optimizer, temporary / OPTIMIZER)
            files = {file.name: _sha256(file) for file in sorted(temporary.iterdir())}
            meta = {**checkpoint.meta, "files": files}
            (temporary / META).write_text(json.dumps({"meta": meta, "sha256": digest(meta)}))
            for file in temporary.iterdir():
                _sync(file)
            self._check()
            final = self._folder / f"{checkpoint.meta['done']:010}"
            if final.exists():
                _delete(final)
            temporary.rename(final)
            _sync(self._folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._check()
        if then is not None:
            then()
        for old in self._names()[KEPT:]:
            _delete(self._folder / old)

    def _names(self) -> list[str]:
        return _names(self._folder)

    def clean(self) -> None:
        """Delete what a writer that was killed left behind."""
        for left in self._folder.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there never was one.

        ``warn`` is told which were damaged.

        Raises:
            WrongUse: there are some and none is whole, or one holds more than tensors and was refused.
        """
        names = self._names()
        for name in names:
            try:
                return _read(self._folder / name)
            except _Damaged as error:
                warn(f"the checkpoint {self._folder / name} is damaged ({error}) and left out")
        if names:
            raise WrongUse(
                f"No checkpoint in {self._folder} is whole, and training does not silently start over: "
                "bring one back, or give --overwrite."
            )
        return None


def whole(run: str) -> Iterator[Checkpoint]:
    """Yield the checkpoints of a run that are whole, the newest first."""
    for name in _names(Path(run) / FOLDER):
        with contextlib.suppress(_Damaged, WrongUse):
            yield _read(Path(run) / FOLDER / name)


def examined(run: str) -> dict[str, str]:
    """Return what is wrong with each checkpoint of a run, the newest first; empty where nothing is."""
    found = {}
    for name in _names(Path(run) / FOLDER):
        try:
            _read(Path(run) / FOLDER / name)
            found[name] = ""
        except (_Damaged, WrongUse) as error:
            if (Path(run) / FOLDER / name).exists():  # else the training deleted it, which goes on
                found[name] = str(error)
    return found


class _Damaged(Exception):
    """A checkpoint is not what its writer made."""


def _temporary(folder: Path) -> Path:
    """Return a new name below a folder, of what ``Checkpoints.clean`` deletes."""
    return folder / f".tmp-{secrets.token_hex(6)}"


def _delete(checkpoint: Path) -> None:
    """Delete a checkpoint: a kill leaves the whole of it, or nothing of its name."""
    aside = _temporary(checkpoint.parent)
    with contextlib.suppress(OSError):
        checkpoint.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    """Return the names of the checkpoints, the newest first."""
    try:
        found = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted((name for name in found if name.isascii() and name.isdigit()), reverse=True)


def _read(folder: Path) -> Checkpoint:
    try:
        meta = _meta(_there(folder / META).read_bytes())
        for name, sha256 in meta["files"].items():
            if _sha256(folder / name) != sha256:
                raise _Damaged(f"{name} is not what was written")
        average = load_file(folder / AVERAGE) if AVERAGE in meta["files"] else {}
        return Checkpoint(
            model=load_file(folder / MODEL), average=average, optimizer=_optimizer(folder / OPTIMIZER), meta=meta
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if reached := limit(error):
            raise reached from error
        raise _Damaged(str(error).partition("\n")[0][:200]) from error


def _meta(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise _Damaged(f"its {META} is no JSON") from None
    try:
        meta: dict[str, Any] = record["meta"]
        as_written = digest(meta) == record["sha256"]
    except (KeyError, TypeError):
        raise _Damaged(f"its {META} is no checkpoint's") from None
    if not as_written:
        raise _Damaged(f"{META} was changed")
    return meta


def _optimizer(file: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return loaded
    except pickle.UnpicklingError:
        raise WrongUse(
            f"The checkpoint {file} was refused, for it holds more than tensors and loading it could run code: "
            "delete its folder, or bring back what this run wrote."
        ) from None
    except (RuntimeError, EOFError) as error:
        if reached := limit(error):
            raise reached from error
        raise _Damaged(str(error).partition("\n")[0][:200]) from error


def _save(optimizer: Mapping[str, Any], file: Path) -> None:
    """Write an optimizer; of an error of the system torch itself tells only where it stood in the file."""
    with file.open("wb") as stream:
        failed: list[OSError] = []

        class Noted:
            def write(self, content: Any) -> int:
                try:
                    return stream.write(content)
                except OSError as error:
                    failed.append(error)
                    raise

            def flush(self) -> None:
                stream.flush()

        try:
            torch.save(optimizer, Noted())  # type: ignore[arg-type]
        except (RuntimeError, OSError) as error:
            raise (failed[0] if failed else error) from error


def _copied(value: Any) -> Any:
    """Return tensors as copies in the memory of the CPU, in the mappings and lists that hold them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _there(file: Path) -> Path:
    """Return a file that is there; raises OSError for what is none, such as a pipe, which would be waited for."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.name} is gone or no file")
    return file


def _sha256(file: Path) -> str:
    with _there(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

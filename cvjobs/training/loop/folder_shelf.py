"""A checkpoint as a folder: tensors, an optimizer and JSON, each file with its sha256, there whole or not at all.

Nothing of it is ever unpickled beyond tensors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cvjobs.common.errors import WrongUse, limit
from cvjobs.common.fingerprint import digest
from cvjobs.storage.local_store import LocalStore

FOLDER = "checkpoints"
MODEL, AVERAGE, OPTIMIZER, META = "model.safetensors", "average.safetensors", "optimizer.pt", "meta.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A training at one position: ``meta`` is JSON, with ``done``, the optimizer's steps so far.

    ``average`` is empty where the recipe averages no weights.
    """

    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    meta: dict[str, Any]


class Damaged(Exception):
    """A checkpoint is not what its writer made."""


class FolderShelf:
    """The checkpoints below a folder, each in one of its own; see ``checkpoints.Shelf``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.place = self.room = str(folder)

    def begun(self) -> bool:
        """See ``checkpoints.Shelf``."""
        return bool(LocalStore(self._folder.parent).names(FOLDER))

    def names(self) -> list[str]:
        """See ``checkpoints.Shelf``."""
        try:
            found = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted((name for name in found if name.isascii() and name.isdigit()), reverse=True)

    def there(self, name: str) -> bool:
        """See ``checkpoints.Shelf``."""
        return (self._folder / name).exists()

    def read(self, name: str) -> Checkpoint:
        """See ``checkpoints.Shelf``."""
        return read(self._folder / name, str(self._folder / name))

    def write(self, checkpoint: Checkpoint, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._temporary()
        temporary.mkdir()
        try:
            fill(temporary, checkpoint)
            for file in temporary.iterdir():
                _sync(file)
            check()
            final = self._folder / f"{checkpoint.meta['done']:010}"
            if final.exists():
                self.delete(final.name)
            temporary.rename(final)
            _sync(self._folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def delete(self, name: str) -> None:
        """See ``checkpoints.Shelf``: a kill leaves the whole of it, or nothing of its name."""
        aside = self._temporary()
        with contextlib.suppress(OSError):
            (self._folder / name).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def forget(self, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``."""
        check()
        LocalStore(self._folder.parent, begun=True).delete(FOLDER)

    def clean(self, check: Callable[[], None]) -> None:
        """See ``checkpoints.Shelf``."""
        check()
        for left in self._folder.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _temporary(self) -> Path:
        """Return a new name below the folder, of what ``clean`` deletes."""
        return self._folder / f".tmp-{secrets.token_hex(6)}"


def fill(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the files of a checkpoint into an empty folder, the one that names the others last."""
    save_file(dict(checkpoint.model), folder / MODEL)
    if checkpoint.average:
        save_file(dict(checkpoint.average), folder / AVERAGE)
    _save(checkpoint.optimizer, folder / OPTIMIZER)
    files = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    meta = {**checkpoint.meta, "files": files}
    (folder / META).write_text(json.dumps({"meta": meta, "sha256": digest(meta)}))


def read(folder: Path, shown: str) -> Checkpoint:
    """Return the checkpoint in a folder; ``shown`` is how a person knows it.

    Raises:
        Damaged: it is not what was written.
        WrongUse: it holds more than tensors.
    """
    try:
        meta = _meta(_there(folder / META).read_bytes())
        for name, sha256 in meta["files"].items():
            if _sha256(folder / name) != sha256:
                raise Damaged(f"{name} is not what was written")
        average = load_file(folder / AVERAGE) if AVERAGE in meta["files"] else {}
        return Checkpoint(
            model=load_file(folder / MODEL), average=average, optimizer=_optimizer(folder / OPTIMIZER, shown), meta=meta
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        if reached := limit(error):
            raise reached from error
        raise Damaged(str(error).partition("\n")[0][:200]) from error


def _meta(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged(f"its {META} is no JSON") from None
    try:
        meta: dict[str, Any] = record["meta"]
        as_written = digest(meta) == record["sha256"]
    except (KeyError, TypeError):
        raise Damaged(f"its {META} is no checkpoint's") from None
    if not as_written:
        raise Damaged(f"{META} was changed")
    return meta


def _optimizer(file: Path, shown: str) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return loaded
    except pickle.UnpicklingError:
        raise WrongUse(
            f"The checkpoint {shown}/{OPTIMIZER} was refused, for it holds more than tensors and loading it could run "
            "code: delete its folder, or bring back what this run wrote."
        ) from None
    except (RuntimeError, EOFError) as error:
        if reached := limit(error):
            raise reached from error
        raise Damaged(str(error).partition("\n")[0][:200]) from error


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

"""Outputs in a local or mounted folder: files are written aside, made durable, then renamed or linked."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from cvjobs.common.errors import CvjobsError, JobFailed, WrongUse, limit, storage_failure
from cvjobs.common.progress import tell
from cvjobs.storage.hashing import HashingFile, Written

TEMPORARY = ".tmp-"
OWN = "_cvjobs"  # the folder of an output for what is no result, where commands make folders of their own


class LocalStore:
    """A folder on a local or mounted file system; see ``Store``. ``option`` is what a user named it with.

    ``begun``: this command has written there before, as it has where a run is the ``writer``. ``guard`` is called when
    a file is on disk and about to get its name, and may refuse that by raising.
    """

    flight = 1

    def __init__(
        self,
        root: str | Path,
        writer: str = "reader",
        option: str = "-o",
        *,
        begun: bool | None = None,
        guard: Callable[[], None] | None = None,
    ) -> None:
        self.root = Path(root)
        self.place = str(self.root)
        self.writer = writer
        self._option, self._guard = option, guard
        self._begun = writer != "reader" if begun is None else begun
        self.own = True  # whether the folder itself is the output, and not one for a file among others

    def _failure(self, error: OSError) -> CvjobsError:
        return storage_failure(error, self.place, self._option, begun=self._begun)

    def _temporary(self, final: Path) -> Path:
        if not self._begun:
            self._say_made(self.root.parent if self.own else self.root)
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.parent / f"{TEMPORARY}{self.writer}-{secrets.token_hex(6)}"

    def _say_made(self, above: Path) -> None:
        """Say that folders above an output are made, which may be a slip of the finger."""
        gone = [folder for folder in (above, *above.parents) if not os.path.lexists(folder)]
        if gone and OWN not in gone[-1].parts:
            tell(f"{gone[-1]} was not there and is made, for {self._option} {self.place}.")

    def _fill(self, temporary: Path, fill: Callable[[BinaryIO], None]) -> Written:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            written = HashingFile(partial(os.write, descriptor)).fill(fill)
            os.fsync(descriptor)
            return written
        finally:
            os.close(descriptor)

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Written:
        """See ``Store.write``; the content and the name are on disk when this returns."""
        final = self.root / name
        try:
            temporary = self._temporary(final)
            try:
                written = self._fill(temporary, fill)
                if self._guard is not None:
                    self._guard()
                os.replace(temporary, final)
            except BaseException:
                _unlink(temporary)
                raise
            _sync_folder(final.parent)
        except OSError as error:
            raise self._failure(error) from error
        self._begun = True
        return written

    def write_bytes(self, name: str, content: bytes) -> Written:
        """See ``Store.write_bytes``."""
        return self.write(name, lambda file: _write_all(file, content))

    def create(self, name: str, content: bytes) -> bool:
        """See ``Store.create``; a hard link, or an exclusive create where the file system has no links."""
        final = self.root / name
        try:
            temporary = self._temporary(final)
            try:
                self._fill(temporary, lambda file: _write_all(file, content))
                try:
                    os.link(temporary, final)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                        raise
                    if not self._create_exclusively(final, content):
                        return False
            finally:
                _unlink(temporary)
            _sync_folder(final.parent)
        except OSError as error:
            raise self._failure(error) from error
        self._begun = True
        return True

    def _create_exclusively(self, final: Path, content: bytes) -> bool:
        # Readers ignore a JSON file that a kill cut short here, so a torn file is only an unused name.
        try:
            descriptor = os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        return True

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        with self.open(name) as file, _reading(self.place):
            return file.read()

    def open(self, name: str) -> BinaryIO:
        """See ``Store.open``."""
        with _reading(self.place):
            return open(self.root / name, "rb", opener=_open_file)

    def names(self, folder: str) -> list[str]:
        """See ``Store.names``."""
        try:
            with _reading(self.place):
                return sorted(os.listdir(self.root / folder))
        except FileNotFoundError:
            return []

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store.sizes``."""
        found = {name: self.size(f"{folder}/{name}") for name in self.names(folder)}
        return {name: size for name, size in found.items() if size is not None}

    def size(self, name: str) -> int | None:
        """See ``Store.size``."""
        try:
            with _reading(self.place):
                return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, *names: str) -> None:
        """See ``Store.delete``."""
        for name in names:
            self._delete(name)

    def _delete(self, name: str) -> None:
        path = self.root / name
        try:
            if path.is_dir() and not path.is_symlink():
                for entry in os.listdir(path):
                    self._delete(f"{name}/{entry}")
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return  # another process put a file there just now: the next run cleans it up
            raise self._failure(error) from error


def _open_file(path: str, flags: int) -> int:
    """Open a file to be read; raises IsADirectoryError for a pipe, too, which would be waited for."""
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn the errors of reading into sentences, but let FileNotFoundError pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(error.errno, error.strerror, error.filename) from error
    except IsADirectoryError as error:
        what = f"{error.filename or place} is no file"
        raise JobFailed(f"{what}: move it away, then run the same command again.") from error
    except PermissionError as error:
        raise WrongUse(f"{error.filename} cannot be read ({error.strerror}): fix its permissions.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise storage_failure(error, place, "name") from error
        if reached := limit(error):
            raise reached from error
        reason = f"{error.filename or place} cannot be read ({error.strerror})"
        raise JobFailed(f"{reason}: when it works again, run the same command to continue.") from error


def _write_all(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _unlink(path: Path) -> None:
    """Remove a temporary file; what cannot be removed now is cleaned by the next run."""
    try:
        os.unlink(path)
    except OSError:
        return


def _sync_folder(folder: Path) -> None:
    """Make a rename or link durable; file systems without folder fsync answer EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)

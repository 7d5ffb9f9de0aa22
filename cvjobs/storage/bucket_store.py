"""Outputs on an object store: every write is one atomic PUT, and putting if absent is a conditional one."""

from __future__ import annotations

import copy
import hashlib
import io
import posixpath
import secrets
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from cvjobs.common.errors import CvjobsError, JobFailed, StoreUnreachable, WrongUse, storage_failure
from cvjobs.storage.hashing import HashingFile, Written
from cvjobs.storage.object_store import Address, Buckets, in_words, understood
from cvjobs.storage.storage_options import Options

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion

    from cvjobs.storage.object_store import Client

IN_MEMORY = 64 << 20
PIECE = 16 << 20  # a larger file is uploaded in pieces of this size, and appears when the last one is there
WHOLE = 1 << 30  # a guarded file up to this size is one request, for pieces cannot be sent on a condition
SLOWEST = 1 << 20  # bytes a second at which one request is not yet given up on
TRIES = 4
TAIL = 1 << 20  # read with the first request: all of a small object, of a Parquet file what its reader wants first
AHEAD = 1 << 20
PLAIN = (".json", ".parquet", ".tar")  # names of files, never of folders
REQUESTS = 32


class BucketStore:
    """The objects below a prefix of a bucket; see ``Store``.

    ``guard`` may refuse that a file is written by raising: the object that was there stays. An object is replaced only
    if it is still what it was before the guard was asked, so that a write that is late on its way undoes no later one
    of another command. Of a file of over a GiB, and in a store that knows no such condition, the guard is asked alone.
    """

    flight = REQUESTS

    def __init__(self, root: Address, writer: str, options: Options, guard: Callable[[], None] | None = None) -> None:
        self.root, self.writer, self.place = root, writer, str(root)
        self._options = options
        self._client = Buckets(options).client(root)
        self._guard = guard
        self._conditional = True
        self._refuses_twice = False

    def parent(self) -> BucketStore:
        """Return the store of the prefix that this one's lies in."""
        found = copy.copy(self)
        found.root = self.root._replace(key=self.root.key.rpartition("/")[0])
        found.place = str(found.root)
        return found

    def write(self, name: str, fill: Callable[[BinaryIO], None]) -> Written:
        """See ``Store.write``."""
        try:
            with tempfile.SpooledTemporaryFile(IN_MEMORY) as spool:
                written = HashingFile(spool.write).fill(fill)
                spool.seek(0)
                self._put(name, spool)
        except OSError as error:
            raise storage_failure(error, tempfile.gettempdir(), "TMPDIR") from error
        return written

    def write_bytes(self, name: str, content: bytes) -> Written:
        """See ``Store.write_bytes``."""
        self._put(name, io.BytesIO(content))
        return Written(len(content), hashlib.sha256(content).hexdigest())

    def _put(self, name: str, content: IO[bytes]) -> None:
        guard = self._guard
        if guard is None:
            with self._errors():
                obstore.put(self._client, self._key(name), content, chunk_size=PIECE, max_concurrency=4)
        elif (size := content.seek(0, io.SEEK_END)) <= WHOLE:
            content.seek(0)
            self._put_on_condition(name, content.read(), self._patient(size), guard)
        else:
            content.seek(0)
            self._put_pieces(name, content, guard)

    def _put_on_condition(self, name: str, content: bytes, client: Client, guard: Callable[[], None]) -> None:
        """Put an object if nobody has since it was looked at, which was before ``guard`` was asked."""
        refused = 0
        for left in reversed(range(TRIES)):
            mode = self._unchanged(name) if self._conditional and refused < TRIES - 1 else None
            guard()
            with self._errors():
                try:
                    obstore.put(client, self._key(name), content, mode=mode, use_multipart=False)
                    return
                except (PreconditionError, AlreadyExistsError):
                    # Another process of this command put it, or this one did and never heard so; or the store takes no
                    # object for unchanged, and the last try does without.
                    refused += 1
                except NotImplementedError:
                    self._conditional = False
                except BaseError:  # obstore does not try again what may have been done
                    if not left:
                        raise

    def _unchanged(self, name: str) -> PutMode | None:
        """Return the condition that an object is what it is now, None where the store does not say what that is."""
        try:
            with self._errors():
                found = obstore.head(self._client, self._key(name))
        except FileNotFoundError:
            return "create"
        version: UpdateVersion = {}
        if found["e_tag"]:
            version["e_tag"] = found["e_tag"]
        if found["version"]:
            version["version"] = found["version"]
        return version or None

    def _patient(self, size: int) -> Client:
        """Return a client that waits as long as one request of so many bytes may take."""
        if size <= 4 * PIECE:  # as many as are in flight at once of a file in pieces
            return self._client
        seconds = f"{size // SLOWEST}s"
        return Buckets({"read_timeout": seconds, "timeout": seconds, **self._options}).client(self.root)

    def _put_pieces(self, name: str, content: IO[bytes], guard: Callable[[], None]) -> None:
        guarded = _Guarded(content, guard)
        with self._errors():
            try:
                obstore.put(self._client, self._key(name), guarded, chunk_size=PIECE, max_concurrency=4)  # type: ignore[arg-type]
            except Exception:
                if guarded.refusal is not None:
                    raise guarded.refusal from None
                raise

    def create(self, name: str, content: bytes) -> bool:
        """See ``Store.create``; what is already there with the same content counts as created by this call.

        An answer that was lost on its way is asked for again, and then finds our own object.
        Raises WrongUse for a store that creates one object twice.
        """
        if not self._refuses_twice:
            self._try_twice()
            self._refuses_twice = True
        return self._put_new(name, content) or self.read(name) == content

    def _put_new(self, name: str, content: bytes) -> bool:
        with self._errors():
            try:
                obstore.put(self._client, self._key(name), content, mode="create")
            except AlreadyExistsError:
                return False
            except NotImplementedError as error:
                raise self._unsafe() from error
        return True

    def _try_twice(self) -> None:
        name = f"_cvjobs/lease/.tmp-{self.writer}-{secrets.token_hex(6)}"
        try:
            if not self._put_new(name, b"1") or self._put_new(name, b"2"):
                raise self._unsafe()
        finally:
            with suppress(CvjobsError):  # what stays is swept by the next run
                self.delete(name)

    def _unsafe(self) -> WrongUse:
        return WrongUse(
            f"{self.place} does not refuse to create an object twice (conditional writes, If-None-Match), "
            "so two runs could spoil each other's results: choose another -o."
        )

    def read(self, name: str) -> bytes:
        """See ``Store.read``."""
        with self._errors():
            return obstore.get(self._client, self._key(name)).bytes().to_bytes()

    def fetch(self, name: str, file: IO[bytes]) -> str:
        """Write an object's content into a file of this machine, and return its ``tag``; raises as ``read``.

        Errors of that file are raised as they are.
        """
        with self._errors():
            found = obstore.get(self._client, self._key(name))
            pieces = iter(found.stream(min_chunk_size=PIECE))
        while True:
            with self._errors():
                piece = next(pieces, None)
            if piece is None:
                return _tag(found.meta)
            file.write(memoryview(piece))

    def tag(self, name: str) -> str | None:
        """Return what changes whenever an object does, None where it does not exist."""
        try:
            with self._errors():
                return _tag(obstore.head(self._client, self._key(name)))
        except FileNotFoundError:
            return None

    def open(self, name: str) -> BinaryIO:
        """See ``Store.open``; a small object is read at once, of a large one its end and what is asked for."""
        try:
            with self._errors():
                found = obstore.get(self._client, self._key(name), options={"range": {"suffix": TAIL}})
                size, tail = found.meta["size"], found.bytes().to_bytes()
        except (JobFailed, NotImplementedError):  # an empty object has no end, and Azure gives none
            known = self.size(name)
            if known is None:
                raise FileNotFoundError(name) from None
            size, tail = known, b""
        if len(tail) == size:
            return io.BytesIO(tail)
        return io.BufferedReader(_Ranges(lambda at, end: self._range(name, at, end), size, tail), AHEAD)

    def _range(self, name: str, at: int, end: int) -> memoryview:
        with self._errors():
            return memoryview(obstore.get_range(self._client, self._key(name), start=at, end=end))

    def names(self, folder: str) -> list[str]:
        """See ``Store.names``."""
        with self._errors():
            found = obstore.list_with_delimiter(self._client, self._key(folder) or None)
        keys = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted({posixpath.basename(key) for key in keys})

    def sizes(self, folder: str) -> dict[str, int]:
        """See ``Store.sizes``."""
        with self._errors():
            found = obstore.list_with_delimiter(self._client, self._key(folder) or None)
        return {posixpath.basename(meta["path"]): meta["size"] for meta in found["objects"]}

    def size(self, name: str) -> int | None:
        """See ``Store.size``."""
        try:
            with self._errors():
                return obstore.head(self._client, self._key(name))["size"]
        except FileNotFoundError:
            return None

    def delete(self, *names: str) -> None:
        """See ``Store.delete``; a thousand objects are one request."""
        keys = []
        with self._errors():
            for name in names:
                keys.append(self._key(name))
                if not name.endswith(PLAIN):
                    found = obstore.list(self._client, keys[-1], chunk_size=1000)
                    keys += [meta["path"] for page in found for meta in page]
            with suppress(FileNotFoundError):  # another run was faster; the next one cleans up what is left
                if keys:
                    obstore.delete(self._client, keys)

    def _key(self, name: str) -> str:
        return posixpath.normpath(f"{self.root.key}/{name}").strip("/")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the store's errors into sentences, but let FileNotFoundError of an object pass."""
        try:
            with understood(self.root):
                yield
        except FileNotFoundError as error:
            words = in_words(error, self.root)
            if isinstance(words, WrongUse):
                raise words from error
            raise
        except BaseError as error:
            raise in_words(error, self.root) from error
        except OSError as error:
            raise StoreUnreachable(
                f"{self.place} cannot be reached ({error}): when it works again, run the same command to continue."
            ) from error


def _tag(found: ObjectMeta) -> str:
    return found["e_tag"] or f"{found['size']} {found['last_modified']}"


class _Guarded:
    """A file to be uploaded whose end is told only when ``guard`` has let it pass."""

    def __init__(self, file: IO[bytes], guard: Callable[[], None]) -> None:
        self._file, self._guard = file, guard
        self.refusal: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        if not content:
            # The client drives its requests in the thread that reads, where a guard could make none of its own.
            with ThreadPoolExecutor(1, thread_name_prefix="guard") as thread:
                self.refusal = thread.submit(self._guard).exception()
            if self.refusal is not None:
                raise self.refusal
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Ranges(io.RawIOBase):
    """An object as a file, each read a request: ``fetch`` returns the bytes from one offset to before another.

    ``tail`` are those at its end, which are known already.
    """

    def __init__(self, fetch: Callable[[int, int], memoryview], size: int, tail: bytes) -> None:
        self._fetch, self._size, self._tail, self._at = fetch, size, memoryview(tail), 0

    def _get(self, end: int) -> memoryview:
        begun = self._size - len(self._tail)
        known = self._at >= begun
        content = self._tail[self._at - begun : end - begun] if known else self._fetch(self._at, end)
        self._at += len(content)
        return content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + (0, self._at, self._size)[whence], 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readall(self) -> bytes:
        # Without this, Python asks for 8 KiB at a time.
        if self._at >= self._size:
            return b""
        return bytes(self._get(self._size))

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        content = self._get(end)
        view[: len(content)] = content
        return len(content)

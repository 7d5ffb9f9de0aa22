"""The objects below a prefix, in the order of their keys, of which many folders are asked for at once.

A store answers one request for a prefix after another, a thousand keys each. So each folder is a stream of its own that
begins with its first key; once it turns out to be long and to hold folders, those that come after the key that it has
reached become streams too, and it ends with the folder that it is in. What is listed before its turn is kept packed.
"""

from __future__ import annotations

import asyncio
import atexit
import heapq
import pickle
import threading
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from itertools import groupby, pairwise, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import obstore
from obstore.exceptions import BaseError

if TYPE_CHECKING:
    from obstore import ListResult, ListStream, ObjectMeta

    from cvjobs.storage.object_store import Client

PAGE = 5_000  # objects
STREAMS = 16  # at once
AHEAD = 2_000_000  # objects before their turn, of about 200 bytes
WORTH = 250  # objects in a folder, on average, that make up for its request
PATIENCE = 10.0  # seconds in which a folder is asked for its folders: in many files it takes as long as to list them
WAITING = 4  # pages of the folder whose turn it is
Page = Sequence["ObjectMeta"]
Answer = TypeVar("Answer")


def objects_below(client: Client, prefix: str) -> Iterator[Page]:
    """Yield the objects below a prefix ("" for a bucket) in pages, sorted by key, as obstore.list does.

    A short prefix, one without folders and one of small folders cost the requests of obstore.list. Raises its errors,
    after the pages of all keys before.
    """
    stream = obstore.list(client, prefix or None, chunk_size=PAGE)
    for page in stream:
        yield page
        if _worth(page, prefix):
            break
    else:
        return
    ahead = _Ahead(client, prefix, stream, page)
    try:
        yield from ahead.pages()
    finally:
        ahead.close()


class _Packed(NamedTuple):
    objects: int
    content: bytes


class _Part:
    """A folder, from some key on: its pages, then the parts that come after them."""

    def __init__(self, folder: str, order: tuple[int, ...]) -> None:
        self.folder, self.order = folder, order
        self.pages: deque[Page | _Packed] = deque()
        self.after: list[_Part] = []
        self.begun = self.ended = False
        self.error: BaseException | None = None


class _Ahead:
    """The streams of a listing, in a thread of their own, which alone changes what is here."""

    def __init__(self, client: Client, prefix: str, stream: ListStream[Page], page: Page) -> None:
        self._client = client
        self._count = self._running = 0  # objects before their turn; streams
        self._way = [_Part(prefix, ())]  # the last is the one whose turn it is, before it those that follow
        self._queue: list[tuple[tuple[int, ...], _Part]] = []
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="list", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # for a generator that nobody ended: its thread may not outlive the interpreter
        self._loop.call_soon_threadsafe(self._begin, self._way[0], stream, page)

    def pages(self) -> Iterator[Page]:
        """Yield what is left."""
        while (page := self._ask(self._next())) is not None:
            yield pickle.loads(page.content) if isinstance(page, _Packed) else page  # noqa: S301 (packed below)

    def close(self) -> None:
        """End the requests and the thread."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            if threading.current_thread() is not self._thread:  # it is, where it collects the generator as garbage
                self._thread.join()
        atexit.unregister(self.close)

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _ask(self, what: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    async def _stop(self) -> None:
        self._queue.clear()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.stop()

    async def _next(self) -> Page | _Packed | None:
        while self._way:
            part = self._way[-1]
            if not part.begun:
                self._begin(part)
            if part.pages:
                page = part.pages.popleft()
                if isinstance(page, _Packed):
                    self._count -= page.objects
                self._go_on()
                return page
            if part.error is not None:
                raise part.error
            if part.ended:
                self._way[-1:] = reversed(part.after)
                self._go_on()
            else:
                await self._changed.wait()
        return None

    def _go_on(self) -> None:
        """Begin what there is room for, and wake who waits."""
        while self._queue and self._running < STREAMS and self._count < AHEAD:
            part = heapq.heappop(self._queue)[1]
            if not part.begun:
                self._begin(part)
        self._changed.set()
        self._changed = asyncio.Event()

    def _begin(self, part: _Part, stream: ListStream[Page] | None = None, page: Page = ()) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            part.ended, part.error = True, None if task.cancelled() else task.exception()
            self._running -= 1
            self._go_on()

        part.begun = True
        self._running += 1
        self._loop.create_task(self._run(part, stream, page)).add_done_callback(ended)

    async def _run(self, part: _Part, stream: ListStream[Page] | None, known: Page) -> None:
        """List a folder from a page on, which is known already, to the end of the folder in it that is reached."""
        folder, depth = part.folder, 0
        search = self._search(folder, known)
        try:
            async for page in stream or obstore.list(self._client, part.folder or None, chunk_size=PAGE):
                kept = page if folder == part.folder else _within(page, folder)
                self._add(part, kept)
                if len(kept) < len(page):
                    break
                if search is None:
                    search = self._search(folder, page)
                elif search.done() and (rest := _rest(search.result(), folder, page[-1]["path"])):
                    depth += 1
                    part.after[:0] = self._parts(rest.after, (*part.order, -depth))
                    if rest.here is None:
                        break
                    folder, search = rest.here, None
                await self._room(part)
        finally:
            if search is not None:
                search.cancel()

    def _search(self, folder: str, page: Page) -> asyncio.Task[ListResult[Page] | None] | None:
        return self._loop.create_task(self._folders(folder)) if _worth(page, folder) else None

    async def _folders(self, folder: str) -> ListResult[Page] | None:
        """Return what is in a folder; where that takes too long or fails, its stream goes on and will say why."""
        try:
            return await asyncio.wait_for(obstore.list_with_delimiter_async(self._client, folder or None), PATIENCE)
        except (BaseError, OSError):  # a TimeoutError is one
            return None

    def _add(self, part: _Part, page: Page) -> None:
        if page and part is self._way[-1]:
            part.pages.append(page)
        elif page:
            part.pages.append(_Packed(len(page), pickle.dumps(page, pickle.HIGHEST_PROTOCOL)))
            self._count += len(page)
        self._go_on()

    def _parts(self, after: list[str | Page], order: tuple[int, ...]) -> list[_Part]:
        parts = []
        for i, one in enumerate(after):
            part = _Part(one if isinstance(one, str) else "", (*order, i))
            if isinstance(one, str):
                heapq.heappush(self._queue, (part.order, part))
            else:
                part.begun = part.ended = True
                for start in range(0, len(one), PAGE):
                    self._add(part, one[start : start + PAGE])
            parts.append(part)
        self._go_on()
        return parts

    async def _room(self, part: _Part) -> None:
        while len(part.pages) >= WAITING if part is self._way[-1] else self._count >= AHEAD:
            await self._changed.wait()


class _Rest(NamedTuple):
    """The folder that a stream is in, and what comes after it: folders, and objects between them."""

    here: str | None
    after: list[str | Page]


def _worth(page: Page, folder: str) -> bool:
    """Whether a page of a folder makes it likely that its folders are worth a request each."""
    if len(page) < PAGE:
        return False
    start = len(folder) + 1 if folder else 0
    paths = [meta["path"] for meta in page]
    folders = {name for name, slash, _ in (path[start:].partition("/") for path in paths) if slash}
    # Some stores have no order. An empty object for a folder, "a/", is there as "a".
    return 0 < len(folders) * WORTH <= len(page) and all(
        one < next_one or one < f"{next_one}/" for one, next_one in pairwise(paths)
    )


def _within(page: Page, folder: str) -> Page:
    """Return the objects of a page up to the end of a folder that it begins in."""
    below = f"{folder}/"
    if page[-1]["path"].startswith(below):
        return page
    return list(takewhile(lambda meta: meta["path"].startswith(below), page))


def _rest(found: ListResult[Page] | None, folder: str, last: str) -> _Rest | None:
    """Return what of a folder comes after a key; None where that is unknown, or the key may be that of a folder."""
    if found is None or last in (folders := set(found["common_prefixes"])):
        return None
    start = len(folder) + 1 if folder else 0
    name, slash, _ = last[start:].partition("/")
    here = last[:start] + name if slash else None
    if here is not None and here not in folders:
        return None
    reached = last if here is None else f"{here}/"
    later: list[tuple[str, ObjectMeta | None]] = [(f"{name}/", None) for name in folders]
    later += [(meta["path"], meta) for meta in found["objects"]]
    after: list[str | Page] = []
    later = sorted((one for one in later if one[0] > reached), key=itemgetter(0))
    for is_folder, run in groupby(later, lambda one: one[1] is None):
        if is_folder:
            after += [key[:-1] for key, _ in run]
        else:
            after.append([meta for _, meta in run if meta is not None])
    return _Rest(here, after)

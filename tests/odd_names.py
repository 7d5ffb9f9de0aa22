"""Folders as nobody would make them on purpose: names of any bytes, twins, links, loops and what systems leave.

``odd_tree`` makes one, and ``images`` says by other means than ours which of its files are to be listed.
"""

from __future__ import annotations

import os
import socket
import stat
import unicodedata
from dataclasses import dataclass, field

import numpy as np
from trees import STAMP

SUFFIXES = (b".jpg", b".JPG", b".jpeg", b".png", b".webp", b".tiff", b".heic", b".PpM", b".jfif")
OTHERS = (b"", b".txt", b".csv", b".", b".jpg.bak", b".db", b".jpg ", b".jpg.", b".\xff", b".j\xcc\x81pg")
SYSTEM = (
    *(b"@eaDir", b"#recycle", b"__MACOSX", b"$RECYCLE.BIN", b"$recycle.bin", b"System Volume Information"),
    *(b"lost+found", b"@Recycle", b"Network Trash Folder", b"Temporary Items", b"#snapshot", b"~snapshot"),
    *(b"Thumbs.db", b"THUMBS.DB", b"desktop.ini", b"Icon\r"),
)
STEMS = (
    *("_DSC0002", "_MG_1234", "a", "A", "cat ", " cat", "cat.", "caf\u00e9", "cafe\u0301", "\u212b", "\ufb01sh", "-rf"),
    *("new\nline", "tab\t", "back\\slash", "\\xe9", "\\x5c", "*", "?", "[a]", "{a,b}", "~", "~root", "$HOME", "`id`"),
    *("#%20", "%2f", "file:", "s3:", "a=b", "x" * 250, "é" * 100, "\u202egpj", "\ufeff", "\u200b", "🦊", "CON", "nul"),
    *("data", "errors", "report", "_", "__", "config", "checkpoints", "train", "val"),
)


@dataclass
class Tree:
    """A folder that was made, and what is in it: what of it is listed, fails, or is skipped by reason."""

    root: bytes
    listed: set[bytes] = field(default_factory=set)
    failed: set[bytes] = field(default_factory=set)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def odd_name(rng: np.random.Generator, endings: tuple[bytes, ...]) -> bytes:
    """A name that a folder can have, of at most 255 bytes."""
    kind = rng.integers(6)
    if kind == 0:
        stem = rng.integers(1, 256, rng.integers(1, 40), np.uint8).tobytes().replace(b"/", b"_")
    elif kind == 1:
        stem = bytes(rng.choice(list(b"._-~ \\*?[]{}!#%&'\"$`|<>:;,=+@^"), rng.integers(1, 6)).astype(np.uint8))
    elif kind == 2:
        points = rng.choice([0x300, 0xE9, 0x301, 0x200D, 0x1F600, 0x2028, 0x7F, 0x85, 0xAC00, 0x1100, 0x41, 0x61], 5)
        stem = "".join(map(chr, points)).encode()
    else:
        form = ("NFC", "NFD", "NFKC", "NFC")[rng.integers(4)]
        stem = unicodedata.normalize(form, STEMS[rng.integers(len(STEMS))]).encode()  # type: ignore[arg-type]
    ending = endings[rng.integers(len(endings))]
    name = stem[: 255 - len(ending)] + ending
    return name if name not in (b".", b"..") and name.strip(b"\0") == name else b"_" + name[:200]


def odd_tree(rng: np.random.Generator, root: bytes, most: int = 40) -> Tree:
    """Make a tree of some folders and files below ``root``."""
    os.makedirs(root)
    folders, files = [root], list[bytes]()
    for _ in range(int(rng.integers(most))):
        folder = folders[rng.integers(len(folders))]
        if len(folder) > 3000:
            continue
        try:
            _one(rng, folder, folders, files)
        except FileExistsError:
            continue
    for path in files:
        os.utime(path, ns=(STAMP, STAMP))
    tree = Tree(root)
    _look(tree, b"")
    return tree


def _one(rng: np.random.Generator, folder: bytes, folders: list[bytes], files: list[bytes]) -> None:
    """Add an entry to a folder: a file more often than a folder, and a folder more often than something else."""
    kind = rng.integers(18)
    name = os.path.join(folder, odd_name(rng, SUFFIXES if rng.integers(3) else OTHERS))
    if kind < 9:
        _touch(name, files, b"%d" % rng.integers(1000))
    elif kind < 12:
        _folder(os.path.join(folder, odd_name(rng, (b"", b"", b".jpg"))), folders)
    elif kind == 12:
        name = os.path.join(folder, SYSTEM[rng.integers(len(SYSTEM))])
        _folder(name, folders) if rng.integers(2) else _touch(name, files, b"")
    elif kind == 13:
        marks = ((b"_cvjobs",), (b".cvjobs-masks",), (b"config.json", b"checkpoints", b"history.parquet"))
        for mark in marks[rng.integers(3)]:
            place = os.path.join(folder, mark)
            _touch(place, files, b"") if b"." in mark[1:] else os.mkdir(place)
    elif kind == 14 and files:
        os.link(files[rng.integers(len(files))], name)
    elif kind == 15:
        _special(name, rng)
    else:
        _link(name, rng, folders, files)


def _folder(path: bytes, folders: list[bytes]) -> None:
    os.mkdir(path)
    folders.append(path)


def _special(path: bytes, rng: np.random.Generator) -> None:
    if rng.integers(2) or len(path) >= 100:
        os.mkfifo(path)
        return
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def _link(path: bytes, rng: np.random.Generator, folders: list[bytes], files: list[bytes]) -> None:
    aims = (b"nowhere", os.path.basename(path), b"..", b"/dev/null", b"/dev/full", b"x" * 300, b".")
    kinds = (aims, folders, files or aims)
    known = kinds[rng.integers(3)]
    os.symlink(known[rng.integers(len(known))], path)


def _touch(path: bytes, files: list[bytes], content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
    files.append(path)


def _look(tree: Tree, prefix: bytes) -> None:
    """Go through a folder as the rules of listing say, without the library's own code."""
    names = os.listdir(os.path.join(tree.root, prefix))
    if prefix and (b"_cvjobs" in names or b".cvjobs-masks" in names or _is_run(names)):
        tree.skip("output of cvjobs")
        return
    for name in names:
        path = prefix + name
        full = os.path.join(tree.root, path)
        suffix = os.path.splitext(b"x" + name)[1].lower()
        if name.startswith(b"."):
            tree.skip("hidden")
        elif os.path.islink(full) and not os.path.exists(full) and _is_image(name):
            tree.failed.add(path)
        elif _is_image(name) and os.path.isfile(full):
            tree.listed.add(path)
        elif name == b"_cvjobs":
            tree.skip("output of cvjobs")
        elif name.lower() in {one.lower() for one in SYSTEM}:
            tree.skip("system")
        elif os.path.isdir(full) and not os.path.islink(full):
            _look(tree, path + b"/")
        elif os.path.exists(full) and not os.path.isfile(full):
            tree.skip(_kind(os.stat(full).st_mode))
        else:
            tree.skip(os.fsdecode(suffix) if len(suffix) > 1 and name.rfind(b".") > 0 else "no extension")


def _is_run(names: list[bytes]) -> bool:
    return {b"config.json", b"checkpoints", b"history.parquet"} <= set(names)


def _is_image(name: bytes) -> bool:
    return name[name.rfind(b".") :].lower() in {suffix.lower() for suffix in SUFFIXES} and b"." in name


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device"}
    return kinds[stat.S_IFMT(mode)]

"""What Darknet, and CVAT as it does, keep beside folders of YOLO's txt files: ``obj.data``, and lists of the images."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.networks import class_names

DATA = "obj.data"
LISTS = ("train.txt", "valid.txt", "val.txt", "test.txt")
_LABELS = re.compile(r"obj(_\w+)?_data|obj")  # as the folders of labels are named


def names(folder: Path) -> list[str]:
    """Return the names of the classes of the file that ``obj.data`` names, there or one folder up."""
    for place in (folder, folder.absolute().parent):
        said = _said(place).get("names", "")
        for file in (place / said, place / posixpath.basename(said)):
            if said and file.is_file():
                return class_names.read(str(file))
    return []


def listed(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the lists of images of a folder, and the images below it that they name, without their endings.

    The folder holds those of labels, or is one of them. A list is ``train.txt`` and the like, or named in ``obj.data``.
    """
    below = folder.absolute()
    own = _lists(below)
    files = own or (_lists(below.parent) if _LABELS.fullmatch(below.name) else [])
    labels = _folders(below) if own else [below.name]
    images: dict[str, None] = {}
    for line in (line for file in files for line in _lines(file)):
        parts = posixpath.splitext(line)[0].replace("\\", "/").split("/")
        at = next((at for at in range(len(parts) - 1) if parts[at] in labels), None)
        if at is not None:  # as files are named below the folder
            images["/".join(parts[at if own else at + 1 :])] = None
    return own, list(images)


def _lists(folder: Path) -> list[Path]:
    """Return the lists in a folder that has ``obj.data`` or folders of labels."""
    said = _said(folder)
    if not said and not any(map(_LABELS.fullmatch, _folders(folder))):
        return []
    given = [posixpath.basename(said[key]) for key in ("train", "valid", "test") if said.get(key)]
    return [folder / name for name in dict.fromkeys([*given, *LISTS]) if (folder / name).is_file()]


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def _said(folder: Path) -> dict[str, str]:
    """Return what ``obj.data`` says by key, nothing where there is none."""
    if not (folder / DATA).is_file():
        return {}
    pairs = (line.partition("=") for line in _lines(folder / DATA))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _lines(file: Path) -> list[str]:
    text = folder_files.content(file).decode("utf-8-sig", errors="replace")
    return [line for line in map(str.strip, text.splitlines()) if line]

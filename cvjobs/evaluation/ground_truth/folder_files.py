"""Finding the files of a truth that is a folder, one an image, and the names of its classes."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cvjobs.common.paths import path_text
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.networks import class_names as networks_class_names
from cvjobs.sources.folder import EXTENSIONS

LISTS = ("classes.txt", "obj.names")
YAMLS = ("data.yaml", "data.yml")
MOST_NAMES = 1 << 20
LARGEST = 64 << 20  # bytes of one annotation file


def below(folder: Path, ending: str) -> list[Path]:
    """Return the files with an ending (lower case) in a folder and its subfolders, sorted; hidden ones are left out.

    Raises BadTruth where one of the folders cannot be listed.
    """
    found = []
    for where, inside, names in os.walk(folder, onerror=_unlisted):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found += [Path(where, name) for name in names if name.lower().endswith(ending) and not name.startswith(".")]
    return sorted(found)


def named(folder: Path, name: str) -> list[Path]:
    """Return the folders of a name in a folder, sorted, none of them in another; raises BadTruth as ``below``."""
    found = []
    for where, inside, _ in os.walk(folder, onerror=_unlisted):
        inside[:] = sorted(one for one in inside if not one.startswith("."))
        if name in inside:
            found.append(Path(where, name))
            inside.remove(name)
    return sorted(found)


def any_below(folder: Path, ending: str, levels: float = math.inf) -> bool:
    """Return whether a folder, or one in it down to some levels, has a file with an ending that is not hidden.

    Raises BadTruth where one of the folders cannot be listed.
    """
    top = len(folder.parts)
    for where, inside, names in os.walk(folder, onerror=_unlisted):
        if any(name.lower().endswith(ending) and not name.startswith(".") for name in names):
            return True
        deeper = len(Path(where).parts) - top < levels
        inside[:] = [name for name in inside if deeper and not name.startswith(".")]
    return False


def _unlisted(error: OSError) -> None:
    """Raise BadTruth: a folder that is left out would be images that count as wrong."""
    raise BadTruth(Path(error.filename), None, f"cannot be read ({error.strerror})") from error


def name_of(file: Path, folder: Path) -> str:
    """Return what a file stands for: its path below the folder, without its ending."""
    return str(PurePosixPath(path_text(os.fsencode(file.relative_to(folder)))).with_suffix(""))


def whole(names: Sequence[str]) -> bool:
    """Return whether names have the endings of images, as of ``a.jpg.png`` for ``a.jpg``."""
    return bool(names) and all(name.rpartition(".")[2].lower() in EXTENSIONS for name in names)


def content(file: Path) -> bytes:
    """Return the content of an annotation file; raises BadTruth where it cannot be read, or is far too large."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise BadTruth(file, None, "is no file that could be read")
        if state.st_size > LARGEST:
            raise BadTruth(file, None, f"is no annotation of one image: it has over {LARGEST >> 20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise BadTruth(file, None, f"cannot be read ({error.strerror})") from error


def class_names(folder: Path, given: Sequence[str]) -> list[str]:
    """Return the names of classes: those given, or of a file there or up to two folders up.

    The files are ``classes.txt``, ``obj.names``, ``data.yaml`` and ``data.yml``. Without any there are none. Raises
    WrongUse where such a file makes no sense.
    """
    if given:
        return list(given)
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in LISTS:
            if (place / name).is_file():
                return networks_class_names.read(str(place / name))
        for name in YAMLS:
            if (place / name).is_file():
                return yaml_names(place / name)
    return []


def yaml_of(folder: Path) -> dict[str, Any]:
    """Return what ``data.yaml`` says there or up to two folders up, its scalars as the text that they are."""
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in YAMLS:
            if (place / name).is_file():
                return _yaml(place / name)
    return {}


def yaml_names(file: Path) -> list[str]:
    """Return the names in a YAML file, a list or a mapping from numbers, "" for a number without; raises BadTruth."""
    names = _yaml(file).get("names")
    try:
        if isinstance(names, dict):
            numbered = {int(number): name for number, name in names.items()}
            most = max(numbered, default=-1)
            if min(numbered, default=0) < 0 or most >= MOST_NAMES:
                raise ValueError(most)
            names = [numbered.get(at, "") for at in range(most + 1)]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(names)
    except (TypeError, ValueError) as error:
        raise BadTruth(file, None, "has no list 'names' of the classes") from error
    return [name.strip() for name in names]


def _yaml(file: Path) -> dict[str, Any]:
    try:
        # Not safe_load: a class named no, on or 1.10 would be False, True and 1.1.
        found = yaml.load(content(file), Loader=yaml.BaseLoader)  # noqa: S506 - it makes text
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else None
        raise BadTruth(file, line, "is no YAML") from error
    return found if isinstance(found, dict) else {}

"""Finding the files of a truth that is a folder, one an image, and the names of its classes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import yaml

from cvjobs.common.paths import path_text
from cvjobs.evaluation.ground_truth.types import BadTruth
from cvjobs.networks import class_names as networks_class_names

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


def any_below(folder: Path, ending: str) -> bool:
    """Return whether a folder, or a folder in it, has a file with an ending; looks two levels deep.

    Raises BadTruth where one of the folders cannot be listed.
    """
    try:
        places = [folder, *(entry for entry in folder.iterdir() if entry.is_dir())]
        places += [entry for place in places[1:] for entry in place.iterdir() if entry.is_dir()]
        return any(name.lower().endswith(ending) for place in places for name in os.listdir(place))
    except OSError as error:
        _unlisted(error)
        raise


def _unlisted(error: OSError) -> None:
    """Raise BadTruth: a folder that is left out would be images that count as wrong."""
    raise BadTruth(Path(error.filename), None, f"cannot be read ({error.strerror})") from error


def name_of(file: Path, folder: Path) -> str:
    """Return what a file stands for: its path below the folder, without its ending."""
    return str(PurePosixPath(path_text(os.fsencode(file.relative_to(folder)))).with_suffix(""))


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
    """Return the names of classes: those given, or of ``classes.txt`` or ``data.yaml`` there or up to two folders up.

    Without any there are none. Raises WrongUse where such a file makes no sense.
    """
    if given:
        return list(given)
    for place in (folder, *list(folder.absolute().parents)[:2]):
        if (place / "classes.txt").is_file():
            return networks_class_names.read(str(place / "classes.txt"))
        for name in ("data.yaml", "data.yml"):
            if (place / name).is_file():
                return _yaml_names(place / name)
    return []


def _yaml_names(file: Path) -> list[str]:
    try:
        names = yaml.safe_load(content(file))["names"]
        return [str(names[i]) for i in range(len(names))]
    except (yaml.YAMLError, KeyError, TypeError, RecursionError) as error:
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else None
        raise BadTruth(file, line, "has no list 'names' of the classes") from error

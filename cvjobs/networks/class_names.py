"""The names of a model's classes: read from a file of one a line, and checked against the head's number of classes."""

from __future__ import annotations

from collections.abc import Sequence

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted

MOST = 64 << 20  # bytes


def read(path: str) -> list[str]:
    """Return the class names in a text file (UTF-8), one a line, in the order of the model's classes.

    The file may change under its name, so what a job notes as ``asked`` are these names, not the path.

    Raises:
        WrongUse: the file is missing, larger than 64 MiB or no text, has an empty line before its last name, or a name
            twice.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUse(f"The labels file {path} is no UTF-8 text: write one class name a line.") from None
    except OSError as error:
        raise WrongUse(f"Cannot read the labels file {path} ({error.strerror}): name a file with --labels.") from None
    if len(content) > MOST:
        raise WrongUse(f"The labels file {path} is larger than 64 MiB: write one class name a line.")
    names = [line.strip() for line in text.rstrip().split("\n")]
    lines: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise WrongUse(f"Line {number} of the labels file {path} is empty: write one class name a line.")
        if name in lines:
            raise WrongUse(
                f"The labels file {path} has {name!r} in the lines {lines[name]} and {number}: "
                "write each class once, in the order of the model's classes."
            )
        lines[name] = number
    return names


def for_head(
    classes: int, given: Sequence[str], published: Sequence[str], model: str, given_by: str = "--labels"
) -> list[str]:
    """Return the names of a head's classes: those given with ``--labels``, or the published ones.

    ``classes`` and both lists are without a background class.

    Raises:
        WrongUse: neither list has as many names as the head has classes.
    """
    if given and len(given) != classes:
        raise WrongUse(
            f"{given_by} has {counted(len(given), 'names')} and the weights of {model} have "
            f"{counted(classes, 'classes')}: write one name a line, in the order of the model's classes."
        )
    if not given and len(published) != classes:
        raise WrongUse(
            f"The weights of {model} have {counted(classes, 'classes')} that only you can name: "
            "give --labels FILE with one name a line, in the order of the model's classes."
        )
    return list(given or published)

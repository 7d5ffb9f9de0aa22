"""What names the classes and the split of each image: its folders, or the columns of a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

from cvjobs.common import class_labels, rules
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import shortened
from cvjobs.sources.listing import Listing

Names = list[tuple[str, ...]]
"""The classes of each image."""
UNSAID, NONE = "", "-"
"""The splits of an image of which none is said, and of one that belongs to none."""
SHOWN = 3


def by_folders(listing: Listing, version: int) -> tuple[Names, list[str]]:
    """Return the class (none, or one) and the split of each image by its folders.

    Raises:
        WrongUse: some of the top folders are splits and others are not, or splits have no folders of classes.
    """
    tops: dict[tuple[str, ...], tuple[str, ...]] = {}
    parts = [tops.setdefault(own, own) for own in map(_tops, listing.images["path"].to_pylist())]
    split = any(len(own) > 2 and _split_of(own[0], version) == "train" for own in parts)
    if version > rules.FIRST:
        _check(listing, parts, split)
    at = 1 if split else 0
    clean: Callable[[str], str] = class_labels.clean if version > rules.FIRST else str
    named = cache(lambda folder: tuple(filter(None, [clean(folder)])))  # of a million images few folders
    names = [named(own[at]) if len(own) > at + 1 else () for own in parts]
    return names, [_split_of(own[0], version) or NONE for own in parts] if split else [UNSAID] * len(parts)


def _tops(path: str) -> tuple[str, ...]:
    """Return the first two folders of a path, and no name behind them, or the name of what is in none."""
    folders = path.split("/", 2)[:-1]
    return (*folders, "") if folders else (path,)


def splits_by_folders(listing: Listing, version: int) -> list[str]:
    """Return the split of each image by its first folder, where one is ``train``; without classes that is no other."""
    splits = [_split_of(path.partition("/")[0], version) for path in listing.images["path"].to_pylist()]
    return [split or NONE for split in splits] if "train" in splits else [UNSAID] * len(splits)


def split_of(folder: str) -> str:
    """Return the split that the name of a folder stands for, empty where it is none."""
    return _split_of(folder, rules.LABELS)


@lru_cache
def _split_of(folder: str, version: int) -> str:
    return class_labels.split(class_labels.clean(folder) if version > rules.FIRST else folder)


def _others(parts: Sequence[Sequence[str]]) -> list[str]:
    """Return the top folders that have no name of a split, the first ones first."""
    return sorted({own[0] for own in parts if len(own) > 1 and not _split_of(own[0], rules.LABELS)})


def _check(listing: Listing, parts: Sequence[Sequence[str]], split: bool) -> None:
    others = _others(parts)
    if split and others:
        raise WrongUse(_question(listing, others))
    tops = {own[0] for own in parts if len(own) > 1}
    if not split and not others and any(_split_of(top, rules.LABELS) == "train" for top in tops):
        raise WrongUse(
            f"{listing.source} has the splits {_some(sorted(tops))} without folders in `train`: "
            "give each class a folder of its name in each of them."
        )


def _question(listing: Listing, others: Sequence[str]) -> str:
    return (
        f"Is the folder `train` of {listing.source} a split or a class, as it is beside {_some(others)}: if a split, "
        "move the others elsewhere; if a class, rename it, or give a list with a column `label`?"
    )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{shortened(name)}`" for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else shown


def by_column(listing: Listing, version: int) -> tuple[Names, bool]:
    """Return the classes of each image by the column of a list, and whether they may be several.

    Raises:
        WrongUse: there is no such column, or a cell of it holds no label.
    """
    images = listing.images
    multilabel = "labels" in images.schema.names
    column = "labels" if multilabel else "label"
    if column not in images.schema.names:
        raise WrongUse(
            f"The list {listing.source} has no column `label` (or `labels`): training needs to know what images show."
        )
    cells = images[column].to_pylist()
    if version == rules.FIRST:
        return [_first_names(value, multilabel) for value in cells], multilabel
    names: Names = []
    for row, cell in enumerate(cells):
        try:
            names.append(class_labels.several(cell) if multilabel else tuple(filter(None, [class_labels.label(cell)])))
        except TypeError:
            remedy = "write a list of texts" if multilabel else "write one text, or name the column `labels`"
            path = shortened(images["path"][row].as_py())
            raise WrongUse(f"The column `{column}` of {listing.source} has no label for {path}: {remedy}.") from None
    return names, multilabel


def splits_by_column(listing: Listing, version: int) -> list[str]:
    """Return the split of each image by the column of a list; raises WrongUse for one that is none."""
    images = listing.images
    if "split" not in images.schema.names:
        return [UNSAID] * images.num_rows
    try:
        text = class_labels.label if version > rules.FIRST else (lambda value: str(value or "").strip())
        said = [text(value).lower() for value in images["split"].to_pylist()]
    except TypeError:
        raise WrongUse(f"The column `split` of {listing.source} has lists: write train, val or test.") from None
    unknown = Counter(value for value in said if value and not class_labels.split(value))
    if unknown:
        raise WrongUse(
            f"The list {listing.source} has the split {next(iter(unknown))!r}: write train, val or test, or leave "
            "the column out."
        )
    return [class_labels.split(value) or UNSAID for value in said]


def _first_names(value: object, multilabel: bool) -> tuple[str, ...]:
    """Return the classes of a cell by the first version of the rules."""
    if value is None or value == "":
        return ()
    if not multilabel:
        return (str(value),)
    each = value.split("|") if isinstance(value, str) else value
    assert isinstance(each, list)
    return tuple(dict.fromkeys(str(name).strip() for name in each if str(name).strip()))


def merged(names: Names, version: int) -> tuple[Names, tuple[str, ...]]:
    """Return the classes with spellings of one as that one, and which became another's (``Cat: cat``)."""
    if version == rules.FIRST:
        return names, ()
    classes = class_labels.classes(name for own in names for name in own)
    kinds = {own: tuple(dict.fromkeys(classes[name] for name in own)) for own in set(names)}
    return [kinds[own] for own in names], tuple(class_labels.respelt(classes))
